"""Tar archives of small images (one folder a class), decoded once into arrays in the cache folder.

An archive is read as a stream and its images are decoded in memory: nothing is extracted, so no name in it can place a
file anywhere, and limits keep a hostile archive from filling memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from tenfold.data.arrays import ArrayImages
from tenfold.data.cache import cache_folder
from tenfold.data.images import decode_image
from tenfold.data.threads import Progress
from tenfold.errors import DataError, StorageError
from tenfold.files import write_text, written_whole

SUFFIXES = (".tar.xz", ".tar.gz", ".tgz", ".tar.bz2", ".tar")
MAX_MEMBER_BYTES = 16 * 2**20
MAX_MEMBERS = 5_000_000
MAX_DECODED_BYTES = 4 * 2**30

_LAYOUT = 1  # of the cache; a higher number makes old caches invalid
_log = logging.getLogger(__name__)


def load_archive(path: Path, progress: Progress | None = None) -> tuple[ArrayImages, tuple[str, ...]]:
    """Images and class names of an archive, from the cache when it was decoded before.

    Args:
        path: the archive; members are `.../CLASS/NAME.jpg`, all of one size.
        progress: called while decoding.

    Returns:
        The images sorted by class and name, mapped from the cache, and the class names, sorted.

    Raises:
        DataError: if the archive is cut short, damaged, or holds something else.
    """
    digest = _digest(path)
    folder = cache_folder() / "archives" / f"{path.name.split('.')[0]}-{digest[:16]}"
    cached = _read_cache(folder, digest)
    if cached is not None:
        return cached
    pixels, targets, labels = decode_archive(path, progress)
    try:
        _write_cache(folder, digest, pixels, targets, labels)
    except StorageError as error:
        _log.warning("The decoded images are not kept, so the next start decodes again: %s", error)
    return _read_cache(folder, digest) or (ArrayImages(pixels, targets), labels)


def decode_archive(
    path: Path, progress: Progress | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Decode every image of an archive.

    Returns:
        Images uint8 (N, 3, H, W), classes int64 (N,) and the class names; sorted by class and file name, whatever
        the order in the archive.

    Raises:
        DataError: if the archive is cut short, damaged, empty, beyond the limits, or its images differ in size.
    """
    names: list[tuple[str, str]] = []
    images: list[NDArray[np.uint8]] = []
    for label, name, content in _members(path, progress):
        image = decode_image(content, f"{name} in {path}").transpose(2, 0, 1)
        if images and image.shape != images[0].shape:
            raise DataError(
                f"{path}: {name} is {image.shape[2]} x {image.shape[1]} pixels, but the images before it are "
                f"{images[0].shape[2]} x {images[0].shape[1]}. Archives hold images of one size: extract it and give "
                "the folder instead."
            )
        names.append((label, name))
        images.append(image)
        if image.nbytes * len(images) > MAX_DECODED_BYTES:
            raise DataError(
                f"{path} holds more than {MAX_DECODED_BYTES / 2**30:g} GiB of decoded images. "
                "Extract it and give the folder instead."
            )
    if not images:
        raise DataError(f"{path} holds no images; expected are members named CLASS/NAME.jpg.")
    labels = tuple(sorted({label for label, _ in names}))
    order = sorted(range(len(names)), key=names.__getitem__)
    pixels = np.empty((len(images), *images[0].shape), np.uint8)  # (N, 3, H, W)
    for place, source in enumerate(order):
        pixels[place] = images[source]
    class_of = {label: number for number, label in enumerate(labels)}
    targets = np.array([class_of[names[source][0]] for source in order], np.int64)
    return pixels, targets, labels


def _members(path: Path, progress: Progress | None) -> Iterator[tuple[str, str, bytes]]:
    """Class, name and content of each image, in the archive's order."""
    total = path.stat().st_size
    with _damage_named(path), path.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as archive:
        count = end = 0
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every member
            count += 1
            end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if count > MAX_MEMBERS or member.size > MAX_MEMBER_BYTES:
                raise DataError(
                    f"{path}: {member.name!r} is member {count} and has {member.size} bytes; allowed are "
                    f"{MAX_MEMBERS} members of at most {MAX_MEMBER_BYTES} bytes."
                )
            place = PurePosixPath(member.name)
            if member.isdir() or place.name.startswith("."):
                continue
            if not member.isreg():
                raise DataError(f"{path}: {member.name!r} is a link or a device; only plain .jpg files are allowed.")
            if place.suffix.lower() not in (".jpg", ".jpeg"):
                continue
            if len(place.parts) < 2:
                raise DataError(f"{path}: {member.name!r} lies in no class folder; expected is CLASS/NAME.jpg.")
            content = archive.extractfile(member)
            yield place.parts[-2], member.name, content.read() if content else b""
            if progress is not None and count % 500 == 0:
                progress(min(1.0, file.tell() / total))
        # A whole archive ends with an empty block; tarfile takes a file cut between two members for a whole one.
        if archive.fileobj is None or archive.fileobj.tell() < end + tarfile.BLOCKSIZE:
            raise EOFError("the mark at its end is missing")
    if progress is not None:
        progress(1.0)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        raise DataError(
            f"the archive {path} cannot be read to its end ({error}). It is cut short or damaged: fetch it again."
        ) from error


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"the archive {path} cannot be opened: {error.strerror}.") from error


def _write_cache(
    folder: Path, digest: str, pixels: NDArray[np.uint8], targets: NDArray[np.int64], labels: tuple[str, ...]
) -> None:
    for name, array in (("pixels", pixels), ("targets", targets)):
        with written_whole(folder / f"{name}.npy") as part, part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    # Written last: where it stands, the arrays are whole.
    write_text(folder / "index.json", json.dumps({"layout": _LAYOUT, "sha256": digest, "labels": labels}))


def _read_cache(folder: Path, digest: str) -> tuple[ArrayImages, tuple[str, ...]] | None:
    """What was decoded before, or None where nothing whole is there (it is then made again)."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if (index["layout"], index["sha256"]) != (_LAYOUT, digest):
            return None
        pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        targets = np.load(folder / "targets.npy", allow_pickle=False)
        return ArrayImages(pixels, targets), tuple(index["labels"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
