"""A tiny generated segmentation: bright squares on dark ground, with names for their classes."""

import numpy as np
from PIL import Image

LABELS = ("ground", "square", "void", "edge")
"""As labels.txt has them; the value 2 is ignored."""


def make_pair(seed, height=24, width=32):
    """Image uint8 (H, W, 3) and mask uint8 (H, W) of values 0 to 3."""
    noise = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    top, left = noise.integers(0, height - 12), noise.integers(0, width - 12)
    mask[top : top + 12, left : left + 12] = 3
    mask[top + 2 : top + 10, left + 2 : left + 10] = 1
    mask[0, :4] = 2
    image = noise.integers(0, 60, (height, width, 3))
    image[mask == 1] += 180
    image[mask == 3] += 90
    return image.astype(np.uint8), mask


def write_pairs(folder, count, first=0, **size):
    """images/N.png and masks/N.png below a folder."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        image, mask = make_pair(number, **size)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


def write_segmentation(folder, train=8, evaluation=3, **size):
    """train/ and val/ with a labels.txt; returns the folder."""
    write_pairs(folder / "train", train, **size)
    write_pairs(folder / "val", evaluation, first=100, **size)
    (folder / "labels.txt").write_text("\n".join(LABELS[:2]) + " #ff0000\nvoid\nedge\n")
    return folder
