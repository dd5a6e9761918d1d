"""Labelled images as files: one folder a class, or images with a labels.csv."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tenfold.data.augment import Augmentation
from tenfold.data.draws import Draws
from tenfold.data.images import SUFFIXES, check_image, load_crop, load_image
from tenfold.data.preprocess import Preprocess, channels_first
from tenfold.errors import DataError, MissingDataError

MAX_CLASSES = 100_000
ADVICE = "Remove the file, or ask for bad files to be skipped (skip_bad=True)."

Report = Callable[[str], None]


class FileImages:
    """Labelled image files, decoded when a batch is asked for.

    Args:
        paths: the files.
        targets: class of each file, (N,).
    """

    def __init__(self, paths: Sequence[Path], targets: NDArray[np.int64]) -> None:
        self.paths = list(paths)
        self.targets = np.asarray(targets, np.int64)

    def take(self, indices: NDArray[np.int64]) -> FileImages:
        """Only these files, in this order."""
        return FileImages([self.paths[i] for i in indices], self.targets[indices])

    def framed(self, indices: NDArray[np.int64], preprocess: Preprocess) -> NDArray[np.uint8]:
        """A batch as evaluation sees it, uint8 (B, C, size, size).

        Raises:
            DataError: naming the file that cannot be read.
        """
        batch = np.empty((len(indices), *preprocess.input_shape), np.uint8)
        for row, index in enumerate(indices):
            with _advised():
                batch[row] = preprocess.frame(load_image(self.paths[index], preprocess.channels))
        return batch

    def varied(
        self, indices: NDArray[np.int64], preprocess: Preprocess, augmentation: Augmentation, draws: Draws
    ) -> NDArray[np.uint8]:
        """A batch as training sees it, uint8 (B, C, size, size).

        Raises:
            DataError: naming the file that cannot be read.
        """
        if augmentation.crop != "resized":
            return augmentation.vary(self.framed(indices, preprocess), draws)
        batch = np.empty((len(indices), *preprocess.input_shape), np.uint8)
        chances = augmentation.box_chances(draws)
        for row, index in enumerate(indices):
            def choose(width: int, height: int, row: int = row) -> tuple[int, int, int, int]:
                return augmentation.choose_box(width, height, chances[row])

            with _advised():
                image = load_crop(
                    self.paths[index], choose, preprocess.size, preprocess.resample, preprocess.channels
                )
            batch[row] = channels_first(image)
        return augmentation.vary(batch, draws)
