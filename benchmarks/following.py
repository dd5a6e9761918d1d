"""How well objects are followed without a trained network, on DAVIS clips: region J and boundary F.

Four clips, each started in three ways: from the first frame's mask, from the box around it, and automatically, from the
largest thing that moves (which needs some frames; they are followed back). Compared: copying the first mask along the
optical flow alone. Judged are all frames but the first and the last, as DAVIS does.

    TENFOLD_SHARED=... python benchmarks/following.py                  # about five minutes of one core
    TENFOLD_SHARED=... python benchmarks/following.py --quick          # 20 frames a clip; nothing is recorded
    TENFOLD_SHARED=... python benchmarks/following.py --strips FOLDER  # pictures, to be looked at

Recorded in results/following.json; a run with --ways replaces the rows of those. The settings of following were chosen
on these same four clips.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from record import machine, write_record
from tenfold.data.clips import Clip, open_clip
from tenfold.tasks.mask_measures import boundary_accuracy, region_similarity
from tenfold.video.flow import DisFlow, grid
from tenfold.video.follow import FollowOptions, FollowSession, working_size
from tenfold.video.given import Given
from tenfold.video.moving import MovingDetector
from tenfold.video.overlay import drawn_over
from tenfold.video.segment import Seen

RESULTS = Path(__file__).parent / "results" / "following.json"
CLIPS = (
    "data/video/davis_tennis",
    "data/video/davis_dogs_jump",
    "data/instances/davis_bmx_trees",
    "data/instances/davis_car_shadow",
)
SHOWN = 8

Masks = list[NDArray[np.bool_]]


def by_mask(clip: Clip, count: int, options: FollowOptions) -> Masks:
    """From the first frame's true mask."""
    return ahead(clip, range(count), Given(mask=clip.read_mask(0) > 0), options)


def by_box(clip: Clip, count: int, options: FollowOptions) -> Masks:
    """From the box around the first frame's true mask."""
    rows, columns = (np.flatnonzero((clip.read_mask(0) > 0).any(axis)) for axis in (1, 0))
    box = (int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    return ahead(clip, range(count), Given(box=box), options)


def by_motion(clip: Clip, count: int, options: FollowOptions) -> Masks:
    """From what moves; nothing of the truth is used."""
    detector = MovingDetector(options.longest_side)
    for number in range(count):
        mask = detector.step(clip.read_frame(number))
        if mask is not None:
            back = ahead(clip, range(number, -1, -1), Given(mask=mask), options)
            return back[:0:-1] + ahead(clip, range(number, count), Given(mask=mask), options)
    return [np.zeros((clip.height, clip.width), np.bool_)] * count


def by_flow(clip: Clip, count: int, options: FollowOptions) -> Masks:
    """The first mask copied along the flow, frame by frame, and nothing else."""
    size, flow = working_size((clip.height, clip.width), options), DisFlow()

    def small(at: int) -> NDArray[np.uint8]:
        return cv2.resize(clip.read_frame(at), size[::-1], interpolation=cv2.INTER_AREA)

    before, soft, masks = small(0), cv2.resize((clip.read_mask(0) > 0).astype(np.float32), size[::-1]), []
    for at in range(count):
        frame = small(at)
        if at:
            place = grid(size) + flow(frame, before)
            soft = cv2.remap(soft, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        masks.append(cv2.resize(soft, (clip.width, clip.height)) > 0.5)
        before = frame
    return masks


def ahead(clip: Clip, numbers: range, given: Given, options: FollowOptions) -> Masks:
    """Follow through frames in their order."""
    session, masks = FollowSession(options), []
    for at, number in enumerate(numbers):
        masks.append(session.step(clip.read_frame(number), [] if at else [given])[1])
    return masks


WAYS: dict[str, Callable[[Clip, int, FollowOptions], Masks]] = {
    "flow alone": by_flow,
    "first mask": by_mask,
    "box": by_box,
    "moving": by_motion,
}


def strip(clip: Clip, masks: Masks) -> Image.Image:
    """Frames of a clip with the object marked."""
    shown = np.linspace(0, len(masks) - 1, SHOWN).astype(int)
    pictures = []
    for at in shown:
        seen = {1: Seen(masks[at])} if masks[at].any() else {}
        pictures.append(np.asarray(Image.fromarray(drawn_over(clip.read_frame(at), seen, {1: ""})).resize((426, 240))))
    return Image.fromarray(np.concatenate([np.concatenate(pictures[at : at + 4], 1) for at in range(0, SHOWN, 4)]))


def main() -> None:
    """Follow in all ways through all clips, and print means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("TENFOLD_SHARED", "../shared")))
    parser.add_argument("--longest-side", type=int, default=FollowOptions().longest_side)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--quick", action="store_true", help="20 frames a clip; nothing is recorded")
    parser.add_argument("--strips", type=Path, help="folder for pictures")
    asked = parser.parse_args()
    options, rows = FollowOptions(longest_side=asked.longest_side), []
    cv2.setNumThreads(1)
    for way in asked.ways:
        for place in CLIPS:
            clip = open_clip(asked.shared / place)
            count = min(20, len(clip)) if asked.quick else len(clip)
            began = time.process_time()
            masks = WAYS[way](clip, count, options)
            took = time.process_time() - began
            judged = [at for at in sorted(clip.masks) if 0 < at < count - 1]
            pairs = [(masks[at], clip.read_mask(at) > 0) for at in judged]
            regions, edges = ([judge(*pair) for pair in pairs] for judge in (region_similarity, boundary_accuracy))
            row: dict[str, Any] = {
                "clip": clip.name,
                "way": way,
                "J": float(np.mean(regions)),
                "F": float(np.mean(edges)),
                "J_last_quarter": float(np.mean(regions[-(len(regions) // 4) :])),
                "frames": count,
                "frames_per_cpu_second": count / took,
            }
            rows.append(row)
            print(f"{way:12} {clip.name:18}", *(f"{key} {row[key]:.3f}" for key in list(row)[2:]), flush=True)
            if asked.strips:
                asked.strips.mkdir(parents=True, exist_ok=True)
                strip(clip, masks).save(asked.strips / f"{clip.name}_{way.replace(' ', '_')}.png")
        mean = {key: float(np.mean([row[key] for row in rows if row["way"] == way])) for key in ("J", "F")}
        print(f"{way:12} {'mean':18} J {mean['J']:.3f} F {mean['F']:.3f}", flush=True)
    if not asked.quick and options == FollowOptions():
        kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
        rows = [row for row in kept if row["way"] not in asked.ways] + rows
        write_record(RESULTS, {"machine": machine(), "longest_side": options.longest_side, "rows": rows})


if __name__ == "__main__":
    main()
