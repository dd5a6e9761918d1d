"""Networks behind one call: windows in NumPy go in, painted frames come out."""

import numpy as np
import pytest
import torch

from tenfold import build
from tenfold.errors import ShapeError
from tenfold.models import PackedWindow
from tenfold.video import InpaintOptions, NetworkFilling, NetworkInputs, fill_as_released, inpaint_frames
from tenfold.video.network_runs import PACKED_CHANNELS, packed, run_module


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build("tsam_tiny").train()


def inputs_of(frames=3, size=(16, 24), windows=1):
    rng = np.random.default_rng(0)

    def uniform(count, channels):
        return rng.random((windows, count, channels, *size), np.float32)

    known = (uniform(frames, 1) > 0.3).astype(np.float32)
    invalid = [(uniform(frames - 1, 1) > 0.8).astype(np.float32) for _ in range(2)]
    flows = [4 * uniform(frames - 1, 2) - 2 for _ in range(2)]
    return NetworkInputs(uniform(frames, 3) * known, known, known * (uniform(frames, 1) > 0.5), *flows, *invalid)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_network_of_pytorch_runs_on_windows(network, frames):
    inputs = inputs_of(frames, windows=2)
    made = run_module(network)(inputs)
    assert made.dtype == np.float32
    assert not network.training
    with torch.no_grad():
        expected = network(*(torch.from_numpy(one) for one in inputs))
    np.testing.assert_array_equal(made, expected.numpy())


@pytest.mark.parametrize("frames", [1, 3])
def test_a_packed_window_says_all_that_its_inputs_say(network, frames):
    inputs = inputs_of(frames, windows=2)
    network.eval()
    for row in range(2):
        one = packed(inputs, row)
        assert one.shape == (frames, PACKED_CHANNELS, 16, 24)
        with torch.no_grad():
            made = PackedWindow(network)(torch.from_numpy(one))
        np.testing.assert_allclose(made.numpy(), run_module(network)(inputs)[row], atol=1e-6)
    with pytest.raises(ShapeError, match="has no frame"):
        packed(NetworkInputs(*(one[:, :0] for one in inputs)))


def _clip():
    rng = np.random.default_rng(1)
    frames = np.repeat(rng.integers(0, 256, (1, 40, 56, 3), dtype=np.uint8), 5, 0)
    masks = np.zeros((5, 40, 56), bool)
    masks[:, 12:20, 16:30] = True
    return frames, masks


def test_a_session_fills_what_no_frame_shows_with_it(network):
    frames, masks = _clip()
    filling = NetworkFilling(run_module(network), margin=8)
    pairs = list(zip(frames, masks, strict=True))
    smooth, painted = (
        list(inpaint_frames(pairs, InpaintOptions(hop=4), **kind)) for kind in ({}, {"filling": filling})
    )
    for number, (one, other) in enumerate(zip(smooth, painted, strict=True)):
        np.testing.assert_array_equal(other.frame[~masks[number]], frames[number][~masks[number]])
        assert (one.frame[masks[number]] != other.frame[masks[number]]).any()


def test_the_authors_windows_run_it(network):
    frames, masks = _clip()
    made = fill_as_released(frames, masks, [None] * 4, run_module(network))
    np.testing.assert_array_equal(made[~masks], frames[~masks])
    assert (made[masks] != frames[masks]).any()
