"""The smoothest filling equals an independent solution, and knows the borders of the image."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from tenfold.errors import ShapeError
from tenfold.kernels.library import native, without_kernels
from tenfold.video.harmonic import harmonic_fill


@pytest.fixture(params=["native", "numpy"], autouse=True)
def solver(request):
    """Each test is of the native kernel and of its twin."""
    if request.param == "numpy":
        with without_kernels():
            yield
    elif native() is None:
        pytest.skip("the native kernels were not compiled")
    else:
        yield


def dense_solution(values, hole):
    """Laplace's equation as one dense system, straight from its definition."""
    height, width = hole.shape
    unknown = {place: number for number, place in enumerate(zip(*np.nonzero(hole), strict=True))}
    system, right = np.zeros((len(unknown), len(unknown))), np.zeros((len(unknown), len(values)))
    for (row, column), number in unknown.items():
        for other in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= other[0] < height and 0 <= other[1] < width:
                system[number, number] += 1
                if other in unknown:
                    system[number, unknown[other]] -= 1
                else:
                    right[number] += values[:, other[0], other[1]]
    filled = values.copy()
    filled[:, hole] = np.linalg.solve(system, right).T
    return filled


@pytest.mark.parametrize("seed", range(6))
def test_a_random_hole_is_filled_as_the_equation_says(seed):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(2, 21)), int(rng.integers(2, 25)))
    values = rng.normal(0, 3, (2, *size)).astype(np.float32)
    hole = rng.random(size) < rng.uniform(0.1, 0.95)
    hole.flat[0] = False
    np.testing.assert_allclose(harmonic_fill(values, hole, 1e-6), dense_solution(values, hole), atol=2e-4)


def test_flow_is_completed_as_by_the_reference(shared):
    tensors = load_file(shared / "reference/tsam/warp_flow.safetensors")
    hole = tensors["fill_hole"] > 0
    emptied = np.where(hole, np.nan, tensors["fill_out"]).astype(np.float32)
    np.testing.assert_allclose(harmonic_fill(emptied, hole, 1e-6), tensors["fill_out"], atol=2e-6)


def test_what_stands_in_the_hole_does_not_matter_and_what_is_known_stays():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 40, 30)).astype(np.float32)
    hole = np.zeros((40, 30), bool)
    hole[5:33, 0:20] = True
    first = harmonic_fill(values, hole)
    second = harmonic_fill(np.where(hole, np.inf, values).astype(np.float32), hole)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[:, ~hole], values[:, ~hole])
    assert first[:, hole].min() >= values[:, ~hole].min()
    assert first[:, hole].max() <= values[:, ~hole].max()


def test_a_plane_comes_back_and_nothing_known_gives_zero():
    rows, columns = np.mgrid[:60, :80].astype(np.float32)
    plane = np.stack([rows - 2 * columns])
    hole = np.zeros((60, 80), bool)
    hole[4:50, 6:70] = True
    np.testing.assert_allclose(harmonic_fill(plane, hole, 1e-3), plane, atol=0.1)
    assert not harmonic_fill(plane, np.ones_like(hole)).any()
    assert harmonic_fill(plane, np.zeros_like(hole)) is plane


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (2, 2), (3, 40), (5, 5), (33, 34)])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_thin_and_odd_sizes_are_filled_as_the_equation_says(size, channels):
    rng = np.random.default_rng(size[0])
    values, hole = rng.normal(0, 3, (channels, *size)).astype(np.float32), rng.random(size) < 0.6
    hole.flat[0], hole.flat[-1] = False, True
    np.testing.assert_allclose(harmonic_fill(values, hole, 1e-6), dense_solution(values, hole), atol=2e-4)


def test_arrays_may_lie_in_memory_as_they_like():
    rng = np.random.default_rng(3)
    values, hole = rng.normal(size=(30, 3, 40)).astype(np.float32), rng.random((40, 30)) < 0.4
    turned = values.transpose(1, 2, 0)
    np.testing.assert_array_equal(harmonic_fill(turned, hole), harmonic_fill(np.ascontiguousarray(turned), hole))
    np.testing.assert_array_equal(
        harmonic_fill(turned[:, ::-1], hole[::-1]), harmonic_fill(turned[:, ::-1].copy(), hole[::-1].copy())
    )


def test_sizes_must_agree():
    with pytest.raises(ShapeError, match=r"needed: \(C, H, W\)"):
        harmonic_fill(np.zeros((2, 3, 4), np.float32), np.zeros((4, 3), bool))
