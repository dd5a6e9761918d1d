"""Masks as run lengths, the way COCO and YouTube-VIS files hold them; by pycocotools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import DataError, ShapeError, require

_MOST_PIXELS = 80_000_000


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask as compressed run lengths down its columns.

    Args:
        mask: bool (H, W).

    Returns:
        `{"size": [H, W], "counts": text}`, ready for JSON.

    Raises:
        ShapeError: if it is not bool (H, W).
        MissingExtraError: if pycocotools is not installed.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ShapeError(f"a mask is {mask.dtype} {mask.shape}; needed is bool (H, W).")
    code = require("pycocotools.mask", "video").encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def decode_mask(code: Mapping[str, Any] | Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.bool_]:
    """A mask from a COCO or YouTube-VIS file.

    Args:
        code: compressed run lengths (`counts` is text), uncompressed ones (`counts` is a list), or polygons, each a
            list x0, y0, x1, y1 ... in pixels.
        height: in pixels.
        width: in pixels.

    Returns:
        bool (H, W).

    Raises:
        DataError: if the code is of none of these forms, or of another size.
        MissingExtraError: if pycocotools is not installed.
    """
    runs = run_lengths(packed_mask(code, height, width)["counts"])
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T.copy()


def packed_mask(code: Mapping[str, Any] | Sequence[Sequence[float]], height: int, width: int) -> dict[str, Any]:
    """As `decode_mask`, but as compressed run lengths, checked: pycocotools' functions may be called with them.

    Returns:
        `{"size": [H, W], "counts": bytes}`.
    """
    coder = require("pycocotools.mask", "video")
    if not 0 < height * width <= _MOST_PIXELS:
        raise DataError(
            f"a mask of {width} x {height} pixels is not decoded; allowed are 1 to {_MOST_PIXELS:,} pixels."
        )
    try:
        if isinstance(code, Mapping):
            if [int(side) for side in code["size"]] != [height, width]:
                raise DataError(f"a mask says that it is of {code['size']}, but its video is of {[height, width]}.")
            counts = code["counts"]
            packed = coder.frPyObjects(dict(code), height, width) if isinstance(counts, list) else dict(code)
        else:
            packed = coder.merge(coder.frPyObjects([list(one) for one in code], height, width))
        text = packed["counts"]
        text = text.encode("ascii") if isinstance(text, str) else bytes(text)
        _check_length(text, height * width)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"a mask cannot be decoded ({error}); needed are run lengths {{'size': [{height}, {width}], 'counts': text "
            "or list of numbers} or a list of polygons."
        ) from error
    return {"size": [height, width], "counts": text}


def _check_length(text: bytes, pixels: int) -> None:
    """Refuse runs that do not end with the mask: C code would leave the rest as it found it, write beyond, or hang."""
    held = sum(run_lengths(text))
    if held != pixels:
        raise DataError(f"the runs of a mask hold {held:,} pixels, but it has {pixels:,}; the file is damaged.")


def run_lengths(text: bytes) -> list[int]:
    """Run lengths from COCO's text: five bits a character, each run from the third on as its change from two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        part = character - 48
        if not 0 <= part < 64 or shift > 35:
            raise DataError(
                f"the text of a mask holds {chr(character)!r}, which run lengths do not; the file is damaged."
            )
        value |= (part & 0x1F) << shift
        shift += 5
        if part & 0x20:
            continue
        if part & 0x10:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            raise DataError("a run of a mask is negative; the file is damaged.")
        runs.append(value)
        value = shift = 0
    if shift:
        raise DataError("the text of a mask ends inside a run; the file is damaged.")
    return runs
