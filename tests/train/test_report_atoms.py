"""What AtomNAS found out, on the page and on the screen."""

import io
import math
import re

import pytest
from rich.console import Console

from tenfold.cli.summary import result_table
from tenfold.train.report import found_atoms, render_report
from train.test_report import read, sample

TIMES = "\N{MULTIPLICATION SIGN}"


def block(name="stage1.0", before=(24, 24, 24), after=(12, 6, 0), residual=True, macs=(10.0, 20.0, 30.0)):
    sizes = ("3", "5", "7")[: len(before)]
    return {
        "name": name,
        "residual": residual,
        "before": dict(zip(sizes, before, strict=True)),
        "after": dict(zip(sizes, after, strict=True)),
        "costs": {size: {"macs": cost, "bytes": 4.0} for size, cost in zip(sizes, macs, strict=False)},
    }


def shrunk(blocks=None, changes=None, **others):
    """The report of a network that lost atoms: 1500 MACs are left of 3720, of which the target is 1600."""
    blocks = blocks or [block(residual=False), block("stage1.1", after=(0, 0, 0)), block("stage1.2")]
    trajectory = [
        {"step": 10, "macs": 2400.0, "bytes": 900.0, "atoms": {"3": 50, "5": 40, "7": 30}},
        {"step": 20, "macs": 1500.0, "bytes": 700.0, "atoms": {"3": 24, "5": 12, "7": 0}},
    ]
    found = {
        "quantity": "macs",
        "limits": {"macs": 1600.0},
        "cost": {"macs": 1500.0, "bytes": 700.0},
        "blocks": blocks,
        "trajectory": trajectory,
    }
    return sample(**{"found": {"atomnas": {**found, **(changes or {})}}, **others})


def test_the_page_tells_what_is_left():
    _, reader = read(shrunk())
    for words in (
        "Atoms left limit kept",
        "MACs 93.75 % 1.50 k of 1.60 k".replace("93.75 % ", ""),
        "93.75 %",
        "Atoms 36 of 216 (17 %)",
        f"3{TIMES}3 24 of 72 (33 %)",
        f"7{TIMES}7 0 of 72 (0 %)",
        "Blocks vanished 1 of 3",
        "Atoms left by kernel size",
        "Cost against the target",
        "Atoms of all 3 blocks in numbers",
        "1 stage1.0 12 / 24 6 / 24 0 / 24 18 / 72 25 % 240",
        "2 stage1.1 vanished 0 / 24 0 / 24 0 / 24 0 / 72 0 % 0",
        "3 stage1.2 residual",
    ):
        assert words in reader.text


def test_the_curves_begin_with_the_supernet():
    outcome = found_atoms.shrunk(shrunk())
    start = outcome.moments[0]
    assert start.step == 0
    assert dict(start.atoms) == {3: 72, 5: 72, 7: 72}
    gone = 2 * (12 * 10 + 18 * 20 + 24 * 30) + 24 * (10 + 20 + 30)
    assert start.costs["macs"] == 1500 + gone
    assert math.isnan(start.costs["latency_ms"])
    page, _ = read(shrunk())
    assert f"3{TIMES}3, step 0: 72" in page
    assert f"MACs, step 0: {100 * (1500 + gone) / 1600:.4g} %" in page


def test_each_block_is_a_stack_before_the_ghost_of_its_start():
    page, _ = read(shrunk([block(before=(50, 30, 20), after=(25, 15, 0)), block("two", (25, 15, 10), (5, 5, 0))]))
    hint = f"1 stage1.0: 3{TIMES}3 25 of 50, 5{TIMES}5 15 of 30, 7{TIMES}7 0 of 20"
    first, second = (re.search(f'title="{at}[^"]*">(.*?)</div></div>', page).group(1) for at in (hint, "2 two"))
    assert 'class="ghost" style="height:100.0%"' in first
    assert 'class="part fill-r0" style="bottom:0.0%;height:25.0%"' in first
    assert 'class="part fill-r2" style="bottom:25.0%;height:15.0%"' in first
    assert "fill-r5" not in first
    assert 'class="ghost" style="height:50.0%"' in second


def test_vanished_blocks_are_crossed_out_and_residual_ones_are_marked():
    page, reader = read(shrunk())
    assert "2 stage1.1: vanished" in page
    assert page.count(f'<span class="cross">{TIMES}</span></div>') == 3  # in each of three rows
    assert page.count('<span class="skip"></span></div>') == 2
    _, reader = read(shrunk([block(residual=False)]))
    assert "adds its input" not in reader.text
    assert "vanished;" not in reader.text
    assert "Blocks vanished 0 of 1" in reader.text


