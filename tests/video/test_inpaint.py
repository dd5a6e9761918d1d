"""A session: what is known stays to the bit, what is hidden comes back, and no input breaks it silently."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tenfold.data import Motion, dilated, open_clip, simulate_clip, stroke_masks
from tenfold.errors import ShapeError, UsageError
from tenfold.video import InpaintOptions, InpaintSession, inpaint_frames
from tenfold.video.filling import Filled, SmoothFilling
from tenfold.video.inpaint import plan_session
from tenfold.video.provenance import EARLIER, INVENTED, LATER, REPAIRED, UNTOUCHED


def photograph(seed, width=300, height=220):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def clip_of(seed, frames=8, size=(64, 88), **motion):
    motion = Motion(**{"pan": 2.5, "sprites": 0} | motion)
    return simulate_clip([photograph(seed), photograph(seed + 9)], frames, *size, np.random.default_rng(seed), motion)


def moving_holes(frames, size=(64, 88), step=3, side=14):
    holes = np.zeros((frames, *size), bool)
    for t in range(frames):
        left = 10 + step * t
        holes[t, 20 : 20 + side, left : left + side] = True
    return holes


def run(frames, holes, **options):
    return list(inpaint_frames(zip(frames, holes, strict=True), InpaintOptions(**options)))


def error_in(done, truth, holes):
    return np.mean([np.abs(one.frame.astype(float) - t)[h].mean() for one, t, h in zip(done, truth, holes) if h.any()])  # noqa: B905


def test_hidden_content_comes_back_and_the_rest_stays_to_the_bit():
    clip, holes = clip_of(1), moving_holes(8)
    spoiled = np.where(holes[..., None], 255, clip.frames).astype(np.uint8)
    done = run(spoiled, holes)
    assert [one.number for one in done] == list(range(8))
    for one, frame, hole in zip(done, spoiled, holes, strict=True):
        np.testing.assert_array_equal(one.frame[~hole], frame[~hole])
        np.testing.assert_array_equal(one.provenance > UNTOUCHED, hole)
    alone = [SmoothFilling().fill(_window(frame, hole)).frames[0] for frame, hole in zip(spoiled, holes, strict=True)]
    smooth = np.mean([np.abs(a.astype(float) - t)[h].mean() for a, t, h in zip(alone, clip.frames, holes, strict=True)])
    assert error_in(done, clip.frames, holes) < 0.25 * smooth


def _window(frame, hole):
    from tenfold.video.filling import Window

    return Window(frame[None], hole[None], np.zeros_like(hole[None]), [], range(1))


def test_what_lies_under_the_mask_is_never_looked_at():
    clip, holes = clip_of(2), moving_holes(8)
    one, other = (
        run(np.where(holes[..., None], filler, clip.frames).astype(np.uint8), holes)
        for filler in (0, np.random.default_rng(0).integers(0, 256, clip.frames.shape))
    )
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.frame, second.frame)
        np.testing.assert_array_equal(first.provenance, second.provenance)


def test_an_object_is_removed_and_the_scene_behind_it_appears():
    clips = (clip_of(seed, 12, sprites=1, sprite_pan=5) for seed in range(30))
    clip = next(clip for clip in clips if 0.03 < (clip.layers > 0).mean() < 0.2 and (clip.layers > 0).any((1, 2)).all())
    holes = dilated(clip.layers > 0, 2)
    done = run(clip.frames, holes)
    before = np.abs(clip.frames.astype(float) - clip.background)[holes].mean()
    assert error_in(done, clip.background, holes) < 0.4 * before


def test_empty_masks_give_the_very_same_frames():
    clip = clip_of(3, 5)
    done = run(clip.frames, np.zeros((5, 64, 88), bool))
    assert all(
        one.frame is not None and (one.frame == frame).all() for one, frame in zip(done, clip.frames, strict=True)
    )
    assert not any(one.provenance.any() for one in done)


def test_the_stream_gives_the_same_however_it_is_cut():
    clip, holes = clip_of(4, 20), moving_holes(20, step=2)
    whole = run(clip.frames, holes, reach=3, hop=100)
    for hop in (1, 5):
        for first, second in zip(whole, run(clip.frames, holes, reach=3, hop=hop), strict=True):
            np.testing.assert_array_equal(first.frame, second.frame)
            np.testing.assert_array_equal(first.provenance, second.provenance)


def test_memory_does_not_grow_with_the_length():
    clip, holes = clip_of(5, 6), moving_holes(6)
    session, held = InpaintSession(InpaintOptions(reach=2, hop=2)), []
    emitted = 0
    for number in range(60):
        emitted += len(list(session.push(clip.frames[number % 6], holes[number % 6])))
        held.append(len(session._frames))
    assert max(held) <= session.plan.frames
    assert max(held[30:]) == max(held[:30])
    assert emitted + len(list(session.finish())) == 60


def test_nothing_flows_across_a_cut():
    first, second = clip_of(6, 5), clip_of(17, 5)
    frames = np.concatenate([first.frames, 255 - second.frames // 2])
    holes = moving_holes(10)
    done = run(frames, holes)
    assert [one.number for one in done if one.begins_scene] == [5]
    apart = [*run(frames[:5], holes[:5]), *run(frames[5:], holes[5:])]
    for together, alone in zip(done, apart, strict=True):
        np.testing.assert_array_equal(together.frame, alone.frame)
    blind = run(frames, holes, cuts=False)
    assert not any(one.begins_scene for one in blind)


def test_large_frames_are_filled_at_their_own_size():
    rough = np.random.default_rng(0).integers(0, 120, (220, 280, 3), dtype=np.uint8)
    scene = np.asarray(photograph(7, 280, 220)) // 2 + rough
    frames = [scene[20 + 2 * t : 180 + 2 * t, 4 * t : 224 + 4 * t] for t in range(8)]
    holes = moving_holes(8, (160, 224), step=6, side=30)
    done = run(frames, holes, longest_side=112)
    for one, frame, hole in zip(done, frames, holes, strict=True):
        np.testing.assert_array_equal(one.frame[~hole], frame[~hole])
    shrunk = [np.asarray(Image.fromarray(frame).resize((112, 80)).resize((224, 160))) for frame in frames]
    lost = np.mean([np.abs(s.astype(float) - f)[h].mean() for s, f, h in zip(shrunk, frames, holes, strict=True)])
    assert error_in(done, frames, holes) < 0.75 * lost  # the roughness, which working size cannot hold, is there
    copied = np.concatenate([one.provenance[hole] for one, hole in zip(done, holes, strict=True)])
    assert (copied < REPAIRED).mean() > 0.9


def test_provenance_names_the_frame_and_the_distance():
    clip = clip_of(8, 5, pan=0, zoom=0, turn=0)
    holes = np.zeros((5, 64, 88), bool)
    holes[1:4, 20:30, 20:30] = True
    holes[:, 40:46, 40:46] = True  # never seen
    done = run(clip.frames, holes)
    codes = [int(one.provenance[25, 25]) for one in done]
    assert codes == [UNTOUCHED, EARLIER + 1, EARLIER + 2, LATER + 1, UNTOUCHED]
    assert {int(one.provenance[43, 43]) for one in done} == {INVENTED}
    for one in done[1:4]:
        np.testing.assert_allclose(one.frame[20:30, 20:30], clip.frames[0, 20:30, 20:30], atol=3)


def test_a_filler_is_given_context_and_its_repairs_are_told():
    class Repairing:
        context, needs_flow, seen = 2, True, []

        def fill(self, window):
            self.seen.append(window)
            frames = window.frames[window.wanted.start : window.wanted.stop].copy()
            repaired = window.copied[window.wanted.start : window.wanted.stop].copy()
            frames[repaired] = 7
            return Filled(frames, repaired)

    clip, holes = clip_of(9, 9, pan=0, zoom=0, turn=0), moving_holes(9)
    holes[:, 50:56, 60:66] = True
    filling = Repairing()
    done = list(inpaint_frames(zip(clip.frames, holes, strict=True), InpaintOptions(hop=3, reach=4), filling=filling))
    assert [window.wanted for window in filling.seen] == [range(3), range(2, 5), range(2, 5)]
    assert [len(window.frames) for window in filling.seen] == [5, 7, 5]
    assert all(pair.forward.shape == (2, 64, 88) for window in filling.seen for pair in window.flows)
    assert not any((window.rest & window.copied).any() for window in filling.seen)
    codes = np.concatenate([one.provenance[hole] for one, hole in zip(done, holes, strict=True)])
    assert set(codes.tolist()) <= {REPAIRED, INVENTED}


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 9), (33, 65)])
@pytest.mark.parametrize("count", [1, 2])
def test_odd_sizes_and_single_frames(size, count):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    holes = rng.random((count, *size)) < 0.3
    for longest in (16, 432):
        done = run(frames, holes, longest_side=longest)
        for one, frame, hole in zip(done, frames, holes, strict=True):
            np.testing.assert_array_equal(one.frame[~hole], frame[~hole])


def test_lost_frames_are_faded_from_their_neighbours_and_said_to_be_invented():
    frames = np.stack([np.full((40, 40, 3), value, np.uint8) for value in (10, 0, 0, 40)])
    holes = np.zeros((4, 40, 40), bool)
    holes[1:3] = True
    done = run(frames, holes)
    assert [int(one.frame[20, 20, 0]) for one in done] == [10, 20, 30, 40]
    assert (done[1].provenance == INVENTED).all()
    nothing = run(frames, np.ones_like(holes))
    assert all((one.frame == 128).all() and (one.provenance == INVENTED).all() for one in nothing)


def test_a_hole_at_all_borders_and_huge_motion():
    clip = clip_of(10, 6, (72, 96), pan=40, zoom=0.2)
    holes = np.zeros((6, 72, 96), bool)
    holes[:, :8] = holes[:, -8:] = True
    holes[:, :, :8] = holes[:, :, -8:] = True
    done = run(clip.frames, holes)
    assert all(one.frame.dtype == np.uint8 for one in done)
    assert error_in(done, clip.frames, holes) < 80


def test_frames_that_do_not_fit_are_named():
    session = InpaintSession()
    good = np.zeros((32, 40, 3), np.uint8), np.zeros((32, 40), bool)
    list(session.push(*good))
    for frame, mask, message in (
        (good[0].astype(np.float32), good[1], "frame 1 is float32"),
        (good[0][..., 0], good[1], "frame 1 is uint8"),
        (good[0], good[1].astype(np.uint8), "the mask of frame 1 is uint8"),
        (good[0], good[1][:5], "the frame has the size"),
        (good[0][:20], good[1][:20], r"frame 1 has the size \(20, 40\), but those before \(32, 40\)"),
    ):
        with pytest.raises(ShapeError, match=message):
            list(session.push(frame, mask))


def test_copying_needs_no_torch():
    program = "import sys; from tenfold.video import InpaintSession; InpaintSession(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_options_and_memory_have_limits():
    for wrong in ({"longest_side": 8}, {"reach": 0}, {"reach": 120}, {"hop": 0}, {"passes": 0}, {"margin": 2}):
        with pytest.raises(UsageError, match="allowed is"):
            InpaintOptions(**wrong)
    filling = SmoothFilling()
    roomy = plan_session(240, 424, InpaintOptions(), filling)
    assert (roomy.reach, roomy.hop, roomy.working_size) == (24, 8, (240, 424))
    tight = plan_session(1080, 1920, InpaintOptions(memory_mb=400), filling)
    assert tight.working_size == (243, 432)
    assert 1 <= tight.reach < 24
    assert tight.memory_mb <= 400
    with pytest.raises(UsageError, match="are held at a time"):
        plan_session(4320, 7680, InpaintOptions(memory_mb=64), filling)


def test_copying_beats_smoothing_by_decibels_on_a_real_clip(shared):
    frames, _ = open_clip(shared / "data/video/davis_tennis").read(0, 12, (128, 224))
    holes = stroke_masks("object_like_middle", 12, 128, 224, np.random.default_rng(100), strokes=5)
    done = run(frames, holes)
    psnr = [
        [
            -10 * np.log10((((one.astype(float) - frame)[hole] / 255) ** 2).mean())
            for one, frame, hole in zip(made, frames, holes, strict=True)
        ]
        for made in (
            [one.frame for one in done],
            [SmoothFilling().fill(_window(frame, hole)).frames[0] for frame, hole in zip(frames, holes, strict=True)],
        )
    ]
    assert np.mean(psnr[0]) > np.mean(psnr[1]) + 2
