"""The frame of every page that Tenfold writes: its head, its style, and what a browser may do with it."""

from __future__ import annotations

from importlib import resources

from tenfold.train.report.markup import Html, join, tag

# No script, no font, no image from elsewhere: the page may be mailed, archived and opened without a network. The policy
# makes the browser enforce what the tests check.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, body: Html) -> str:
    """A whole page as text.

    Args:
        title: of the window.
        body: what stands in it.
    """
    style = resources.files("tenfold.train.report").joinpath("page.css").read_text(encoding="utf-8")
    head = join(
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        tag("style", Html(style)),
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'
