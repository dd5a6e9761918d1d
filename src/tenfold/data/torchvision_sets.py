"""Data sets that torchvision knows how to fetch, by name ("torchvision:CIFAR100")."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.arrays import ArrayImages, array_dataset
from tenfold.data.cache import cache_folder
from tenfold.data.dataset import Dataset
from tenfold.errors import DataError, MissingDataError, UnknownNameError

PREFIX = "torchvision:"

_BY_FLAG: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
_BY_SPLIT: tuple[dict[str, Any], dict[str, Any]] = ({"split": "train"}, {"split": "test"})
_PARTS = {
    "CIFAR10": _BY_FLAG,
    "CIFAR100": _BY_FLAG,
    "FashionMNIST": _BY_FLAG,
    "KMNIST": _BY_FLAG,
    "MNIST": _BY_FLAG,
    "STL10": _BY_SPLIT,
    "SVHN": _BY_SPLIT,
    "USPS": _BY_FLAG,
}
_MIRRORED_DIFFER = frozenset({"KMNIST", "MNIST", "SVHN", "USPS"})  # signs that are not the same seen in a mirror

NAMES = tuple(_PARTS)
"""The sets that fit in memory as one array."""


def load_torchvision(name: str) -> Dataset:
    """Open a torchvision data set, fetching it on first use.

    It lies in the folder that the variable TENFOLD_DATA names if it is there already; otherwise it is fetched into the
    cache folder.

    Raises:
        UnknownNameError: if the set is not among `NAMES`.
        MissingDataError: if it cannot be fetched.
    """
    if name not in _PARTS:
        known = {known.lower(): known for known in NAMES}
        if name.lower() not in known:
            raise UnknownNameError("torchvision data set", name, NAMES)
        name = known[name.lower()]
    train, evaluation = (_open_part(name, part) for part in _PARTS[name])
    classes = getattr(train, "classes", None) or range(int(_targets(train).max()) + 1)
    return array_dataset(
        PREFIX + name,
        _as_images(train),
        _as_images(evaluation),
        tuple(map(str, classes)),
        flip=name not in _MIRRORED_DIFFER,
    )


def _open_part(name: str, part: dict[str, Any]) -> Any:
    import torchvision

    kind = getattr(torchvision.datasets, name)
    if chosen := os.environ.get("TENFOLD_DATA"):
        try:
            return kind(chosen, download=False, **part)
        except (RuntimeError, OSError):
            pass  # not there: it belongs in the cache, since the user's data folder may be read-only
    root = cache_folder() / "torchvision"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints; standard output is for results
            return kind(root, download=True, **part)
    except (RuntimeError, OSError) as error:
        raise MissingDataError(
            f"torchvision's {name} is not in {chosen or 'TENFOLD_DATA (not set)'} and could not be fetched into {root} "
            f"({error}). Check the connection, or put the files there yourself."
        ) from error


def _as_images(part: Any) -> ArrayImages:
    pixels = np.asarray(part.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]  # grey: (N, 1, H, W)
    elif pixels.ndim == 4 and pixels.shape[1] not in (1, 3):
        pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))  # (N, H, W, C) to (N, C, H, W)
    return ArrayImages(pixels, _targets(part))


def _targets(part: Any) -> NDArray[np.int64]:
    found: Sequence[int] | None = getattr(part, "targets", None)
    if found is None:
        found = getattr(part, "labels", None)
    if found is None:
        raise DataError(f"torchvision's {type(part).__name__} holds neither targets nor labels.")
    return np.asarray(found, np.int64)
