"""Whether the frames around help to find and follow objects: CompFeat against the single-frame detector on SpriteVIS.

The claim (arXiv 2012.03400): features of a frame refined by those of other frames, at two levels, and correlation in
place of inner products, find and follow objects better where single frames are blurred. All arms see the same videos,
steps and schedule, paired by seed:

- "A": the single-frame baseline (MaskTrack R-CNN);
- "B": A with attention of maps to other frames; "B window:2", "B aligned", "B with places": other kinds of it;
- "C": B with attention of regions;
- "D": C with correlation in place of inner products, all of CompFeat;
- "D without frames", "D without objects": D without one of its modules ("C" is D without correlation);
- "S0": D that is trained and used with copies of the current frame in place of others: the same work, nothing to see;
- "S1": D as trained, used with frames of another video;
- "O": A, trained without degraded frames and used on sharp ones: what is to be had at most.

Every arm is judged on 60 videos of 20 frames that no training saw: tracks; frames by themselves, clean ones and
degraded ones; identities by HOTA where TrackEval is installed, also in videos with lookalikes alone; milliseconds a
frame on one thread. The precision of tracks is noted for random choices of the videos, too, the same for all arms.

    python benchmarks/compfeat_sprites.py             # resumable; --dry-run lists what is left to do
    python benchmarks/compfeat_sprites.py --steps 3   # smoke test: every arm for so many steps; nothing is recorded

Every finished run is recorded in results/compfeat_sprites.json. Processor time of a step of four items, on one thread
of a busy machine: A 1.3 s, D 2.6 s; of a frame that is judged 0.25 and 0.37 s, twice that with other supports. That is
2.2 hours for a training of A and 4.3 for one of D, about 36 hours for all arms of one seed and 110 for three; --length
takes fewer steps than 6000. It has not been run beyond smoke tests.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from record import machine, write_record

RESULTS = Path(__file__).parent / "results" / "compfeat_sprites.json"
FACTS: dict[str, Any] = {
    "network": "compfeat on efficientnet_lite0, pyramid of 64 channels", "image": 128, "steps": 6000, "batch": 4,
    "lr": 5e-4, "frames": 8, "videos_an_epoch": 600, "judged_videos": 60, "judged_frames": 20, "choices": 100,
}  # fmt: skip
_ALL: dict[str, Any] = {"frames": (8, 16, 32), "objects": "roi:2", "tracker": "correlation"}
_SINGLE: dict[str, Any] = {"frames": (), "objects": "none", "tracker": "fc"}
_MAPS: dict[str, Any] = {**_ALL, "objects": "none", "tracker": "fc"}
ARMS: dict[str, dict[str, Any]] = {
    "A": _SINGLE,
    "B": _MAPS,
    "C": {**_ALL, "tracker": "fc"},
    "D": _ALL,
    "S0": _ALL,
    "O": _SINGLE,
    "D without frames": {**_ALL, "frames": ()},
    "D without objects": {**_ALL, "objects": "none"},
    "B window:2": {**_MAPS, "scope": "window:2"},
    "B aligned": {**_MAPS, "scope": "aligned"},
    "B with places": {**_MAPS, "position": True},
}
"""What is trained; S1 is judged with D."""
_JUDGED_SEED = 20_260
_KEPT = ("AP", "AP50", "AP75", "AR1", "AR10")
_IDENTITIES = ("HOTA", "AssA", "IDF1", "IDSW")


def network_for(arm: str, seed: int) -> Any:
    """The network of an arm; what all arms have in common starts from the same backbone."""
    import torch

    from tenfold.models import build

    torch.manual_seed(seed)
    common = {"network": "efficientnet_lite0", "channels": 64, "anchor_scale": 2.0, "inner": 48, "pretrained": True}
    return build("compfeat", num_classes=8, **common, **ARMS[arm])


def task_for(arm: str, seed: int) -> Any:
    """The training videos of a seed, the same for all arms."""
    import torch

    from tenfold import tasks

    class OwnFrames(tasks.VideoInstances):
        """Copies of the current frame stand in the place of the frames around it."""

        def train_batches(self, **how: Any) -> Any:
            for inputs, rows in super().train_batches(**how):
                frames = inputs.frames.clone()
                frames[:, 2:] = frames[:, :1]
                yield inputs._replace(frames=frames, filled=torch.ones_like(inputs.filled)), rows

    made: Any = tasks.create(
        "track", image_size=FACTS["image"], sprites=FACTS["videos_an_epoch"], frames=FACTS["frames"], data_seed=seed,
        degraded=0.0 if arm == "O" else 0.35, eval_clips=1, eval_frames=2,
    )  # fmt: skip
    if arm != "S0":
        return made
    return OwnFrames(made.train, made.evaluation, size=made.size, supports=made.supports, dropped=made.dropped)


def followed(network: Any, frames: Any, way: str, others: Any) -> list[Any]:
    """What a network finds in a video frame by frame.

    Args:
        network: CompFeat.
        frames: 0..1, (T, C, H, W).
        way: "own": with the frames before, as it is meant to be used; "copies": with the current frame in their place;
            "foreign": with those of another video.
        others: the frames of that video.
    """
    import torch

    state = network.start(*frames.shape[-2:])
    foreign = network.start(*frames.shape[-2:])
    found = []
    for frame, other in zip(frames, others, strict=True):
        shown = state
        if way == "copies":
            with torch.no_grad():
                seen = network.look(frame[None], state, state.memory.known, static=False)
            count = len(state.filled)
            shown = state._replace(
                stages=tuple(one.expand(count, -1, -1, -1) for one in seen.stages),
                pyramid=tuple(one.expand(count, -1, -1, -1) for one in seen.pyramid),
                filled=torch.ones_like(state.filled),
            )
        elif way == "foreign":
            shown = foreign._replace(memory=state.memory)
            _, foreign = network.step(other[None], foreign)
        detections, state = network.step(frame[None], shown)
        found.append(detections)
    return found


def judged(network: Any, way: str, *, sharp: bool = False) -> dict[str, Any]:
    """All numbers of a network on the videos to judge by."""
    import numpy as np
    import torch

    from tenfold.data.sprite_videos import SpriteSettings, make_sprite_video
    from tenfold.data.sprites import SILHOUETTES
    from tenfold.errors import MissingExtraError
    from tenfold.tasks.found_tracks import gather_tracks
    from tenfold.tasks.instance_batches import ClipTargets, as_pixels
    from tenfold.tasks.instance_metrics import TrackPrecision
    from tenfold.tasks.track_hota import evaluate_hota
    from tenfold.tasks.track_precision import evaluate_tracks, single_frames

    settings = SpriteSettings(height=FACTS["image"], width=FACTS["image"], frames=FACTS["judged_frames"])
    videos = [make_sprite_video((_JUDGED_SEED, row), settings) for row in range(FACTS["judged_videos"])]
    clips = [as_pixels(video.sharp if sharp else video.frames) for video in videos]
    metric, seconds = TrackPrecision(SILHOUETTES), 0.0
    network.eval()
    for row, (video, clip) in enumerate(zip(videos, clips, strict=True)):
        begun = time.process_time()
        detections = followed(network, clip, way, clips[(row + 1) % len(clips)])
        seconds += time.process_time() - begun
        masks = torch.from_numpy(np.ascontiguousarray(np.moveaxis(video.masks, 1, 0)).astype(np.uint8))
        labels = torch.from_numpy(video.labels)
        shown = masks.flatten(1).any(1).bool()
        masks, labels = masks[shown], labels[shown]
        found = gather_tracks(detections, *clip.shape[-2:])
        metric.update([found], ClipTargets(masks[None], labels[None], torch.tensor([row])))
    truth, tracks = metric.tracks()
    record: dict[str, Any] = {name.lower(): evaluate_tracks(truth, tracks).stats[name] for name in _KEPT}
    for name, degraded in (("clean", False), ("degraded", True)):
        chosen = single_frames(
            truth, tracks, lambda video, at, wanted=degraded: videos[video - 1].degraded[at] == wanted
        )
        record[f"frame_ap_{name}"] = evaluate_tracks(*chosen).stats["AP"]
    rng = np.random.default_rng(0)
    draws = rng.integers(1, len(videos) + 1, (FACTS["choices"], len(videos)))
    record["chosen_ap"] = [
        round(evaluate_tracks(*_chosen(truth, tracks, draw.tolist())).stats["AP"], 5) for draw in draws
    ]
    alike = [row + 1 for row, video in enumerate(videos) if video.lookalikes is not None]
    try:
        for name, rows in (("all", list(truth.videos)), ("lookalikes", alike)):
            overall = evaluate_hota(*_chosen(truth, tracks, rows))["mean over detections"] if rows else {}
            record[f"identities_{name}"] = {key: overall[key] for key in _IDENTITIES if key in overall}
    except MissingExtraError:
        pass  # the package is an extra
    record["ms_a_frame"] = 1000 * seconds / sum(map(len, clips))
    return record


def _chosen(truth: Any, tracks: Any, rows: list[int]) -> tuple[Any, list[Any]]:
    """Truth and found tracks of some videos by their ids; one that is named twice counts twice."""
    from dataclasses import replace

    videos = {at: replace(truth.videos[row], id=at) for at, row in enumerate(rows, 1)}

    def of(several: Any) -> list[Any]:
        return [replace(one, video_id=at) for at, row in enumerate(rows, 1) for one in several if one.video_id == row]

    return replace(truth, videos=videos, tracks=of(truth.tracks)), of(tracks)


def run(arm: str, seed: int, work: str) -> list[dict[str, Any]]:
    """Train one arm and judge it; D gives the record of S1, too."""
    import torch

    from tenfold import fit
    from tenfold.train import TrainConfig
    from tenfold.train.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    epochs = max(1, FACTS["steps"] * FACTS["batch"] // FACTS["videos_an_epoch"])
    config = TrainConfig(
        epochs=epochs, batch_size=FACTS["batch"], optimizer="adamw", lr=FACTS["lr"], weight_decay=0.01,
        warmup_epochs=min(1.0, epochs / 10), clip_grad=10.0, seed=seed, device="cpu", channels_last=False,
        eval_epochs=epochs, checkpoint_minutes=3.0,
    )  # fmt: skip
    place = Path(work) / f"{arm}-{seed}".replace(" ", "-").replace(":", "-")
    network, task = network_for(arm, seed), task_for(arm, seed)
    result = fit(network, task, config=config, run_dir=place, quiet=True, resume=True)
    facts = {
        "seed": seed, "train_loss": [row["train_loss"] for row in result.report["curves"]],
        "macs": result.report["cost"]["after"]["macs"], "params": result.report["cost"]["after"]["params"],
        "seconds": result.report["seconds"],
    }  # fmt: skip
    way = "copies" if arm == "S0" else "own"
    records = [{"arm": arm, **facts, **judged(result.network, way, sharp=arm == "O")}]
    if arm == "D":
        records.append({"arm": "S1", **facts, **judged(result.network, "foreign")})
    return records


def main() -> None:
    """Run what is not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "tenfold-compfeat-sprites"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--length", type=int, default=FACTS["steps"], help="steps of a training")
    parser.add_argument("--dry-run", action="store_true", help="say what would run")
    parser.add_argument("--steps", type=int, help="smoke test: every arm for so many steps, two videos; not recorded")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    FACTS["steps"] = arguments.length
    if arguments.steps:
        steps, batch = arguments.steps, FACTS["batch"]
        small = {"steps": steps, "videos_an_epoch": steps * batch, "judged_videos": 2, "judged_frames": 4, "choices": 2}
        FACTS.update(small)
        with tempfile.TemporaryDirectory() as work:
            for arm in arguments.arms:
                for record in run(arm, 0, work):
                    told = f"{record['seconds'] / steps:.1f} s a step, {record['ms_a_frame']:.0f} ms a frame"
                    print(f"{record['arm']}: {told}, AP {record['ap']:.3f}", flush=True)
        return
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"steps": arguments.length, "runs": []}
    if known["steps"] != arguments.length:
        parser.error(
            f"{RESULTS} holds trainings of {known['steps']} steps; use --length {known['steps']}, or move it away"
        )
    runs = known["runs"]
    done = {(one["arm"], one["seed"]) for one in runs}
    left = [(arm, seed) for seed in arguments.seeds for arm in arguments.arms if (arm, seed) not in done]
    if arguments.dry_run:
        print("\n".join(f"{arm}, seed {seed}" for arm, seed in left))
        return
    with ProcessPoolExecutor(arguments.processes, max_tasks_per_child=1) as pool:
        futures = [pool.submit(_run_with, FACTS, arm, seed, arguments.work) for arm, seed in left]
        for number, future in enumerate(as_completed(futures), 1):
            found = future.result()
            runs = sorted([*runs, *found], key=lambda one: (one["seed"], one["arm"]))
            write_record(RESULTS, {"machine": machine(), **FACTS, "runs": runs})
            for one in found:
                print(f"{number}/{len(left)} {one['arm']}, seed {one['seed']}: AP {one['ap']:.4f}", flush=True)


def _run_with(facts: dict[str, Any], arm: str, seed: int, work: str) -> list[dict[str, Any]]:
    """`run` in another process, which does not know what was said on the command line."""
    FACTS.update(facts)
    return run(arm, seed, work)


if __name__ == "__main__":
    main()
