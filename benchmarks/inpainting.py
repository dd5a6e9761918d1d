"""Fidelity of video inpainting on held-out DAVIS clips: PSNR and SSIM inside the holes.

Four clips of 15 frames x three kinds of hole x two sizes. Compared: OpenCV's Telea and Navier-Stokes frame by frame,
the temporal median, the nearest frame without motion, flow copy as it is usually made (recursive copying along DIS
flow, the rest by Telea; with the flow of the true frames, and with observed flow completed in two ways), and
`tenfold inpaint` with one pass and two, and with the network that comes with Tenfold for what no frame shows. Only
`oracle` sees the true frames. `rest_psnr` is of the pixels that two passes do not find in any frame.

    TENFOLD_SHARED=... python benchmarks/inpainting.py                  # about six minutes of one core
    TENFOLD_SHARED=... python benchmarks/inpainting.py --quick          # one clip, one size, under a minute
    TENFOLD_SHARED=... python benchmarks/inpainting.py --strips FOLDER  # pictures of frames, to be looked at

Recorded in results/inpainting.json.
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
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.functional.image import structural_similarity_index_measure

from record import machine, write_record
from tenfold import build
from tenfold.data import open_clip, shape_masks, stroke_masks
from tenfold.video import InpaintOptions, NetworkFilling, inpaint_frames, over_smooth, run_module
from tenfold.video.filling import Filling
from tenfold.video.flow import DisFlow, near_hole, pair_flow, smoothed
from tenfold.video.harmonic import harmonic_fill
from tenfold.video.propagation import Hole, Sources, copied_colours, follow, link
from tenfold.video.provenance import INVENTED

RESULTS = Path(__file__).parent / "results" / "inpainting.json"
CLIPS = (
    ("data/video/davis_tennis", 0),
    ("data/video/davis_tennis", 35),
    ("data/instances/davis_bmx_trees", 10),
    ("data/video/davis_dogs_jump", 20),
)
FRAMES = 15
SIZES = ((128, 224), (240, 424))
KINDS = ("object", "curve", "stationary")

Frames = NDArray[np.uint8]
Holes = NDArray[np.bool_]


def holes_of(kind: str, size: tuple[int, int], seed: int) -> Holes:
    """Holes as TSAM's authors make them, of the coverage that the specification's baselines have."""
    rng = np.random.default_rng(seed)
    if kind == "stationary":
        return shape_masks(FRAMES, *size, rng, drifting=False)
    preset, strokes = ("object_like_middle", 5) if kind == "object" else ("rand_curve", 14)
    return stroke_masks(preset, FRAMES, *size, rng, strokes=strokes)


def by_opencv(frames: Frames, holes: Holes, flag: int = cv2.INPAINT_TELEA) -> Frames:
    """Each frame by itself."""
    return np.stack([cv2.inpaint(f, h.astype(np.uint8), 3, flag) for f, h in zip(frames, holes, strict=True)])


def temporal_median(frames: Frames, holes: Holes, reach: int = 7) -> Frames:
    """The median of what the same pixel shows within seven frames; the rest by Telea."""
    made, rest = frames.copy(), holes.copy()
    for at in range(len(frames)):
        near = slice(max(0, at - reach), at + reach + 1)
        seen = np.where(holes[near][..., None], np.nan, frames[near].astype(np.float32))
        found = holes[at] & ~holes[near].all(0)
        made[at][found] = np.nanmedian(seen[:, found], 0)
        rest[at] &= ~found
    return by_opencv(made, rest)


def nearest_frame(frames: Frames, holes: Holes) -> Frames:
    """The same pixel in the nearest frame that shows it; the rest by Telea."""
    made, rest = frames.copy(), holes.copy()
    for at in range(len(frames)):
        for other in sorted(range(len(frames)), key=lambda one, at=at: abs(one - at)):
            found = rest[at] & ~holes[other]
            made[at][found] = frames[other][found]
            rest[at] &= ~found
    return by_opencv(made, rest)


def flow_copy(frames: Frames, holes: Holes, flow: str) -> Frames:
    """Recursive copying along DIS flow with the forward-backward check, mixed by distance; the rest by Telea."""
    estimator, numbered = DisFlow(), [Hole.of(hole) for hole in holes]
    shown = frames if flow == "oracle" else [smoothed(f, h) for f, h in zip(frames, holes, strict=True)]
    before = [Sources.none(len(hole)) for hole in numbered]
    after, pairs = list(before), []
    for at in range(len(frames) - 1):
        if flow == "observed":
            near = [near_hole(hole, 5) for hole in holes[at : at + 2]]
            pair = pair_flow(estimator, shown[at], shown[at + 1], *near)
            forward, backward = pair.forward, pair.backward
        else:
            forward = harmonic_fill(estimator(shown[at], shown[at + 1]), holes[at], 1e-2)
            backward = harmonic_fill(estimator(shown[at + 1], shown[at]), holes[at + 1], 1e-2)
        pairs.append((forward, backward))
        before[at + 1] = follow(link(numbered[at + 1], backward, forward), numbered[at], before[at], at)
    for at in range(len(frames) - 2, -1, -1):
        after[at] = follow(link(numbered[at], *pairs[at]), numbered[at + 1], after[at + 1], at + 1)
    pictures = {at: (frames[at], holes[at]) for at in range(len(frames))}
    made, rest = frames.copy(), holes.copy()
    for at, hole in enumerate(numbered):
        colours, got = copied_colours(at, before[at], after[at], pictures)
        made[at][hole.rows[got], hole.columns[got]] = colours[got]
        rest[at][hole.rows[got], hole.columns[got]] = False
    return by_opencv(made, rest)


def tenfold(frames: Frames, holes: Holes, passes: int, filling: Filling | None = None) -> Frames:
    """What `tenfold inpaint` does."""
    pairs = zip(frames, holes, strict=True)
    return np.stack([one.frame for one in inpaint_frames(pairs, InpaintOptions(passes=passes), filling=filling)])


def never_found(frames: Frames, holes: Holes) -> Holes:
    """Pixels that two passes find in no frame."""
    pairs = zip(frames, holes, strict=True)
    return np.stack([one.provenance == INVENTED for one in inpaint_frames(pairs, InpaintOptions(passes=2))])


def tiny_network() -> Filling:
    """The network that comes with Tenfold."""
    return NetworkFilling(over_smooth(run_module(build("tsam_tiny", corrects=True, pretrained=True))))


METHODS: dict[str, Callable[[Frames, Holes], Frames]] = {
    "OpenCV Telea": by_opencv,
    "OpenCV Navier-Stokes": lambda frames, holes: by_opencv(frames, holes, cv2.INPAINT_NS),
    "temporal median": temporal_median,
    "nearest frame": nearest_frame,
    "flow copy, oracle flow": lambda frames, holes: flow_copy(frames, holes, "oracle"),
    "flow copy, source hole only": lambda frames, holes: flow_copy(frames, holes, "source"),
    "flow copy, source or target": lambda frames, holes: flow_copy(frames, holes, "observed"),
    "tenfold, one pass": lambda frames, holes: tenfold(frames, holes, 1),
    "tenfold, two passes": lambda frames, holes: tenfold(frames, holes, 2),
    "tenfold, two passes, tsam_tiny": lambda frames, holes: tenfold(frames, holes, 2, tiny_network()),
}


def scores(made: Frames, frames: Frames, holes: Holes, rest: Holes) -> dict[str, float]:
    """PSNR of the frame, of the hole and of the rest, SSIM of the hole (11-pixel window), means over frames."""
    squared = ((made.astype(np.float64) - frames) / 255) ** 2
    shown = holes.any((1, 2))
    pair = [torch.from_numpy(one).permute(0, 3, 1, 2).float() / 255 for one in (made, frames)]
    _, similarity = structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)
    similar = similarity.mean(1).numpy()
    return {
        "frame_psnr": float(np.mean([decibels(one.mean()) for one in squared[shown]])),
        "hole_psnr": float(np.mean([decibels(s[h].mean()) for s, h in zip(squared[shown], holes[shown], strict=True)])),
        "rest_psnr": float(np.mean([decibels(s[r].mean()) for s, r in zip(squared, rest, strict=True) if r.any()])),
        "hole_ssim": float(np.mean([s[h].mean() for s, h in zip(similar[shown], holes[shown], strict=True)])),
    }


def decibels(error: float) -> float:
    """PSNR of a mean squared error in 0..1, at most 100."""
    return min(100.0, float(-10 * np.log10(max(error, 1e-12))))


def strip(frames: Frames, holes: Holes, made: dict[str, Frames], at: int) -> Image.Image:
    """One frame: true, with its hole, and by each method."""
    emptied = np.where(holes[at][..., None], 255, frames[at]).astype(np.uint8)
    return Image.fromarray(np.concatenate([frames[at], emptied, *(one[at] for one in made.values())], 1))


def main() -> None:
    """Run all methods on all clips, and print means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("TENFOLD_SHARED", "../shared")))
    parser.add_argument("--quick", action="store_true", help="one clip and one size; nothing is recorded")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="others stay as recorded")
    heights = [size[0] for size in SIZES]
    parser.add_argument("--heights", nargs="+", type=int, choices=heights, default=heights, help="others likewise")
    parser.add_argument("--strips", type=Path, help="folder for pictures of the middle frames")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = [
        row
        for row in (json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else [])
        if row["method"] not in options.methods or row["size"][0] not in options.heights
    ]
    for size in SIZES[:1] if options.quick else [size for size in SIZES if size[0] in options.heights]:
        for kind in KINDS:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in options.methods}
            for number, (place, start) in enumerate(CLIPS[: 1 if options.quick else None]):
                frames, _ = open_clip(options.shared / place).read(start, FRAMES, size)
                holes, made = holes_of(kind, size, 100 + number), {}
                rest = never_found(frames, holes)
                for name in options.methods:
                    began = time.process_time()
                    made[name] = METHODS[name](frames, holes)
                    took = (time.process_time() - began) / FRAMES
                    found[name].append(scores(made[name], frames, holes, rest) | {"cpu_seconds_a_frame": took})
                    assert (made[name][~holes] == frames[~holes]).all(), f"{name} changed what is known"
                if options.strips:
                    options.strips.mkdir(parents=True, exist_ok=True)
                    picture = strip(frames, holes, made, FRAMES // 2)
                    picture.save(options.strips / f"{kind}_{number}_{size[1]}x{size[0]}.png")
            coverage = np.mean([holes_of(kind, size, 100 + number).mean() for number in range(len(CLIPS))])
            for name, scored in found.items():
                mean = {key: float(np.mean([one[key] for one in scored])) for key in scored[0]}
                rows.append({"size": list(size), "kind": kind, "method": name, "coverage": float(coverage), **mean})
                print(f"{size[1]}x{size[0]} {kind:10} {name:28}", *(f"{key} {mean[key]:.3f}" for key in mean))
    if not options.quick:
        order = list(METHODS)
        rows.sort(key=lambda row: (row["size"], KINDS.index(row["kind"]), order.index(row["method"])))
        clips = [f"{Path(place).name} {start}-{start + FRAMES - 1}" for place, start in CLIPS]
        write_record(RESULTS, {"machine": machine(), "clips": clips, "rows": rows})


if __name__ == "__main__":
    main()
