"""Native quantizers give what PyTorch's operators give, values to the bit, sums to float rounding."""

import itertools

import pytest
import torch

from tenfold.kernels import blocks, library, quantization
from tenfold.quant import interpolation, operators
from tenfold.quant.schemes import FLOAT_BITS, SCHEMES

pytestmark = pytest.mark.skipif(library.native() is None, reason=f"no native kernels: {library.state()[1]}")

SHAPES = {
    "channels last": torch.randn(3, 16, 9, 7).to(memory_format=torch.channels_last),
    "contiguous": torch.randn(3, 16, 9, 7),
    "a row": torch.randn(2049),
    "with gaps": torch.randn(64, 2, 64)[:, 0],
    "small": torch.randn(5),
    "empty": torch.randn(0, 3, 4, 4),
    "half": torch.randn(40, 64).bfloat16(),
}


def both(function):
    """What the kernels give, and what their twin gives."""
    with library.without_kernels():
        twin = function()
    return function(), twin


def assert_same(got, twin):
    assert got.dtype == twin.dtype
    assert got.shape == twin.shape
    assert torch.equal(got.nan_to_num(777), twin.nan_to_num(777))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize(("scheme", "bits"), [*itertools.product(SCHEMES, (2, 5, 8)), ("original", FLOAT_BITS)])
def test_activations(name, two_sided, scheme, bits):
    values, alpha = SHAPES[name].clone(memory_format=torch.preserve_format), torch.tensor(-1.3)
    if values.numel():
        values[..., 0] = torch.nan
    got, twin = both(lambda: operators.quantize_activation(values, alpha, bits, scheme, two_sided, True))
    assert_same(got, twin)
    gradient = torch.randn(values.shape)  # of another order than channels-last values
    clean = values.nan_to_num(0.1)
    for calibrated in (False, True):
        arguments = (gradient, clean, got.nan_to_num(0.0), alpha, two_sided, calibrated)
        (masked, slope), (twin_masked, twin_slope) = both(
            lambda arguments=arguments: operators.quantize_activation_backward(*arguments)
        )
        assert_same(masked, twin_masked)
        torch.testing.assert_close(slope, twin_slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["channels last", "contiguous", "a row", "with gaps", "half"])
@pytest.mark.parametrize(("scheme", "bits"), [*itertools.product(SCHEMES, (2, 8)), ("original", FLOAT_BITS)])
def test_weights(name, scheme, bits):
    weight = SHAPES[name]
    for per_channel in (False, True):
        assert_same(*both(lambda p=per_channel: operators.quantize_weight(weight, bits, scheme, p, False)))
        got, twin = both(lambda p=per_channel: operators.quantize_weight(weight, bits, scheme, p, True))
        flipped = (got - twin).abs() > 2e-6  # where tanh differs by 3e-7 at the border of two levels
        assert flipped.float().mean() < 1e-3
    assert_same(*both(lambda: operators.round_weight(weight.float().tanh(), bits, scheme)))


