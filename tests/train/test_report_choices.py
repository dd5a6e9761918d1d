"""What AutoNL found out, on the page and on the screen."""

import math
import re

import pytest

from tenfold.train.report import found_choices, render_report
from tenfold.train.report.strips import Strip, strip_chart
from train.test_report import read, sample
from train.test_report_atoms import assert_no_broken_number, screen

TIMES = "\N{MULTIPLICATION SIGN}"


def choice(margin=0.25, is_open=None):
    return {"open": margin > 0 if is_open is None else is_open, "margin": margin, "threshold": 0.01}


def block(name, *, kernel=5, expansion=6.0, macs=(1000, 1000), left=True, **choices):
    return {
        "name": name,
        "height": 16,
        "width": 12,
        "candidates": {"kernel": [3, 5], "expansion": [3.0, 6.0]},
        "chosen": {"kernel": kernel, "expansion": expansion} if left else None,
        "macs": {"before": macs[0], "after": macs[1]},
        "choices": {"kernel": choice(0.3), "wide": choice(0.2), **choices},
    }


def light(name, *, ratio=0.25, stride=1, macs=(50, 50), left=True, **choices):
    return {
        "name": f"{name}.attention",
        "height": 8,
        "width": 6,
        "candidates": {"ratio": [0.125, 0.25], "stride": [2, 1]},
        "chosen": {"ratio": ratio, "stride": stride} if left else None,
        "macs": {"before": macs[0], "after": macs[1]},
        "choices": {"place": choice(0.4), "ratio1": choice(1.5), "stride1": choice(0.6), **choices},
    }


def decided(sites=None, changes=None, **others):
    """The report of a search: 1500 MACs are left of 4200, of which at most 1600 are allowed."""
    if sites is None:
        sites = [
            light("stem"),
            block("one", keep=choice(0.1), macs=(1000, 800), kernel=3, wide=choice(-0.7)),
            light("one", stride=2, stride1=choice(-0.5)),
            block("two", keep=choice(0.05, is_open=False), macs=(2000, 0), left=False),
            light("two", left=False, macs=(50, 0)),
            block("three", macs=(1000, 650)),
            light("three", left=False, macs=(50, 0), place=choice(-0.2)),
        ]
    names = [f"{site['name']}:{name}" for site in sites for name in site["choices"]]
    trajectory = [
        {"step": 10, "macs": 3900, "open": 18, "margins": dict.fromkeys(names, 0.5) | {"three.attention:place": -0.1}},
        {"step": 20, "macs": 3500, "open": 17, "margins": dict.fromkeys(names, 0.5) | {"one:keep": -0.1}},
        {"step": 20, "macs": 1500, "open": 16, "margins": {}},
    ]
    found = {"limit": 1600, "macs": {"before": 4200, "after": 1500}, "sites": sites, "trajectory": trajectory}
    return sample(**{"found": {"autonl": {**found, **(changes or {})}}, **others})


def test_the_page_tells_what_was_chosen():
    _, reader = read(decided())
    text = plain(reader.text)
    for words in (
        "Choices made limit kept",
        "MACs 1.50 k of 1.60 k 93.75 %",
        "Choices open 16 of 20 (80 %)",
        "Closed for the limit 1",
        "LightNL placed 2 of 4",
        "Blocks vanished 1 of 3",
        "MACs 1.50 k of 4.20 k (35.7 %)",
        "MACs of LightNL 100 (6.7 %)",
        "MACs against the limit",
        "Rings on the right of zero: closed for the limit.",
        "Choices of all 4 blocks in numbers",
        "1 stem 8x6 placed 0.40 1/4 1.50 1 0.60 50 / 50",
        "2 one 16x12 kept 0.10 6 -0.70 3x3 0.30 placed 0.40 1/4 1.50 2 -0.50 850 / 1.05 k",
        "3 two 16x12 vanished 0.05* - 0.20 - 0.30 none 0.40 - 1.50 - 0.60 0 / 2.05 k",
        "4 three 16x12 kept 6 0.20 5x5 0.30 none -0.20 - 1.50 - 0.60 650 / 1.05 k",
    ):
        assert words in text


def plain(text):
    """Signs that look like letters, as letters."""
    return text.replace(TIMES, "x").replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")


def test_light_non_local_stands_with_the_block_around_it():
    places = found_choices.decided(decided()).places
    assert [place.name for place in places] == ["stem", "one", "two", "three"]
    assert [place.block is not None for place in places] == [False, True, True, True]
    assert [place.has_light for place in places] == [True, True, False, False]
    assert [place.has_vanished for place in places] == [False, False, True, False]


