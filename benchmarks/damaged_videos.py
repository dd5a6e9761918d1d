"""What following makes of 300 damaged, disguised and odd videos: a right result or a typed error, no crash, no leak.

Every file follows from its number: small videos in seven containers are cut short, have bits turned, bytes of their
heads overwritten, blocks lost, doubled or emptied; beside them playlists that call themselves videos, sequences of
pictures, a single frame, odd sizes, a resolution that changes, 60 objects, and nothing that moves. Each is followed
with damage refused and with damage skipped, in child processes, so that a crash is seen and counted.

    python benchmarks/damaged_videos.py              # about a minute of one core
    python benchmarks/damaged_videos.py --count 60   # the first so many; nothing is recorded

Recorded in results/damaged_videos.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from record import machine, write_record
from tenfold.data.clip_video import open_clip_video
from tenfold.errors import TenfoldError
from tenfold.video.erase_follow import Target
from tenfold.video.follow import FollowOptions
from tenfold.video.segment_files import segment_clip

RESULTS = Path(__file__).parent / "results" / "damaged_videos.json"
COUNT = 300
MOST_SECONDS = 60.0
MOST_LEAK_MIB = 8.0
"""Of memory while the same videos are followed again and again."""
REPEATED, ROUNDS, WARM_UP = (14, 29, 44), 20, 6
BATCH = 75

_CONTAINERS = {
    "mp4": "libx264", "mov": "mpeg4", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4", "ts": "mpeg2video",
    "gif": "gif",
}  # fmt: skip
_DISGUISES = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile /etc/passwd\n",
    "dash": '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>/etc/</BaseURL></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "address": "http://127.0.0.1:9/clip.mp4\n",
    "sequence": "frames/%05d.png\n",
    "subtitles": "1\n00:00:00,000 --> 00:00:01,000\n<img src=file:///etc/passwd>\n",
    "script": "#!/bin/sh\nexit 1\n",
    "empty": "",
    "zeros": "\0" * 4096,
}
_ODD = (
    "one frame",
    "17 x 33",
    "63 x 47",
    "2 x 2",
    "1 x 1",
    "300 x 8",
    "changing resolution",
    "60 objects",
    "still",
    "pictures",
)

Frames = NDArray[np.uint8]


def moving_square(count: int = 8, height: int = 48, width: int = 64) -> Frames:
    """A bright square that crosses a textured ground."""
    ground = np.random.default_rng(0).integers(30, 120, (height, width, 3), np.uint8)
    frames = np.repeat(ground[None], count, 0)
    side = max(1, height // 3)
    for at, frame in enumerate(frames):
        frame[height // 3 : height // 3 + side, 2 * at : 2 * at + side] = (250, 220, 20)
    return frames


@cache
def whole_video(container: str) -> bytes:
    """The bytes of a small video."""
    return encoded([moving_square()], container)


def encoded(pieces: list[Frames], container: str) -> bytes:
    """Pieces of video, each with a size of its own, one after the other."""
    joined = b""
    for piece in pieces:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"clip.{container}"
            with av.open(str(path), "w") as file:
                codec = _CONTAINERS[container]
                stream = file.add_stream(codec, rate=25)
                stream.height, stream.width = piece.shape[1:3]
                odd = piece.shape[1] % 2 or piece.shape[2] % 2
                stream.pix_fmt = "rgb8" if codec == "gif" else "yuv444p" if odd and "264" in codec else "yuv420p"
                stream.codec_context.thread_count = 1
                for image in piece:
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                file.mux(stream.encode())
            joined += path.read_bytes()
    return joined


def write_case(number: int, folder: Path) -> tuple[str, Path]:
    """One of the videos.

    Args:
        number: which one.
        folder: an empty folder for it.

    Returns:
        What kind it is, and where.
    """
    rng = np.random.default_rng([2026, number])
    kind, turn = number % 15, number // 15
    container = list(_CONTAINERS)[int(rng.integers(len(_CONTAINERS)))]
    place = folder / f"clip.{container}"
    if kind == 13:
        name = list(_DISGUISES)[turn % len(_DISGUISES)]
        place = folder / "clip.mp4"
        place.write_text(_DISGUISES[name])
        return f"disguise: {name}", place
    if kind == 14:
        name = _ODD[turn % len(_ODD)]
        return f"odd: {name}", write_odd(name, folder)
    content = bytearray(whole_video(container))
    size = len(content)
    if kind in (0, 1, 2):
        del content[int(rng.uniform(0, 1) * size) :]
        damage = "cut short"
    elif kind in (3, 4, 5, 6):
        for at in rng.integers(0, size, int(rng.choice([1, 4, 16, 64]))):
            content[at] ^= 1 << int(rng.integers(8))
        damage = "bits turned"
    elif kind in (7, 8, 9):
        for at in rng.integers(0, min(size, 400), int(rng.choice([1, 4, 32]))):
            content[at] = int(rng.integers(256))
        damage = "head damaged"
    else:
        start, length = int(rng.integers(size)), int(rng.integers(1, size // 4 + 2))
        piece = content[start : start + length]
        if kind == 10:
            content[start : start + length] = bytes(len(piece))
            damage = "block of zeros"
        elif kind == 11:
            content[start : start + length] = b""
            damage = "block lost"
        else:
            other = int(rng.integers(size))
            content[other:other] = piece
            damage = "block doubled"
    place.write_bytes(content)
    return f"{damage}: {container}", place


def write_odd(name: str, folder: Path) -> Path:
    """A video that is whole, but odd."""
    if name == "pictures":
        for at, frame in enumerate(moving_square(4)):
            Image.fromarray(frame).save(folder / f"{at}.png")
        return folder
    path = folder / "clip.mkv"
    if name == "one frame":
        pieces = [moving_square(1)]
    elif name == "changing resolution":
        path = folder / "clip.ts"
        pieces = [moving_square(4), moving_square(4, 64, 96), moving_square(4, 32, 48)]
    elif name == "still":
        pieces = [np.repeat(moving_square(1), 8, 0)]
    elif name == "60 objects":
        pieces = [moving_square(4, 120, 160)]
    else:
        width, height = map(int, name.split(" x "))
        pieces = [moving_square(4, height, width)]
    path.write_bytes(encoded(pieces, path.suffix[1:]))
    return path


def targets_of(kind: str) -> list[Target]:
    """What is pointed at in a video."""
    if kind == "odd: 60 objects":
        return [Target(box=(10 * (at % 12) + 2, 20 * (at // 12) + 2, 8, 16)) for at in range(60)]
    if kind.startswith("odd") and kind.split()[1].isdigit():
        return [Target(click=(0, 0))]
    return [Target(box=(0, 14, 18, 18), time=Fraction(0))]


def judge(number: int, damage: Literal["refuse", "skip"]) -> dict[str, Any]:
    """Follow through one video, and say what came of it.

    Returns:
        `kind`; `outcome`: "right", "error NAME", or what is wrong; CPU `seconds`.
    """
    with tempfile.TemporaryDirectory() as name:
        inner, out = Path(name) / "in", Path(name) / "out"
        inner.mkdir()
        kind, place = write_case(number, inner)
        began = time.process_time()
        try:
            report = segment_clip(
                place,
                out / "tracks.json",
                targets_of(kind),
                options=FollowOptions(longest_side=160),
                overlay=out / "overlay.mp4",
                damage=damage,
            )
            outcome = checked(place, out, report.frames, damage)
            if kind == "odd: 60 objects" and len(report.tracks) != 60:
                outcome = f"{len(report.tracks)} objects of 60"
        except TenfoldError as error:
            left = [path.name for path in out.iterdir()] if out.is_dir() else []
            outcome = f"left behind {left}" if left else f"error {type(error).__name__}"
            if kind.startswith("odd"):
                outcome = f"refused: {error}"
        except Exception as error:
            outcome = f"untyped {type(error).__name__}: {error}"
        seconds = time.process_time() - began
    if seconds > MOST_SECONDS:
        outcome = f"took {seconds:.0f} s"
    if kind.startswith("disguise") and not outcome.startswith("error"):
        outcome = f"opened a disguise ({outcome})"
    return {"kind": kind, "outcome": outcome, "seconds": round(seconds, 3)}


def checked(place: Path, out: Path, frames: int, damage: Literal["refuse", "skip"]) -> str:
    """Whether a result has what the video holds, frame by frame."""
    with open_clip_video(place, damage=damage) as video:
        held = sum(1 for _ in video)
    tracks = json.loads((out / "tracks.json").read_text())
    with open_clip_video(out / "overlay.mp4") as video:
        shown = sum(1 for _ in video)
    lengths = {len(entry[key]) for entry in tracks for key in ("segmentations", "frame_scores", "times")}
    if {held, shown, *lengths} != {frames}:
        return f"{held} frames held, {frames} followed, {shown} shown, tracks of {lengths}"
    if any(
        later <= sooner for entry in tracks for sooner, later in zip(entry["times"], entry["times"][1:], strict=False)
    ):
        return "times do not rise"
    return "right"


def memory_mib() -> float:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def work(numbers: list[int], sender: Connection) -> None:
    """In a child: judge some videos, and tell of each before it begins and when it is done."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for number in numbers:
        for damage in ("refuse", "skip"):
            sender.send(("begins", number, damage))
            row = judge(number, damage)
            open_files = len(list(Path("/proc/self/fd").iterdir()))
            sender.send(("done", row | {"damage": damage, "memory_mib": memory_mib(), "open_files": open_files}))


