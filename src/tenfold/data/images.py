"""One image in: any common file becomes RGB or grey, eight bits, upright, or an error that names the file.

What is done with what is not plain RGB:

- 16-bit grey is scaled by 255/65535 (Pillow's own conversion would clip it to white);
- transparent pixels are laid over white, as a browser or viewer shows them (dropping alpha would show hidden colours);
- palette, CMYK, YCbCr, two-level and grey images are converted by Pillow; of a sequence the first frame is taken;
- the EXIF orientation is applied;
- 32-bit integers beyond 16 bits and floating-point images are refused, since their range is unknown.

This module needs numpy and Pillow only.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tenfold.errors import DataError, MissingDataError, TenfoldError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""The formats that are opened. Others stay closed: some of Pillow's plug-ins call outside programs."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pnm"}
)  # fmt: skip
"""File name endings, in lower case, that count as images in a folder."""

MAX_PIXELS = 80_000_000
"""Larger images are refused before decoding (80 million pixels are 320 MB in Pillow)."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the upright image."""

_ORIENTATION_TAG = 0x0112
_JPEGS = frozenset({"JPEG", "MPO"})
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image file as upright RGB.

    Returns:
        uint8, (H, W, 3), 0..255.

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it is damaged, too large, of a range that is unknown, or not an image.
    """
    return np.array(load_image(path))


def decode_image(content: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image held in memory as upright RGB; `name` stands for it in errors.

    Returns:
        uint8, (H, W, 3), 0..255.

    Raises:
        DataError: as `read_image`.
    """
    with opened(io.BytesIO(content), name) as (image, orientation):
        return np.array(plain(image, orientation, 3, name))


def load_image(path: str | Path, channels: int = 3) -> Image.Image:
    """Read an image file as an upright Pillow image of mode RGB (3 channels) or L (1 channel).

    Raises:
        MissingDataError: if there is no such file.
        DataError: as `read_image`.
    """
    with opened(path, str(path)) as (image, orientation):
        return plain(image, orientation, channels, str(path))


def load_crop(
    path: str | Path,
    choose: Callable[[int, int], Box],
    size: int,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
    channels: int = 3,
) -> Image.Image:
    """Read one box of an image, resized to a square, decoding no more detail than that needs.

    A JPEG much larger than what is asked is decoded at a half, a quarter or an eighth of its size, which costs a
    fraction of the time; the box keeps at least `size` pixels a side wherever the file has them.

    Args:
        path: the image file.
        choose: called with the width and height of the upright image, returns the box.
        size: side of the square, in pixels.
        resample: filter of the resize.
        channels: 3 for RGB, 1 for grey.

    Raises:
        MissingDataError: if there is no such file.
        DataError: as `read_image`.
    """
    with opened(path, str(path)) as (image, orientation):
        width, height = image.size
        if orientation in _SIDEWAYS:
            width, height = height, width
        left, top, right, bottom = choose(width, height)
        shrink = max(s for s in (1, 2, 4, 8) if s == 1 or s * size <= min(right - left, bottom - top))
        if shrink > 1 or channels == 1:
            stored_width, stored_height = image.size
            image.draft("L" if channels == 1 else "RGB", (stored_width // shrink, stored_height // shrink))
        decoded = plain(image, orientation, channels, str(path))
        across, down = decoded.width / width, decoded.height / height
        box = (left * across, top * down, right * across, bottom * down)
        return decoded.resize((size, size), resample, box=box)


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an upright image in pixels, from the file's header alone.

    The EXIF orientation counts in a JPEG only; in other formats it may stand behind the pixels.

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it is too large, or not an image.
    """
    with _named_errors(str(path)), Image.open(path, formats=FORMATS) as image:
        _check_size(image.size, str(path))
        width, height = image.size
        sideways = image.format in _JPEGS and _orientation(image) in _SIDEWAYS
        return (height, width) if sideways else (width, height)


def check_image(path: str | Path) -> None:
    """Decode a file as cheaply as its format allows, to learn whether it is whole.

    Raises:
        MissingDataError: if there is no such file.
        DataError: as `read_image`.
    """
    with opened(path, str(path)) as (image, orientation):
        image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
        plain(image, orientation, 3, str(path))


@contextmanager
def opened(source: str | Path | io.BytesIO, name: str) -> Iterator[tuple[Image.Image, int]]:
    """Open an image, and check its size before it is decoded; gives it with its EXIF orientation.

    Raises:
        MissingDataError: if there is no such file.
        DataError: for whatever Pillow raises inside the block, with the name.
    """
    with _named_errors(name), Image.open(source, formats=FORMATS) as image:
        _check_size(image.size, name)
        yield image, _orientation(image)


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises inside the block into an error with a name."""
    try:
        yield
    except TenfoldError:
        raise
    except FileNotFoundError as error:
        raise MissingDataError(f"no image at {name}. Check the path.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large(name, str(error))) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} is not an image that can be read: its content is none of {', '.join(FORMATS)}. "
            "Convert it, or remove it from the data."
        ) from error
    except Exception as error:
        # On damaged files Pillow's plug-ins raise nearly anything: OSError, SyntaxError, struct.error, IndexError ...
        raise DataError(
            f"the image {name} cannot be decoded ({error}). It is probably cut short or damaged: "
            "fetch it again, or remove it from the data."
        ) from error


def _orientation(image: Image.Image) -> int:
    if image.format not in _JPEGS:
        image.load()  # its EXIF may follow the pixels; only a JPEG gains from being decoded later
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except (SyntaxError, ValueError, TypeError, struct.error):
        return 1  # damaged EXIF is common, and says nothing about the pixels


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise DataError(_too_large(name, f"{width} x {height} pixels"))


def _too_large(name: str, got: str) -> str:
    return f"the image {name} is too large: {got}; at most {MAX_PIXELS:,} pixels are decoded. Make it smaller first."


def plain(image: Image.Image, orientation: int, channels: int, name: str) -> Image.Image:
    """Decode, bring to RGB or L, and turn upright."""
    image.load()
    if image.mode == "F" or image.mode.startswith("I"):
        image = _from_wide_integers(image, name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(page, image)
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert("RGB").convert(mode)
    return turned_upright(image, orientation)


def turned_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image as its EXIF orientation says."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _from_wide_integers(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" or low < 0 or high > 65535:
        raise DataError(
            f"the image {name} holds numbers of mode {image.mode} from {low:g} to {high:g}; allowed are 8-bit and "
            "16-bit images, since the range of others is unknown. Convert it to 8 bits first."
        )
    return Image.fromarray(np.rint(values * (255 / 65535)).astype(np.uint8))
