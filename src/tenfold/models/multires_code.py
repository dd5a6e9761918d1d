"""The 27 numbers that describe a multi-resolution network: their names, their bounds, their text, and what they cost.

Stage s of four has b_s modules, and in each of them s branches, of which branch j works at stride 4 * 2^j with n_s,j
residual units of c_s,j channels. Two widths of the stem and one of the head complete the code (ncp.md section 2):

    i1 i2 | b1 n c | b2 n n c c | b3 n n n c c c | b4 n n n n c c c c | o1

The cost is a polynomial of the code, so it is computed without building anything: of one code, of a column for each
number of many codes, or of tensors that carry gradients.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tenfold.errors import UsageError

STAGES = 4
LENGTH = 27
COUNT_STEP, CHANNEL_STEP = 1, 8
MOST_UNITS, MOST_CHANNELS = 4, 128
DEFAULT_CODE = (64, 64, 2, 2, 64, 2, 2, 2, 64, 64, 2, 2, 2, 2, 64, 64, 64, 2, 2, 2, 2, 2, 64, 64, 64, 64, 64)
"""64 channels and a count of 2 everywhere: where the authors' search starts."""


class Stage(NamedTuple):
    """One stage of the code."""

    modules: Any
    """How often fusion and branches are repeated."""
    units: Sequence[Any]
    """Residual units of each branch, finest branch first."""
    channels: Sequence[Any]
    """Channels of each branch."""


class CodeCost(NamedTuple):
    """What a code costs; numbers, arrays or tensors, as the code was."""

    macs: Any
    """Multiply-adds of the convolutions and of the classifier, for one image."""
    params: Any
    """Trainable numbers."""
    norm_elements: Any
    """Numbers that come out of all batch norms, for one image."""


def _names() -> Iterator[str]:
    yield from ("i1", "i2")
    for stage in range(1, STAGES + 1):
        yield f"b{stage}"
        for kind in "nc":
            yield from (f"{kind}{stage}_{branch}" for branch in range(1, stage + 1))
    yield "o1"


NAMES = tuple(_names())
"""Name of each number, in order."""
IS_CHANNELS = tuple(name[0] in "ico" for name in NAMES)
"""Whether it counts channels (8 to 128 in the published space) or modules and units (1 to 4)."""


def split_code(code: Sequence[Any]) -> tuple[tuple[Any, Any], list[Stage], Any]:
    """The parts of a code: both widths of the stem, the stages, and the width of the head."""
    stages, at = [], 2
    for branches in range(1, STAGES + 1):
        units = at + 1
        channels, end = units + branches, units + 2 * branches
        stages.append(Stage(code[at], list(code[units:channels]), list(code[channels:end])))
        at = end
    return (code[0], code[1]), stages, code[at]


def parse_code(text: str) -> tuple[int, ...]:
    """Read a code as people and the authors' files write it.

    Args:
        text: 27 numbers with any separators between them, or the authors' 31, `i1_i2-b1_1_n_c-b2_2_n_n_c_c-...-o1`,
            where each stage also says how many branches it has.

    Raises:
        UsageError: if it is neither.

    Example:
        >>> parse_code(write_code(DEFAULT_CODE)) == DEFAULT_CODE
        True
    """
    if not re.fullmatch(r"[\d\s,_|()\[\]-]+", text):
        raise UsageError(f"code {text!r} holds more than whole numbers. {_SHOW}")
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if len(numbers) == LENGTH + STAGES:
        # i1 i2, then b and the number of branches, n and c of each stage.
        places = [3 + sum(2 + 2 * earlier for earlier in range(1, stage)) for stage in range(1, STAGES + 1)]
        if [numbers[place] for place in places] != list(range(1, STAGES + 1)):
            raise UsageError(f"code {text!r}: its stages must say that they have 1, 2, 3 and 4 branches. {_SHOW}")
        numbers = [number for place, number in enumerate(numbers) if place not in places]
    if len(numbers) != LENGTH:
        raise UsageError(
            f"code {text!r} has {len(numbers)} numbers; it takes {LENGTH}, or 31 in the authors' form. {_SHOW}"
        )
    return tuple(numbers)


