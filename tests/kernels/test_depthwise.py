"""Gradients of depthwise convolutions are those of PyTorch within float rounding, wherever they come from."""

import ctypes
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tenfold.kernels import depthwise, library
from tenfold.kernels.depthwise import depthwise_backward, native_depthwise, serves
from tenfold.layers.atomic import AtomicBlock
from tenfold.methods import SAT
from tenfold.train import fit
from train.toy_training import ToyTask, toy_config

needs_library = pytest.mark.skipif(library.native() is None, reason=f"no native kernels: {library.state()[1]}")
LAST = torch.channels_last


def case(images, channels, height, width, kernel, stride, padding, dtype=torch.float32):
    """Gradient of the output, input and weight; no convolution that PyTorch would refuse."""
    height, width = (max(size, kernel - 2 * padding) for size in (height, width))
    x = torch.randn(images, channels, height, width).to(dtype, memory_format=LAST)
    weight = torch.randn(channels, 1, kernel, kernel).to(dtype)
    y = F.conv2d(x.float(), weight.float(), None, stride, padding, groups=channels)
    return torch.randn_like(y).to(dtype, memory_format=LAST), x, weight


def by_pytorch(gradient, x, weight, stride, padding):
    geometry = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], x.shape[1])
    return torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, [True, True, False])[:2]


def assert_close(got, expected, tolerance=1e-6):
    """Within a share of the largest value."""
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        largest = float(other.abs().max())
        torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=tolerance * (1 + largest))


@pytest.fixture
def calls(monkeypatch):
    """Counts what the native kernel did."""
    made = []

    def counted(*arguments, **options):
        made.append(tuple(arguments[2].shape))
        return depthwise_backward(*arguments, **options)

    monkeypatch.setattr(depthwise, "depthwise_backward", counted)
    return made


@needs_library
@settings(deadline=None, max_examples=120)
@given(
    images=st.integers(1, 3),
    channels=st.one_of(st.integers(1, 40), st.integers(120, 150)),
    height=st.integers(1, 20),
    width=st.one_of(st.integers(1, 20), st.integers(50, 60)),
    kernel=st.sampled_from([5, 7]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 8),
)
def test_any_shape(images, channels, height, width, kernel, stride, padding):
    gradient, x, weight = case(images, channels, height, width, kernel, stride, padding)
    assert serves(gradient, x, weight)
    expected = by_pytorch(gradient.double(), x.double(), weight.double(), stride, padding)
    got = depthwise_backward(gradient, x, weight, stride=stride, padding=padding)
    assert_close(got, expected, 1e-5)
    assert got[0].is_contiguous(memory_format=LAST)
    assert got[1].is_contiguous()


@needs_library
def test_images_that_go_in_several_bands():
    gradient, x, weight = case(2, 150, 61, 64, 5, 2, 2)
    expected = by_pytorch(gradient.double(), x.double(), weight.double(), 2, 2)
    assert_close(depthwise_backward(gradient, x, weight, stride=2, padding=2), expected, 1e-5)


