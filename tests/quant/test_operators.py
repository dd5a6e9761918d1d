"""The operators against plain autograd, and the algebra that holds for every input."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from tenfold.errors import UnknownNameError, UsageError
from tenfold.quant import SCHEMES, ActivationQuantizer, LayerScheme, WeightQuantizer
from tenfold.quant.interpolation import interpolate_activation, interpolate_weight
from tenfold.quant.operators import quantize_activation, quantize_weight, round_weight
from tenfold.quant.schemes import quantize_unit, signed_grid, unsigned_grid

schemes = st.sampled_from(SCHEMES)
bit_widths = st.integers(1, 8)
seeds = st.integers(0, 2**31)


def _generator(seed):
    return torch.Generator().manual_seed(seed)


@given(bit_widths, schemes, seeds)
@settings(max_examples=40, deadline=None)
def test_quantizing_a_level_again_changes_nothing(bits, scheme, seed):
    assume(bits > 1 or scheme != "symmetric")
    once = quantize_unit(torch.rand(50, generator=_generator(seed)), bits, scheme)
    assert torch.equal(quantize_unit(once, bits, scheme), once)


@given(bit_widths, schemes, seeds, st.booleans())
@settings(max_examples=40, deadline=None)
def test_weights_take_at_most_two_to_the_bits_values_in_the_range(bits, scheme, seed, per_channel):
    assume(bits > 1 or scheme != "symmetric")
    weight = torch.randn(4, 3, 3, 3, generator=_generator(seed))
    quantized = quantize_weight(weight, bits, scheme, per_channel, True)
    assert quantized.unique().numel() <= 2**bits
    assert float(quantized.abs().max()) <= 1
    assert float((quantized == 0).sum()) == 0 or scheme in ("modified", "symmetric")


@given(schemes, seeds, st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_integers_times_scale_are_the_effective_weight(scheme, seed, per_channel, clamp):
    for bits in range(2, 9):
        layer = LayerScheme(
            w_bits=bits, a_bits=32, scheme=scheme, per_channel=per_channel, clamp=clamp, rescale="constant"
        )
        quantizer, weight = WeightQuantizer(layer), torch.randn(5, 4, generator=_generator(seed))
        quantized = quantizer(weight)
        effective = quantized * quantizer.factor(quantized, weight)
        integers, grid = quantizer.integers(weight), signed_grid(bits, scheme)
        scale = integers.scale if integers.scale.dim() == 0 else integers.scale[:, None]
        torch.testing.assert_close(integers.codes * scale, effective, atol=1e-6, rtol=1e-6)
        assert int(integers.codes.min()) >= grid.low
        assert int(integers.codes.max()) <= grid.high
        assert bool(((integers.codes.int() - grid.low) % grid.step == 0).all())


def test_dropping_low_bits_of_modified_and_centered_codes_gives_the_lower_precision():
    unit = torch.rand(1000, generator=_generator(0))
    for bits in range(1, 8):
        code = (quantize_unit(unit, bits, "modified") * 2**bits).int()
        finest = (quantize_unit(unit, 8, "modified") * 256).int()
        assert torch.equal(code, finest >> (8 - bits))


def _plain_weight(weight, bits, scheme, per_channel):
    """The formula of the paper under ordinary autograd, with a straight-through rounding."""
    tanh = torch.tanh(weight)
    peak = tanh.abs().amax(dim=(1, 2, 3), keepdim=True) if per_channel else tanh.abs().max()
    unit = (tanh / peak + 1) / 2
    return 2 * (unit + (quantize_unit(unit, bits, scheme) - unit).detach()) - 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_weight_gradient_equals_autograd_through_the_formula(scheme, per_channel, layout):
    weight = torch.randn(6, 4, 3, 3, generator=_generator(1)).to(memory_format=layout).requires_grad_()
    upstream = torch.randn(6, 4, 3, 3, generator=_generator(2))
    (quantize_weight(weight, 3, scheme, per_channel, True) * upstream).sum().backward()
    twin = weight.detach().clone().requires_grad_()
    (_plain_weight(twin, 3, scheme, per_channel) * upstream).sum().backward()
    torch.testing.assert_close(weight.grad, twin.grad, atol=2e-6, rtol=2e-6)


def test_of_equal_maxima_one_gets_the_gradient_of_the_normalization():
    weight = torch.tensor([[0.5, -0.5, 0.1], [0.5, 0.2, 0.3]]).requires_grad_()
    quantize_weight(weight, 4, "original", False, True).sum().backward()
    tanh = torch.tanh(weight.detach())
    expected = 1 / tanh.max() * (1 - tanh.square())
    expected[0, 0] -= (1 - tanh[0, 0] ** 2) * tanh.sum() / tanh[0, 0] ** 2
    torch.testing.assert_close(weight.grad, expected)


def test_without_clamp_the_scale_stays_and_the_gradient_passes_through():
    weight = (3 * torch.randn(6, 4, generator=_generator(1))).requires_grad_()
    upstream = torch.randn(6, 4)
    quantized = quantize_weight(weight, 8, "original", True, False)
    assert float((quantized - weight).detach().abs().max()) <= float(weight.detach().abs().max()) / 255 + 1e-6
    (quantized * upstream).sum().backward()
    assert torch.equal(weight.grad, upstream)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_float_dtype_is_quantized_in_float32_and_gets_gradients_of_its_own_dtype(dtype):
    values = torch.randn(3, 4, 5, 5, generator=_generator(0)).to(dtype).requires_grad_()
    alpha = torch.tensor(1.5, requires_grad=True)
    output = quantize_activation(values, alpha, 4, "original", False, True)
    assert output.dtype == torch.float32
    output.sum().backward()
    assert values.grad.dtype == dtype
    weight = torch.randn(3, 4).to(dtype).requires_grad_()
    quantize_weight(weight, 4, "original", False, True).sum().backward()
    assert weight.grad.dtype == dtype


def test_all_zero_and_empty_tensors_give_finite_results():
    assert torch.isfinite(quantize_weight(torch.zeros(2, 3), 4, "modified", False, True)).all()
    layer = LayerScheme(w_bits=2, a_bits=32, scheme="centered", rescale="constant")
    quantizer = WeightQuantizer(layer)
    quantized = quantizer(torch.zeros(2, 3))
    assert torch.isfinite(quantizer.factor(quantized, torch.zeros(2, 3)))
    assert quantize_activation(torch.zeros(0, 3), torch.tensor(1.0), 4, "original", False, True).shape == (0, 3)


def test_a_clipping_level_at_zero_still_gets_a_gradient_and_a_finite_output():
    values = torch.rand(100, generator=_generator(0))
    alpha = torch.tensor(0.0, requires_grad=True)
    output = quantize_activation(values, alpha, 4, "original", False, True)
    output.sum().backward()
    assert torch.isfinite(output).all()
    assert float(alpha.grad) > 0


@given(bit_widths, schemes, st.booleans(), st.floats(0.1, 20), seeds)
@settings(max_examples=40, deadline=None)
def test_activations_lie_on_the_integer_grid(bits, scheme, two_sided, level, seed):
    assume(bits > 1 or scheme != "symmetric")
    quantizer = ActivationQuantizer(LayerScheme(w_bits=32, a_bits=bits, a_scheme=scheme, two_sided=two_sided), level)
    grid = (signed_grid if two_sided else unsigned_grid)(bits, scheme)
    codes = quantizer(5 * torch.randn(200, generator=_generator(seed))).detach() / (grid.unit * quantizer.level)
    assert float((codes - codes.round()).abs().max()) < 1e-3
    assert grid.low <= int(codes.min().round()) <= int(codes.max().round()) <= grid.high
    assert bool(((codes.round().int() - grid.low) % grid.step == 0).all())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # inside torch's own check
def test_operators_are_correct_custom_operators_for_autograd_and_compilation():
    weight = torch.randn(3, 4, requires_grad=True)
    torch.library.opcheck(quantize_weight, (weight, 4, "original", False, True))
    values, alpha = torch.randn(3, 4, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    torch.library.opcheck(quantize_activation, (values, alpha, 4, "original", True, True))
    torch.library.opcheck(round_weight, (values, 4, "original"))
    for bits in (torch.tensor(2.3, requires_grad=True), torch.tensor([2.3, 0.0, 8.0], requires_grad=True)):
        torch.library.opcheck(interpolate_weight, (weight, bits, "original", False, True, False))
    learned = torch.tensor([2.3, 4.0, 0.4, 7.7], requires_grad=True)
    for bits in (learned[0].detach().requires_grad_(), learned):
        torch.library.opcheck(interpolate_activation, (values, alpha, bits, "original", True, True, False))


def test_the_graph_keeps_no_tensor_that_is_not_alive_anyway():
    values = torch.relu(torch.randn(4, 8, 6, 6, requires_grad=True))
    weight = nn.Parameter(torch.randn(8, 8, 3, 3))
    alpha = nn.Parameter(torch.tensor(2.0))
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        quantized = quantize_activation(values, alpha, 4, "original", False, True)
        quantize_weight(weight, 4, "original", False, True)
    alive = {tensor.data_ptr() for tensor in (values, weight, alpha, quantized)}
    assert kept
    assert {tensor.data_ptr() for tensor in kept} <= alive


def test_bad_settings_are_refused_with_what_is_allowed():
    with pytest.raises(UsageError, match=r"w_bits must be 1 to 8 bits, or 32 for no quantization; got 9"):
        LayerScheme(w_bits=9, a_bits=4)
    with pytest.raises(UnknownNameError, match=r"unknown quantization scheme 'orignal'\. Did you mean original"):
        LayerScheme(w_bits=4, a_bits=4, scheme="orignal")
    with pytest.raises(UsageError, match=r"needs at least 2 bits"):
        LayerScheme(w_bits=1, a_bits=4, scheme="symmetric")
    with pytest.raises(UnknownNameError, match=r"unknown rescale rule 'const'"):
        LayerScheme(w_bits=4, a_bits=4, rescale="const")


def test_unsigned_grid_of_two_bits():
    assert unsigned_grid(2, "original").high == 3
