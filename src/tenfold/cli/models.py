"""`tenfold models`: the networks that are known by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.cli.values import shape_text
from tenfold.errors import UnknownNameError

_LIBRARIES = ("timm:", "torchvision:")


def models(pattern: str = "*", /, *, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """List networks whose names match a pattern.

    Args:
        pattern: a name with wildcards, such as "mobilenet*"; "timm:*" and "torchvision:*" search in these libraries.
        as_json: print one JSON object with all that is known about each.
    """
    from tenfold import models as registry

    names = registry.list_models(pattern)
    if not names and not set(pattern) & set("*?["):
        names = registry.list_models(f"*{pattern}*")
    if not names:
        raise UnknownNameError("model", pattern, registry.list_models(), hint="`tenfold models` lists all.")
    facts = [registry.facts(name) for name in names]
    if as_json:
        write_json({"models": [asdict(one) for one in facts]})
        return
    from rich.table import Table

    from tenfold.cost import format_amount

    in_library = pattern.startswith(_LIBRARIES)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("Name", style="bold", no_wrap=True)
    table.add_column("Input", justify="right", no_wrap=True)
    if not in_library:
        table.add_column("MACs", justify="right", no_wrap=True)
        table.add_column("Params", justify="right", no_wrap=True)
    table.add_column("Source" if in_library else "What it is", style="dim")
    for one in facts:
        row = [one.name, shape_text(one.input_shape)]
        if not in_library:
            row += ["" if amount is None else format_amount(amount) for amount in (one.macs, one.params)]
        table.add_row(*row, one.source if in_library else one.summary)
    to_stdout(table)
    if pattern == "*":
        to_stderr("\n[dim]Any network of timm and torchvision works too: `tenfold models 'timm:*'`.[/]")
