"""Tracks of one video to a file, frame by frame, in the form of YouTube-VIS' results; memory stays flat."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tenfold.data.run_lengths import encode_mask
from tenfold.errors import StorageError
from tenfold.files import written_whole
from tenfold.video.segment import Seen


@dataclass
class TrackFacts:
    """What is known of one object so far.

    Args:
        id: its name.
        first: the first frame that it is seen on.
        last: the last one.
        frames: how many frames it is seen on.
        score: sum of its scores.
        categories: how often it was taken for each.
    """

    id: int
    first: int
    last: int
    frames: int = 0
    score: float = 0.0
    categories: Counter[int] = field(default_factory=Counter)

    @property
    def category(self) -> int:
        """What it was mostly taken for."""
        return self.categories.most_common(1)[0][0]

    @property
    def mean_score(self) -> float:
        """Over the frames that it is seen on, 0..1."""
        return self.score / max(self.frames, 1)


class TrackWriter:
    """Writes a JSON list with an entry for each object; a context manager.

    An entry has what YouTube-VIS asks for (`video_id`, `category_id`, `score`, and `segmentations` with run lengths or
    null for each frame), and beside it `frame_scores`, `id`, `category` (a name), `width`, `height` and `times` of all
    frames in seconds. Masks wait on the disk until the end, since the form has one object after the other.

    Args:
        path: the file; it appears when the block ends without an error.
        size: (height, width) of the frames.
        categories: names by number.
        video_id: what the video is called in the file.

    Raises:
        StorageError: if it cannot be written.
    """

    def __init__(
        self, path: str | Path, size: tuple[int, int], categories: Mapping[int, str], *, video_id: int = 1
    ) -> None:
        self.path = Path(path)
        self.tracks: dict[int, TrackFacts] = {}
        self.frames = 0
        self._size, self._categories, self._video_id = size, categories, video_id
        with ExitStack() as stack:
            self._part = stack.enter_context(written_whole(self.path))
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".tracks"))
            self._folder = Path(folder)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                with self._part.open("w", encoding="utf-8") as file:
                    self._write(file)
            except BaseException as failed:
                if not self._stack.__exit__(type(failed), failed, failed.__traceback__):
                    raise
                return
        self._stack.__exit__(kind, error, trace)

    def add(self, seen: Mapping[int, Seen], time: Fraction) -> None:
        """Take the next frame.

        Args:
            seen: objects on it by their ids.
            time: when it is shown, in seconds.

        Raises:
            StorageError: if the disk is full.
        """
        for name, one in seen.items():
            facts = self.tracks.setdefault(name, TrackFacts(name, self.frames, self.frames))
            facts.last, facts.frames, facts.score = self.frames, facts.frames + 1, facts.score + one.score
            facts.categories[one.category] += 1
            counts = encode_mask(one.mask)["counts"]
            self._append(str(name), f"{self.frames} {one.score:.4f} {counts}\n")
        self._append("times", f"{float(time):.6f}\n")
        self.frames += 1

    def _append(self, name: str, line: str) -> None:
        try:
            # Opened each time: there may be more objects than files that a process may hold.
            with (self._folder / name).open("a", encoding="ascii") as file:
                file.write(line)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error.strerror or error}. Make room.") from error

    def _write(self, file: IO[str]) -> None:
        file.write("[")
        for at, facts in enumerate(self.tracks.values()):
            category = self._categories.get(facts.category, str(facts.category))
            plain: dict[str, Any] = {
                "video_id": self._video_id, "category_id": facts.category, "score": round(facts.mean_score, 6),
                "id": facts.id, "category": category, "width": self._size[1], "height": self._size[0],
            }  # fmt: skip
            file.write(("," if at else "") + "\n" + json.dumps(plain)[:-1] + ', "segmentations": [')
            size = json.dumps({"size": list(self._size)})[:-1]
            for number, line in enumerate(self._lines(facts.id)):
                counts = "null" if line is None else f'{size}, "counts": {json.dumps(line[1])}}}'
                file.write((", " if number else "") + counts)
            file.write('], "frame_scores": [')
            for number, line in enumerate(self._lines(facts.id)):
                file.write((", " if number else "") + ("0.0" if line is None else line[0]))
            file.write('], "times": [')
            with (self._folder / "times").open(encoding="ascii") as times:
                for number, time in enumerate(times):
                    file.write((", " if number else "") + time.strip())
            file.write("]}")
        file.write("\n]\n")

    def _lines(self, name: int) -> Iterator[tuple[str, str] | None]:
        """Score and run lengths on each frame; None where it is not seen."""
        with (self._folder / str(name)).open(encoding="ascii") as lines:
            upcoming = next(lines, "").split()
            for number in range(self.frames):
                if upcoming and int(upcoming[0]) == number:
                    yield upcoming[1], upcoming[2]
                    upcoming = next(lines, "").split()
                else:
                    yield None
