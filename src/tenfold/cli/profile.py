"""`tenfold profile`: what a network costs, as a table a person enjoys or as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from tenfold.cli.artifacts import open_artifact
from tenfold.cli.output import stdout_width, to_stderr, to_stdout, write_json
from tenfold.cli.values import ONNX_SUFFIX, is_file_name, parse_bits, parse_settings, parse_shape, shape_text
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from tenfold.cost import LayerCost, Profile

_FLOAT = 32
# Beyond so many rows a table no longer fits on a screen, and layers are shown by the block that they stand in.
_MOST_ROWS = 32
_BAR_CELLS = 16
_ROOMY_WIDTH = 105


def profile(
    target: str,
    /,
    *,
    shape: Annotated[str | None, Parameter(name="--input")] = None,
    bits: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    code: str | None = None,
    layers: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Count what a network costs for one image: MACs, parameters, BitOPs and bytes.

    Args:
        target: a model's name (also timm:NAME and torchvision:NAME), or an artifact (.safetensors)
            or the run folder that holds it, or an .onnx file.
        shape: CHANNELSxHEIGHTxWIDTH of the image; default: what the network was made for.
        bits: WEIGHTS/ACTIVATIONS, such as 4/4, for all layers but the first and the last, which have 8-bit weights.
        settings: an option of the model, such as --set width=0.5; may be repeated.
        code: of a multi-resolution network: its 27 numbers, or the text form of NAS-Bench-MR.
        layers: show every layer instead of grouping them by block.
        as_json: print one JSON object with "macs", "params", "bytes", "bitops" and the layers.
    """
    if is_file_name(target) and target.endswith(ONNX_SUFFIX):
        _profile_onnx(target, as_json=as_json)
        return
    from tenfold import cost

    wanted = parse_bits(bits) if bits else None
    options = parse_settings(settings, "model.")
    if code is not None:
        from tenfold.models.multires_code import parse_code

        options["code"] = list(parse_code(code))
    if is_file_name(target):
        network, made_for = _from_artifact(target, options)
    else:
        network, made_for = _from_name(target, options, parse_shape(shape) if shape else None)
    image = parse_shape(shape) if shape else made_for
    counted = cost.profile(network, image, bits=wanted)
    if as_json:
        write_json({"name": target, "input": image, "bits": wanted, **counted.to_dict()})
        return
    to_stdout(cost_table(counted, title=target, image=image, every_layer=layers, width=stdout_width()))


def _from_name(name: str, options: dict[str, Any], image: Sequence[int] | None) -> tuple[nn.Module, tuple[int, ...]]:
    from tenfold import models

    facts = models.facts(name)
    if image is not None:
        facts.check_input(image)
    if facts.takes == "image" and image is not None and image[0] != facts.input_shape[0]:
        options.setdefault("in_channels", image[0])
    return models.build(name, **options), facts.input_shape


def _from_artifact(path: str, options: dict[str, Any]) -> tuple[nn.Module, tuple[int, ...]]:
    from tenfold.data import read_preprocess

    if options:
        raise UsageError("--set and --code do not go with an artifact: its network is built already.")
    network, header = open_artifact(path)
    return network, read_preprocess(header["task"]["preprocess"]).input_shape


def _profile_onnx(path: str, *, as_json: bool) -> None:
    """What an ONNX file says of itself, and what is in it."""
    from tenfold.cost import format_amount
    from tenfold.export import inspect_onnx

    facts = inspect_onnx(path)
    noted = facts.metadata
    found = {
        "profile": noted.get("profile"),
        "input": noted.get("input_shape"),
        "widths": noted.get("widths"),
        "layers_by_bits": noted.get("bits"),
        "operators": facts.operators,
        "weights": facts.weights,
    }
    if as_json:
        write_json({"name": path, "bytes": facts.file_bytes, **found})
        return
    to_stdout(f"[bold]{Path(path).name}[/]  {format_amount(facts.file_bytes, 'B')}")
    if noted:
        bits = ", ".join(f"{count} layers at {pair}" for pair, count in (noted.get("bits") or {}).items())
        to_stdout(
            f"profile {noted.get('profile')}, input {shape_text(noted.get('input_shape') or ())}, {bits or 'float'}"
        )
    else:
        to_stderr("[dim]Not exported by Tenfold: for costs, profile the network by name.[/]")
    to_stdout("weights    " + ", ".join(f"{format_amount(count)} {kind}" for kind, count in facts.weights.items()))
    to_stdout("operators  " + ", ".join(f"{count} {name}" for name, count in facts.operators.items()))


