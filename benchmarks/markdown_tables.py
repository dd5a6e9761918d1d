"""How results are written in Markdown."""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; numbers to the right."""
    ruler = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ruler, *rows))


def where(record: dict[str, Any]) -> str:
    """One line on machine and versions."""
    computer = record["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in computer["versions"].items())
    return (
        f"*{computer['cpu']}, {computer['cores']} cores, Python {computer['python']}, {versions}; {computer['date']}.*"
    )


def spread(values: list[float]) -> str:
    """Mean, deviation, and each value."""
    if not values:
        return "-"
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{deviation} ({', '.join(f'{value:.1f}' for value in values)})"
