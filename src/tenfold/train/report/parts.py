"""What sections are made of: headings, bars, figures and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from tenfold.train.report import numbers
from tenfold.train.report.markup import Html, tag


def section(title: str | Html, *content: Html | None) -> Html:
    """A part of the page under its heading."""
    return tag("section", tag("h2", title), *content)


def bar(share: float, style: str, hint: str = "") -> Html:
    """A bar that fills a share of its track."""
    # A bar that stands for something is never invisible.
    width = f"width:{max(0.4, 100 * share):.1f}%"
    return tag("div", tag("div", class_=f"fill {style}", style=width), class_="track", title=hint or None)


def bar_row(name: str | Html, value: str, share_text: str, share: float | None, style: str) -> Html:
    """A named bar with its value and what is said about it; an empty track where the share is unknown."""
    return tag(
        "div",
        tag("span", name, class_="bar-name"),
        bar(share, style, value) if share is not None else tag("div", class_="track"),
        tag("span", value, class_="bar-value"),
        tag("span", share_text, class_="bar-share"),
        class_="bar-row",
    )


def limit_row(name: str, got: float, limit: float, spell: Callable[[float], str], digits: int = 0) -> Html:
    """How much of a limit is used: the bar's full length is the limit.

    What exceeds it is drawn in the warning colour over the whole length.
    """
    if not math.isfinite(got) or limit <= 0:
        return bar_row(name, f"at most {spell(limit)}", "not measured", None, "")
    share = got / limit
    return bar_row(
        name,
        f"{spell(got)} of {spell(limit)}",
        numbers.percent(share, digits),
        min(1.0, share),
        "fill-after" if share <= 1 else "fill-over",
    )


def figure(caption: str, drawing: Html, note: str = "", style: str | None = None) -> Html:
    """A drawing under its caption, with a word on how to read it below."""
    below = tag("p", note, class_="quiet") if note else None
    return tag("figure", tag("figcaption", caption), drawing, below, class_=style)


def table(head: Iterable[tuple[str, str]], body: Iterable[Html]) -> Html:
    """A table that scrolls within itself on narrow screens; `head` holds titles and their classes."""
    cells = tag("tr", *(tag("th", title, scope="col", class_=style) for title, style in head))
    return tag("div", tag("table", tag("thead", cells), tag("tbody", *body)), class_="scroll")


def table_row(cells: Iterable[tuple[str | Html, str]]) -> Html:
    """One row of a table: contents and their classes."""
    return tag("tr", *(tag("td", content, class_=style) for content, style in cells))


def details(summary: str, content: Html) -> Html:
    """What opens with a click."""
    return tag("details", tag("summary", summary), content)


def swatch(style: str) -> Html:
    """A sample of a colour, for a key."""
    return tag("span", class_=f"swatch {style}")


def whole(text: str) -> Html:
    """A number and its unit, never parted at the end of a line."""
    return tag("span", text, class_="whole")


def badge(good: bool, yes: str, no: str) -> Html:
    """A verdict in a heading."""
    return tag("span", yes if good else no, class_=f"badge {verdict(good)}")


def verdict(good: bool) -> str:
    """The class of good or bad news."""
    return "good" if good else "bad"
