"""Cuts are told from motion, by what lies outside the holes."""

import itertools

import numpy as np
from PIL import Image

from tenfold.data import Motion, open_clips, simulate_clip
from tenfold.data.clips import resized
from tenfold.video.scene_cuts import CutDetector


def cuts_in(frames, holes=None):
    detector = CutDetector()
    holes = holes or [np.zeros(frame.shape[:2], bool) for frame in frames]
    return [number for number, pair in enumerate(zip(frames, holes, strict=True)) if detector.is_cut(*pair)]


def test_fast_motion_is_no_cut_and_a_new_picture_is():
    clips = []
    for seed in range(4):
        colours = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8) // (1 + 2 * (seed % 2))
        photograph = Image.fromarray(colours).resize((400, 300), Image.Resampling.BICUBIC)
        motion = Motion(pan=10, zoom=0.02, sprites=2)
        clips.append(simulate_clip([photograph], 6, 90, 160, np.random.default_rng(seed), motion).frames)
    assert cuts_in(np.concatenate(clips)) == [6, 12, 18]


def test_what_happens_in_holes_is_no_cut():
    frame = np.full((60, 80, 3), 90, np.uint8)
    hole = np.zeros((60, 80), bool)
    hole[:, :65] = True
    flash = np.where(hole[..., None], 255, frame).astype(np.uint8)
    assert cuts_in([frame, flash, frame], [hole] * 3) == []
    assert cuts_in([frame, 255 - frame, frame], [np.ones_like(hole)] * 3) == []


def test_light_that_goes_on_slowly_is_no_cut():
    frame = np.random.default_rng(0).integers(0, 100, (60, 80, 3)).astype(np.uint8)
    assert cuts_in([frame + np.uint8(12 * step) for step in range(12)]) == []


def test_real_clips_have_no_cut_inside_and_one_between(shared):
    clips = open_clips(shared / "data/video")
    parts = [[resized(clip.read_frame(number), (54, 96)) for number in range(0, 9, 2)] for clip in clips]
    found = cuts_in(list(itertools.chain.from_iterable(parts)))
    assert found == list(range(5, 5 * len(clips), 5))
