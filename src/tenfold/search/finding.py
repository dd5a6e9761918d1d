"""One call from a task and a budget to a network: build the supernet, evolve its space, choose within the budget."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tenfold.cost import Budget
from tenfold.errors import ArtifactError, MissingDataError, UnknownNameError, UsageError
from tenfold.files import write_text
from tenfold.layers.cell_gene import Gene
from tenfold.models import LEARNED_SPACE, Architecture
from tenfold.models.autospace import SKELETONS
from tenfold.models.segmentation_heads import HEADS
from tenfold.search.autospace import AutoSpace
from tenfold.search.cell_space import CellSpace
from tenfold.search.supernet import cell_supernet
from tenfold.tasks import Task
from tenfold.train import FitResult, TrainConfig, fit

SPACE_FILE = "space.json"
_SPACE_FORMAT = "tenfold.cell_space/1"


@dataclass(frozen=True, kw_only=True)
class FoundNetwork:
    """What a search leaves."""

    architecture: Architecture
    """The found network: `tenfold.models.build` makes it, and `fit` trains it like any other."""
    space: list[list[str]]
    """The learned space: the evolved genes of each layer, the best first; empty where there are none."""
    result: FitResult
    """The network with the weights of the supernet, and the run folder."""


def search_autospace(
    task: Task,
    budget: Budget | None = None,
    *,
    method: AutoSpace | None = None,
    skeleton: str = "tiny",
    head: str = "lraspp",
    config: TrainConfig | None = None,
    run_dir: str | Path,
    resume: bool = False,
    command: Sequence[str] | None = None,
    quiet: bool = False,
) -> FoundNetwork:
    """Search a network of cells for a task, within a budget that it keeps for certain.

    The run folder is that of `fit`, with the file `space.json` beside it: the learned space, for another search in it.
    A search that was killed goes on with `resume=True`, and ends as if it had never been killed.

    Source: AutoSpace, arXiv 2103.11833; see `AutoSpace`.

    Args:
        task: data, loss and metrics.
        budget: limits on macs and params of one image of the task's size; None takes the likeliest network.
        method: the options of the search.
        skeleton: widths, numbers and strides of the blocks: "tiny", "small" or "imagenet".
        head: of networks that give each pixel a class.
        config: options of the supernet's training.
        run_dir: the run folder.
        resume: go on with the search in `run_dir`.
        command: what to type to repeat this; None takes this process's command line.
        quiet: show nothing.

    Raises:
        UnknownNameError: if there is no such skeleton or head.
        UsageError: if an argument does not fit.
        BudgetError: if no network of the space keeps the budget; the message says what can be reached.
        CheckpointError: if the search cannot go on: its checkpoints are damaged, or of other arguments.
        Interrupted: if SIGINT or SIGTERM asked to stop; everything is saved.
    """
    if skeleton not in SKELETONS:
        raise UnknownNameError("skeleton", skeleton, SKELETONS)
    if head not in HEADS:
        raise UnknownNameError("head", head, HEADS)
    method, config = method or AutoSpace(), config or TrainConfig()
    torch.manual_seed(config.seed)
    network = cell_supernet(
        SKELETONS[skeleton],
        capacity=method.capacity,
        space=CellSpace(),
        num_classes=task.describe()["num_outputs"],
        in_channels=task.input_shape[0],
        head=head if task.per_pixel else None,
    )
    result = fit(
        network, task, [method], budget, config=config, run_dir=run_dir, resume=resume, command=command, quiet=quiet
    )
    found = result.report["found"][method.name]
    layers = [[cell["gene"] for cell in layer["evolved"]] for layer in found["space"]]
    if layers and not method.space:
        write_space(Path(run_dir) / SPACE_FILE, layers, skeleton)
    architecture = result.network.architecture
    assert isinstance(architecture, Architecture)
    return FoundNetwork(architecture=architecture, space=layers, result=result)


def write_space(path: Path, layers: Sequence[Sequence[str]], skeleton: str) -> None:
    """Write a learned space, for another search in it.

    Raises:
        StorageError: if it could not be written.
    """
    content = {"format": _SPACE_FORMAT, "skeleton": skeleton, "layers": layers}
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_space(name: str) -> tuple[tuple[str, ...], ...]:
    """The genes of each layer of a space.

    Args:
        name: "published", the authors' own for the skeleton "imagenet"; or what a search left, the file or its folder.

    Raises:
        MissingDataError: if there is no such file.
        ArtifactError: if the file is damaged, or none of ours.
    """
    if name == "published":
        return tuple(tuple(map(str, layer)) for layer in LEARNED_SPACE)
    path = Path(name)
    path = path / SPACE_FILE if path.is_dir() else path
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingDataError(
            f"there is no space {path}. Name the folder of a search that has evolved one, its {SPACE_FILE}, or say "
            "published or hand-made."
        ) from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read the space {path}: {error}. Search again, or take another file.") from error
    layers = content.get("layers") if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or content.get("format") != _SPACE_FORMAT or not isinstance(layers, list):
        raise ArtifactError(f"{path} is no space: it is not in the form {_SPACE_FORMAT!r}, as a search leaves it.")
    try:
        return tuple(tuple(str(Gene.parse(gene)) for gene in layer) for layer in layers)
    except (UsageError, TypeError) as error:
        raise ArtifactError(f"the space {path} is damaged: {error}") from error
