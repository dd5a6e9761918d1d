"""Photographs of a COCO file with the masks of their objects, read as they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.images import read_image
from tenfold.data.run_lengths import decode_mask
from tenfold.data.sprites import coco_file
from tenfold.errors import DataError


@dataclass(frozen=True, eq=False)
class LabelledPhotograph:
    """One photograph.

    Args:
        path: of the picture.
        names: class of each object.
        outlines: of each object, as the file has them.
    """

    path: Path
    names: Sequence[str]
    outlines: Sequence[Mapping[str, Any] | Sequence[Sequence[float]]]

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The picture uint8 (H, W, 3), and masks bool (N, H, W).

        Raises:
            DataError: if it cannot be read.
        """
        picture = read_image(self.path)
        height, width = picture.shape[:2]
        return picture, np.stack([decode_mask(one, height, width) for one in self.outlines])


def coco_photographs(annotations: str | Path) -> list[LabelledPhotograph]:
    """All photographs of a COCO file that show an object; crowds are passed over.

    Args:
        annotations: a JSON file of COCO's form; the pictures lie beside it under their `file_name`.

    Raises:
        MissingDataError: if the file is not there.
        DataError: if it is damaged, or shows no object.
    """
    path = Path(annotations)
    content = coco_file(path)
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    objects: dict[Any, list[Mapping[str, Any]]] = {}
    for entry in content["annotations"]:
        if not entry.get("iscrowd"):
            objects.setdefault(entry["image_id"], []).append(entry)
    found = [
        LabelledPhotograph(
            path.parent / image["file_name"],
            [names[entry["category_id"]] for entry in objects[image["id"]]],
            [entry["segmentation"] for entry in objects[image["id"]]],
        )
        for image in content["images"]
        if image["id"] in objects
    ]
    if not found:
        raise DataError(f"{path} has no photograph with an object. Give a file with instance masks.")
    return found
