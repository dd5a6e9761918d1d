"""What an ONNX file says of itself, read without any ONNX package.

Tenfold writes one entry, under the key "tenfold": a JSON object with the task (labels, preprocessing), the profile and
the bits. Reading it must not cost the import of a runtime, so this walks over the top level of the file's protobuf.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tenfold.errors import ArtifactError, MissingDataError

KEY = "tenfold"
_METADATA_PROPS = 14  # field numbers of onnx.ModelProto, and of StringStringEntryProto below
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The JSON object that Tenfold stored in an ONNX file; empty if another program wrote the file.

    Raises:
        MissingDataError: if there is no such file.
        ArtifactError: if it is not an ONNX file, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"there is no file {path}. Check the path; `tenfold export` writes ONNX files.")
    if not path.stat().st_size:
        raise _damaged(path, "it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            entries = [
                dict(_fields(content, *entry)) for number, entry in _fields(content, 0, len(content))
                if number == _METADATA_PROPS and isinstance(entry, tuple)
            ]  # fmt: skip
            texts = {_text(content, entry[_ENTRY_KEY]): _text(content, entry[_ENTRY_VALUE]) for entry in entries}
            found = json.loads(texts.get(KEY, "{}"))
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, "its description is not a JSON object")
    return found


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """(number, value) of each field of one protobuf message; byte strings as (start, end) in the file."""
    position = start
    while position < end:
        tag, position = _varint(content, position, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(content, position, end)
            yield number, value
        elif kind == _BYTES:
            length, position = _varint(content, position, end)
            yield number, (position, position + length)
            position += length
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"no ONNX file has a field of kind {kind}")
    if position != end:
        raise ValueError("it ends in the middle of a field")


def _varint(content: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 64:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("it ends in the middle of a number")


def _text(content: mmap.mmap, span: int | tuple[int, int]) -> str:
    if isinstance(span, int):
        raise TypeError("a text was expected")
    return content[span[0] : span[1]].decode("utf-8")


def _damaged(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged, or not an ONNX file: {why}. Export it again, or copy it again.")
