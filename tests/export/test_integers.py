"""The integers that are stored, and those that 8-bit kernels get."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tenfold.export.integers import ActivationGrid, kernel_weight, store
from tenfold.quant import LayerScheme, quantize


def read(stored):
    return stored.factor * (stored.stored.astype(np.float64) - stored.middle)


@pytest.mark.parametrize(
    ("bits", "scheme", "expected"),
    [
        (1, "original", "int2"),
        (2, "original", "uint2"),
        (2, "modified", "int2"),
        (3, "centered", "int4"),
        (4, "original", "uint4"),
        (4, "modified", "int4"),
        (5, "original", "int8"),
        (7, "centered", "int8"),
        (8, "modified", "int8"),
        (8, "original", "uint8"),
    ],
)
def test_codes_are_stored_in_the_smallest_type_and_read_back(bits, scheme, expected):
    if scheme == "modified":
        codes = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1), dtype=np.int16)
    else:
        codes = np.arange(1 - 2**bits, 2**bits, 2, dtype=np.int16)
    stored = store(codes)
    assert stored.stored.dtype.name == expected
    assert np.array_equal(read(stored), codes)


def test_codes_that_need_more_than_8_bits_are_refused():
    with pytest.raises(ValueError, match="from -256 to 0 fit no integer type"):
        store(np.array([-256, 0], np.int16))


def test_codes_equal_those_of_the_official_layers(shared):
    cases = json.loads((shared / "reference/quant/export_codes.json").read_text())["cases"]
    codes = load_file(shared / "reference/quant/export_codes.safetensors")
    weights = load_file(shared / "reference/quant/weights.safetensors")
    checked = 0
    for case in cases:
        name, weight = case["case"], weights[f"{case['case']}/weight"]
        layer = torch.nn.Linear(*weight.shape[::-1]) if weight.dim() == 2 else conv_for(weight)
        layer.weight.data = weight
        rescale = "none" if name.endswith("eval") else case["rescale"]
        scheme = LayerScheme(w_bits=case["bits"], a_bits=32, scheme=case["scheme"], rescale=rescale)
        integers = quantize(layer, {"": scheme}).integer_weight()
        assert torch.equal(integers.codes, codes[f"{name}/odd_code"]), name
        assert float(integers.scale) == pytest.approx(case["scale2"], rel=1e-6), name
        stored = store(integers.codes.numpy())
        if stored.middle and stored.bits == case["bits"]:
            assert np.array_equal(stored.stored.astype(np.uint8), codes[f"{name}/code"].numpy()), name
            assert stored.middle == case["zero_point"]
            checked += 1
    assert len(cases) > 80
    assert checked > 20


def conv_for(weight):
    groups = weight.shape[0] if weight.shape[1] == 1 else 1
    return torch.nn.Conv2d(weight.shape[1] * groups, weight.shape[0], weight.shape[2], groups=groups)


def test_a_grid_turns_any_value_into_a_code():
    grid = ActivationGrid(step=0.5, shift=1.0, offset=-1.0, top=4)
    assert [grid.code(value) for value in (-np.inf, -1.0, 0.0, 0.6, np.inf)] == [0, 0, 2, 3, 4]


def random_layer(draw, bits):
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 12)))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    codes = generator.integers(-(2**bits) + 1, 2**bits, shape).astype(np.int16)
    return codes, generator.normal(size=shape[0]), generator.normal(size=shape[0])


@given(st.data(), st.integers(1, 8), st.sampled_from([3, 15, 127, 255]), st.booleans())
@settings(deadline=None, max_examples=150)
def test_kernel_weights_are_the_same_numbers_or_say_that_they_are_not(data, bits, input_top, any_cpu):
    codes, scale, bias = random_layer(data.draw, bits)
    kernel = kernel_weight(codes, scale, input_top=input_top, input_step=0.1, bias=bias, any_cpu=any_cpu)
    wanted, got = codes * scale[:, None], kernel.codes * kernel.scale[:, None].astype(np.float64)
    unit = kernel.scale[:, None].astype(np.float64)
    assert (kernel.scale > 0).all()
    assert np.allclose(got[kernel.exact], wanted[kernel.exact], rtol=1e-5, atol=1e-12)
    assert (np.abs(got - wanted) <= 1.51 * unit).all()
    ordered = np.sort(np.maximum(kernel.codes.astype(int), 0), axis=1)
    largest_pair = ordered[:, -2:].sum(axis=1).max() * input_top
    assert kernel.saturates == (
        max(
            largest_pair,
            np.sort(np.maximum(-kernel.codes.astype(int), 0), axis=1)[:, -2:].sum(axis=1).max() * input_top,
        )
        > 32767
    )
    if any_cpu:
        assert not kernel.saturates
    assert (np.abs(bias / (0.1 * kernel.scale)) < 2**31).all()


def test_low_bits_stay_exact_on_every_processor():
    codes = np.arange(-15, 16, 2, dtype=np.int16)[None]
    kernel = kernel_weight(codes, np.ones(1), input_top=255, input_step=1.0, bias=np.zeros(1), any_cpu=True)
    assert kernel.exact.all()
    assert kernel.codes.max() == 60  # four times finer: 2 * 60 * 255 is still below 2**15


def test_a_rounded_kernel_keeps_its_sum():
    generator = np.random.default_rng(0)
    codes = generator.integers(-255, 256, (16, 144)).astype(np.int16)
    kernel = kernel_weight(codes, np.ones(16), input_top=255, input_step=1.0, bias=np.zeros(16), any_cpu=True)
    assert not kernel.exact.any()
    sums = (kernel.codes * kernel.scale[:, None]).sum(axis=1)
    assert np.abs(sums - codes.sum(axis=1)).max() <= 0.51 * kernel.scale.max()


def test_a_dead_channel_keeps_its_bias():
    kernel = kernel_weight(
        np.full((2, 4), 7, np.int16),
        np.array([0.0, 1e-30]),
        input_top=15,
        input_step=0.1,
        bias=np.array([3.0, -2.0]),
        any_cpu=True,
    )
    bias = np.rint(np.array([3.0, -2.0]) / (0.1 * kernel.scale))
    assert not kernel.codes.any()
    assert (np.abs(bias) < 2**31).all()
    assert np.allclose(bias * 0.1 * kernel.scale, [3.0, -2.0])
