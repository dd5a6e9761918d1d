"""Images in: reading, preprocessing, data sets and augmentation. Everything here works without torch.

The names are resolved on first use, so that running an exported file loads only what it needs.
"""

from __future__ import annotations

from typing import Any

from tenfold.lazy import resolve

_HOMES = {
    "ArrayImages": "arrays",
    "Augmentation": "augment",
    "Dataset": "dataset",
    "Draws": "draws",
    "FileImages": "folders",
    "Images": "dataset",
    "LabelSet": "label_sets",
    "MaskedImages": "masks",
    "Preprocess": "preprocess",
    "WholeImage": "preprocess",
    "cache_folder": "cache",
    "decode_image": "images",
    "open_dataset": "catalog",
    "open_masked_images": "masks",
    "prefetch": "threads",
    "read_image": "images",
    "read_preprocess": "preprocess",
    "stratified_order": "draws",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