FRACTIONS = (0.0, 0.4, 1.0, 2.5, 3.0, 7.9, 8.0)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_activations_between_two_bit_widths(name, two_sided, scheme):
    values, alpha = SHAPES[name].clone(memory_format=torch.preserve_format), torch.tensor(-1.3)
    gradient = torch.randn(values.shape)
    for bits in map(torch.tensor, FRACTIONS if scheme != "symmetric" else (2.0, 2.5, 8.0)):
        for upper_is_next in (False, True):
            options = (scheme, two_sided, True, upper_is_next)
            got, twin = both(lambda o=options, b=bits: interpolation.interpolate_activation(values, alpha, b, *o))
            assert_same(got, twin)
            arguments = (gradient, values, got, alpha, bits, *options)
            (masked, *sums), (twin_masked, *twin_sums) = both(
                lambda arguments=arguments: interpolation.interpolate_activation_backward(*arguments)
            )
            assert_same(masked, twin_masked)
            for one, other in zip(sums, twin_sums, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["channels last", "contiguous", "a row", "with gaps", "half"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_between_two_bit_widths(name, scheme):
    weight, gradient = SHAPES[name], torch.randn(SHAPES[name].shape)
    for bits in map(torch.tensor, FRACTIONS if scheme != "symmetric" else (2.0, 2.5, 8.0)):
        options = (bits, scheme, False, False, True)
        assert_same(*both(lambda o=options: interpolation.interpolate_weight(weight, *o)))
        slope, twin_slope = both(lambda o=options: interpolation.interpolate_weight_backward(gradient, weight, *o))
        torch.testing.assert_close(slope, twin_slope, rtol=1e-4, atol=1e-4)
        clamped = (bits, scheme, False, True, True)
        got, twin = both(lambda o=clamped: interpolation.interpolate_weight(weight, *o))
        flipped = (got - twin).abs() > 2e-6  # where tanh differs by 3e-7 at the border of two levels
        assert flipped.float().mean() < 1e-3


def test_tanh_is_exact_enough_and_the_same_in_any_tensor():
    values = torch.linspace(-12, 12, 100_001)
    got = operators.squash(values)
    torch.testing.assert_close(got, values.double().tanh().float(), rtol=4e-7, atol=1e-10)
    assert got[0] == pytest.approx(-1, abs=3e-7)
    assert got.abs().max() <= 1
    assert torch.equal(operators.squash(values[5:70]), got[5:70])
    assert operators.squash(torch.tensor([torch.nan])).isnan()


@pytest.mark.parametrize("name", ["channels last", "contiguous", "a row"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_of_weights(name, sign):
    weight = SHAPES[name].clone(memory_format=torch.preserve_format)
    weight[torch.unravel_index(torch.tensor([700, 1900]), weight.shape)] = 5 * sign  # two that are the largest
    gradient = torch.randn(weight.shape)
    got, twin = both(lambda: operators.quantize_weight_backward(gradient, weight, False))
    torch.testing.assert_close(got, twin, rtol=1e-4, atol=2e-5)  # 1 - tanh^2 is small where tanh is not exact
    zeros, _ = both(lambda: operators.quantize_weight_backward(gradient, torch.zeros_like(weight), False))
    assert zeros.isfinite().any()


@pytest.mark.parametrize("count", [2048, 5001])
def test_standard_deviations(count):
    values = torch.randn(count) * 1e-3 + 1
    got, twin = both(lambda: operators.standard_deviation(values))
    torch.testing.assert_close(got, values.double().std().float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(got, twin, rtol=1e-4, atol=0)
    assert float(operators.standard_deviation(torch.full((count,), 0.3))) < 1e-7


def test_any_number_of_threads_gives_the_same_sums(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    values, gradient = torch.randn(50_003), torch.randn(50_003)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            masked, *sums = quantization.clip_backward(gradient, values, values, low=-1.0, high=1.0, calibrated=False)
            results.append((masked, sums, quantization.moments(values)))
    finally:
        torch.set_num_threads(before)
    assert results[0][1:] == results[1][1:] == results[2][1:]
    assert torch.equal(results[0][0], results[2][0])
    assert results[0][2][0] == pytest.approx(float(values.double().sum()), rel=1e-6)


def test_the_first_position_is_found():
    values = torch.zeros(5000)
    values[[3100, 4200]] = 7.0
    assert quantization.find(values, 7.0) == 3100
    assert quantization.find(values, 8.0) == -1


def test_a_training_step_is_the_same():
    from tenfold.methods import SAT

    def step():
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3), torch.nn.Flatten(),
            torch.nn.Linear(32 * 16, 10),
        )  # fmt: skip
        images = torch.rand(8, 3, 8, 8)
        network = SAT(w_bits=4, a_bits=4).attach(network, None, images)
        output = network(images)
        output.square().mean().backward()
        return torch.cat([output.flatten(), *(one.grad.flatten() for one in network.parameters())])

    got, twin = both(step)
    torch.testing.assert_close(got, twin, rtol=1e-4, atol=1e-6)