def cost_table(
    counted: Profile, *, title: str, image: Sequence[int], every_layer: bool = False, width: int = 120
) -> Table:
    """The bill of a network for people: a row a layer, or a row a block where there are many.

    Args:
        counted: the rows.
        title: the network's name.
        image: its input, for the title.
        every_layer: never group.
        width: columns of the screen; on a narrow one the less important is left out, so that no number is cut.
    """
    from rich.table import Table
    from rich.text import Text

    from tenfold.cost import format_amount

    quantized = any(layer.w_bits < _FLOAT or layer.a_bits < _FLOAT for layer in counted.layers)
    roomy = width >= _ROOMY_WIDTH
    cells = _BAR_CELLS if roomy else _BAR_CELLS // 2
    heading = Text.assemble((title, "bold"), (f"  {shape_text(image)}", "dim"))
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False, header_style="dim", show_footer=True)

    def add_column(name: str, total: str = "", style: str = "", justify: Literal["left", "right"] = "right") -> None:
        table.add_column(name, total, justify=justify, style=style, no_wrap=True, footer_style="bold")

    table.add_column("Layer", Text("Total", "bold"), overflow="fold")
    if roomy:
        add_column("Kind", style="dim", justify="left")
        add_column("Output", style="dim")
    if quantized:
        add_column("Bits W/A")
    add_column("MACs", format_amount(counted.macs))
    add_column("Share", justify="left")
    add_column("Params", format_amount(counted.params))
    add_column("Size", format_amount(counted.size_bytes, "B"))
    if quantized:
        add_column("BitOPs", format_amount(counted.bitops))
    groups = _groups(counted, every_layer)
    largest = max((sum(layer.macs for layer in group) for _, group in groups), default=0)
    for name, group in groups:
        macs = sum(layer.macs for layer in group)
        share = f" {macs / counted.macs:5.1%}" if macs else ""
        row: list[Any] = [name or "(network)"]
        row += [_kinds(group), _sizes(group)] if roomy else []
        row += [_bits(group)] if quantized else []
        row += [
            format_amount(macs) if macs else "",
            Text.assemble((bar(macs, largest, cells), "cyan"), (share, "dim")),
            format_amount(sum(layer.params for layer in group)),
            format_amount(sum(layer.size_bytes for layer in group), "B"),
        ]
        row += [format_amount(sum(layer.bitops for layer in group)) if macs else ""] if quantized else []
        table.add_row(*row)
    return table


def bar(part: float, whole: float, cells: int = _BAR_CELLS) -> str:
    """A thin bar, half a cell fine; something is never drawn as nothing.

    Example:
        >>> bar(3, 8, cells=4)
        '━╸  '
    """
    halves = math.ceil(2 * cells * part / whole - 0.5) if whole else 0
    halves = max(halves, 1) if part else 0
    return ("━" * (halves // 2) + "╸" * (halves % 2)).ljust(cells)


def _groups(counted: Profile, every_layer: bool) -> list[tuple[str, list[LayerCost]]]:
    """Rows by the longest prefix of their names that makes few enough of them."""
    rows = [layer for layer in counted.layers if layer.macs or layer.params]
    if every_layer:
        return [(layer.name, [layer]) for layer in rows]
    for depth in range(max((layer.name.count(".") + 1 for layer in rows), default=1), 0, -1):
        groups: dict[str, list[LayerCost]] = {}
        latest = ""
        for layer in rows:
            # What multiplies nothing, such as a norm, belongs to the layer before it.
            latest = ".".join(layer.name.split(".")[:depth]) if layer.macs or not groups else latest
            groups.setdefault(latest, []).append(layer)
        if len(groups) <= _MOST_ROWS:
            break
    return list(groups.items())


def _kinds(group: Sequence[LayerCost]) -> str:
    counts: dict[str, int] = {}
    for layer in group:
        if layer.macs or len(group) == 1:
            counts[layer.kind] = counts.get(layer.kind, 0) + 1
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in counts.items())


def _sizes(group: Sequence[LayerCost]) -> str:
    shapes = [layer.output_shape for layer in group if layer.output_shape]
    return shape_text(shapes[-1][1:]) if shapes else ""


def _bits(group: Sequence[LayerCost]) -> str:
    pairs = {(layer.w_bits, layer.a_bits) for layer in group if layer.macs}
    return ", ".join(f"{_width(w)}/{_width(a)}" for w, a in sorted(pairs, reverse=True))


def _width(bits: float) -> str:
    return "fp" if bits == _FLOAT else f"{bits:.3g}"
