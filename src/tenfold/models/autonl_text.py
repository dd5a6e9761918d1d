"""The text in which the AutoNL authors' TensorFlow program writes an architecture, as options of `autonl`."""

from __future__ import annotations

import re
from typing import Any

from tenfold.errors import UsageError

_TOKEN = re.compile(r"([a-z]+)([\d.\-]*)")
_KNOWN = ("r", "k", "s", "e", "i", "o", "se", "nonlocal", "a", "p", "noskip", "sw")


def read_official_blocks(text: str) -> list[list[Any]]:
    """The table of blocks that an architecture file of the authors describes, one line for each block.

    A line is tokens joined by "_": `r` repeats, `k` kernel sizes, `s` the stride (two digits), `e` expansion, `i` and
    `o` channels, `se` squeeze, `nonlocal<ratio>-<stride>`. Kernel sizes joined by "." share the hidden channels
    equally, the first takes the remainder.

    Source: `autonl.md` section 6.

    Returns:
        Rows for `build("autonl", blocks=...)`.

    Raises:
        UsageError: if a line is not of this form, or describes what `autonl` does not have.

    Example:
        >>> read_official_blocks("r2_k3.5_s22_e3_i16_o24_se0.5_nonlocal0.25-2")
        [[24, 2, 24, 24, 0.5, 0.25, 2], [24, 1, 36, 36, 0.5, 0.25, 2]]
    """
    rows: list[list[Any]] = []
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), 1):
        tokens = _tokens(line, number)
        try:
            rows += _rows(tokens, is_first=not rows)
        except (KeyError, ValueError) as error:
            raise _refusal(line, number, f"{error}") from error
    return rows


def _tokens(line: str, number: int) -> dict[str, str]:
    tokens = {}
    for token in line.split("_"):
        match = _TOKEN.fullmatch(token)
        if match is None or match[1] not in _KNOWN:
            raise _refusal(line, number, f"{token!r} is no token of it; allowed are {', '.join(_KNOWN)}")
        tokens[match[1]] = match[2]
    if missing := [token for token in ("k", "s", "e", "i", "o") if not tokens.get(token)]:
        raise _refusal(line, number, f"it lacks {', '.join(missing)}")
    return tokens


def _rows(tokens: dict[str, str], *, is_first: bool) -> list[list[Any]]:
    width, channels, expansion = (int(tokens[token]) for token in ("i", "o", "e"))
    kernels = [int(kernel) for kernel in tokens["k"].split(".")]
    stride = int(tokens["s"][0])
    if any(kernel not in (3, 5) for kernel in kernels) or len(set(kernels)) < len(kernels):
        raise ValueError(f"kernel sizes {kernels} are not 3, 5, or both")
    if any(tokens.get(token, "1").strip("1.") for token in ("a", "p")):
        raise ValueError("expanding and projecting convolutions are 1x1 here")
    if (expansion == 1) != is_first:
        raise ValueError("the first block alone has expansion 1")
    if "noskip" in tokens and stride == 1 and width == channels:
        raise ValueError("a block that keeps the shape adds its input here, whatever noskip says")
    ratio, sampling = 0.0, 1
    if "nonlocal" in tokens:
        first, _, second = tokens["nonlocal"].partition("-")
        ratio, sampling = float(first or 1.0), int(second or 1)
    rows = []
    for repeat in range(int(tokens.get("r") or 1)):
        share, rest = divmod(expansion * width, len(kernels))
        counts = {kernel: share + (rest if index == 0 else 0) for index, kernel in enumerate(kernels)}
        light = [float(tokens.get("se") or 0.0), ratio, sampling]
        rows.append([channels, stride if repeat == 0 else 1, counts.get(3, 0), counts.get(5, 0), *light])
        width = channels
    return rows


def _refusal(line: str, number: int, reason: str) -> UsageError:
    return UsageError(
        f"line {number} of the architecture, {line!r}, cannot be read: {reason}. "
        "A line looks like 'r1_k3_s22_e3_i16_o24_se0.25_nonlocal0.25-1'."
    )
