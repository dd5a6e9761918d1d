"""Choosing one of the bit-widths of a file that the profile `switchable` wrote; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tenfold.errors import ArtifactError, UsageError

WIDTH_INPUT = "bits"
"""The graph's second input: the index of the width, an int64 without dimensions."""

ONE_FILE_EACH = "export each width to a file of its own (--profile compact --bits 4, and so on)"
"""What to do where one file cannot hold all widths."""

Bits: TypeAlias = int | tuple[int, int]
"""A width as users say it: bits of weights and activations, or a pair of both."""

# The input as a field of onnx.GraphProto, and an initializer of the same name and as many bytes: its length must not
# change, for all that is around it is counted in bytes. A comment of one letter fills it up.
_INPUT_FIELD = b"\x5a\x0e\x0a\x04bits\x12\x06\x0a\x04\x08\x07\x12\x00"
_CONSTANT_FIELD = b"\x2a\x0e\x10\x07\x42\x04bits\x3a\x01%c\x62\x01-"


def read_widths(path: Path, metadata: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """The (weight bits, activation bits) that a file can run at; none if there is nothing to choose.

    Raises:
        ArtifactError: if the file says nonsense.
    """
    try:
        return tuple((int(w), int(a)) for w, a in metadata.get("widths", ()))
    except (TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} is damaged: its list of bit-widths is no list of pairs. Export it again."
        ) from error


def find_width(path: Path, widths: Sequence[tuple[int, int]], bits: Bits | None) -> int | None:
    """The index of a width of a file.

    Args:
        path: the file.
        widths: what `read_widths` gives.
        bits: the width that is wanted; None for the widest.

    Returns:
        None if the file has one width only, and none was asked for.

    Raises:
        UsageError: if the file does not have it; the message names those it has.
    """
    if bits is None:
        return max(range(len(widths)), key=widths.__getitem__) if widths else None
    wanted = (bits, bits) if isinstance(bits, int) else (bits[0], bits[1])
    if not widths:
        raise UsageError(
            f"{path} has one bit-width only, so {width_text(wanted)} bits cannot be chosen. A network trained with the "
            "method adabits has several; export it with the profile switchable."
        )
    if wanted not in widths:
        raise UsageError(
            f"{path} has no width of {width_text(wanted)} bits; it has {', '.join(map(width_text, widths))}."
        )
    return list(widths).index(wanted)


def with_built_in(content: bytes, position: int) -> bytes | None:
    """A file whose width is a constant, so that a runtime computes all that depends on it once, when it is loaded.

    The copy has no second input. It is made without any ONNX package, which would take longer to import than most
    networks to run.

    Args:
        content: of a file with the input WIDTH_INPUT.
        position: index of the width, below 128.

    Returns:
        None if the input is not found as Tenfold writes it, such as after another program has rewritten the file.
    """
    if content.count(_INPUT_FIELD) != 1:
        return None
    return content.replace(_INPUT_FIELD, _CONSTANT_FIELD % position)


def width_text(width: tuple[int, int]) -> str:
    """A width as the command line takes it: "4", or "4/8" where weights and activations differ."""
    return str(width[0]) if width[0] == width[1] else f"{width[0]}/{width[1]}"
