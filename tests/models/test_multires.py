"""Multi-resolution networks: the authors' tensors, names and costs."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sines import sine_image, sine_state
from tenfold import build, profile
from tenfold.errors import ShapeError, UsageError
from tenfold.models import Architecture, for_pixels, load_official_multires, official_multires_names
from tenfold.models.multires_code import DEFAULT_CODE, NAMES, benchmark_gmacs, code_cost, parse_code, write_code

CODES = ("tiny", "multi", "readme", "odd")
README_TEXT = "16_64-1_1_3_128-3_2_3_3_32_48-2_3_2_3_2_16_32_16-1_4_2_4_1_1_96_112_48_80-112"


def _facts(shared, name):
    return json.loads((shared / "reference/ncp/supernet.json").read_text())[name]


def _filled(shared, name, kind, classes):
    facts = _facts(shared, name)
    shapes = {official: list(shape) for _, official, shape in facts["state_seg19"]}
    shapes = {
        official: [classes, *shape[1:]] if official.startswith("classifier") else shape
        for official, shape in shapes.items()
    }
    network = build(kind, code=facts["code"], num_classes=classes).eval()
    state = sine_state(shapes)
    state |= {own: value for own, value in network.state_dict().items() if own.endswith("num_batches_tracked")}
    counters = {official: state[own] for own, official in official_multires_names(network) if own in state}
    load_official_multires(network, {**state, **counters})
    return network, load_file(shared / f"reference/ncp/supernet_{name}.safetensors")


def _assert_rounded(found, expected):
    """Ours in float64, which no processor changes, against the authors' float32: what differs is their rounding."""
    torch.testing.assert_close(found, expected.double(), atol=2e-6 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("name", CODES)
def test_names_and_their_order_are_those_of_the_authors(shared, name):
    facts = _facts(shared, name)
    network = build("multires_segmenter", code=facts["code"])
    own = network.state_dict()
    names = [
        (official, list(own[name].shape))
        for name, official in official_multires_names(network)
        if own[name].is_floating_point()
    ]
    assert names == [(official, shape) for _, official, shape in facts["state_seg19"]]


@pytest.mark.parametrize("name", CODES)
def test_scores_maps_and_gradients_equal_the_official_ones(shared, name):
    network, tensors = _filled(shared, name, "multires_segmenter", 19)
    network.double()
    for size in ((64, 96), (75, 101)):
        with torch.no_grad():
            images = sine_image(1, 3, *size).double()
            key = f"seg.{size[0]}x{size[1]}"
            _assert_rounded(network(images), tensors[key])
            for branch, one in enumerate(network.body(images)):
                if f"{key}.branch{branch}" in tensors:
                    _assert_rounded(one, tensors[f"{key}.branch{branch}"])
    images = sine_image(1, 3, 32, 32).double().requires_grad_()
    scores = network(images)
    (scores * sine_image(*scores.shape)).sum().backward()
    _assert_rounded(images.grad, tensors["seg.32x32.grad_input"])


@pytest.mark.parametrize("name", CODES)
def test_classification_equals_the_official_one(shared, name):
    network, tensors = _filled(shared, name, "multires", 50)
    with torch.no_grad():
        scores = network.double()(sine_image(2, 3, 64, 64).double())
    _assert_rounded(scores, tensors["cls.64x64"].flatten(1))


@pytest.mark.parametrize("name", CODES)
def test_costs_are_those_of_the_authors_program(shared, name):
    facts = _facts(shared, name)
    for key, options in (("cls50_128", {}), ("seg19_128", {"num_classes": 19, "pixels": True})):
        cost, expected = code_cost(facts["code"], **options), facts[key]
        assert (cost.macs, cost.params, cost.norm_elements) == (
            expected["conv_macs"],
            expected["params"],
            expected["bn_elems"],
        )
    assert round(benchmark_gmacs(facts["code"]) * 1e9) == facts["cls50_128"]["bench_flops"]


def test_the_cost_of_every_code_of_the_benchmark_is_exact(shared):
    table = np.load(shared / "data/nas_bench_mr/nas_bench_mr.npz")
    columns = table["codes"].astype(np.int64).T
    assert np.array_equal(code_cost(columns).params / 1e6, table["params_m"])
    assert np.abs(benchmark_gmacs(columns) - table["flops_g"]).max() < 1e-12


@pytest.mark.parametrize(("kind", "pixels"), [("multires", False), ("multires_segmenter", True)])
@pytest.mark.parametrize("image", [(64, 64), (75, 101)])
def test_the_cost_of_a_code_is_what_the_profiler_counts(kind, pixels, image):
    code = parse_code(README_TEXT)
    counted = profile(build(kind, code=code, num_classes=7), (3, *image))
    cost = code_cost(code, image=image, num_classes=7, pixels=pixels)
    assert (cost.macs, cost.params) == (counted.macs, counted.params)


def test_the_cost_has_the_gradient_that_differences_show():
    code = torch.tensor(DEFAULT_CODE, dtype=torch.float64, requires_grad=True)
    code_cost(code).macs.backward()
    for index in (0, 2, 8, 13, 20, 26):
        more, less = ([n + sign * (i == index) for i, n in enumerate(DEFAULT_CODE)] for sign in (1, -1))
        # Of second degree in each number, so the central difference is exact.
        assert float(code.grad[index]) == (code_cost(more).macs - code_cost(less).macs) / 2


def test_a_code_is_read_in_both_forms_and_written_in_the_authors():
    code = parse_code(README_TEXT)
    assert write_code(code) == README_TEXT
    assert parse_code(", ".join(map(str, code))) == code
    assert len(NAMES) == 27


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "has 3 numbers; it takes 27"),
        ("64 x", "holds more than whole numbers"),
        (README_TEXT.replace("-3_2_3", "-3_3_3"), "must say that they have 1, 2, 3 and 4 branches"),
    ],
)
def test_a_text_that_is_no_code_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_code(text)


