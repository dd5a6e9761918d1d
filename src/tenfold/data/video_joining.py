"""Videos put together again from pieces that were encoded one by one: packets are copied, nothing is encoded anew."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

from tenfold.data.video import Damage, VideoLimits
from tenfold.data.video_container import open_container
from tenfold.data.video_writing import MUXERS, SoundCopy, close_quietly, open_sound, storage_errors
from tenfold.errors import DataError, UsageError
from tenfold.files import written_whole


def join_videos(
    pieces: Sequence[tuple[Path, Fraction]],
    out: str | Path,
    *,
    sound_from: str | Path | None = None,
    damage: Damage = "refuse",
) -> None:
    """Join files that `VideoWriter` wrote with the same settings.

    Args:
        pieces: each file with the time in seconds at which its first frame is shown, rising. In its file, the first
            frame of each is at time 0.
        out: the file to write; its ending is one of MUXERS.
        sound_from: see VideoWriter.
        damage: what to do where the sound is damaged; see VideoWriter.

    Raises:
        UsageError: if there is no piece, or the ending is not allowed.
        DataError: if a piece is damaged, or was written with other settings.
        StorageError: if the result cannot be written; what stood there before stays.
    """
    import av

    out = Path(out)
    muxer = MUXERS.get(out.suffix.lower())
    if muxer is None or not pieces:
        raise UsageError(
            f"{len(pieces)} pieces cannot be joined to {out}; needed is one at least, and an ending of "
            f"{', '.join(MUXERS)}."
        )
    with ExitStack() as stack:
        sound_file = open_sound(stack, Path(sound_from)) if sound_from is not None else None
        part = stack.enter_context(written_whole(out))
        with storage_errors(out):
            container = av.open(str(part), "w", format=muxer, container_options={"fflags": "bitexact"})
        stack.callback(close_quietly, container)
        video: Any = None
        header = b""
        sound: SoundCopy | None = None
        for path, start in pieces:
            with ExitStack() as reading:
                piece = _open_piece(reading, path)
                stream = piece.streams.video[0]
                if video is None:
                    header = bytes(stream.codec_context.extradata or b"")
                    video = container.add_stream_from_template(stream)
                    video.time_base = stream.time_base
                    sound = SoundCopy(sound_file, container, damage) if sound_file is not None else None
                elif bytes(stream.codec_context.extradata or b"") != header:
                    raise DataError(f"the piece {path} was encoded with other settings than the first. Begin anew.")
                _copy(piece, stream, video, start, container, sound, out)
        with storage_errors(out):
            if sound is not None:
                sound.copy_until(None)
            container.close()


def _open_piece(stack: ExitStack, path: Path) -> Any:
    file, container = open_container(path, VideoLimits.pixels, whole=True)
    stack.callback(file.close)
    stack.callback(container.close)
    if not container.streams.video:
        raise DataError(f"the piece {path} holds no video; it is damaged. Begin anew.")
    return container


def _copy(
    piece: Any, stream: Any, video: Any, start: Fraction, container: Any, sound: SoundCopy | None, out: Path
) -> None:
    """Copy the packets of a piece, with the sound that is heard meanwhile."""
    shift = start / stream.time_base
    if shift.denominator != 1:
        raise DataError(f"the piece {piece.name} counts time in {stream.time_base} s, in which {start} s is no number.")
    for packet in piece.demux(stream):
        if packet.dts is None:
            continue
        packet.pts += int(shift)
        packet.dts += int(shift)
        seconds = packet.pts * Fraction(packet.time_base)
        packet.stream = video
        with storage_errors(out):
            container.mux(packet)
            if sound is not None:
                sound.copy_until(seconds)
