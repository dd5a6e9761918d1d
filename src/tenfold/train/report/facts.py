"""What a report says, read from its dictionary with care: a key may be missing, a number may not be finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]

COSTS = (("bytes", "Size"), ("bitops", "BitOPs"), ("macs", "MACs"), ("params", "Parameters"))
LABELS = {**dict(COSTS), "latency_ms": "Latency"}
"""What can be limited, and how it is called."""


def number(value: Any) -> float:
    """A number, or NaN for anything else (JSON has no NaN: writers put null or a word)."""
    if isinstance(value, bool):
        return math.nan
    try:
        read = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    # Beyond what a 32-bit float can hold nothing was measured, and drawings would overflow.
    return read if abs(read) < 3.5e38 else math.nan


def amount(value: Any) -> float:
    """A number that is not negative, or NaN for anything else."""
    read = number(value)
    return read if read >= 0 else math.nan


def numbers(value: Any) -> list[float]:
    """The numbers in a list, NaN for what is none; a single number counts as a list of one."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [number(one) for one in value]
    return [] if value is None or isinstance(value, Mapping) else [number(value)]


def table(value: Any) -> Mapping[str, Any]:
    """A mapping, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def rows(value: Any) -> Sequence[Mapping[str, Any]]:
    """A list of mappings; a single mapping counts as a list of one."""
    if isinstance(value, Mapping):
        return [value]
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, Sequence | tuple) else []


def name_of(value: Any, *keys: str) -> str:
    """The name in a plain string, or in a description under one of the keys."""
    for key in keys:
        if table(value).get(key):
            return str(table(value)[key])
    return "" if value is None or isinstance(value, Mapping) else str(value)


def model_name(report: Report) -> str:
    """The network's name."""
    return name_of(report.get("model"), "name") or "network"


def task_name(report: Report) -> str:
    """The task's name."""
    return name_of(report.get("task"), "task", "name")


def method_names(report: Report) -> list[str]:
    """The methods' names, in the order they were applied."""
    methods = report.get("methods")
    if isinstance(methods, str | Mapping):
        methods = [methods]
    return [name for name in (name_of(method, "kind", "name") for method in methods or ()) if name]


def engine(report: Report) -> str:
    """By what the quantized layers were computed, and why; "" for a report that does not say so."""
    told = table(report.get("engine"))
    if told.get("used") == "integer":
        layers = table(told.get("layers"))
        integers = sum(str(state).startswith("integers") for state in layers.values())
        return f"{integers} of {len(layers)} multiply integers, backward in {told.get('backward')}"
    return f"simulated in float ({told.get('why')})" if told.get("used") else ""


def main_metric(report: Report) -> str:
    """The metric that the headline shows: the one the report names, else top-1, else the first."""
    named = report.get("main_metric")
    if named:
        return str(named)
    final = table(table(report.get("metrics")).get("final"))
    return "top1" if "top1" in final or not final else next(iter(final))


def metric(report: Report, when: str) -> float:
    """The main metric of the "float", "final" or "best" network; NaN where it was not measured."""
    value = table(report.get("metrics")).get(when)
    return number(table(value).get(main_metric(report)) if isinstance(value, Mapping) else value)


def metric_label(name: str) -> str:
    """A metric's name as people write it.

    Example:
        >>> metric_label("top1"), metric_label("ap50"), metric_label("pixel_accuracy")
        ('Top-1', 'AP50', 'Pixel accuracy')
    """
    if name == "miou":
        return "mIoU"
    if name[:2] in ("ap", "ar") and not name[2:].strip("0123456789"):
        return name.upper()
    if name.startswith("top") and name[3:].isdigit():
        return f"Top-{name[3:]}"
    return name.replace("_", " ").capitalize()


def counted_for(report: Report) -> str:
    """What costs are those of: one "image", "frame" or "window"."""
    return name_of(report.get("takes")) or "image"


def cost(report: Report, when: str, quantity: str) -> float:
    """One total cost "before" or "after"; NaN where it is unknown."""
    return number(table(table(report.get("cost")).get(when)).get(quantity))


def bits(value: Any) -> float:
    """A bit-width: 32 stands for float, and is what an untouched layer has."""
    width = number(value)
    return width if math.isfinite(width) else 32.0


def budget_asked(report: Report) -> dict[str, float]:
    """The limits that were set, by quantity."""
    asked = report.get("budget")
    if isinstance(table(asked).get("asked"), Mapping):
        asked = table(asked)["asked"]
    limits = {key: number(value) for key, value in table(asked).items()}
    return {key: value for key, value in limits.items() if math.isfinite(value)}
