"""What AdaBits and FracBits found out, on the page and on the screen."""

import io
import math
import random
import re

import pytest
from rich.console import Console

from tenfold.cli.summary import result_table
from tenfold.train.report import found, render_report
from tenfold.train.report.charts import Band, Line, line_chart, ramp, trade_chart
from train.test_report import read, sample

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def switchable(**changes):
    """The report of a network with three bit-widths."""
    settings = [
        {"name": "8", "metrics": {"top1": 0.70}, "cost": {"bitops": 72_000, "bytes": 466}},
        {"name": "4", "metrics": {"top1": 0.69}, "cost": {"bitops": 18_000, "bytes": 233}},
        {"name": "2", "metrics": {"top1": 0.605}, "cost": {"bitops": 4_500, "bytes": 117}},
    ]
    curves = [
        {**row, "top1/8": row["top1"], "top1/4": row["top1"] - 0.1, "top1/2": row["top1"] - 0.2, "loss/8": 1.0}
        for row in sample()["curves"]
    ]
    return sample(**{"settings": settings, "curves": curves, **changes})


def layer(name="conv", macs=1000, weights=100, w=(3.0,), a=(4.0,)):
    learned = {"w_learned": [bits + 0.25 for bits in w], "a_learned": [bits + 0.25 for bits in a]}
    return {"name": name, "macs": macs, "weights": weights, **learned, "w_bits": list(w), "a_bits": list(a)}


def fractional(layers=None, steps=(10, 20, 25), changes=None, **others):
    """The report of a network whose bits were learned."""
    layers = layers or [layer("stem", w=(8.0,), a=(8.0,)), layer("middle"), layer("fc", macs=500, w=(2.0,))]
    trajectory = [
        {
            "step": step,
            "bitops": 72_500 * (1 + 1 / step),
            "bytes": 466.0,
            "w_bits": [sum(row["w_bits"]) / len(row["w_bits"]) for row in layers],
            "a_bits": [sum(row["a_bits"]) / len(row["a_bits"]) for row in layers],
        }
        for step in steps
    ]
    learned = {"limits": {"bitops": 72_500}, "used": {"bitops": 0.9}, "offset": -0.25, "layers": layers}
    return sample(**{"found": {"fracbits": {**learned, "trajectory": trajectory, **(changes or {})}}, **others})


def by_kernel(count):
    """Layers whose kernels have bits of their own, among them pruned ones."""
    draw = random.Random(0)
    return [
        layer(f"blocks.{at}.conv", w=[float(draw.choice((0, 2, 3, 3, 4, 8))) for _ in range(64)]) for at in range(count)
    ]


def test_every_bit_width_is_told_with_what_it_costs():
    page, reader = read(switchable())
    for words in ("Bit-widths", "3 bit-widths", "against 8 bits", "8 70.0 % 72.0 k 466 B"):
        assert words in reader.text
    assert f"4 69.0 % {MINUS}1.0 18.0 k 25.0 % 233 B" in reader.text
    assert f"2 60.5 % {MINUS}9.5 4.50 k 6.2 % 117 B" in reader.text
    assert "Top-1 of each bit-width against its BitOPs" in page


def test_the_headline_says_which_width_its_numbers_are_of():
    _, reader = read(switchable())
    for words in ("Top-1, mean of 3 widths", "Size at 8 bits", "BitOPs at 8 bits", "after, for one image at 8 bits"):
        assert words in reader.text
    _, reader = read(sample())
    assert "mean of" not in reader.text
    assert "at 8 bits" not in reader.text


def test_every_width_has_a_learning_curve():
    page, reader = read(switchable())
    assert "Top-1 at each bit-width" in reader.text
    for width, style in (("8", "line-r0"), ("4", "line-r2"), ("2", "line-r5")):
        assert f'class="end label-{style}">{width} bits<' in page
    _, reader = read(switchable(curves=sample()["curves"]))
    assert "at each bit-width" not in reader.text


@pytest.mark.parametrize(
    "settings",
    [
        None,
        [],
        "8",
        5,
        {"name": "8"},
        [None, 3],
        [{"name": "8", "metrics": {"top1": 0.7}}],
    ],
)
def test_without_several_widths_there_is_no_section(settings):
    _, reader = read(switchable(settings=settings))
    assert "Bit-widths" not in reader.text


def test_bits_learned_at_every_width_are_listed_by_layer():
    rows = [{"name": "stem", "w_bits": 8.0, "a_bits": 8.0}, {"name": "last", "w_bits": 3.0, "a_bits": "?"}]
    found = {"adabits": {"widths": [{"width": "8", "layers": rows}, {"width": "4", "layers": rows[::-1]}]}}
    _, reader = read(switchable(found=found))
    assert "Learned bits of all 2 layers at each width" in reader.text
    assert "during the search" not in reader.text
    found["adabits"]["trajectory"] = [
        {"step": step, "w_bits": [8, 4 + 1 / step], "used": [1, 1 + 1 / step]} for step in (1, 2, 4)
    ]
    _, drawn = read(switchable(found=found))
    assert "Mean weight bits during the search" in drawn.text
    assert "BitOPs during the search, of each width's limit" in drawn.text
    assert f"Weights at 4 Input at 4 stem 8 8 3 {DASH}" in reader.text


