"""The aligned shift in one pass is that of PyTorch's operators within float rounding, and so is its gradient."""

import ctypes
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold import build, profile
from tenfold.kernels import alignment, library
from tenfold.kernels.alignment import serves
from tenfold.layers.temporal_align import Flows, aligned_shift, pairs_at, shift

pytestmark = pytest.mark.skipif(library.native() is None, reason=f"no native kernels: {library.state()[1]}")


def clip(batch, frames, channels, height, width, *, last, seed=0):
    """Features, and flows of which some lead out, some are not to be used and one is no number."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    maps = normal(batch, frames, channels, height, width)
    if last:
        maps = maps.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (batch, frames))
    flows = [3 * normal(batch, frames - 1, 2, height, width) for _ in range(2)]
    flows[0].view(-1)[:1] = float("nan")
    invalid = [(normal(batch, frames - 1, 1, height, width) > 1).float() for _ in range(2)]
    return maps, pairs_at(Flows(*flows, *invalid), (height, width))


def both_ways(maps, pairs, fold, **options):
    """Output and gradient by the native kernel and by PyTorch's operators."""
    found, weights = [], None
    for native in (True, False):
        x = maps.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        assert serves(x, pairs.forward.grid, pairs.backward.grid)
        if native:
            out = shift(x, fold, pairs, **options)
        else:
            with library.without_kernels():
                out = shift(x, fold, pairs, **options)
        if weights is None:
            weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        out.backward(weights)
        found.append((out.detach(), x.grad))
    return found


def assert_same(found):
    (out, gradient), (wanted, wanted_gradient) = found
    assert out.shape == wanted.shape
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-5, atol=2e-5)


@settings(deadline=None, max_examples=80)
@given(
    batch=st.integers(1, 2),
    frames=st.integers(2, 4),
    channels=st.integers(2, 40),
    height=st.integers(1, 9),
    width=st.one_of(st.integers(1, 9), st.integers(60, 70)),
    last=st.booleans(),
    edge=st.sampled_from(["zero", "self"]),
    data=st.data(),
)
def test_any_shape(batch, frames, channels, height, width, last, edge, data):
    fold = data.draw(st.integers(1, channels // 2))
    past, future = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 1))
    maps, pairs = clip(batch, frames, channels, height, width, last=last)
    options = {"past": past, "future": future if frames > past + future else 0}
    assert_same(both_ways(maps, pairs, fold, edge=edge, **options))


@pytest.mark.parametrize("last", [False, True])
def test_the_layout_stays_and_the_number_of_threads_changes_nothing(last):
    maps, pairs = clip(2, 5, 24, 30, 40, last=last)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(both_ways(maps, pairs, 6)[0])
    finally:
        torch.set_num_threads(before)
    assert results[0][0].stride() == maps.stride()
    assert all(torch.equal(first, other) for one in results[1:] for first, other in zip(results[0], one, strict=True))


def test_every_instruction_set(monkeypatch):
    loaded = ctypes.CDLL(str(library.Path(library.__file__).with_name(library.LIBRARY)))
    for level in range(loaded.tenfold_level() + 1):
        functions = {}
        for name in ("align", "align_backward"):
            functions[name] = getattr(loaded, f"tenfold_{name}_{level}")
            functions[name].argtypes, functions[name].restype = library._SIGNATURES[name]
        monkeypatch.setattr(alignment, "required", lambda functions=functions: SimpleNamespace(**functions))
        for last in (False, True):
            assert_same(both_ways(*clip(1, 3, 20, 9, 11, last=last), 7))


def test_the_operator_keeps_the_rules_of_its_kind():
    maps, pairs = clip(1, 3, 6, 5, 7, last=True)
    flows = (pairs.forward.grid, pairs.forward.trusted, pairs.backward.grid, pairs.backward.trusted)
    maps.requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")  # compilers never see it
    for past, future in ((0, 0), (1, 0), (0, 1)):
        torch.library.opcheck(aligned_shift, (maps, *flows, 2, past, future, False), test_utils=checks)


def test_a_gradient_of_a_gradient_is_refused():
    maps, pairs = clip(1, 3, 4, 5, 6, last=False)
    x = maps.requires_grad_()
    (gradient,) = torch.autograd.grad(shift(x, 2, pairs).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_other_maps_go_the_other_way():
    maps, pairs = clip(1, 3, 4, 5, 6, last=False)
    grids = pairs.forward.grid, pairs.backward.grid
    assert serves(maps, *grids)
    assert not serves(maps.double(), *grids)
    assert not serves(maps.bfloat16(), *grids)
    assert not serves(maps[..., ::2], *grids)
    assert not serves(maps.to("meta"), *grids)
    wanted = shift(maps.double(), 2, pairs)
    torch.testing.assert_close(shift(maps, 2, pairs).double(), wanted, rtol=0, atol=1e-5)


def test_a_network_costs_the_same_either_way():
    network = build("tsam_tiny", planes=4, blocks=(1, 1, 1, 1), decoder=(8, 8, 8), stem=8)
    window = network.example_inputs((3, 16, 24), frames=3)
    counted = profile(network, window).to_dict()
    with library.without_kernels():
        assert profile(network, window).to_dict() == counted
