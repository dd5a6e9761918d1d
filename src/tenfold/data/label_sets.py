"""Names and colours of the classes of a segmentation, and which pixel values stand for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import DataError, MissingDataError, UnknownNameError

IGNORE = 255
"""In targets, a pixel that counts neither in the loss nor in the metrics; no class has this number."""
IOU_PREFIX = "iou_"
"""Begins the name of the metric of one class."""
VOID_NAMES = frozenset({"void", "unlabelled", "unlabeled", "ignore"})
"""In a labels.txt, lines of these names are values that are ignored."""

LABELS_FILE = "labels.txt"
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class LabelSet:
    """The classes of a segmentation.

    Args:
        names: of the classes, in the order of the network's outputs.
        colours: (red, green, blue) of each, 0..255.
        values: the value in a mask of each class, 0..255.
        void: values that are ignored.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    values: tuple[int, ...]
    void: tuple[int, ...] = (IGNORE,)

    def to_dict(self) -> dict[str, Any]:
        """What the description of a task says of its classes, JSON values."""
        return {
            "labels": list(self.names),
            "colours": [list(colour) for colour in self.colours],
            "label_values": list(self.values),
            "void_values": list(self.void),
        }

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> LabelSet:
        """Rebuild from the description of a task."""
        red_green_blue = ((int(r), int(g), int(b)) for r, g, b in described["colours"])
        values = tuple(described["label_values"]), tuple(described["void_values"])
        return cls(tuple(described["labels"]), tuple(red_green_blue), *values)

    def lookup_table(self) -> NDArray[np.uint8]:
        """Class of each mask value, uint8 (256,): IGNORE for void; see `known` for what is no label at all."""
        table = np.full(256, IGNORE, np.uint8)
        table[list(self.values)] = np.arange(len(self.values), dtype=np.uint8)
        return table

    def known(self) -> NDArray[np.bool_]:
        """Whether a mask may hold a value, bool (256,)."""
        known = np.zeros(256, bool)
        known[[*self.values, *self.void]] = True
        return known


_CAMVID = (
    ("sky", (128, 128, 128)), ("building", (128, 0, 0)), ("pole", (192, 192, 128)), ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)), ("tree", (128, 128, 0)), ("sign", (192, 128, 128)), ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)), ("pedestrian", (64, 64, 0)), ("bicyclist", (0, 128, 192)),
)  # fmt: skip
_CITYSCAPES = (
    ("road", (128, 64, 128), 7), ("sidewalk", (244, 35, 232), 8), ("building", (70, 70, 70), 11),
    ("wall", (102, 102, 156), 12), ("fence", (190, 153, 153), 13), ("pole", (153, 153, 153), 17),
    ("traffic light", (250, 170, 30), 19), ("traffic sign", (220, 220, 0), 20), ("vegetation", (107, 142, 35), 21),
    ("terrain", (152, 251, 152), 22), ("sky", (70, 130, 180), 23), ("person", (220, 20, 60), 24),
    ("rider", (255, 0, 0), 25), ("car", (0, 0, 142), 26), ("truck", (0, 0, 70), 27), ("bus", (0, 60, 100), 28),
    ("train", (0, 80, 100), 31), ("motorcycle", (0, 0, 230), 32), ("bicycle", (119, 11, 32), 33),
)  # fmt: skip

LABEL_SETS = {
    "camvid": LabelSet(
        tuple(name for name, _ in _CAMVID), tuple(colour for _, colour in _CAMVID), tuple(range(11)), (11, IGNORE)
    ),
    "cityscapes": LabelSet(
        tuple(name for name, _, _ in _CITYSCAPES),
        tuple(colour for _, colour, _ in _CITYSCAPES),
        tuple(value for _, _, value in _CITYSCAPES),
        tuple(value for value in (*range(34), IGNORE) if value not in {value for _, _, value in _CITYSCAPES}),
    ),
}
"""The 11 classes of CamVid as SegNet numbers them, and the 19 of Cityscapes in its files `..._labelIds.png`."""


def named_labels(names: Sequence[str]) -> LabelSet:
    """Classes by name, in the order of their values; names in VOID_NAMES are ignored. Colours are PASCAL VOC's.

    Raises:
        DataError: if there are fewer than two or more than 255 classes, or a name is there twice.
    """
    return _from_lines([(name, None) for name in names], "labels")


def find_labels(folder: Path, labels: str | Sequence[str] | None = None, fallback: LabelSet | None = None) -> LabelSet:
    """The classes of the masks in a folder.

    Args:
        folder: the data's.
        labels: a name of LABEL_SETS, or the names of the classes; None reads the folder's labels.txt, or takes the
            set that has the folder's name.
        fallback: the classes if the folder says nothing.

    Raises:
        UnknownNameError: if there is no such set.
        MissingDataError: if the classes are known from nowhere.
        DataError: if labels.txt cannot be read.
    """
    if isinstance(labels, str):
        if labels not in LABEL_SETS:
            raise UnknownNameError("set of labels", labels, LABEL_SETS, "Or give a list of names.")
        return LABEL_SETS[labels]
    if labels is not None:
        return named_labels(labels)
    if (folder / LABELS_FILE).is_file():
        return read_labels_file(folder / LABELS_FILE)
    if folder.resolve().name.lower() in LABEL_SETS:
        return LABEL_SETS[folder.resolve().name.lower()]
    if fallback is not None:
        return fallback
    raise MissingDataError(
        f"the names of the classes in {folder} are not known. Write them into {folder / LABELS_FILE}, one a line in "
        f"the order of the masks' values from 0 ('void' for a value to ignore), or name a set "
        f"({', '.join(LABEL_SETS)}): "
        "--set task.labels=camvid."
    )


def read_labels_file(path: Path) -> LabelSet:
    """Read a labels.txt: a class a line, in the order of the masks' values, with a colour (`road #804080`) or none.

    Raises:
        DataError: if it is no such text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text ({error}). It must be UTF-8, a class a line.") from error
    found: list[tuple[str, Colour | None]] = []
    for line in (line.strip() for line in lines if line.strip()):
        match = re.fullmatch(r"(.*\S)\s+#([0-9a-fA-F]{6})", line)
        colour = tuple(bytes.fromhex(match[2])) if match else None
        found.append((match[1] if match else line, colour))  # type: ignore[arg-type]
    return _from_lines(found, str(path))


def _from_lines(lines: Sequence[tuple[str, Colour | None]], where: str) -> LabelSet:
    kept = [value for value, (name, _) in enumerate(lines) if name.lower() not in VOID_NAMES]
    names = tuple(lines[value][0] for value in kept)
    if not 2 <= len(lines) <= IGNORE or len(names) < 2 or len(set(names)) < len(names):
        raise DataError(
            f"{where} names the classes {list(names)[:20]}; allowed are 2 to {IGNORE} different names, one for each "
            "value of the masks from 0."
        )
    colours = tuple(lines[value][1] or voc_colour(number + 1) for number, value in enumerate(kept))
    void = [value for value in range(len(lines)) if value not in kept]
    return LabelSet(names, colours, tuple(kept), (*void, IGNORE))


def voc_colour(number: int) -> Colour:
    """Colour of a number, as PASCAL VOC colours its classes: its bits in turn go to red, green and blue.

    Example:
        >>> voc_colour(1), voc_colour(2)
        ((128, 0, 0), (0, 128, 0))
    """
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (number >> channel & 1) << (7 - place)
        number >>= 3
    return channels[0], channels[1], channels[2]