def test_what_is_in_no_block_of_choices_stands_alone():
    sites = [light("a.b"), block("c"), light("c.d"), light("c.e"), light("cc")]
    places = found_choices.decided(decided(sites)).places
    assert [place.name for place in places] == ["a.b", "c", "c.e", "cc"]
    assert places[1].light.name == "c.d.attention"


def test_the_curves_begin_with_everything_open_and_count_what_is_in_the_network():
    moments = found_choices.decided(decided()).moments
    assert [moment.step for moment in moments] == [0, 10, 20, 20]
    assert [moment.macs for moment in moments] == [4200, 3900, 3500, 1500]
    assert [moment.opened for moment in moments] == [20, 18, 17, 16]
    assert [moment.lights for moment in moments] == [4, 3, 3, 2]  # that of a block that is closed does not count
    page, _ = read(decided())
    assert "MACs, step 0: 4.20 k" in page
    assert "LightNL, step 10: 3" in page
    assert 'class="end label-level">limit<' in page


def column(page, hint, row):
    """The cells of one column, in the row of this number."""
    return re.findall(f'title="{re.escape(hint)}[^"]*">(.*?)</div></div>', page)[row]


def test_each_place_is_a_stack_before_the_ghost_of_its_start():
    page, _ = read(decided())
    one = column(page, "2 one", 0)
    assert f'class="ghost" style="height:{100 * 1050 / 2050:.1f}%"' in one
    assert f'class="part fill-after" style="bottom:0.0%;height:{100 * 800 / 2050:.1f}%"' in one
    assert f'class="part fill-b" style="bottom:{100 * 800 / 2050:.1f}%;height:{100 * 50 / 2050:.1f}%"' in one
    assert 'class="cross"' in column(page, "3 two: vanished", 0)
    assert page.count('<span class="disc"></span></div>') == 2
    assert page.count('<span class="ring"></span></div>') == 2


def test_the_lattice_colours_what_was_chosen_among_what_was_possible():
    page, _ = read(decided())
    hint = f"2 one: expansion 6, 3{TIMES}3, LightNL, ratio 1/4, stride 2"
    high, low = 'style="bottom:50.0%"', 'style="bottom:0.0%"'
    assert column(page, hint, 1) == f'<div class="option offered" {low}></div><div class="option fill-after" {high}>'
    assert column(page, hint, 2) == f'<div class="option fill-after" {low}></div><div class="option offered" {high}>'
    assert column(page, hint, 3) == f'<div class="option offered" {low}></div><div class="option fill-b" {high}>'
    assert column(page, hint, 4) == f'<div class="option fill-b" {low}></div><div class="option offered" {high}>'
    for gone in ('title="3 two: vanished"></div>', f'5{TIMES}5, no LightNL"></div>'):
        assert gone in page


def test_margins_are_discs_around_zero_and_rings_where_closed():
    page, _ = read(decided())
    assert "two, closed for the limit: 0.05" in page
    assert "three.attention, closed: -0.2" in page
    assert page.count("disc line-a hollow") == 2
    assert page.count("disc line-b hollow") == 2
    strip = Strip("x", "line-a", [("right", 2.0, True), ("left", -1.0, False), ("nowhere", math.nan, True)])
    chart = strip_chart([strip], title="t", low="l", high="h")
    right, left = (float(x) for x in re.findall(r'cx="([\d.]+)"', chart))
    zero = float(re.findall(r'x2="([\d.]+)"', chart)[-1])
    assert left < zero < right
    assert math.isclose(right - zero, 2 * (zero - left), abs_tol=0.05)
    assert "No finite value" in strip_chart([Strip("x", "line-a", [])], title="t", low="l", high="h")


def test_without_blocks_there_are_places_only():
    _, reader = read(decided([light("layer1.bn2"), light("layer2.bn2", place=choice(-1.0), left=False)]))
    assert "Choices of all 2 places in numbers" in reader.text
    assert "Place 1 2" in reader.text
    for words in ("Expansion", "Kernel size", "vanished", "Blocks"):
        assert words not in reader.text.split("Choices made")[1].split("Layers")[0]


def test_what_was_counted_goes_before_what_the_method_added_up():
    _, reader = read(decided(cost={"before": {"macs": 4200}, "after": {"macs": 1601}}))
    assert "Choices made limit exceeded" in reader.text


def test_without_a_limit_the_cost_is_drawn_alone():
    page, reader = read(decided(changes={"limit": None}))
    assert "MACs against the limit" not in reader.text
    assert "Choices made Outcome" in reader.text
    assert "Multiply-adds over the steps of the training" in page
    assert "Closed for the limit" not in reader.text


