"""A clip from a browser to the disk: counted while it comes, and gone without a trace if it does not come whole."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

from starlette.exceptions import HTTPException

_WRITE_BYTES = 1 << 20
_LEAST_RATE, _GRACE_SECONDS = 16 * 1024, 30.0
"""Bytes a second that an upload must reach after the first seconds, so that a slow one does not hold its place."""
_MOST_NAME = 80


async def receive_file(stream: AsyncIterator[bytes], path: Path, most: int) -> int:
    """Write a stream to a new file.

    Args:
        stream: the pieces.
        path: of the file.
        most: bytes that it may have.

    Returns:
        Its bytes.

    Raises:
        HTTPException: with 413 if it is longer or the disk is full, 408 if it comes too slowly, 400 if it is empty.
    """
    loop = asyncio.get_running_loop()
    began, got, waiting = loop.time(), 0, bytearray()
    try:
        with path.open("xb") as file:
            async for piece in stream:
                got += len(piece)
                if got > most:
                    raise HTTPException(413, f"The clip is larger than the {most // 2**20} MB that there is room for.")
                spent = loop.time() - began
                if spent > _GRACE_SECONDS and got < _LEAST_RATE * spent:
                    raise HTTPException(408, "The clip comes too slowly.")
                waiting += piece
                if len(waiting) >= _WRITE_BYTES:
                    await asyncio.to_thread(file.write, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(file.write, bytes(waiting))
    except OSError as error:
        raise HTTPException(413, "There is no room left on the disk. Delete some clips first.") from error
    if not got:
        raise HTTPException(400, "The clip is empty.")
    return got


def display_name(header: str) -> str:
    """What a clip is called to people: no part of it is ever a path.

    Args:
        header: the name as the browser sent it, percent-encoded UTF-8.

    Example:
        >>> display_name("../../etc/%E2%80%AEpass%00wd.mp4")
        'passwd.mp4'
    """
    name = unquote(header, errors="replace").replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(letter for letter in name if unicodedata.category(letter)[0] not in "CZ" or letter == " ")
    return name.strip(" .")[:_MOST_NAME] or "clip"
