"""Simulated clips: what is said of the motion is what the pixels do."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tenfold.data import Motion, simulate_clip
from tenfold.data.simulated import crop_clip
from tenfold.errors import ShapeError, UsageError


def photograph(seed, width=150, height=110):
    """A smooth random picture, whose pixels can be interpolated well."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def clip_of(seed, motion=None, frames=5):
    return simulate_clip([photograph(seed), photograph(seed + 50)], frames, 48, 64, np.random.default_rng(seed), motion)


def warped(frame, flow):
    """frame at p + flow(p), by torch's own sampling; float32 (H, W, 3)."""
    height, width = frame.shape[:2]
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    place = np.stack([(2 * (columns + flow[0]) + 1) / width - 1, (2 * (rows + flow[1]) + 1) / height - 1], -1)
    image = torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1)[None]
    grid = torch.from_numpy(place.astype(np.float32))[None]
    return F.grid_sample(image, grid, align_corners=False)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("seed", range(4))
def test_a_frame_warped_by_the_flow_is_its_neighbour_where_visible(seed):
    clip = clip_of(seed, Motion(sprites=2))
    for at in range(4):
        for source, target, flow, visible in (
            (at, at + 1, clip.flow_fwd[at], clip.visible_fwd[at]),
            (at + 1, at, clip.flow_bwd[at], clip.visible_bwd[at]),
        ):
            error = np.abs(warped(clip.frames[target], flow) - clip.frames[source]).mean(-1)
            # Interpolation costs a little, and more at a sprite's edge; half a pixel of error would cost 5 and more.
            assert np.median(error[visible]) < 3
            apart = np.abs(clip.frames[target].astype(float) - clip.frames[source]).mean(-1)
            assert error[visible].mean() < 0.15 * apart[visible].mean()
            assert visible.mean() > 0.6


def test_forward_and_backward_flow_undo_each_other():
    clip = clip_of(1, Motion(sprites=0))
    back = warped(np.moveaxis(clip.flow_bwd[0], 0, -1), clip.flow_fwd[0])
    np.testing.assert_allclose(
        np.moveaxis(back, -1, 0)[:, clip.visible_fwd[0]], -clip.flow_fwd[0][:, clip.visible_fwd[0]], atol=1e-3
    )


def test_what_a_sprite_hides_is_not_visible_and_the_background_is_the_truth_behind_it():
    clip = next(clip for seed in range(20) if (clip := clip_of(seed, Motion(pan=0, zoom=0, turn=0))).layers.any())
    np.testing.assert_array_equal(clip.frames[clip.layers == 0], clip.background[clip.layers == 0])
    assert (clip.frames[clip.layers > 0] != clip.background[clip.layers > 0]).any()
    # The background is at rest: exactly what the sprite covers next is lost.
    np.testing.assert_array_equal(clip.visible_fwd[0][clip.layers[0] == 0], (clip.layers[1] == 0)[clip.layers[0] == 0])
    np.testing.assert_array_equal(clip.flow_fwd[0][:, clip.layers[0] == 0], 0)


def test_clips_are_a_function_of_their_seed_and_differ_with_it():
    first, again, other = clip_of(2), clip_of(2), clip_of(3)
    for name in ("frames", "flow_fwd", "flow_bwd", "visible_fwd", "visible_bwd", "layers", "background"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.frames != other.frames).any()
    assert first.frames.shape == (5, 48, 64, 3)
    assert first.flow_fwd.shape == (4, 2, 48, 64)


@pytest.mark.parametrize("size", [(40, 30), (300, 48), (65, 400)])
def test_photographs_of_any_size_fill_the_frame(size):
    white = Image.new("RGB", size, "white")
    for seed in range(6):
        clip = simulate_clip([white], 6, 48, 64, np.random.default_rng(seed), Motion(pan=9, zoom=0.05, turn=0.1))
        assert clip.background.min() >= 254


def test_light_and_noise_change_colours_but_not_the_motion():
    plain, noisy = (clip_of(2, Motion(light=light, noise=noise)) for light, noise in ((0, 0), (0.3, 4)))
    np.testing.assert_array_equal(plain.flow_fwd, noisy.flow_fwd)
    assert np.std(noisy.frames.astype(float) - noisy.background, where=(noisy.layers == 0)[..., None]) == pytest.approx(
        4, rel=0.2
    )
    assert abs(noisy.background[0].mean() - plain.background[0].mean()) > 0.5


def test_one_frame_has_no_motion():
    clip = clip_of(0, frames=1)
    assert clip.flow_fwd.shape == (0, 2, 48, 64)
    assert clip.frames.shape == (1, 48, 64, 3)


def test_a_window_of_a_clip_loses_sight_of_what_leaves_it():
    clip = clip_of(1, Motion(pan=6, sprites=0))
    window = crop_clip(clip, 8, 10, 24, 32)
    np.testing.assert_array_equal(window.frames, clip.frames[:, 8:32, 10:42])
    rows, columns = np.mgrid[:24, :32]
    place = np.stack([columns, rows]) + window.flow_fwd[0]
    leaves = (place[0] < 0) | (place[0] > 31) | (place[1] < 0) | (place[1] > 23)
    assert leaves.any()
    assert not window.visible_fwd[0][leaves].any()
    with pytest.raises(ShapeError, match="does not lie in a frame of 48 x 64"):
        crop_clip(clip, 30, 0, 24, 32)


def test_what_is_not_allowed_is_said():
    with pytest.raises(UsageError, match="from 0 photographs"):
        simulate_clip([], 3, 48, 64, np.random.default_rng(0))
