"""Native codes and their backward pass against their PyTorch twins."""

import pytest
import torch

from tenfold.kernels import blocks, library
from tenfold.kernels.codes import Rounding, code_sums, decode_backward, encode

pytestmark = pytest.mark.skipif(library.native() is None, reason=f"no native kernels: {library.state()[1]}")

ROUNDINGS = {
    "plain": Rounding(scale=2.3, shift=0.0, steps=15, top=15),
    "shifted": Rounding(scale=2.3, shift=7.5, steps=15, top=15, stretch=2, start=113),
    "cut down": Rounding(scale=2.3, shift=8.0, steps=16, top=15, floors=True),
    "wide": Rounding(scale=60.0, shift=127.5, steps=255, top=255),
}
SHAPES = {"row": (4099,), "images": (3, 16, 9, 7), "blocks": (5, blocks.BLOCK // 2 + 3)}


def numbers(name, seed):
    values = torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(seed))
    return values.to(memory_format=torch.channels_last) if values.dim() == 4 else values


def both(function):
    with library.without_kernels():
        twin = function()
    return function(), twin


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_codes_are_the_same_to_the_last(shape, rounding):
    values = numbers(shape, 0)
    if shape == "blocks":
        values[0, :2] = torch.tensor([torch.inf, -torch.inf])
    (codes, is_broken), (twin, twin_is_broken) = both(lambda: encode(values, ROUNDINGS[rounding]))
    assert codes.dtype == torch.uint8
    assert codes.stride() == values.stride()
    assert torch.equal(codes, twin)
    assert codes.unique().numel() > 3
    assert not is_broken
    assert not twin_is_broken


@pytest.mark.parametrize("place", [0, 2050, -1])
def test_a_nan_is_reported(place):
    values = numbers("row", 0)
    values[place] = torch.nan
    (_, is_broken), (_, twin_is_broken) = both(lambda: encode(values, ROUNDINGS["plain"]))
    assert is_broken
    assert twin_is_broken


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("extreme", [None, 0, 255])
def test_sums_of_codes_are_exact(shape, extreme):
    codes, _ = encode(numbers(shape, 0), ROUNDINGS["wide"])
    if extreme is not None:
        codes.fill_(extreme)
    sums, twin = both(lambda: code_sums(codes, 128))
    assert sums == twin
    assert sums[1] > 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("calibrated", [False, True])
def test_the_backward_pass(shape, dtype, calibrated):
    values, gradient = numbers(shape, 0), numbers(shape, 1).contiguous().to(dtype)
    codes, _ = encode(values, ROUNDINGS["shifted"])
    options = {"factor": 0.3, "unit": 0.2, "offset": -25.6, "low": -1.3, "high": 1.3, "calibrated": calibrated}
    got, twin = both(lambda: decode_backward(gradient, values, codes, **options))
    assert torch.equal(got[0], twin[0])
    assert got[0].count_nonzero() > 0
    size = float((gradient.abs().float() * values.abs()).sum())
    assert got[1:] == pytest.approx(twin[1:], abs=1e-5 * size)
