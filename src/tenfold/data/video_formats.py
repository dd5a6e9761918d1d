"""Which video files are opened, and whether a file holds all the bytes that it says it has.

Only formats that keep their pictures inside themselves are allowed. Playlists, manifests, image sequences, devices
and networks stay closed: they make the reader open other files or addresses, so that a "video" of a stranger could
fetch what it has no business to see. A file's ending plays no part; its content decides.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO

FORMATS = ("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "ogg", "flv", "asf", "gif", "yuv4mpegpipe")
"""FFmpeg's names of the containers that are opened: mov is MP4 too, matroska is WebM too, mpeg is a program stream."""

VIDEO_CODECS = (
    "h264", "hevc", "av1", "vp8", "vp9", "theora", "mpeg4", "mpeg2video", "mpeg1video", "h263", "msmpeg4v2",
    "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1", "flv1", "mjpeg", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff",
    "utvideo", "qtrle", "gif", "png", "rawvideo",
)  # fmt: skip
"""FFmpeg's names of the codecs that are decoded."""

_DECODERS = (
    *VIDEO_CODECS, "libdav1d", "libaom-av1", "mpegvideo", "flv", "aac", "aac_fixed", "mp2", "mp2float", "mp3",
    "mp3float", "ac3", "eac3", "opus", "libopus", "vorbis", "libvorbis", "flac", "alac", "wmav1", "wmav2",
    "pcm_s16le", "pcm_s16be", "pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_mulaw", "pcm_alaw",
)  # fmt: skip

OPTIONS = {
    "format_whitelist": ",".join((*FORMATS, "mp4", "webm")),
    "codec_whitelist": ",".join(_DECODERS),
    "protocol_whitelist": "none",  # nothing is opened by name: the one file is handed over open
}
"""Options with which every container is opened."""

_MP4_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"sidx", b"pnot", b"uuid", b"meta"}
)
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MOST_PARTS = 100_000


def declared_bytes(file: BinaryIO) -> int | None:
    """How long a file is by its own account: by the sizes of its outermost parts.

    Args:
        file: open for reading, seekable; its position is moved.

    Returns:
        The end of the last part in bytes, or None where the format does not say (streams, and formats other than MP4,
        MOV, Matroska, WebM and AVI).
    """
    file.seek(0)
    start = file.read(12)
    if start[4:8] in _MP4_BOXES:
        return _end_of_parts(file, _mp4_box)
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return _end_of_parts(file, _riff_chunk)
    if start[:4] == _EBML:
        return _end_of_parts(file, _matroska_element)
    return None


def _end_of_parts(file: BinaryIO, size_of: Callable[[BinaryIO], int | None]) -> int | None:
    """Walk over the outermost parts to the one that ends the file, or passes its end."""
    length = file.seek(0, os.SEEK_END)
    place = 0
    for _ in range(_MOST_PARTS):
        file.seek(place)
        size = size_of(file)
        if size is None or size < 2:
            return None
        place += size
        if place >= length:
            return place
    return None


def _mp4_box(file: BinaryIO) -> int | None:
    """Source: ISO/IEC 14496-12, 4.2: size 1 means that eight more bytes hold it, 0 that the box reaches to the end."""
    head = file.read(16)
    if len(head) < 8 or not head[4:8].isascii():
        return None
    size = int.from_bytes(head[:4], "big")
    if size == 1:
        return int.from_bytes(head[8:16], "big") if len(head) == 16 else None
    return size or None


def _riff_chunk(file: BinaryIO) -> int | None:
    head = file.read(8)
    if len(head) < 8 or head[:4] != b"RIFF":
        return None
    size = int.from_bytes(head[4:], "little")
    return 8 + size + size % 2 if 0 < size < 0xFFFFFFFF else None


def _matroska_element(file: BinaryIO) -> int | None:
    """Source: RFC 8794, 4 to 6: an identifier, then a size whose leading zero bits tell its own length."""
    head = file.read(12)
    if head[:4] not in (_EBML, _SEGMENT) or len(head) < 12 or head[4] == 0:
        return None
    width = 9 - head[4].bit_length()
    value = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
    unknown = (1 << 7 * width) - 1
    return None if value == unknown else 4 + width + value
