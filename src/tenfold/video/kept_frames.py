"""Frames kept on the disk for the way back: small, and all but as they were."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def packed(frame: NDArray[np.uint8]) -> bytes:
    """A frame, uint8 (H, W, 3), as JPEG of high quality."""
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=95, subsampling=0)
    return content.getvalue()


def unpacked(content: bytes) -> NDArray[np.uint8]:
    """The frame that was packed."""
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as picture:
        return np.array(picture)
