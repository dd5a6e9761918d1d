"""One erasing as `tenfold erase` was told to do it, here or in another process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tenfold.errors import TenfoldError

if TYPE_CHECKING:
    from tenfold.cli.filling_network import EngineName
    from tenfold.video.erase import EraseOptions
    from tenfold.video.erase_files import EraseProgress, EraseReport
    from tenfold.video.erase_masks import What
    from tenfold.video.filling import Filling


class EraseStopped(TenfoldError):  # noqa: N818 - it is a wish fulfilled, not an error
    """Erasing was asked to stop; what is filled is kept."""

    exit_code = 130


@dataclass(frozen=True, kw_only=True)
class EraseOrder:
    """What `tenfold erase` was told; see there."""

    clip: Path
    out: Path
    what: What
    options: EraseOptions
    find: Path | None
    classes: tuple[str, ...]
    least_score: float
    network: str | None
    network_weights: Path | None
    seam: int
    device: str
    engine: EngineName
    rate: Fraction | None
    lossless: bool
    quality: int
    sound: bool
    damage: Literal["refuse", "skip"]
    resume: bool

    def all_that_goes(self, threads: int | None = None) -> What:
        """What is to go, with what a network finds; see `open_segmenter` and `Found` for the errors."""
        if self.find is None:
            return self.what
        from tenfold.cli.finding_network import open_segmenter
        from tenfold.video.erase_find import Found
        from tenfold.video.erase_work import stamp

        segmenter = open_segmenter(
            self.find, least_score=self.least_score, device=self.device, engine=self.engine, threads=threads
        )
        found = Found(segmenter, self.classes, [stamp(self.find), self.least_score, self.engine])
        return replace(self.what, found=found)

    def filling(self, threads: int | None = None, memory: Path | None = None) -> Filling | None:
        """What fills what no frame shows; see `make_filling`."""
        from tenfold.cli.filling_network import make_filling

        return make_filling(
            self.network,
            self.network_weights,
            seam=self.seam,
            device=self.device,
            engine="auto" if self.network is None and self.find is not None else self.engine,
            threads=threads,
            memory=memory,
        )

    def carry_out(self, *, threads: int | None = None, progress: EraseProgress | None = None) -> EraseReport:
        """Do it; see `erase_clip` for the errors.

        Args:
            threads: of the network; None for one a core.
            progress: called after each frame.
        """
        from tenfold.video.erase_files import erase_clip
        from tenfold.video.erase_work import work_folder

        what = self.all_that_goes(threads)
        report = erase_clip(
            self.clip,
            self.out,
            what,
            options=self.options,
            filling=self.filling(threads, work_folder(self.out) / "engine.json"),
            filling_name=self._filling_name(),
            rate=self.rate,
            lossless=self.lossless,
            quality=self.quality,
            sound=self.sound,
            damage=self.damage,
            resume=self.resume,
            progress=progress,
        )
        return report if what.found is None else replace(report, find_engine=what.found.segmenter.engine)

    def _filling_name(self) -> str:
        """What tells the filling from others: what was said, and the files that the network is read from."""
        from tenfold.cli.filling_network import network_files
        from tenfold.video.erase_work import stamp

        files = [stamp(one) for one in network_files(self.network, self.network_weights)]
        return json.dumps([self.network, str(self.network_weights), self.seam, self.engine, files])

    def with_whole_paths(self) -> EraseOrder:
        """The same order for a process that works in another folder."""

        def whole(path: Path | None) -> Path | None:
            return path and path.absolute()

        what = replace(
            self.what,
            masks=whole(self.what.masks),
            tracks=whole(self.what.tracks),
            targets=tuple(replace(one, mask=whole(one.mask)) for one in self.what.targets),
        )
        network = self.network
        if network is not None and Path(network).exists():
            network = str(Path(network).absolute())
        return replace(
            self,
            clip=self.clip.absolute(),
            out=self.out.absolute(),
            what=what,
            find=whole(self.find),
            network=network,
            network_weights=whole(self.network_weights),
        )

    def asked(self) -> str:
        """All that the result follows from, files by their sizes and times; whether to go on is no part of it."""
        from tenfold import __version__
        from tenfold.video.erase_work import stamp

        files = [stamp(one) for one in (self.clip, self.find) if one]
        told = {**asdict(replace(self, resume=True)), "what": self.what.asked()}
        return json.dumps([__version__, files, self._filling_name(), told], default=str, sort_keys=True)