def test_a_report_that_does_not_know_settings_tells_what_is_open():
    sites = [block("one"), light("one")]
    for site in sites:
        for key in ("candidates", "chosen", "macs"):
            del site[key]
    _, reader = read(decided(sites))
    assert "LightNL placed 1 of 1" in reader.text
    assert "1 one 16" in reader.text


def test_many_blocks_and_a_long_search_stay_readable_and_small():
    sites = [site for at in range(80) for site in (block(f"stage{at}", keep=choice()), light(f"stage{at}"))]
    names = [f"{site['name']}:{name}" for site in sites for name in site["choices"]]
    path = [
        {"step": 600 * at, "macs": 1e9 / at, "open": 480 - at, "margins": dict.fromkeys(names, 0.1)}
        for at in range(1, 101)
    ]
    page, reader = read(decided(sites, {"trajectory": path}))
    assert len(page) < 500_000
    assert reader.requests == []
    assert reader.scripts == []
    assert "layer-rows dense" in page


@pytest.mark.parametrize(
    "found",
    [None, [], "autonl", {"autonl": None}, {"autonl": {}}, {"autonl": {"sites": [{}, {"choices": 3}, {"name": "x"}]}}],
)
def test_without_choices_there_is_no_section(found):
    _, reader = read(sample(found=found))
    assert "Choices made" not in reader.text
    assert "autonl" not in screen(sample(found=found))


BROKEN = [
    None,
    [],
    {},
    "many",
    -3,
    0,
    True,
    math.nan,
    math.inf,
    [None],
    [[1], "x"],
    {"kernel": "x", "ratio": [math.nan, -1, "y"], "place": 3},
    {"kernel": 0, "ratio": 1e-320, "place": {"open": 1, "margin": "x"}},
    {"kernel": list(range(1, 40)), "stride": 1e37, "before": math.inf, "after": -1},
    {"x": 3},
    1e300,
]


@pytest.mark.parametrize("key", ["limit", "macs", "trajectory"])
@pytest.mark.parametrize("value", BROKEN, ids=repr)
def test_a_broken_part_costs_no_more_than_itself(key, value):
    report = decided(changes={key: value})
    page, reader = read(report)
    assert "Choices made" in reader.text
    assert_no_broken_number(page)
    assert "autonl" in screen(report)


@pytest.mark.parametrize("key", ["name", "height", "candidates", "chosen", "macs", "choices"])
@pytest.mark.parametrize("value", BROKEN, ids=repr)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_broken_site_is_drawn_as_far_as_it_is_known(key, value, at):
    report = decided()
    report["found"]["autonl"]["sites"][at][key] = value
    page, reader = read(report)
    assert "Choices made limit kept" in reader.text
    assert "three" in reader.text
    assert_no_broken_number(page)
    assert "autonl" in screen(report)


@pytest.mark.parametrize("value", [one for one in BROKEN if not isinstance(one, dict) or "place" not in one], ids=repr)
def test_a_broken_choice_counts_as_closed(value):
    report = decided()
    report["found"]["autonl"]["sites"][0]["choices"]["place"] = value
    page, reader = read(report)
    assert "LightNL placed 1 of 4" in reader.text
    assert_no_broken_number(page)


@pytest.mark.parametrize("key", ["step", "macs", "open", "margins"])
@pytest.mark.parametrize("value", BROKEN, ids=repr)
def test_a_broken_moment_breaks_the_curve_only(key, value):
    report = decided()
    report["found"]["autonl"]["trajectory"][0][key] = value
    page, reader = read(report)
    assert "Choices made limit kept" in reader.text
    assert_no_broken_number(page)


def test_names_of_sites_are_escaped():
    attack = "<img src=x onerror=alert(1)>\"'&"
    sites = [block(attack, keep=choice(-1.0), left=False), light(attack), light(f"{attack}2")]
    assert "<img" not in render_report(decided(sites))


def test_the_screen_tells_the_choices_in_a_line():
    assert screen(decided()).endswith(
        "autonl: 16 of 20 choices open, 1 closed for the limit; LightNL at 2 of 4 places; 1 of 3 blocks vanished; "
        "MACs at most 1.60 k, 93.75 % used"
    )
    text = screen(decided([light("a"), light("b")], {"limit": None}))
    assert text.endswith("autonl: 6 of 6 choices open; LightNL at 2 of 2 places; MACs 1.50 k of 4.20 k")
