"""A network behind the copying: what it is shown, where its answer goes, and that it harms nothing that was found."""

import numpy as np
import pytest

from tenfold.errors import ShapeError, UsageError
from tenfold.video import InpaintOptions, PairFlow, SmoothFilling, Window, inpaint_frames
from tenfold.video.network_filling import NetworkFilling, network_inputs, over_smooth
from tenfold.video.provenance import INVENTED, REPAIRED


def window_of(frames=5, size=(50, 62), wanted=range(1, 4), seed=0):
    rng = np.random.default_rng(seed)
    rest = np.zeros((frames, *size), bool)
    rest[:, 20:26, 30:41] = True
    copied = np.zeros_like(rest)
    copied[:, 14:20, 30:41] = True
    flow = rng.normal(0, 0.1, (2, 2, *size)).astype(np.float32)
    pairs = [None if at == 1 else PairFlow(flow[0], flow[1]) for at in range(frames - 1)]
    return Window(rng.integers(0, 256, (frames, *size, 3), dtype=np.uint8), rest, copied, pairs, wanted)


def painting(value):
    return lambda inputs: np.full_like(inputs.frames, value)


def test_inputs_are_what_they_are_said_to_be():
    window = window_of()
    inputs = network_inputs(window, (slice(4, 49), slice(3, 60)), 8)
    assert inputs.frames.shape == (1, 5, 3, 48, 64)
    assert inputs.flow_fwd.shape == (1, 4, 2, 48, 64)
    np.testing.assert_array_equal(inputs.known[0, :, 0, :45, :57], ~window.rest[:, 4:49, 3:60])
    np.testing.assert_array_equal(inputs.copied[0, :, 0, :45, :57], window.copied[:, 4:49, 3:60])
    shown = np.moveaxis(inputs.frames[0], 1, -1)[:, :45, :57] * 255
    known = ~window.rest[:, 4:49, 3:60]
    np.testing.assert_allclose(shown[known], window.frames[:, 4:49, 3:60][known], atol=1e-3)
    assert not shown[~known].any()
    np.testing.assert_array_equal(inputs.flow_fwd[0, 0, :, :45, :57], window.flows[0].forward[:, 4:49, 3:60])
    np.testing.assert_array_equal(inputs.flow_bwd[0, 3, :, :45, :57], window.flows[3].backward[:, 4:49, 3:60])
    np.testing.assert_array_equal(inputs.invalid_bwd[0, 2, 0, :45, :57], ~window.flows[2].valid_backward[4:49, 3:60])
    assert inputs.invalid_fwd[0, 1].all()  # no flow is known there
    assert inputs.invalid_fwd[..., 45:, :].all()
    assert inputs.known[..., 45:, :].all()


def test_the_answer_goes_into_the_rest_alone_and_into_a_seam_where_one_is_allowed():
    window = window_of()
    for seam in (0, 2):
        filled = NetworkFilling(painting(2.0), seam=seam).fill(window)
        wanted = slice(1, 4)
        assert (filled.frames[window.rest[wanted]] == 255).all()  # clipped
        kept = ~window.rest[wanted] & ~filled.repaired
        np.testing.assert_array_equal(filled.frames[kept], window.frames[wanted][kept])
        assert filled.repaired.sum() == 3 * seam * 11
        assert not (filled.repaired & ~window.copied[wanted]).any()


def test_a_network_that_adds_to_the_smooth_filling_gives_it_where_it_adds_nothing():
    window = window_of()
    nothing = NetworkFilling(over_smooth(painting(0.0)), context=1).fill(window)
    smooth = SmoothFilling(context=1).fill(window)
    at = window.rest[1:4]
    np.testing.assert_array_equal(nothing.frames[at], smooth.frames[at])
    brighter = NetworkFilling(over_smooth(painting(20 / 255)), context=1).fill(window)
    expected = np.minimum(smooth.frames[at].astype(int) + 20, 255)
    np.testing.assert_array_equal(brighter.frames[at], expected)


def test_only_the_box_of_what_is_left_is_seen():
    seen = []

    def run(inputs):
        seen.append(inputs.frames.shape)
        return inputs.frames

    NetworkFilling(run, margin=4).fill(window_of())
    NetworkFilling(run, margin=1000).fill(window_of())
    assert seen == [(1, 5, 3, 16, 24), (1, 5, 3, 56, 64)]


def test_windows_fade_into_each_other_and_scenes_do_not():
    values = iter([0.0, 1.0, 1.0])
    filling = NetworkFilling(lambda inputs: np.full_like(inputs.frames, next(values)), context=1)
    first, second = window_of(5, wanted=range(4)), window_of(6, wanted=range(1, 5))
    inside = (slice(None), 22, 35, 0)
    assert filling.fill(first).frames[inside].tolist() == [0, 0, 0, 0]
    assert filling.fill(second).frames[inside].tolist() == [128, 255, 255, 255]
    assert filling.fill(first).frames[inside].tolist() == [255, 255, 255, 255]


def test_answers_that_are_no_numbers_are_replaced_smoothly():
    def run(inputs):
        made = np.full_like(inputs.frames, 0.5)
        made[..., ::2] = np.nan
        return made

    window = window_of()
    filled = NetworkFilling(run).fill(window)
    inside = filled.frames[window.rest[1:4]]
    assert (inside == 128).mean() > 0.3
    assert (inside != 128).mean() > 0.3


def test_in_a_session_found_pixels_are_those_of_copying_alone():
    rng = np.random.default_rng(3)
    still = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    frames = np.repeat(still[None], 12, 0)
    masks = np.zeros((12, 40, 56), bool)
    masks[4:8, 10:20, 10:30] = True
    masks[:, 30:36, 30:40] = True
    pairs = list(zip(frames, masks, strict=True))
    alone = list(inpaint_frames(pairs, InpaintOptions(hop=4)))
    done = list(inpaint_frames(pairs, InpaintOptions(hop=4), filling=NetworkFilling(painting(0.25))))
    for one, other in zip(alone, done, strict=True):
        np.testing.assert_array_equal(one.provenance, other.provenance)
        found = one.provenance < REPAIRED
        np.testing.assert_array_equal(one.frame[found], other.frame[found])
        invented = one.provenance == INVENTED
        assert invented.any()
        assert (other.frame[invented] == 64).all()


def test_what_is_not_allowed_is_said():
    with pytest.raises(UsageError, match="the multiple is at least 1"):
        NetworkFilling(painting(0), multiple=0)
    with pytest.raises(ShapeError, match="the network gave"):
        NetworkFilling(lambda inputs: inputs.known).fill(window_of())