def test_widths_without_numbers_are_listed_with_dashes():
    settings = [{}, {"name": ["4"], "metrics": [], "cost": {"bitops": "many", "bytes": -1}}, {"name": None, "cost": 3}]
    page, reader = read(switchable(settings=settings))
    assert "Bit-widths" in reader.text
    assert "No finite value was recorded." in reader.text
    assert "nan" not in page


def test_learned_bits_tell_what_was_found():
    _, reader = read(fractional())
    for words in (
        "Learned bits limit kept",
        "72.0 k of 72.5 k 99.31 %",  # what was counted after the training, not what the method said
        f"2{DASH}8 bits; 4.33 for the average weight",
        f"4{DASH}8 bits; 5.60 for the average MAC",
        f"{MINUS}0.25",
        "Cost during the search",
        "Share of BitOPs",
        "Learned and rounded bits of all 3 layers",
        "2 middle 3.25 3 4.25 4 1.00 k 100 15.0 %",
    ):
        assert words in reader.text
    for words in ("Share of size", "Kernels", "pruned"):
        assert words not in reader.text


def test_both_limits_are_judged_each_by_itself():
    _, reader = read(fractional(changes={"limits": {"bitops": 72_500, "bytes": 400}, "used": {}}))
    assert "limit exceeded" in reader.text
    assert "Size 466 B of 400 B 116.50 %" in reader.text
    assert "Share of size" in reader.text


def test_what_the_method_said_counts_where_nothing_was_counted():
    _, reader = read(fractional(cost={}))
    assert "90.00 %" in reader.text


def test_bits_are_drawn_rounded_as_bars_and_learned_as_marks():
    page, _ = read(fractional())
    assert 'title="2 middle: 3 bits, learned 3.25"' in page
    assert '<div class="column fill-after" style="height:37.5%"></div>' in page
    assert '<div class="mark" style="bottom:40.6%"></div>' in page


def test_kernels_are_counted_at_each_number_of_bits():
    page, reader = read(fractional([layer("stem", w=(8.0,)), layer("conv", w=(0.0, 2.0, 2.0, 3.0))]))
    assert "Kernels at so many bits" in reader.text
    assert "1 at 0, 2 at 2, 1 at 3" in reader.text
    assert 'title="1 stem: all at 8"' in page
    assert "Kernels pruned (0 bits) 1 of 4" in reader.text
    assert "--rows:9" in page


def test_float_inputs_are_not_drawn():
    layers = [layer("stem", a=(32.0,)), layer("fc", a=(32.0,))]
    _, reader = read(fractional(layers, changes={"limits": {"bytes": 500}}))
    assert "Inputs float" in reader.text
    assert "Input bits of each layer" not in reader.text
    assert "Share of BitOPs" not in reader.text


def test_few_layers_are_named_at_the_end_of_their_lines_and_many_are_summed_up():
    page, reader = read(fractional())
    assert "Weight bits of each layer" in reader.text
    # The first layer and the last two end apart; those that end together share a label.
    assert re.findall(r'label-line-r\d layer">([^<]*)<', page) == ["1", "2", "3", "1", f"2{DASH}3"]
    page, reader = read(fractional([layer(f"conv{at}") for at in range(53)]))
    assert "Weight bits of 53 layers" in reader.text
    assert page.count(">median<") == 2
    assert page.count('class="band ') == 4


def test_many_layers_and_a_long_search_stay_readable_and_small():
    page, reader = read(fractional(by_kernel(53), steps=range(1251, 1251 * 150, 1251)))
    assert len(page) < 200_000
    assert reader.requests == []
    assert reader.scripts == []
    assert "Layer 1 10 20 30 40 53" in reader.text
    page, reader = read(fractional(by_kernel(200), steps=range(1251, 1251 * 300, 1251)))
    assert len(page) < 500_000
    assert "Layer 1 50 100 150 200" in reader.text


def test_without_learned_bits_there_is_no_section():
    for missing in (None, [], "fracbits", {"fracbits": None}, {"fracbits": {}}, {"fracbits": {"layers": "all"}}):
        _, reader = read(sample(found=missing))
        assert "Learned bits" not in reader.text


@pytest.mark.parametrize("key", ["limits", "used", "offset", "layers", "trajectory"])
@pytest.mark.parametrize("value", [None, [], {}, "many", -3, math.nan, math.inf, [None], [[1], "x"], [{}, {"step": 3}]])
def test_a_broken_part_costs_no_more_than_itself(key, value):
    page, reader = read(fractional(changes={key: value}))
    assert "Learned bits" in reader.text
    assert_no_broken_number(page)