@needs_library
@pytest.mark.parametrize("kernel", [5, 7])
def test_every_instruction_set(kernel, monkeypatch):
    gradient, x, weight = case(2, 45, 13, 9, kernel, 2, kernel // 2)
    expected = by_pytorch(gradient.double(), x.double(), weight.double(), 2, kernel // 2)
    loaded = ctypes.CDLL(str(library.Path(library.__file__).with_name(library.LIBRARY)))
    for level in range(loaded.tenfold_level() + 1):
        function = getattr(loaded, f"tenfold_depthwise_backward_{level}")
        function.argtypes, function.restype = library._SIGNATURES["depthwise_backward"]
        stand_in = SimpleNamespace(depthwise_backward=function)
        monkeypatch.setattr(depthwise, "required", lambda stand_in=stand_in: stand_in)
        assert_close(depthwise_backward(gradient, x, weight, stride=2, padding=kernel // 2), expected, 1e-5)


@needs_library
def test_the_number_of_threads_changes_nothing():
    gradient, x, weight = case(4, 100, 20, 20, 7, 1, 3)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(depthwise_backward(gradient, x, weight, padding=3))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@needs_library
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    gradient, x, weight = case(2, 20, 12, 12, 5, 1, 2, dtype)
    got = depthwise_backward(gradient, x, weight, padding=2)
    expected = depthwise_backward(gradient.float(), x.float(), weight.float(), padding=2)
    assert all(torch.equal(one, other.to(dtype)) for one, other in zip(got, expected, strict=True))


@needs_library
def test_only_what_is_wanted_is_computed():
    gradient, x, weight = case(2, 20, 12, 12, 5, 1, 2)
    both = depthwise_backward(gradient, x, weight, padding=2)
    for_x, nothing = depthwise_backward(gradient, x, weight, padding=2, wants_weight=False)
    assert torch.equal(for_x, both[0])
    assert nothing is None
    nothing, for_weight = depthwise_backward(gradient, x, weight, padding=2, wants_x=False)
    assert torch.equal(for_weight, both[1])
    assert nothing is None


@needs_library
def test_nan_goes_where_it_goes_in_pytorch():
    gradient, x, weight = case(2, 20, 12, 12, 5, 2, 2)
    gradient[0, 3, 2, 4] = x[1, 7, 0, 0] = torch.nan
    got = depthwise_backward(gradient, x, weight, stride=2, padding=2)
    expected = by_pytorch(gradient.double(), x.double(), weight.double(), 2, 2)
    for one, other in zip(got, expected, strict=True):
        assert one.isnan().any()
        assert torch.equal(one.isnan(), other.isnan())


@needs_library
def test_an_exhausted_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(depthwise, "required", lambda: SimpleNamespace(depthwise_backward=lambda *_: 1))
    with pytest.raises(MemoryError, match="no memory for the buffers"):
        depthwise_backward(*case(1, 8, 9, 9, 5, 1, 2), padding=2)


def gradients(layer, x):
    """Of the input and of all parameters."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y.dtype)
    return torch.autograd.grad(y, [x, *layer.parameters()], seed)


@needs_library
@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format])
def test_a_convolution_with_bias_and_gradients_of_any_layout(layout, calls):
    layer = nn.Conv2d(20, 20, 5, 2, 2, groups=20)
    shuffled = nn.Sequential(layer, nn.Identity() if layout is LAST else Contiguous())
    x = torch.randn(2, 20, 11, 13).to(memory_format=LAST)
    expected = gradients(shuffled, x)
    with native_depthwise():
        assert_close(gradients(shuffled, x), expected)
    assert calls == [(20, 1, 5, 5)]


class Contiguous(nn.Module):
    def forward(self, x):
        return x.contiguous()


@needs_library
@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), torch.randn(2, 4, 9, 9).to(memory_format=LAST)),
        (nn.Conv2d(4, 4, 5, padding=2, groups=4), torch.randn(2, 4, 9, 9)),
        (nn.Conv2d(4, 4, 5, padding=2, groups=4).double(), torch.randn(2, 4, 9, 9).double().to(memory_format=LAST)),
        (nn.Conv2d(4, 4, 5, padding=2, groups=2), torch.randn(2, 4, 9, 9).to(memory_format=LAST)),
        (nn.Conv2d(4, 8, 5, padding=2, groups=4), torch.randn(2, 4, 9, 9).to(memory_format=LAST)),
        (nn.Conv2d(4, 4, (5, 7), padding=2, groups=4), torch.randn(2, 4, 9, 9).to(memory_format=LAST)),
        (nn.Conv2d(4, 4, 5, (1, 2), groups=4), torch.randn(2, 4, 9, 9).to(memory_format=LAST)),
        (nn.Conv2d(4, 4, 5, padding=(2, 1), groups=4), torch.randn(2, 4, 9, 9).to(memory_format=LAST)),
        (nn.Conv2d(4, 4, 5, dilation=2, groups=4), torch.randn(2, 4, 9, 9).to(memory_format=LAST)),
        (nn.Conv2d(4, 4, 5, padding=2), torch.randn(2, 4, 9, 9).to(memory_format=LAST)),
        (nn.ConvTranspose2d(4, 4, 5, groups=4), torch.randn(2, 4, 9, 9).to(memory_format=LAST)),
        (nn.Conv2d(4, 4, 5, padding=2, groups=4), torch.randn(0, 4, 9, 9).to(memory_format=LAST)),
        (nn.Conv1d(4, 4, 5, padding=2, groups=4), torch.randn(2, 4, 9)),
    ],
)
def test_every_other_convolution_is_pytorchs(layer, x, calls):
    expected = gradients(layer, x)
    with native_depthwise():
        got = gradients(layer, x)
    assert all(map(torch.equal, got, expected))
    assert not calls


@needs_library
@pytest.mark.parametrize("quantized", [False, True])
def test_networks_train_with_the_same_gradients(quantized, calls):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 8, 1), AtomicBlock(8, 8, {3: 20, 5: 20, 7: 20}), nn.Conv2d(8, 3, 1))
    x = torch.randn(2, 3, 12, 12).to(memory_format=LAST)
    network = SAT(w_bits=8, a_bits=8).attach(block, None, x) if quantized else block
    network.train().to(memory_format=LAST)
    expected = gradients(network, x)
    with native_depthwise(network):
        assert_close(gradients(network, x), expected, 1e-5)
    assert sorted(calls) == [(20, 1, 5, 5), (20, 1, 7, 7)]


@needs_library
def test_gradients_of_gradients_and_compiled_graphs(calls):
    layer = nn.Conv2d(6, 6, 5, padding=2, groups=6).to(memory_format=LAST)
    x = torch.randn(2, 6, 9, 9).to(memory_format=LAST).requires_grad_()

    def penalty():
        (for_x,) = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(for_x.square().sum(), [x, layer.weight])

    expected = penalty()
    expected_gradients = gradients(layer, x.detach())
    with native_depthwise():
        assert_close(penalty(), expected, 1e-5)
        calls.clear()
        assert_close(gradients(torch.compile(layer, backend="aot_eager"), x.detach()), expected_gradients)
    assert len(calls) == 1


@needs_library
def test_it_ends_with_the_outermost_context_and_can_be_turned_off(calls):
    layer, x = nn.Conv2d(4, 4, 5, padding=2, groups=4), torch.randn(2, 4, 9, 9).to(memory_format=LAST)
    counts = []
    for _ in range(2):
        with native_depthwise():
            with native_depthwise():
                gradients(layer, x)
            gradients(layer, x)
            with library.without_kernels():
                gradients(layer, x)
        gradients(layer, x)
        counts.append(len(calls))
    assert counts == [2, 4]


@needs_library
def test_networks_that_gain_nothing_are_left_alone():
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 5), nn.BatchNorm2d(4))
    with native_depthwise(network):
        assert depthwise._override is None
    with library.without_kernels(), native_depthwise():
        assert depthwise._override is None


@needs_library
def test_fit_uses_it(tmp_path, calls):
    network = nn.Sequential(
        nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Flatten(), nn.Linear(512, 4)
    )
    fit(network, ToyTask(), config=toy_config(), run_dir=tmp_path / "run", quiet=True)
    assert set(calls) == {(8, 1, 5, 5)}
    assert depthwise._override is None
