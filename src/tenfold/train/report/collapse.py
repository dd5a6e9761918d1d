"""The page of a collapse analysis: matrices of block similarity, and curves over the depth of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenfold.files import write_text
from tenfold.train.report.charts import Line, line_chart
from tenfold.train.report.markup import Html, tag
from tenfold.train.report.matrix import matrix_chart
from tenfold.train.report.page import page
from tenfold.train.report.parts import figure, section

_NAMES = {
    "used": "maps that multiply the values",
    "used, centred": "the same without their mean",
    "softmax": "softmax maps before re-attention",
    "softmax, centred": "the same without their mean",
}


def write_collapse_page(name: str, found: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page of one analysis.

    Args:
        name: of the network.
        found: as `Collapse.to_dict` gives it.
        path: the file to write.

    Returns:
        The path written.

    Raises:
        StorageError: if the file could not be written.
    """
    write_text(path, render_collapse_page(name, found))
    return Path(path)


def render_collapse_page(name: str, found: Mapping[str, Any]) -> str:
    """The page as text; see `write_collapse_page`."""
    threshold = found["threshold"]
    maps: Mapping[str, Mapping[str, Any]] = found["maps"]
    counts = ", ".join(f"{one['similar_blocks']} ({kind})" for kind, one in maps.items())
    facts = (
        f"{found['images']} images, {found['tokens']} tokens, {len(found['blocks'])} blocks, "
        f"{len(found['reattention'])} of them with re-attention. Similar blocks at a cosine above {threshold:g} for "
        f"more than {found['share']:.0%} of the vectors: {counts}."
    )
    matrices = [
        figure(_NAMES[kind], matrix_chart(one["matrix"], title=f"similarity of blocks, {_NAMES[kind]}", name="block"))
        for kind, one in maps.items()
    ]
    raw, centred = maps["used"], maps["used, centred"]
    ratio = _chart(
        "share of vectors similar to the next block",
        {"raw": raw["ratios"][str(threshold)], "centred": centred["ratios"][str(threshold)]},
    )
    heads = _chart("cosine between heads of a block", {"raw": raw["heads"], "centred": centred["heads"]})
    entropy = _chart("entropy of softmax maps", {"": found["entropy"]})
    features = _chart("cosine of tokens", {"to last": found["features_to_last"], "to next": found["features_to_next"]})
    tokens = _chart("cosine between tokens of an image", {"": found["between_tokens"]})
    body = tag(
        "main",
        tag(
            "header",
            tag("p", tag("span", "Tenfold", class_="brand"), " collapse analysis", class_="over"),
            tag("h1", name),
            tag("p", facts, class_="quiet"),
        ),
        section("How alike the attention maps of blocks are", tag("div", *matrices, class_="charts")),
        section(
            "Over the depth of the network",
            tag(
                "div",
                figure(
                    "Maps similar to those of the next block", ratio, f"cosine above {threshold:g}, by {found['axis']}"
                ),
                figure("Heads of one block", heads, "low: the heads look at different things"),
                figure("Entropy of the maps", entropy, "1: uniform maps, which are alike whatever the block"),
                figure("Features", features, "1: the block changes nothing any more"),
                figure("Tokens of one image", tokens, "1: over-smoothed, all tokens are the same"),
                class_="charts",
            ),
        ),
    )
    return page(f"{name} · collapse · Tenfold", body)


def _chart(title: str, curves: Mapping[str, Sequence[float]]) -> Html:
    lines = [
        Line(label or title, style, list(enumerate(map(float, values))), end=label)
        for (label, values), style in zip(curves.items(), ("line-a", "line-b"), strict=False)
    ]
    return line_chart(lines, title=title, x_label="block", spell=lambda value: f"{value:.2f}", covers=(0.0, 1.0))
