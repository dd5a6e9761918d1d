"""The sections on a segmentation: how good each class is, and pictures of answers with the key to their colours."""

from __future__ import annotations

import base64
import math
import re
from pathlib import Path

from tenfold.data.label_sets import IOU_PREFIX
from tenfold.train.report import facts, numbers
from tenfold.train.report.facts import Report
from tenfold.train.report.markup import Html, join, tag
from tenfold.train.report.parts import bar_row, section

_LARGEST_PICTURE = 8 * 2**20
_ORDER = (
    "From left to right: the image, the truth, the answer. Darkened pixels of the truth have no class and do not count."
)


def classes(report: Report) -> Html | None:
    """Intersection over union of each class, as bars."""
    final = facts.table(facts.table(report.get("metrics")).get("final"))
    rows = []
    for label, swatch in _colours(report).items():
        share = facts.number(final.get(f"{IOU_PREFIX}{label}"))
        is_known = math.isfinite(share)
        said = numbers.percent(share) if is_known else "does not occur"
        rows.append(bar_row(join(swatch, label), "", said, share if is_known else None, "fill-after"))
    if not rows or not any(key.startswith(IOU_PREFIX) for key in final):
        return None
    note = tag(
        "p", "Intersection over union on the evaluation images: common pixels over those of truth or answer.",
        class_="quiet",
    )  # fmt: skip
    return section("Classes", note, tag("div", *rows, class_="bars wide-shares"))


def pictures(report: Report, folder: Path | None) -> Html | None:
    """The pictures of the run folder, in the page itself, with a legend."""
    drawn = []
    for row in facts.rows(report.get("pictures")):
        content = _content(str(row.get("file", "")), folder)
        if content is not None:
            source = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
            caption = facts.name_of(row.get("caption"))
            image = tag("img", src=source, alt=f"{caption}: image, truth and answer")
            drawn.append(tag("figure", tag("figcaption", caption), image, class_="picture"))
    if not drawn:
        return None
    legend = [tag("span", swatch, label, class_="whole") for label, swatch in _colours(report).items()]
    return section(
        "Answers",
        tag("p", _ORDER, class_="quiet"),
        tag("p", *legend, class_="quiet legend"),
        tag("div", *drawn, class_="pictures"),
    )


def _content(file: str, folder: Path | None) -> bytes | None:
    """A picture of the run; nothing else that a report may name is opened."""
    if folder is None or not re.fullmatch(r"pictures/[0-9]{1,3}\.png", file):
        return None
    path = folder / file
    if not path.is_file() or path.stat().st_size > _LARGEST_PICTURE:
        return None
    return path.read_bytes()


def _colours(report: Report) -> dict[str, Html]:
    """A sample of its colour for each class; empty for other tasks."""
    task = facts.table(report.get("task"))
    labels, colours = task.get("labels"), task.get("colours")
    if not isinstance(labels, list) or not isinstance(colours, list):
        return {}
    return {
        str(label): tag("span", class_="swatch", style=f"background:{_hex(colour)}")
        for label, colour in zip(labels, colours, strict=False)
    }


def _hex(colour: object) -> str:
    levels = [level for level in facts.numbers(colour) if 0 <= level <= 255]
    return "#" + "".join(f"{round(level):02x}" for level in levels) if len(levels) == 3 else "#000000"
