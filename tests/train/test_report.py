"""The report: complete, self-contained, and safe whatever the strings in it are."""

import itertools
import math
import re
from html.parser import HTMLParser

import pytest

from tenfold.errors import StorageError
from tenfold.train.report import render_report, write_report
from tenfold.train.report.charts import Line, line_chart, nice_ticks
from tenfold.train.report.markup import tag
from tenfold.train.report.numbers import count, duration, percent, points, size, times


def sample(**changes):
    """A report as `fit` writes it."""
    layers = [
        {"name": "stem", "kind": "conv", "macs": 1000, "w_bits": 8, "a_bits": 8, "bitops": 64000, "bytes": 216},
        {"name": "stem.bn", "kind": "norm", "macs": 0, "w_bits": 32, "a_bits": 32, "bitops": 0, "bytes": 0},
        {"name": "fc", "kind": "linear", "macs": 500, "w_bits": 4, "a_bits": 4, "bitops": 8000, "bytes": 250},
    ]
    curves = [
        {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "eval_loss": 2.1, "top1": 0.3, "seconds": 4.0, "data_seconds": 1.0},
        {"epoch": 2, "lr": 0.0, "train_loss": 1.0, "eval_loss": 1.2, "top1": 0.7, "seconds": 4.0, "data_seconds": 1.0},
    ]
    report = {
        "version": 1,
        "command": ["tenfold", "fit", "--out", "my run"],
        "model": "resnet20_cifar",
        "task": {"task": "classify"},
        "methods": [{"kind": "sat", "w_bits": 4}],
        "budget": {"asked": {"bytes": 300_000, "bitops": 50_000}},
        "cost": {
            "before": {"macs": 1500, "params": 700, "bitops": 1_536_000, "bytes": 2800},
            "after": {"macs": 1500, "params": 700, "bitops": 72_000, "bytes": 466},
        },
        "metrics": {"float": {"top1": 0.72}, "final": {"top1": 0.7, "loss": 1.2}, "best": {"top1": 0.7}},
        "curves": curves,
        "layers": layers,
        "machine": {"processor": "a processor", "cores": 2},
        "versions": {"torch": "2.10"},
        "seed": 7,
        "seconds": 8.0,
    }
    return {**report, **changes}


class Reader(HTMLParser):
    """Collects what a browser would fetch or run, checks that elements close, and keeps the visible text."""

    void = frozenset({"meta"})

    def __init__(self):
        super().__init__()
        self.open, self.requests, self.scripts, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.void:
            self.open.append(tag)
        if tag in {"script", "iframe", "object", "embed", "link"}:
            self.scripts.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "action", "data"}:
                self.requests.append(value)
            if name.startswith("on"):
                self.scripts.append(name)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "title"}:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def read(report):
    reader = Reader()
    page = render_report(report)
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return page, reader


def test_the_page_asks_nothing_of_any_server_and_runs_no_script():
    page, reader = read(sample())
    assert reader.requests == []
    assert reader.scripts == []
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_the_headline_tells_accuracy_and_savings():
    _, reader = read(sample())
    for words in ("70.0 %", "points against 72.0 % in float", "466 B", "6.01", "than 2.80 kB", "72.0 k", "21.3"):
        assert words in reader.text


def test_a_kept_and_an_exceeded_budget_are_told_apart():
    _, reader = read(sample())
    assert "Budget exceeded" in reader.text
    assert "72.0 k of 50.0 k 144 %" in reader.text
    _, reader = read(sample(budget={"asked": {"bytes": 300_000}}))
    assert "Budget kept" in reader.text


def test_a_budget_may_also_be_the_plain_limits_and_latency_may_be_unmeasured():
    _, reader = read(sample(budget={"bytes": 300_000, "latency_ms": 4}))
    assert "466 B of 300 kB" in reader.text
    assert "at most 4 ms not measured" in reader.text


def test_measured_latency_is_judged():
    _, reader = read(sample(budget={"asked": {"latency_ms": 4}}, latency_ms=2.0))
    assert "2 ms of 4 ms 50 %" in reader.text


@pytest.mark.parametrize("place", ["model", "command", "machine", "layers", "exports", "bench", "task", "methods"])
def test_every_string_is_escaped(place):
    attack = "<img src=x onerror=alert(1)>\"'&"
    layer = {"name": attack, "kind": attack, "macs": 1, "w_bits": 4, "a_bits": 4, "bitops": 16, "bytes": 1}
    values = {
        "model": attack,
        "command": ["tenfold", attack],
        "machine": {attack: attack},
        "layers": [layer],
        "exports": [{"file": attack, "profile": attack, "bytes": 1}],
        "bench": [{"file": attack, "engine": attack, "median_ms": 1.0}],
        "task": {"task": attack},
        "methods": [{"kind": attack}],
    }
    page, reader = read(sample(**{place: values[place]}))
    assert "<img" not in page
    assert reader.requests == []
    assert reader.scripts == []
    assert "<img src=x onerror=alert(1)>" in reader.text


