"""Small clips, photographs and a network of the signature of an inpainting network, for tests."""

import numpy as np
import torch
from PIL import Image
from torch import nn


def still_photograph(seed, width=90, height=70):
    """A smooth random picture, whose pixels can be followed well."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def write_photographs(folder, count=6):
    folder.mkdir(parents=True)
    for number in range(count):
        still_photograph(number).save(folder / f"{number}.png")
    return folder


def write_clip(folder, frames=9, *, masks=False, size=(40, 56)):
    """A camera that moves one pixel a frame over a photograph; with masks, a square in every frame."""
    (folder / "frames").mkdir(parents=True)
    picture = np.asarray(still_photograph(len(folder.name)).resize((size[1] + frames, size[0])))
    for number in range(frames):
        Image.fromarray(picture[:, number : number + size[1]]).save(folder / "frames" / f"{number:05d}.png")
        if masks:
            (folder / "masks").mkdir(exist_ok=True)
            mask = np.zeros(size, np.uint8)
            mask[10:22, 8 + number : 20 + number] = 255
            Image.fromarray(mask).save(folder / "masks" / f"{number:05d}.png")
    return folder


class TinyFiller(nn.Module):
    """Two convolutions of frames and masks, and a look at the frame before: no more than the signature asks."""

    def __init__(self, width=6):
        super().__init__()
        self.first = nn.Conv2d(8, width, 5, padding=2)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, 3, 5, padding=2)

    def forward(self, frames, known, copied, flow_fwd, flow_bwd, invalid_fwd, invalid_bwd):
        before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
        x = torch.cat([frames, known, copied, before], 2).flatten(0, 1)
        return self.last(torch.relu(self.norm(self.first(x)))).unflatten(0, frames.shape[:2])
