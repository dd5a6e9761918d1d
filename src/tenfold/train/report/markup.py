"""The smallest HTML writer that cannot forget to escape."""

from __future__ import annotations

import html


class Html(str):
    """Text that is markup already; every other string is escaped where it enters a page."""

    __slots__ = ()


def tag(name: str, *children: str | Html | None, **attributes: object) -> Html:
    """One element with its children.

    Strings are escaped, `Html` goes in as it is, `None` is left out. An attribute's trailing underscore is dropped and
    the others become dashes (`class_="card"`, `stroke_width=2`); attributes that are `None` are left out.

    Example:
        >>> tag("p", "1 < 2", class_="note")
        '<p class="note">1 &lt; 2</p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str | Html | None) -> Html:
    """Several pieces, one after the other; plain strings are escaped."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child) for child in children if child))


def _attribute(value: object) -> str:
    # Coordinates need no more than a hundredth of a pixel, and short files open faster.
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
