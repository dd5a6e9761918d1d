"""LightNL against the authors' tensors, its cost, its invariants, and its behaviour in low precision and in graphs."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from filling import image, uniform
from tenfold.cost import profile
from tenfold.errors import ShapeError, UnknownNameError, UsageError
from tenfold.layers.lightnl import (
    LightNonLocal,
    cheaper_order,
    compared_channels,
    light_non_local,
    light_non_local_macs,
    product_costs,
)

CASES = range(11)


@pytest.fixture(scope="session")
def folder(shared):
    return shared / "reference" / "autonl"


@pytest.fixture(scope="session")
def blocks(folder):
    rows = json.loads((folder / "lightnl_blocks.json").read_text())
    return rows, load_file(folder / "lightnl_blocks.safetensors")


def test_the_recipe_of_the_reference_gives_the_stated_numbers():
    assert uniform(3, 0, 1).tolist() == pytest.approx([-0.600887704408, 0.914136878448, -0.194173878757], abs=1e-12)
    assert uniform(3, 5, 7).tolist() == pytest.approx([0.389606214827, -0.854196661850, 0.712368779583], abs=1e-12)
    expected = [0.098781696463, 0.073110392797, 0.248611362476, 0.350013881420]
    assert image(1, 3, 2, 2, 1).flatten()[:4].tolist() == pytest.approx(expected, abs=1e-12)


def _block(row, tensors, variant, **options):
    block = LightNonLocal(
        row["C"], ratio=row["ratio"], stride=row["stride"], legacy_scale=variant == "official_torch", **options
    ).double()
    state = {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
    block.load_state_dict({name.replace("depthwise_conv", "depthwise"): value for name, value in state.items()})
    return block


@pytest.mark.parametrize("variant", ["official_torch", "mean"])
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("order", ["auto", "affinity", "channel"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_and_gradients_equal_the_authors(blocks, case, mode, variant, order, dtype):
    row = blocks[0][case]
    tensors = {name.partition(".")[2]: value for name, value in blocks[1].items() if name.startswith(f"{case}.")}
    block = _block(row, tensors, variant, order=order).to(dtype).train(mode == "train")
    x = tensors["input"].to(dtype, copy=True).requires_grad_()
    output = block(x)
    (output * tensors["grad_output"].to(dtype)).sum().backward()
    got = {
        "output": output,
        "grad_input": x.grad,
        "grad.depthwise": block.depthwise.weight.grad,
        "grad.bn.weight": block.bn.weight.grad,
        "grad.bn.bias": block.bn.bias.grad,
    }
    if mode == "train":
        got |= {"after.running_mean": block.bn.running_mean, "after.running_var": block.bn.running_var}
    for name, value in got.items():
        expected = tensors[f"{variant}.{mode}.{name}"]
        limit = 1e-10 if dtype == torch.float64 else 1e-4 * max(1.0, float(expected.abs().max()))
        assert float((value.detach().double() - expected).abs().max()) <= limit, name


@pytest.mark.parametrize("case", CASES)
def test_the_operator_equals_the_authors_in_both_frameworks(blocks, case):
    row, x = blocks[0][case], blocks[1][f"{case}.input"]
    for order in ("affinity", "channel"):
        y = light_non_local(x, row["k"], row["stride"], order=order, scale=1 / (row["H"] * row["W"]))
        torch.testing.assert_close(y, blocks[1][f"{case}.raw_mean"], atol=1e-10, rtol=0)
        expected = blocks[1][f"{case}.raw_official_tf_float32"]
        torch.testing.assert_close(y.float(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_cost_and_order_equal_the_authors(blocks, case):
    row = blocks[0][case]
    shape = row["C"], row["H"], row["W"], row["ratio"], row["stride"]
    costs = product_costs(*shape)
    assert costs == {"affinity": row["cost_affinity_first"], "channel": row["cost_channel_first"]}
    assert f"{cheaper_order(*shape)}_first" == row["order"]
    assert light_non_local_macs(*shape) == row["official_macs"]
    assert min(costs.values()) == row["tf_macs"]
    assert compared_channels(row["C"], row["ratio"]) == row["k"]
    for order in ("auto", "affinity", "channel"):
        block = LightNonLocal(row["C"], ratio=row["ratio"], stride=row["stride"], order=order)
        counted = profile(block, (row["C"], row["H"], row["W"]))
        assert counted.macs == row["official_macs"]
        assert counted.params == 11 * row["C"]
        assert {one.kind for one in counted.layers if one.macs} == {"non_local", "conv"}


def _dense(x, compared, stride):
    """The definition, place by place."""
    batch, _, height, width = x.shape
    y = torch.zeros_like(x)
    for n in range(batch):
        for row in range(height):
            for column in range(width):
                for other_row in range(0, height, stride):
                    for other in range(0, width, stride):
                        here, there = x[n, :, row, column], x[n, :, other_row, other]
                        y[n, :, row, column] += (here[:compared] @ there[:compared]) * there / (height * width)
    return y


@pytest.mark.parametrize("order", ["affinity", "channel"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_it_computes_the_definition_at_any_stride(order, stride):
    x = torch.randn(2, 5, 4, 7, dtype=torch.float64)
    y = light_non_local(x, 2, stride, order=order, scale=1 / 28)
    torch.testing.assert_close(y, _dense(x, 2, stride))
    last = light_non_local(x.to(memory_format=torch.channels_last), 2, stride, order=order, scale=1 / 28)
    torch.testing.assert_close(last, y)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert y.is_contiguous()


def test_it_starts_as_the_identity_and_only_its_norm_feels_the_loss():
    block, x = LightNonLocal(8), torch.randn(2, 8, 6, 6, requires_grad=True)
    output = block(x)
    assert torch.equal(output, x)
    weights = torch.randn_like(output)
    (output * weights).sum().backward()
    assert torch.equal(x.grad, weights)
    assert block.bn.weight.grad.abs().min() > 0
    assert block.depthwise.weight.grad.abs().max() == 0


def test_gradients_are_those_of_the_function():
    block = LightNonLocal(6, ratio=0.5, stride=2).double()
    nn.init.uniform_(block.bn.weight)
    for order in ("affinity", "channel"):
        block.order = order
        assert torch.autograd.gradcheck(block, (torch.randn(2, 6, 5, 4, dtype=torch.float64, requires_grad=True),))


def test_scaling_the_input_scales_the_operator_by_the_third_power():
    x = torch.randn(1, 8, 6, 6, dtype=torch.float64)
    y = light_non_local(x, 2, order="channel", scale=1 / 36)
    torch.testing.assert_close(light_non_local(3 * x, 2, order="channel", scale=1 / 36), 27 * y)


def test_places_may_change_before_or_after():
    x, places = torch.randn(1, 8, 6, 6, dtype=torch.float64), torch.randperm(36)

    def moved(map_):
        return map_.flatten(2)[:, :, places].unflatten(2, (6, 6))

    y = light_non_local(x, 4, order="affinity", scale=1 / 36)
    torch.testing.assert_close(light_non_local(moved(x), 4, order="affinity", scale=1 / 36), moved(y))


def test_channels_compared_in_two_parts_add_up():
    x = torch.randn(1, 8, 6, 6, dtype=torch.float64)
    rolled = torch.cat([x[:, 2:6], x[:, :2], x[:, 6:]], 1)
    second = light_non_local(rolled, 4, order="channel", scale=1)
    second = torch.cat([second[:, 4:6], second[:, :4], second[:, 6:]], 1)
    first = light_non_local(x, 2, order="channel", scale=1)
    torch.testing.assert_close(first + second, light_non_local(x, 6, order="channel", scale=1))


@pytest.mark.parametrize("channels", [16, 24, 96, 320])
@pytest.mark.parametrize("side", [4, 7, 14, 56])
def test_cost_rises_with_the_ratio_and_falls_with_the_stride(channels, side):
    for stride in (1, 2, 4):
        by_ratio = [light_non_local_macs(channels, side, side, ratio, stride) for ratio in (0.125, 0.25, 0.5, 1.0)]
        assert by_ratio == sorted(by_ratio)
    for ratio in (0.125, 0.25, 1.0):
        by_stride = [light_non_local_macs(channels, side, side, ratio, stride) for stride in (1, 2, 4)]
        assert by_stride == sorted(by_stride, reverse=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("order", ["affinity", "channel"])
def test_half_precision_does_not_overflow_on_large_maps(dtype, order):
    x = (torch.rand(1, 16, 56, 56) * 8 + 4).to(dtype)  # unscaled sums would reach 3136 * 64
    y = light_non_local(x, 4, order=order, scale=1 / 56**2)
    assert y.dtype == dtype
    expected = light_non_local(x.double(), 4, order=order, scale=1 / 56**2)
    assert bool(y.isfinite().all())
    assert float((y.double() / expected - 1).abs().max()) < (2e-3 if dtype == torch.float16 else 1e-2)


def test_autocast_leaves_the_products_in_full_precision():
    block = LightNonLocal(16).eval()
    nn.init.ones_(block.bn.weight)
    x = torch.randn(1, 16, 14, 14)
    expected = block.gather(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = block.gather(x)
        assert block(x).shape == x.shape
    assert torch.equal(y, expected)


@pytest.mark.parametrize("side", [14, 3])
def test_both_orders_leave_through_torch_export(side):
    block = LightNonLocal(16, stride=2).eval()
    nn.init.ones_(block.bn.weight)
    x = torch.randn(2, 16, side, side)
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(block, (x,), dynamic_shapes=({0: batch},))
    for images in (x, x[:1]):
        torch.testing.assert_close(program.module()(images), block(images))


def test_instance_norm_can_take_the_place_of_batch_norm():
    block = LightNonLocal(8, norm="instance")
    x = torch.randn(3, 8, 6, 6)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.bn.weight)
    y = block.train()(x) - x
    torch.testing.assert_close(y.mean((2, 3)), torch.zeros(3, 8), atol=1e-5, rtol=0)
    assert block.bn.running_var is not None
    assert not torch.equal(block.eval()(x) - x, y)


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match=r"ratio 0.125 on 4 channels would compare none.*at least 0.25"):
        LightNonLocal(4, ratio=0.125)
    for ratio in (0.0, 1.5, math.nan):
        with pytest.raises(UsageError, match=r"allowed is above 0, and at most 1"):
            LightNonLocal(8, ratio=ratio)
    with pytest.raises(UsageError, match="stride of a non-local block is 0; allowed is 1 or more"):
        LightNonLocal(8, stride=0)
    with pytest.raises(UnknownNameError, match=r"order of multiplication 'chanel'\. Did you mean channel"):
        LightNonLocal(8, order="chanel")
    with pytest.raises(UnknownNameError, match="norm of a non-local block 'layer'"):
        LightNonLocal(8, norm="layer")
    with pytest.raises(ShapeError, match=r"of 8 channels got an input of shape \(1, 9, 4, 4\)"):
        LightNonLocal(8)(torch.randn(1, 9, 4, 4))