def test_exports_and_bench_appear_when_they_are_there():
    exports = [
        {"file": "net.onnx", "profile": "compact", "bytes": 151_000, "top1_agreement": 0.998, "worst_steps": 0.5}
    ]
    rows = [
        {"file": "float.onnx", "engine": "onnxruntime", "median_ms": 2.4, "spread_ms": 0.1},
        {"file": "net.onnx", "engine": "onnxruntime", "median_ms": 0.8, "spread_ms": 0.1},
    ]
    _, reader = read(sample(exports=exports, bench=rows))
    for words in ("Exported files", "151 kB", "99.8 %", "Speed in the runtime", "0.800 ms", "3\N{MULTIPLICATION SIGN}"):
        assert words in reader.text
    _, reader = read(sample())
    assert "Exported files" not in reader.text
    assert "Speed in the runtime" not in reader.text


def test_an_almost_empty_report_still_makes_a_page():
    for report in ({}, {"model": {"name": "net"}}, sample(curves=[], layers=[], cost={}, metrics={}, budget={})):
        page, _ = read(report)
        assert page.startswith("<!doctype html>")


def test_values_that_are_not_finite_break_the_curve_and_never_become_zero():
    rows = [{"epoch": i, "train_loss": loss, "top1": 0.1} for i, loss in enumerate((1.0, None, math.nan, 0.5, 0.4), 1)]
    page, reader = read(sample(curves=rows))
    assert "nan" not in page.lower().replace("nanum", "")
    path = re.search(r'class="curve line-b"[^>]*|d="([^"]*)"', page)
    assert path is not None
    curve = line_chart(
        [Line("train", "line-b", [(1, 1.0), (2, math.nan), (3, 0.5)])], title="t", x_label="e", spell=str
    )
    assert re.search(r'd="M[\d. ]+M[\d. ]+"', curve)
    assert "Learning curves" in reader.text


def test_epochs_that_were_not_evaluated_leave_no_gap_in_the_curve():
    rows = [
        {"epoch": i, "train_loss": 1.0 / i} | ({"eval_loss": 1.2 / i, "top1": 0.1 * i} if i % 2 else {})
        for i in range(1, 6)
    ]
    page, _ = read(sample(curves=rows))
    assert len(re.findall(r'd="M[\d. ]+(?:L[\d. ]+){2}"', page)) >= 2  # three points each of eval loss and accuracy


def test_a_run_that_lost_its_loss_at_once_says_so():
    _, reader = read(sample(curves=[{"epoch": 1, "train_loss": None, "eval_loss": None, "top1": None}]))
    assert "No finite value was recorded." in reader.text


def test_the_command_can_be_pasted_into_a_shell():
    _, reader = read(sample())
    assert "tenfold fit --out 'my run'" in reader.text


def test_the_page_says_by_what_quantized_layers_were_computed():
    layers = {"conv1": "its input is the image itself", "conv2": "integers", "fc": "integers, since its bits are fixed"}
    used = {"asked": "auto", "used": "integer", "backward": "bf16", "layers": layers}
    assert "2 of 3 multiply integers, backward in bf16" in read(sample(engine=used))[1].text
    used = {"asked": "auto", "used": "simulated", "why": "the processor lacks VNNI"}
    assert "simulated in float (the processor lacks VNNI)" in read(sample(engine=used))[1].text
    assert "simulated" not in read(sample())[1].text


def test_long_networks_keep_the_page_small():
    layers = [{**sample()["layers"][0], "name": f"blocks.{i}.conv"} for i in range(200)]
    curves = [{**sample()["curves"][0], "epoch": i} for i in range(1, 301)]
    assert len(render_report(sample(layers=layers, curves=curves))) < 300_000


def test_the_file_is_written_whole_or_not_at_all(tmp_path):
    path = write_report(sample(), tmp_path / "run" / "report.html")
    assert path.read_text(encoding="utf-8") == render_report(sample())
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not write"):
        write_report(sample(), tmp_path / "file" / "report.html")


def test_attributes_and_text_are_escaped_by_the_writer():
    assert tag("p", "a < b", title='say "hi"') == '<p title="say &quot;hi&quot;">a &lt; b</p>'
    assert tag("div", None, tag("b", "x"), class_=None) == "<div><b>x</b></div>"


def test_quantities_are_spelled_for_readers():
    assert count(300_774_272) == "301 M"
    assert count(math.nan) == "\N{EN DASH}"
    assert size(272_474) == "272 kB"
    assert percent(0.9132) == "91.3 %"
    assert points(-0.0042) == "\N{MINUS SIGN}0.4"
    assert points(0.0001) == "±0.0"
    assert times(300, 40) == "7.5\N{MULTIPLICATION SIGN}"
    assert times(300, 0) == "\N{EN DASH}"
    assert [duration(s) for s in (0.25, 4.21, 75, 7384)] == ["0.25 s", "4.2 s", "1 min 15 s", "2 h 3 min"]


def test_ticks_are_round_and_cover_the_range():
    for low, high in ((0.13, 0.87), (0, 1), (-3, 12345), (5, 5), (0.0101, 0.0102)):
        ticks = nice_ticks(low, high)
        steps = {round(b - a, 9) for a, b in itertools.pairwise(ticks)}
        assert ticks[0] <= low
        assert ticks[-1] >= high
        assert len(steps) == 1
        assert 2 <= len(ticks) <= 8