def judged(numbers: list[int]) -> Iterator[dict[str, Any]]:
    """All videos, in children that are begun again after a crash."""
    context = multiprocessing.get_context("spawn")
    while numbers:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=work, args=(numbers[:BATCH], sender), daemon=True)
        child.start()
        sender.close()
        doing: tuple[int, str] | None = None
        try:
            while receiver.poll(10 * MOST_SECONDS):
                message = receiver.recv()
                if message[0] == "begins":
                    doing = message[1:]
                else:
                    doing = None
                    yield message[1] | {"child": child.pid}
            child.kill()
        except EOFError:
            pass
        child.join()
        if doing is None:
            numbers = numbers[BATCH:]
        else:
            outcome = f"crash or hang (exit code {child.exitcode})"
            yield {"kind": "?", "damage": doing[1], "outcome": outcome, "number": doing[0], "seconds": 0.0}
            numbers = numbers[numbers.index(doing[0]) + 1 :]


def is_fine(outcome: str) -> bool:
    """Whether it is what is promised."""
    return outcome == "right" or outcome.startswith("error ")


def files_kept(rows: list[dict[str, Any]]) -> int:
    """How many open files the children gained, from the twentieth video on, at most."""
    kept = 0
    for child in {row.get("child") for row in rows} - {None}:
        own = [row for row in rows if row.get("child") == child][20:]
        kept = max(kept, own[-1]["open_files"] - own[0]["open_files"]) if own else kept
    return kept


