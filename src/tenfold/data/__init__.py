"""Images and clips in: reading, preprocessing, data sets and augmentation. Everything here works without torch.

The names are resolved on first use, so that running an exported file loads only what it needs.
"""

from __future__ import annotations

from typing import Any

from tenfold.lazy import resolve

_HOMES = {
    "ArrayImages": "arrays",
    "Augmentation": "augment",
    "Clip": "clips",
    "Dataset": "dataset",
    "Draws": "draws",
    "FileImages": "folders",
    "Images": "dataset",
    "LabelSet": "label_sets",
    "MaskedImages": "masks",
    "Motion": "simulated",
    "Preprocess": "preprocess",
    "SimulatedClip": "simulated",
    "VideoFrame": "video",
    "VideoInfo": "video",
    "VideoLimits": "video",
    "VideoReader": "video",
    "VideoSource": "video",
    "VideoWriter": "video_writing",
    "WholeImage": "preprocess",
    "cache_folder": "cache",
    "decode_image": "images",
    "dilated": "holes",
    "hole_masks": "holes",
    "object_masks": "holes",
    "open_clip": "clips",
    "open_clips": "clips",
    "open_dataset": "catalog",
    "open_masked_images": "masks",
    "prefetch": "threads",
    "read_image": "images",
    "read_preprocess": "preprocess",
    "shape_masks": "shape_holes",
    "simulate_clip": "simulated",
    "stratified_order": "draws",
    "stroke_masks": "stroke_holes",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