_SHOW = "A code looks like 16_64-1_1_3_128-3_2_3_3_32_48-2_3_2_3_2_16_32_16-1_4_2_4_1_1_96_112_48_80-112."


def write_code(code: Sequence[int]) -> str:
    """The authors' text form, in which each stage says how many branches it has.

    Raises:
        UsageError: if there are not 27 numbers.
    """
    if len(code) != LENGTH:
        raise UsageError(f"a code has {LENGTH} numbers, not {len(code)}. {_SHOW}")
    stem, stages, head = split_code(code)
    parts = [stem, *((one.modules, len(one.units), *one.units, *one.channels) for one in stages), (head,)]
    return "-".join("_".join(str(int(number)) for number in part) for part in parts)


def code_cost(
    code: Sequence[Any],
    *,
    image: tuple[int, int] = (128, 128),
    num_classes: int = 50,
    in_channels: int = 3,
    pixels: bool = False,
) -> CodeCost:
    """What the network of a code costs, exactly.

    The tables of NAS-Bench-MR state `params` for 50 classes, and as "flops" `macs + 50 + 2 * norm_elements` at 128x128;
    see `benchmark_gmacs`.

    Source: arXiv 2103.13253, published tables (ncp.md section 3.1).

    Args:
        code: 27 numbers, or 27 columns of many codes (whole numbers of 64 bits, or tensors with gradients).
        image: height and width.
        num_classes: outputs of the classifier.
        in_channels: of the images.
        pixels: with the head for semantic segmentation instead of the one for classification.

    Example:
        >>> code_cost(DEFAULT_CODE).macs, code_cost(DEFAULT_CODE).params
        (1952189568, 4128754)
    """
    (first, second), stages, head = split_code(code)
    height, width = (_halved(side) for side in image)
    bill = _Bill()
    bill.add(in_channels, first, 3, height * width)
    height, width = _halved(height), _halved(width)
    bill.add(first, second, 3, height * width)
    areas = []
    for _ in range(STAGES):
        areas.append(height * width)
        height, width = _halved(height), _halved(width)
    incoming = [second]
    for stage in stages:
        for branch, (units, channels) in enumerate(zip(stage.units, stage.channels, strict=True)):
            bill.add(channels, channels, 3, areas[branch], times=2 * units * stage.modules)
        _add_fusion(bill, incoming, stage.channels, areas, 1)
        _add_fusion(bill, stage.channels, stage.channels, areas, stage.modules - 1)
        incoming = list(stage.channels)
    bill.add(sum(incoming), head, 1, areas[0] if pixels else areas[-1])
    macs = bill.macs + head * num_classes * (areas[0] if pixels else 1)
    return CodeCost(macs, bill.params + (head + 1) * num_classes, bill.norm_elements)


def benchmark_gmacs(code: Sequence[Any]) -> Any:
    """What the tables of NAS-Bench-MR call flops, in 1e9: multiply-adds and a little for norms and biases."""
    cost = code_cost(code)
    return (cost.macs + 50 + 2 * cost.norm_elements) / 1e9


class _Bill:
    """Adds up convolutions with the batch norms behind them."""

    def __init__(self) -> None:
        self.macs: Any = 0
        self.params: Any = 0
        self.norm_elements: Any = 0

    def add(self, in_channels: Any, out_channels: Any, kernel: int, area: int, times: Any = 1) -> None:
        weights = in_channels * out_channels * kernel**2 * times
        self.macs = self.macs + weights * area
        self.params = self.params + weights + 2 * out_channels * times
        self.norm_elements = self.norm_elements + out_channels * area * times


def _add_fusion(bill: _Bill, incoming: Sequence[Any], channels: Sequence[Any], areas: list[int], times: Any) -> None:
    kept = min(len(incoming), len(channels))
    for row in range(kept):
        for source in range(max(row - 1, 0), min(row + 2, len(incoming))):
            # A coarser map is mixed before it is enlarged.
            kernel, area = (1, areas[source]) if source > row else (3, areas[row])
            bill.add(incoming[source], channels[row], kernel, area, times)
    if len(channels) > kept:
        bill.add(channels[-2], channels[-1], 3, areas[len(channels) - 1], times)


def _halved(side: int) -> int:
    return (side + 1) // 2
