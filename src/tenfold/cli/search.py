"""`tenfold search`: find a network among many candidates. One search is one file, `search_NAME.py`."""

from __future__ import annotations

from cyclopts import App

# The search, the function that it calls, its line of help. Nothing is imported until the search is typed.
_SEARCHES: tuple[tuple[str, str, str], ...] = (
    (
        "autospace",
        "search_autospace:autospace",
        "Evolve a space of cells and find a network in it that keeps a budget.",
    ),
    (
        "ncp",
        "search_ncp:ncp",
        "Propagate network codes towards targets, learning from a table of candidates.",
    ),
    ("fetch", "search_fetch:fetch", "Fetch a published table of trained candidates."),
    ("measure", "search_measure:measure", "Train many candidates briefly, and keep a table of what each reached."),
)

app = App(name="search", help="Find a network among many candidates.", help_format="plaintext")
for _name, _target, _sentence in _SEARCHES:
    app.command(f"tenfold.cli.{_target}", name=_name, help=_sentence)
