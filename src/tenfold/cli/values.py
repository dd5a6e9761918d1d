"""Values that people write on a command line, read with errors that say how to write them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tenfold.cli.artifacts import artifact_path
from tenfold.errors import ShapeError, UsageError

if TYPE_CHECKING:
    from tenfold.jobs import Processes, RayCluster

ARTIFACT_SUFFIX, ONNX_SUFFIX = ".safetensors", ".onnx"
_FLOAT_BITS = 32


def parse_bits(text: str) -> tuple[int, int]:
    """Bits of weights and activations: "4/4", or "4" for both.

    Raises:
        UsageError: if it is not one or two numbers that are 1 to 8 or 32.

    Example:
        >>> parse_bits("4/8"), parse_bits("3")
        ((4, 8), (3, 3))
    """
    found = _bits_of(text)
    if found is None:
        raise UsageError(
            f"--bits {text!r} is not allowed. Write WEIGHTS/ACTIVATIONS, each 1 to 8 or 32 for float, such as 4/4 or "
            "4/8."
        )
    return found


def parse_widths(text: str) -> list[tuple[int, int]]:
    """Several bit-widths: "8,6,4", or with pairs "8,4/8".

    Raises:
        UsageError: if one of them is none, or comes twice.

    Example:
        >>> parse_widths("8,4/8")
        [(8, 8), (4, 8)]
    """
    widths: list[tuple[int, int]] = []
    for part in text.split(","):
        width = _bits_of(part)
        if width is None:
            raise UsageError(
                f"--bits {text!r} is not allowed: {part!r} is no bit-width. Write WEIGHTS/ACTIVATIONS, each 1 to 8 or "
                "32 for float, such as 4/4 or 4/8; several with commas, such as 8,6,5,4."
            )
        if width in widths:
            raise UsageError(f"--bits {text!r} names {part} twice; keep one of them.")
        widths.append(width)
    return widths


def _bits_of(text: str) -> tuple[int, int] | None:
    parts = text.split("/")
    if len(parts) not in (1, 2) or not all(part.strip().isdecimal() for part in parts):
        return None
    w_bits, a_bits = int(parts[0]), int(parts[-1])
    is_allowed = all(1 <= bits <= 8 or bits == _FLOAT_BITS for bits in (w_bits, a_bits))
    return (w_bits, a_bits) if is_allowed else None


def parse_like(text: str) -> int:
    """The network whose cost is the budget: "uniform:3".

    Raises:
        UsageError: if it is none.

    Example:
        >>> parse_like("uniform:3")
        3
    """
    kind, _, bits = text.partition(":")
    if kind == "uniform" and bits.isdecimal() and 1 <= int(bits) <= 8:
        return int(bits)
    raise UsageError(f"--like {text!r} is not allowed. Write uniform:BITS with 1 to 8 bits, such as uniform:3.")


def parse_jobs(text: str, *, gpus: int = 0) -> Processes | RayCluster:
    """Where many jobs run: "4" processes at a time, "ray", or "ray://HOST:PORT".

    Args:
        text: what was given.
        gpus: graphics cards that each job needs; Ray has to know.

    Raises:
        UsageError: if it is none of them.

    Example:
        >>> parse_jobs("4").count, parse_jobs("ray://head:10001").address
        (4, 'ray://head:10001')
    """
    from tenfold.jobs import Processes, RayCluster

    if text.isdecimal() and int(text):
        return Processes(int(text))
    if text == "ray" or re.fullmatch(r"ray://[^/\s]+:\d+", text):
        return RayCluster(None if text == "ray" else text, gpus)
    raise UsageError(
        f"--jobs {text!r} is not allowed. Write how many at a time, such as 4; or ray, or ray://HOST:PORT."
    )


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape of one image: "3x224x224".

    Raises:
        ShapeError: if it is not numbers above zero with an x between them.

    Example:
        >>> parse_shape("3x224x224")
        (3, 224, 224)
    """
    if re.fullmatch(r"[1-9]\d{0,5}([xX][1-9]\d{0,5})*", text.strip()):
        return tuple(int(size) for size in text.lower().split("x"))
    raise ShapeError(f"--input {text!r} is not a shape. Write CHANNELSxHEIGHTxWIDTH, such as 3x224x224.")


def shape_text(shape: Sequence[int]) -> str:
    """A shape as `parse_shape` reads it.

    Example:
        >>> shape_text((3, 224, 224))
        '3x224x224'
    """
    return "x".join(map(str, shape))


def parse_settings(settings: Sequence[str], prefix: str = "", flag: str = "--set") -> dict[str, Any]:
    """Options such as "width=0.5", their values read as JSON where they are JSON and as text where not.

    Args:
        settings: what was given.
        prefix: a first word that may stand before the name, such as "model."; it is dropped.
        flag: where they were given, for messages.

    Raises:
        UsageError: if one has no name or no value.

    Example:
        >>> parse_settings(["model.width=0.5", "activation=relu"], "model.")
        {'width': 0.5, 'activation': 'relu'}
    """
    options: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip().removeprefix(prefix)
        if not (name and equals and text.strip()):
            raise UsageError(f"{flag} {setting!r} is not NAME=VALUE, such as width=0.5.")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text.strip()
    return options


def is_file_name(target: str) -> bool:
    """Whether a word means a file, or a run folder with an artifact, and not the name of a model."""
    return (
        target.endswith((ARTIFACT_SUFFIX, ONNX_SUFFIX))
        or "/" in target
        or "\\" in target
        or (":" not in target and artifact_path(target).is_file())
    )
