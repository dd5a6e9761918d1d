"""Sets of synthetic videos on disk, made once from a seed and read as memory-mapped arrays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tenfold.data.sprite_videos import SpriteSettings, SpriteVideo, make_sprite_video
from tenfold.data.sprites import CutOut
from tenfold.errors import ArtifactError, MissingDataError, UnknownNameError, UsageError
from tenfold.files import write_text, written_whole

SPLITS = ("train", "validation")
"""Both draw their textures, backgrounds, poses and motions from different seeds."""

_FORM = 1


class SpriteSet:
    """Synthetic videos that lie in a folder.

    Args:
        folder: written by `SpriteSet.make`.

    Raises:
        MissingDataError: if the folder holds no such set.
        ArtifactError: if it is damaged, or of another version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            described = json.loads((self.folder / "set.json").read_text(encoding="utf-8"))
            arrays = {
                name: np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in ("frames", "sharp", "objects")
            }
        except FileNotFoundError as error:
            raise MissingDataError(f"there is no set of videos in {folder}; make one with SpriteSet.make.") from error
        except (ValueError, OSError) as error:
            raise ArtifactError(f"the set of videos in {folder} is damaged ({error}); make it again.") from error
        self._described: dict[str, Any] = described
        self._frames, self._sharp, self._objects = arrays["frames"], arrays["sharp"], arrays["objects"]
        shape = self._frames.shape[:4]
        if described.get("form") != _FORM or len(described["videos"]) != shape[0] or self._objects.shape != shape:
            raise ArtifactError(f"the set of videos in {folder} is damaged or of another version; make it again.")

    @classmethod
    def make(
        cls,
        folder: str | Path,
        split: str,
        count: int,
        settings: SpriteSettings | None = None,
        *,
        seed: int = 0,
        photographs: Sequence[NDArray[np.uint8]] = (),
        cut_outs: Sequence[CutOut] = (),
    ) -> Self:
        """Make a set, unless just this one lies there already.

        Args:
            folder: where to put it; about 6 bytes for each pixel of each frame.
            split: one of SPLITS.
            count: videos.
            settings: what happens in them.
            seed: of the set.
            photographs: as `make_sprite_video`.
            cut_outs: as `make_sprite_video`.

        Raises:
            UnknownNameError: if the split is not known.
            UsageError: if count is not positive.
            StorageError: if it cannot be written.
        """
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        if count < 1:
            raise UsageError(f"a set of {count} videos is not allowed; it has at least 1.")
        settings = settings or SpriteSettings()
        folder = Path(folder)
        wanted = {
            "form": _FORM, "split": split, "seed": seed,
            "settings": json.loads(json.dumps(dataclasses.asdict(settings))),
            "made_of": _digest([*photographs, *(part for one in cut_outs for part in (one.picture, one.cover))]),
        }  # fmt: skip
        if _holds(folder, wanted, count):
            return cls(folder)
        shape = (count, settings.frames, settings.height, settings.width)
        videos = []
        with (
            written_whole(folder / "frames.npy") as frames_path,
            written_whole(folder / "sharp.npy") as sharp_path,
            written_whole(folder / "objects.npy") as objects_path,
        ):
            frames, sharp = (_new_array(path, (*shape, 3)) for path in (frames_path, sharp_path))
            objects = _new_array(objects_path, shape)
            for index in range(count):
                seeds = (seed, SPLITS.index(split), index)
                video = make_sprite_video(seeds, settings, photographs=photographs, cut_outs=cut_outs)
                frames[index], sharp[index] = video.frames, video.sharp
                for number in range(len(video.labels)):
                    objects[index][video.masks[:, number]] = number + 1
                videos.append(
                    {
                        "labels": video.labels.tolist(),
                        "degraded": video.degraded.tolist(),
                        "faded": video.faded.tolist(),
                        "lookalikes": video.lookalikes,
                    }
                )
            for array in (frames, sharp, objects):
                array.flush()
        write_text(folder / "set.json", json.dumps(wanted | {"videos": videos}))
        return cls(folder)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> SpriteVideo:
        """One video; its frames are views of the file."""
        facts = self._described["videos"][index]
        labels = np.array(facts["labels"], np.int64)
        numbers = np.arange(1, len(labels) + 1, dtype=np.uint8)[:, None, None]
        pair = facts["lookalikes"]
        return SpriteVideo(
            frames=self._frames[index],
            sharp=self._sharp[index],
            masks=self._objects[index][:, None] == numbers,
            labels=labels,
            degraded=np.array(facts["degraded"], np.bool_),
            faded=np.array(facts["faded"], np.bool_).reshape(-1, len(labels)),
            lookalikes=(int(pair[0]), int(pair[1])) if pair else None,
        )


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    return np.lib.format.open_memmap(path, "w+", np.uint8, shape)


def _holds(folder: Path, wanted: dict[str, Any], count: int) -> bool:
    """Whether the set that lies there is the one that is wanted, complete."""
    try:
        described = json.loads((folder / "set.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return len(described.pop("videos", ())) == count and described == wanted


def _digest(arrays: Sequence[NDArray[Any]]) -> str:
    summed = hashlib.sha256()
    for array in arrays:
        summed.update(str((array.shape, array.dtype)).encode())
        summed.update(np.ascontiguousarray(array).tobytes())
    return summed.hexdigest()