@pytest.mark.parametrize("key", ["macs", "weights", "w_learned", "a_learned", "w_bits", "a_bits"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        "four",
        ["four", 4],
        -1,
        1e300,
        math.nan,
        [math.nan, 3.0],
        [1e9],
        pytest.param(10**400, id="huge"),
        [[3.0]],
        True,
    ],
)
def test_a_broken_layer_is_drawn_as_far_as_it_is_known(key, value):
    report = fractional()
    report["found"]["fracbits"]["layers"][1][key] = value
    page, reader = read(report)
    assert "Learned and rounded bits of all 3 layers" in reader.text
    assert_no_broken_number(page)


@pytest.mark.parametrize("key", ["step", "bitops", "bytes", "w_bits", "a_bits"])
@pytest.mark.parametrize("value", [None, "x", [], [3.0], [None, 3.0, "x"], {}, math.nan, 5e-324, [3.0] * 9])
def test_a_broken_moment_breaks_the_curve_only(key, value):
    report = fractional()
    report["found"]["fracbits"]["trajectory"][1][key] = value
    page, reader = read(report)
    assert "Learned bits limit kept" in reader.text
    assert_no_broken_number(page)
    many = fractional([layer(f"conv{at}") for at in range(20)])
    many["found"]["fracbits"]["trajectory"][1][key] = value
    assert_no_broken_number(render_report(many))


def assert_no_broken_number(page):
    assert not re.search(r"\b(nan|inf)\b", page)


@pytest.mark.parametrize("name", [None, 3, ["conv"], {}, math.nan])
def test_a_layer_without_a_name_has_its_number(name):
    _, reader = read(fractional([layer("stem"), layer(name)]))
    assert "Learned and rounded bits of all 2 layers" in reader.text


def test_names_of_layers_and_widths_are_escaped():
    attack = "<img src=x onerror=alert(1)>\"'&"
    settings = [{**row, "name": attack + row["name"]} for row in switchable()["settings"]]
    curves = [{**row, f"top1/{attack}": 0.5} for row in sample()["curves"]]
    page, reader = read({**fractional([layer(attack), layer(attack, w=(2.0, 3.0))]), "settings": settings})
    assert "<img" not in page
    assert "<img src=x onerror=alert(1)>" in reader.text
    assert "<img" not in render_report(switchable(settings=settings, curves=curves))


def test_the_trade_is_drawn_in_the_order_of_the_cost():
    drawn = trade_chart(
        [("8", 64.0, 0.7), ("2", 4.0, 0.5), ("free", 0.0, 0.4), ("4", 16.0, 0.6), ("lost", 8.0, math.nan)],
        title="t",
        x_label="cost",
        spell_x=str,
        spell=str,
    )
    assert re.findall(r'class="end at-point[^>]*>([^<]*)<', drawn) == ["2", "4", "8"]
    left, middle, right = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn))
    # A quarter of the cost is one step, wherever it begins.
    assert middle - left == pytest.approx(right - middle, abs=0.02)


def test_bands_lie_behind_and_a_value_may_be_shown_in_any_case():
    drawn = line_chart(
        [Line("median", "line-a", [(1, 3.0), (2, 4.0)], end="")],
        title="t",
        x_label="step",
        spell=lambda value: f"<{value:g}>",
        bands=[Band("soft", [(1, 2.0, 4.0), (2, math.nan, 5.0), (3, 3.0, 5.0)])],
        covers=(0.0, 8.0),
    )
    assert drawn.index("band soft") < drawn.index("curve line-a")
    assert "&lt;8&gt;" in drawn
    assert 'class="end' not in drawn
    assert [ramp(at, 1) for at in range(1)] == ["line-r0"]


def test_the_widest_is_the_most_expensive_and_the_first_where_nothing_is_known():
    settings = found.settings(switchable(settings=list(reversed(switchable()["settings"]))))
    assert found.widest(settings).name == "8"
    assert found.widest(found.settings(switchable(settings=[{"name": "2"}, {"name": "8"}]))).name == "2"


def screen(report):
    stream = io.StringIO()
    Console(file=stream, width=120).print(result_table(report))
    return " ".join(stream.getvalue().split())


def test_the_screen_shows_every_width():
    text = screen(switchable())
    assert "After, 8 bits" in text
    assert "Bits Top-1 BitOPs Size 8 70.0 % 72.0 k 466 B 4 69.0 % 18.0 k 233 B 2 60.5 % 4.50 k 117 B" in text
    assert "fracbits" not in text


def test_the_screen_tells_learned_bits_in_a_line():
    text = screen(fractional())
    assert text.endswith(f"fracbits: BitOPs at most 72.5 k, 99.31 % used; weights 2{DASH}8 bits; inputs 4{DASH}8 bits")
    assert "Bits Top-1" not in text


def test_the_screen_survives_what_is_missing_or_broken():
    for report in ({}, sample(settings=[{}, {}]), fractional(changes={"layers": [{}], "used": 3}, cost={})):
        assert "Parameters" in screen(report)
    assert "fracbits" not in screen(sample(found={"fracbits": {"layers": [{}]}}))
