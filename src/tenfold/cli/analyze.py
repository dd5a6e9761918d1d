"""`tenfold analyze`: look into a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from tenfold.cli.output import to_stderr, to_stdout, write_json
from tenfold.cli.values import is_file_name, parse_settings
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from tenfold.analysis import Collapse
    from tenfold.tasks import Task

app = App(name="analyze", help="Look into a network.", help_format="plaintext", result_action="return_value")


@app.command
def collapse(
    network: str,
    /,
    *,
    data: str | None = None,
    weights: Path | None = None,
    images: int = 64,
    batch_size: int = 8,
    image_size: int | None = None,
    axis: Literal["key", "query"] = "key",
    threshold: float = 0.9,
    share: float = 0.5,
    seed: int = 0,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    page: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Measure how alike the attention maps and the features of a vision transformer's blocks are.

    Deep vision transformers tend to repeat themselves: maps of neighbouring blocks become equal ("attention collapse").
    Maps are compared as they are, and without their mean, since all softmax maps share a uniform part. A similarity of
    1 with an entropy of 1 means uniform maps.

    Args:
        network: a vision transformer's name (also timm:NAME and torchvision:NAME), or an artifact (.safetensors).
        data: a folder of images, torchvision:NAME, a folder inside TENFOLD_DATA, or digits; default: the digits.
        weights: a file of weights for a network given by name; without, they are drawn at random.
        images: how many of the evaluation images to take.
        batch_size: images at a time; the maps of one batch are held in memory.
        image_size: side of the images; default: what the network was made for.
        axis: what is compared: columns of the maps (key, the paper's) or rows (query).
        threshold: cosine above which two vectors of maps are similar.
        share: a block is similar to the next if more than this share of its vectors is.
        seed: of random weights.
        settings: an option of the model, such as --set depth=24 or --set pretrained=true; may be repeated.
        page: write the drawings, as one HTML page, to this file.
        as_json: print one JSON object with all measures.
    """
    from tenfold.cli.preparation import prepare_for_training

    for name, got in (("images", images), ("batch-size", batch_size)):
        if got < 1:
            raise UsageError(f"--{name} is {got}; allowed is a whole number from 1.")
    if not 0 <= share <= 1:
        raise UsageError(f"--share is {share}; allowed is 0 to 1.")
    if page is not None and page.suffix != ".html":
        raise UsageError(f"--page {page}: the drawings are an HTML page. Give a name that ends in .html.")
    prepare_for_training()
    from tenfold.analysis import analyze_collapse

    options = parse_settings(settings, "model.")
    built, task = _opened(network, data, weights, image_size, seed, options)
    found = analyze_collapse(built, _images(task, images, batch_size), axis=axis, threshold=threshold, share=share)
    if page is not None:
        from tenfold.train.report.collapse import write_collapse_page

        write_collapse_page(network, found.to_dict(), page)
        to_stderr(f"[dim]Drawn in {page}[/]")
    if as_json:
        write_json({"name": network, **found.to_dict()})
        return
    to_stdout(_table(network, found))
    to_stdout(_sentence(found))


def _opened(
    name: str, data: str | None, weights: Path | None, image_size: int | None, seed: int, options: dict[str, Any]
) -> tuple[nn.Module, Task]:
    """The network, and the task that prepares images as it is used to."""
    if is_file_name(name):
        from tenfold.cli.artifacts import open_artifact
        from tenfold.cli.evaluate import task_of

        if options or weights is not None or image_size is not None:
            raise UsageError("--set, --weights and --image-size do not go with an artifact: it says all that itself.")
        artifact, header = open_artifact(name)
        return artifact, task_of(header["task"], data)
    import torch

    from tenfold import models, tasks
    from tenfold.cli.starting_weights import start_from

    facts = models.facts(name)
    task = tasks.create(
        "classify", data=data, image_size=image_size or facts.input_shape[1], channels=facts.input_shape[0]
    )
    torch.manual_seed(seed)
    network = models.build(name, **options)
    if weights is not None:
        start_from(network, weights)
    elif not options.get("pretrained"):
        to_stderr("[yellow]No weights were given: this is the network as it is drawn at random.[/]")
    return network, task


def _images(task: Task, count: int, batch_size: int) -> Any:
    """The first evaluation images, batch by batch."""
    for inputs, _ in task.eval_batches(batch_size=min(batch_size, count)):
        yield inputs[:count]
        count -= len(inputs)
        if count <= 0:
            return


def _table(name: str, found: Collapse) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = Text.assemble((name, "bold"), (f"  {found.images} images, {found.tokens} tokens", "dim"))
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_column("Block")
    heads = ("Map = next", "centred", "Vectors alike", "Heads", "Entropy", "Tokens = last", "Tokens alike")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    used, centred = found.maps["used"], found.maps["used, centred"]
    ratios, last = used.ratios[str(found.threshold)], len(found.blocks) - 1
    for number in range(last + 1):
        mark = " re-attention" if number in found.reattention else ""
        neighbour = number + 1
        row = [
            f"{used.matrix[number][neighbour]:.3f}" if number < last else "",
            f"{centred.matrix[number][neighbour]:.3f}" if number < last else "",
            f"{ratios[number]:.0%}" if number < last else "",
            f"{used.heads[number]:.3f}",
            f"{found.entropy[number]:.3f}",
            f"{found.features_to_last[number]:.3f}",
            f"{found.between_tokens[number]:.3f}",
        ]
        table.add_row(Text.assemble(str(number), (mark, "dim")), *row)
    return table


def _sentence(found: Collapse) -> str:
    counts = ", ".join(f"{one.similar_blocks} by {kind} maps" for kind, one in found.maps.items())
    return (
        f"[bold]Similar blocks[/] of {len(found.blocks)}: {counts} "
        f"(cosine above {found.threshold:g} for more than {found.share:.0%} of the vectors, by {found.axis})"
    )
