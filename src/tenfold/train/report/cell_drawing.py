"""A cell of AutoSpace as inline SVG: its four nodes on a line, the chain between them, and the edges around it."""

from __future__ import annotations

from tenfold.layers.cell_gene import CHAIN, EDGES, IDENTITY, KERNELS, NODES, NONE, POOL, Gene
from tenfold.train.report.markup import Html, tag

_WIDTH, _HEIGHT, _MARGIN, _RADIUS = 340.0, 150.0, 34.0, 13.0
_STEP = (_WIDTH - 2 * _MARGIN) / (NODES - 1)
_MIDDLE = 76.0
# How far above (or below) the line the edges around the chain bend, at their highest.
_BENDS = {"02": -44.0, "13": 44.0, "03": -62.0}

# Colours stand beside the classes, so that a drawing taken out of its page keeps them; in a page its style sheet wins.
_STYLES: dict[str, dict[str, object]] = {
    "kernel": {"class_": "edge line-a", "stroke": "#0d7f77", "fill": "none"},
    "identity": {
        "class_": "edge level",
        "stroke": "#676b73",
        "stroke_width": 1.5,
        "stroke_dasharray": "5 5",
        "fill": "none",
    },
    "pool": {"class_": "edge line-b", "stroke": "#c4661f", "stroke_width": 2, "fill": "none"},
}


def operation_name(code: int) -> str:
    """What a code stands for, in a word.

    Example:
        >>> operation_name(7), operation_name(2)
        ('5x5', 'same')
    """
    words = {NONE: "none", IDENTITY: "same", POOL: "pool"}
    return words[code] if code in words else f"{KERNELS[code]}x{KERNELS[code]}"


def sentence(gene: Gene) -> str:
    """A gene in words, for a tooltip."""
    edges = [f"{e[0]} to {e[1]}: {operation_name(gene.code(e))}" for e in EDGES if gene.code(e) != NONE]
    gates = [f"node {node} is gated" for node in (2, 3) if gene.mix[node - 2] and len(gene.inputs(node)) > 1]
    return f"{gene}: expansion {gene.expansion}; {', '.join([*edges, *gates])}"


def cell_drawing(gene: Gene) -> Html:
    """Draw a cell.

    Green edges are depthwise kernels, the thicker the larger, dashed grey ones pass the map on, brown ones average 3x3.
    A node that adds up shows "+", one whose chain is gated by the others "*".

    Args:
        gene: of the cell.
    """
    parts = [tag("title", sentence(gene))]
    for edge in EDGES:
        if gene.code(edge) != NONE:
            parts += _edge(edge, gene.code(edge))
    for node in range(NODES):
        parts += _node(gene, node)
    return tag(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        class_="chart",
        font_family="sans-serif",
    )


def _edge(edge: str, code: int) -> list[Html]:
    kind = "kernel" if code in KERNELS else "pool" if code == POOL else "identity"
    start, end = (_MARGIN + _STEP * int(node) for node in edge)
    middle = (start + end) / 2
    if edge in CHAIN:
        path, height = f"M{start:g} {_MIDDLE:g} L{end:g} {_MIDDLE:g}", _MIDDLE - 6
    else:
        bend = _BENDS[edge]
        # A quadratic curve reaches half of its control point's height.
        path, height = f"M{start:g} {_MIDDLE:g} Q{middle:g} {_MIDDLE + 2 * bend:g} {end:g} {_MIDDLE:g}", _MIDDLE + bend
        # Inside the bend, so that an arc farther out does not cross it.
        height += -5 if edge == "03" else 15 if bend < 0 else -7
    label = tag(
        "text",
        operation_name(code),
        x=middle,
        y=height,
        class_="tick",
        text_anchor="middle",
        font_size=12,
        fill="#676b73",
    )
    style = dict(_STYLES[kind])
    if code in KERNELS:
        style["stroke_width"] = KERNELS[code] - 0.5  # the larger the kernel, the thicker the line
    return [tag("path", d=path, **style), label]


def _node(gene: Gene, node: int) -> list[Html]:
    arrived = gene.inputs(node)
    text = "in" if node == 0 else ""
    if len(arrived) > 1:
        text = "*" if node > 1 and gene.mix[node - 2] else "+"
    x = _MARGIN + _STEP * node
    circle = tag(
        "circle", cx=x, cy=_MIDDLE, r=_RADIUS, class_="node", fill="#ffffff", stroke="#676b73", stroke_width=1.5
    )
    label = tag(
        "text", text, x=x, y=_MIDDLE + 5, class_="node-text", text_anchor="middle", font_size=14, fill="#1b1d21"
    )
    return [circle, label]