def leaked_mib() -> float:
    """What this process gains while it follows the same videos again and again."""
    held = []
    for _ in range(ROUNDS):
        for number in REPEATED:
            judge(number, "skip")
        held.append(memory_mib())
    return held[-1] - held[WARM_UP]


def main() -> None:
    """Judge all videos, and print what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=COUNT)
    count = parser.parse_args().count
    rows = []
    for row in judged(list(range(count))):
        rows.append(row)
        if not is_fine(row["outcome"]):
            print(row, flush=True)
    outcomes = Counter(f"{row['kind'].split(':')[0]} | {row['damage']} | {row['outcome']}" for row in rows)
    for outcome, number in sorted(outcomes.items()):
        print(f"{number:4} {outcome}")
    files, memory = files_kept(rows), leaked_mib()
    wrong = sum(not is_fine(row["outcome"]) for row in rows)
    slowest = max(row["seconds"] for row in rows)
    print(f"{wrong} wrong of {len(rows)}; memory {memory:+.1f} MiB, open files +{files}, slowest {slowest:.1f} s")
    if count == COUNT:
        record = {
            "machine": machine(), "videos": count, "runs": len(rows), "wrong": wrong, "memory_leaked_mib": memory,
            "open_files_growth": files, "slowest_seconds": slowest, "outcomes": dict(sorted(outcomes.items())),
        }  # fmt: skip
        write_record(RESULTS, record)
    if wrong or memory > MOST_LEAK_MIB or files > 0:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