def test_one_kernel_size_has_no_mix():
    _, reader = read(shrunk())
    assert "Mix of sizes" in reader.text
    _, reader = read(shrunk([block(before=(24,), after=(12,))]))
    assert "Mix of sizes" not in reader.text


def test_what_was_counted_and_measured_goes_before_what_the_method_added_up():
    report = shrunk(cost={"before": {"macs": 3720}, "after": {"macs": 1601}})
    _, reader = read(report)
    assert "limit exceeded" in reader.text
    measured = {"limits": {"latency_ms": 4.0}, "quantity": "latency_ms", "cost": {"latency_ms": 5.0}}
    _, reader = read(shrunk(changes=measured, latency_ms=3.0))
    assert "Atoms left limit kept" in reader.text
    assert "Latency" in reader.text
    _, reader = read(shrunk(changes=measured))
    assert "Atoms left limit exceeded" in reader.text


def test_without_a_budget_the_cost_is_drawn_as_it_is():
    page, reader = read(shrunk(changes={"limits": {}}))
    assert "Cost against the target" not in reader.text
    assert "MACs over the steps of the training" in page
    assert "limit kept" not in reader.text


def test_bytes_that_the_budget_limits_too_are_a_second_curve():
    page, reader = read(shrunk(changes={"limits": {"macs": 1600, "bytes": 500}}))
    assert "limit kept" in reader.text  # 466 B were counted after the training
    assert 'class="end label-line-a">Size<' in page
    assert 'class="end label-line-b">MACs<' in page


def test_many_blocks_and_a_long_search_stay_readable_and_small():
    blocks = [block(f"stage{at}", (480, 480, 480), (80, 40, 20)) for at in range(80)]
    path = [{"step": 600 * at, "macs": 1e9 / at, "atoms": {"3": 99, "5": 88, "7": 77}} for at in range(1, 351)]
    page, reader = read(shrunk(blocks, changes={"trajectory": path}))
    assert len(page) < 300_000
    assert reader.requests == []
    assert reader.scripts == []
    assert "layer-rows dense" in page


@pytest.mark.parametrize(
    "found", [None, [], "atomnas", {"atomnas": None}, {"atomnas": {}}, {"atomnas": {"blocks": [{}, {"before": 3}]}}]
)
def test_without_atoms_there_is_no_section(found):
    _, reader = read(sample(found=found))
    assert "Atoms left" not in reader.text
    assert "atomnas" not in screen(sample(found=found))


BROKEN = [
    None,
    [],
    {},
    "many",
    -3,
    math.nan,
    math.inf,
    [None],
    [[1], "x"],
    {"3": "x"},
    {"3": math.nan},
    {"x": 3},
    1e300,
]


@pytest.mark.parametrize("key", ["quantity", "limits", "cost", "trajectory"])
@pytest.mark.parametrize("value", BROKEN, ids=repr)
def test_a_broken_part_costs_no_more_than_itself(key, value):
    report = shrunk(changes={key: value})
    page, reader = read(report)
    assert "Atoms left" in reader.text
    assert_no_broken_number(page)
    assert "atomnas" in screen(report)


@pytest.mark.parametrize("key", ["name", "residual", "before", "after", "costs"])
@pytest.mark.parametrize("value", BROKEN, ids=repr)
def test_a_broken_block_is_drawn_as_far_as_it_is_known(key, value):
    report = shrunk()
    report["found"]["atomnas"]["blocks"][0][key] = value
    page, reader = read(report)
    assert "Atoms of all 3 blocks in numbers" in reader.text
    assert_no_broken_number(page)


@pytest.mark.parametrize("key", ["step", "macs", "atoms"])
@pytest.mark.parametrize("value", BROKEN, ids=repr)
def test_a_broken_moment_breaks_the_curve_only(key, value):
    report = shrunk()
    report["found"]["atomnas"]["trajectory"][0][key] = value
    page, reader = read(report)
    assert "Atoms left limit kept" in reader.text
    assert_no_broken_number(page)


def assert_no_broken_number(page):
    assert not re.search(r"\b(nan|inf)\b", page)


def test_names_of_blocks_are_escaped():
    attack = "<img src=x onerror=alert(1)>\"'&"
    assert "<img" not in render_report(shrunk([block(attack), block(attack, after=(0, 0, 0))]))


def screen(report):
    stream = io.StringIO()
    Console(file=stream, width=120).print(result_table(report))
    return " ".join(stream.getvalue().split())


def test_the_screen_tells_the_atoms_in_a_line():
    text = screen(shrunk())
    assert text.endswith(
        f"atomnas: 36 of 216 atoms left; 3{TIMES}3 24, 5{TIMES}5 12, 7{TIMES}7 0; 1 of 3 blocks vanished; "
        "MACs at most 1.60 k, 93.75 % used"
    )
    assert "vanished" not in screen(shrunk([block()]))
