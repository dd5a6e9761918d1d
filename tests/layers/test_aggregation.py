"""Attention to other frames: the equations' own tensors, and what must hold for any of them."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tenfold.errors import UsageError
from tenfold.layers.aggregation import Aggregation, Attend, pool_rate, sine_code

CASES = {
    "frame_N0": {}, "frame_N1": {}, "frame_N2": {}, "frame_N3": {}, "frame_permuted": {}, "frame_identical": {},
    "frame_window0": {"scope": "aligned"}, "frame_window1": {"scope": "window:1"}, "frame_pool2": {"pool": 2},
    "frame_unscaled": {"scaled": False}, "object": {},
}  # fmt: skip
PARTS = {"query": "q", "key": "k", "value": "v", "out": "o"}


def attend(tensors, prefix, **options):
    inner, channels = tensors[f"{prefix}.q.w"].shape
    module = Attend(channels, inner, **options).double()
    for name, short in PARTS.items():
        layer = getattr(module, name)
        layer.weight.data = tensors[f"{prefix}.{short}.w"][:, :, None, None].clone()
        layer.bias.data = tensors[f"{prefix}.{short}.b"].clone()
    return module


@pytest.mark.parametrize("name", CASES)
def test_the_equations_hold(shared, name):
    tensors = load_file(shared / f"reference/compfeat/attention_equations/{name}.safetensors")
    x = tensors["f"] if name == "object" else tensors["x"][None]
    frames = tensors["S"].expand(len(x), *tensors["S"].shape) if "S" in tensors else None
    module = Aggregation(x.shape[1], len(tensors["spatial.q.b"])).double()
    module.spatial = attend(tensors, "spatial")
    module.temporal = attend(tensors, "temporal", **CASES[name])
    if frames is not None and frames.shape[1]:
        near = {"rtol": 0, "atol": 1e-13}
        torch.testing.assert_close(module.temporal(x, frames), tensors["T"].expand_as(x), **near)
        weights = module.temporal.weights(x, frames)
        torch.testing.assert_close(weights, tensors["A"].expand_as(weights), **near)
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), **near)
    else:
        frames = None
    torch.testing.assert_close(module.spatial(x, x[:, None]), tensors["P"].expand_as(x), rtol=0, atol=1e-13)
    torch.testing.assert_close(module(x, frames), tensors["y"].expand_as(x), rtol=0, atol=1e-13)


def drawn(scope="global", **options):
    torch.manual_seed(0)
    module = Attend(8, 4, scope=scope, **options).double()
    nn.init.normal_(module.out.weight)
    nn.init.normal_(module.out.bias)
    return module, torch.randn(2, 8, 5, 7).double(), torch.randn(2, 3, 8, 5, 7).double()


@pytest.mark.parametrize("options", [{}, {"scope": "window:1"}, {"scope": "aligned"}, {"pool": 2}, {"position": True}])
def test_order_and_repetition_of_frames_do_not_matter(options):
    module, x, frames = drawn(**options)
    found = module(x, frames)
    assert found.std() > 0.1
    torch.testing.assert_close(module(x, frames[:, [2, 0, 1]]), found)
    torch.testing.assert_close(module(x, frames.repeat(1, 2, 1, 1, 1)), found)
    other = module(x, frames.flip(0))
    torch.testing.assert_close(module(x[:1], frames[1:]), other[:1])  # items of a batch do not mix


def test_fixed_points():
    module, x, frames = drawn()
    constant = torch.randn(2, 1, 8, 1, 1).double().expand(-1, 3, -1, 5, 7)
    plain = module.out(module.value(constant[:, 0]))
    torch.testing.assert_close(module(x, constant), plain)
    aligned, x, frames = drawn("aligned")
    torch.testing.assert_close(aligned(x, frames[:, :1]), aligned.out(aligned.value(frames[:, 0])))
    for fresh in (Aggregation(8, 4), Aggregation(8, 4, scope="window:2", position=True)):
        assert torch.equal(fresh.double()(x, frames), x)


@pytest.mark.parametrize("options", [{}, {"scope": "window:1"}, {"pool": 2}])
def test_what_is_not_valid_is_never_seen(options):
    module, x, frames = drawn(**options)
    valid = torch.ones(2, 3, 5, 7, dtype=torch.bool)
    torch.testing.assert_close(module(x, frames, valid), module(x, frames))
    valid[:, 2] = False  # a frame that is not there
    torch.testing.assert_close(module(x, frames, valid), module(x, frames[:, :2]))
    valid[:, :2, 4:] = False  # padding
    spoiled = torch.where(valid[:, :, None], frames, 1e3)
    torch.testing.assert_close(module(x, spoiled, valid), module(x, frames, valid))
    valid[0] = False
    assert not module(x, frames, valid)[0].any()
    assert module(x, frames, valid).isfinite().all()


def test_fresh_modules_learn_their_output_first_and_then_everything():
    module = Attend(8, 4)
    _, x, frames = drawn()
    module(x.float(), frames.float()).square().sum().backward()
    assert not module.query.weight.grad.any()
    module, x, frames = drawn()
    module(x, frames).square().sum().backward()
    for name, parameter in module.named_parameters():
        # A softmax does not see what all its inputs share, which the bias of the keys is.
        assert name == "key.bias" or parameter.grad.abs().sum() > 1e-9, name


@pytest.mark.parametrize(
    ("channels", "inner", "params"), [(1024, 256, 1_050_368), (2048, 256, 2_099_968), (256, 128, 131_712)]
)
def test_parameters_are_as_specified(channels, inner, params):
    assert sum(one.numel() for one in Attend(channels, inner).parameters()) == params


def test_keys_are_pooled_to_at_most_1024_places():
    assert [pool_rate(90, 160), pool_rate(45, 80), pool_rate(32, 32)] == [4, 2, 1]
    module = Attend(8, 4, pool="auto")
    assert module.weights(torch.randn(1, 8, 2, 2), torch.randn(1, 2, 8, 40, 40)).shape == (1, 4, 2 * 400)


def test_each_place_has_a_code_of_its_own():
    code = sine_code(16, 9, 11)
    assert len(code.flatten(1).T.round(decimals=4).unique(dim=0)) == 99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "near"}, "scope is 'near'; allowed are \"global\""),
        ({"pool": 0}, "pool is 0; allowed are whole numbers from 1"),
        ({"scope": "aligned", "pool": 2}, "cannot pool them; take pool=1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        Attend(8, 4, **options)


def test_windows_need_maps_of_one_size():
    module, x, frames = drawn("aligned")
    with pytest.raises(UsageError, match="attention in windows needs maps of one size"):
        module(x, frames[..., :4])