def test_a_code_outside_of_all_bounds_builds_nothing():
    with pytest.raises(UsageError, match="b1 should be 1 to 16, not 99"):
        build("multires", code=[64, 64, 99, *DEFAULT_CODE[3:]])
    with pytest.raises(UsageError, match="cannot take option code"):
        build("multires", code=[64])
    with pytest.raises(UsageError, match="a code has 27 numbers, not 2"):
        write_code([1, 2])


def test_a_clip_is_the_mean_of_its_frames():
    network = build("multires_tiny", num_classes=3).eval()
    clips = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.stack([network(clips[:, frame]) for frame in range(4)]).mean(0)
        torch.testing.assert_close(network(clips), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(ShapeError, match=r"clips \(B, T, C, H, W\)"):
        network(torch.zeros(3, 32, 32))


def test_for_pixels_a_network_gets_the_authors_head_unless_another_is_asked_for():
    assert for_pixels("multires", {"code": DEFAULT_CODE}) == ("multires_segmenter", {"code": DEFAULT_CODE})
    assert for_pixels("multires", {"head": "lraspp"})[0] == "segmenter"
    name, options = for_pixels("multires_tiny", {"head": "lraspp", "num_classes": 4, "head_channels": 16})
    network = build(name, **options).train()
    scores = network(torch.randn(2, 3, 64, 96))
    assert scores.shape == (2, 4, 8, 12)
    again = build(Architecture.from_dict(json.loads(json.dumps(network.architecture.to_dict()))))
    again.load_state_dict(network.state_dict())


@pytest.mark.parametrize("name", ["multires_segmenter", "multires_tiny_segmenter"])
def test_declared_facts_of_the_segmenters_are_true(name):
    from tenfold.models import facts

    declared, network = facts(name), build(name)
    counted = profile(network, declared.input_shape)
    assert (counted.macs, counted.params) == (declared.macs, declared.params)
    assert network.eval()(torch.zeros(1, *declared.input_shape)).shape[1] == declared.num_classes


def test_weights_of_another_code_are_refused():
    network = build("multires_tiny")
    state = {official: network.state_dict()[own] for own, official in official_multires_names(network)}
    state["classifier.weight"] = state["classifier.weight"][:, :, None, None]
    load_official_multires(build("multires_tiny"), state)
    with pytest.raises(UsageError, match="the weights do not fit"):
        load_official_multires(build("multires"), state)
