"""What a table's codes stand for and what its candidates were trained on, so that a find can be counted and trained."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tenfold.errors import DataError, TenfoldError
from tenfold.models import Architecture
from tenfold.search.candidates import CODED, CandidateSpace
from tenfold.search.code_spaces import MULTIRES, CodeSpace
from tenfold.search.option_space import OptionSpace


@dataclass(frozen=True, kw_only=True)
class MeasuredTask:
    """A task that candidates were trained on."""

    kind: str
    """A name of the task registry."""
    options: Mapping[str, Any]
    """Options of it, among them `data`; empty where the data is not at hand."""
    image: tuple[int, int]
    """Height and width of what the networks saw, in pixels."""
    in_channels: int
    num_classes: int
    per_pixel: bool
    """A class for each pixel."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the rows of a table come from."""

    candidates: CandidateSpace
    tasks: Mapping[str, MeasuredTask]
    """Task of the table -> what it was."""

    @property
    def is_coded(self) -> bool:
        """Whether the candidates are codes of the multi-resolution network."""
        return self.candidates.model == CODED

    @functools.cached_property
    def space(self) -> CodeSpace:
        """The space of the codes."""
        return MULTIRES if self.is_coded else OptionSpace(self.candidates.model, self.candidates.choices)

    def architecture(self, code: tuple[int | float, ...], *, per_pixel: bool) -> Architecture:
        """The network of a code as people write it, without what the task decides (outputs and input channels)."""
        return self.candidates.architecture(dict(zip(self.space.names, code, strict=True)), per_pixel=per_pixel)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "model": self.candidates.model,
            "choices": {name: list(values) for name, values in self.candidates.choices.items()},
            "tasks": {name: asdict(task) for name, task in self.tasks.items()},
        }

    @classmethod
    def from_dict(cls, content: Any) -> Origin:
        """Read what `to_dict` wrote; it may come from anywhere.

        Raises:
            DataError: if it has another form, or names a model that is not known here.
        """
        try:
            tasks = {str(name): _task(found) for name, found in content["tasks"].items()}
            choices = {str(name): tuple(values) for name, values in content["choices"].items()}
            if not all(type(value) in (int, float) for values in choices.values() for value in values):
                raise ValueError("choices must be numbers")
            return cls(candidates=CandidateSpace(model=str(content["model"]), choices=choices), tasks=tasks)
        except TenfoldError as error:
            raise DataError(str(error)) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"what it says of its origin is damaged ({type(error).__name__}: {error}).") from error


def _task(found: Mapping[str, Any]) -> MeasuredTask:
    height, width = map(int, found["image"])
    return MeasuredTask(
        kind=str(found["kind"]),
        options=dict(found["options"]),
        image=(height, width),
        in_channels=int(found["in_channels"]),
        num_classes=int(found["num_classes"]),
        per_pixel=bool(found["per_pixel"]),
    )


def _published(kind: str, num_classes: int) -> MeasuredTask:
    # The published costs are those at 128x128, whatever a task's images were.
    return MeasuredTask(
        kind=kind,
        options={},
        image=(128, 128),
        in_channels=3,
        num_classes=num_classes,
        per_pixel=kind == "segment",
    )


NAS_BENCH_MR = Origin(
    candidates=CandidateSpace.multires(),
    tasks={
        "cls-50-1000": _published("classify", 50),
        "cls-50-100": _published("classify", 50),
        "cls-10-1000": _published("classify", 10),
        "cls-10c": _published("classify", 50),
        "seg": _published("segment", 19),
        "seg-4x": _published("segment", 19),
        "video": _published("recognize", 51),
        "video-p": _published("recognize", 51),
    },
)
"""The published tasks: ImageNet's subsets, Cityscapes and HMDB51 (arXiv 2103.13253; ncp.md section 4)."""
