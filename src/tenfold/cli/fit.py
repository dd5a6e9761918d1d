"""`tenfold fit`: train a network within a budget."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from tenfold.cli.output import stdout_width, to_stderr, to_stdout, write_json
from tenfold.cli.train_flags import TrainFlags, overrides
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from tenfold.train import Recipe

_WHAT = Group("What to train", sort_key=1)
_HOW = Group("How to go about it", sort_key=2)


def fit(
    *,
    model: Annotated[str | None, Parameter(group=_WHAT)] = None,
    data: Annotated[str | None, Parameter(group=_WHAT)] = None,
    task: Annotated[str | None, Parameter(group=_WHAT)] = None,
    head: Annotated[str | None, Parameter(group=_WHAT)] = None,
    method: Annotated[tuple[str, ...], Parameter(group=_WHAT, negative=())] = (),
    bits: Annotated[str | None, Parameter(group=_WHAT)] = None,
    budget: Annotated[str | None, Parameter(group=_WHAT)] = None,
    like: Annotated[str | None, Parameter(group=_WHAT)] = None,
    weights: Annotated[Path | None, Parameter(group=_WHAT)] = None,
    image_size: Annotated[int | None, Parameter(group=_WHAT)] = None,
    pixels: Annotated[bool | None, Parameter(group=_WHAT)] = None,
    subset: Annotated[int | None, Parameter(group=_WHAT)] = None,
    skip_bad: Annotated[bool | None, Parameter(group=_WHAT, negative=())] = None,
    recipe: Annotated[str | None, Parameter(group=_HOW)] = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", group=_HOW, negative=())] = (),
    quick: Annotated[bool, Parameter(group=_HOW, negative=())] = False,
    run: Annotated[Path | None, Parameter(name="--from", group=_HOW)] = None,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"), group=_HOW)] = None,
    resume: Annotated[bool, Parameter(group=_HOW, negative=())] = False,
    dry_run: Annotated[bool, Parameter(group=_HOW, negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", group=_HOW, negative=())] = False,
    train: Annotated[TrainFlags | None, Parameter(name="*")] = None,
) -> None:
    """Train a network on your data, within a budget.

    Leaves a run folder with the artifact, checkpoints, metrics and a report.

    Args:
        model: a name that `tenfold models` knows, also timm:NAME and torchvision:NAME.
        data: a folder of images, torchvision:NAME, or a folder inside TENFOLD_DATA; default: the embedded digits. For
            segment a folder with images/ and masks/, or with train/ and val/ that have them; for track clips with masks
            as YouTube-VIS or DAVIS has them, default: drawn ones.
        task: what the network is for: classify (the default); segment, where a classifier gets a head; track, which
            finds and follows objects in video; or inpaint, which takes clips, or folders of photographs by
            --set task.photographs=FOLDER.
        head: for segment: lraspp (light; the default) or multires (all feature maps, as HRNet does).
        method: what happens while it trains: sat, qat, adabits, fracbits, atomnas, autonl; may be repeated, and
            applies in this order.
        bits: WEIGHTS/ACTIVATIONS for sat and qat, such as 4/4; several for adabits, such as 8,6,5,4.
        budget: upper limits for one image or frame, such as macs=50M,bytes=300k (also params, bitops, latency_ms).
        like: uniform:BITS, to give fracbits the budget of a network with so many bits everywhere; instead of
            bitops or bytes in --budget.
        weights: an artifact or a checkpoint to start from.
        image_size: side of the network's input in pixels; for segment its short side.
        pixels: feed raw pixels 0..255, as SAT's papers do.
        subset: train on so many images only.
        skip_bad: leave out images that cannot be read, instead of stopping at them.
        recipe: a recipe's name (`tenfold recipes list`) or file; what else is typed changes it.
        settings: change anything of the recipe, such as --set train.lr=0.05 --set methods.0.scheme=centered.
        quick: run the recipe's quick mode: under a minute, to see that everything works.
        run: repeat the run in this folder.
        out: the run folder; default: runs/ and a telling name.
        resume: go on with the run in the folder that --out names.
        dry_run: check everything, show what would be done and what it costs, and stop.
        as_json: print one JSON object with metrics, costs and files.
        train: the options of the training.
    """
    from tenfold.cli.recipes import find_recipe
    from tenfold.cli.resolve import Typed, default_folder, recipe_of_run, resolve_recipe, weights_of_run

    if sum(source is not None for source in (recipe, run)) > 1:
        raise UsageError("--recipe and --from both name a recipe; keep one of them.")
    typed = Typed(
        recipe=find_recipe(recipe) if recipe else recipe_of_run(run) if run else None,
        quick=quick,
        model=model,
        head=head,
        task=task,
        data=data,
        methods=method,
        bits=bits,
        budget=budget,
        like=like,
        task_options={"image_size": image_size, "pixels": pixels, "subset": subset, "skip_bad": skip_bad},
        train=overrides(train),
        settings=settings,
    )
    if quick and recipe is None:
        raise UsageError("--quick is a mode of a recipe. Say --recipe NAME too (`tenfold recipes list`).")
    origin = run
    if resume and not (typed.recipe or typed.model or typed.methods):
        if out is None:
            raise UsageError("which run shall go on? Say --resume --out RUN_FOLDER.")
        typed, origin = replace(typed, recipe=recipe_of_run(out)), out
    if weights is None and origin is not None:
        known = weights_of_run(origin)
        weights = Path(known) if known else None
    resolved = resolve_recipe(typed)
    folder = out or default_folder(resolved, Path(recipe).stem + ("-quick" if quick else "") if recipe else None)
    if dry_run:
        _show_plan(resolved, folder, weights, as_json=as_json)
    else:
        _train(resolved, folder, weights, resume=resume, as_json=as_json)


def _train(recipe: Recipe, folder: Path, weights: Path | None, *, resume: bool, as_json: bool) -> None:
    from tenfold.cli.preparation import prepare_for_training

    prepare_for_training()
    from tenfold import train
    from tenfold.cli.output import is_first_process
    from tenfold.cli.resolve import make_budget, make_methods, make_network, make_task
    from tenfold.cli.starting_weights import start_from
    from tenfold.cli.summary import result_table

    methods, budget = make_methods(recipe), make_budget(recipe)
    task = make_task(recipe)
    network = make_network(recipe, task)
    float_metrics = start_from(network, weights) if weights else None
    with _written_recipe(recipe, folder) if is_first_process() else nullcontext():
        result = train.fit(
            network,
            task,
            methods,
            budget,
            config=recipe.train,
            run_dir=folder,
            resume=resume,
            float_metrics=float_metrics,
        )
    if as_json:
        keys = ("model", "metrics", "budget", "cost", "seed", "seconds")
        files = {"run": folder, "artifact": result.artifact, "report": folder / "report.html"}
        write_json({**files, **{key: result.report.get(key) for key in keys}})
        return
    to_stdout(result_table(result.report))
    to_stderr(f"\nreport    {folder / 'report.html'}\nartifact  {result.artifact}")
    to_stderr(f"[dim]next: tenfold export {result.artifact} -o net.onnx[/]")


@contextmanager
def _written_recipe(recipe: Recipe, folder: Path) -> Iterator[None]:
    """Leave the recipe in the run folder from the beginning of a run; but not if the run does not even begin."""
    from tenfold.cli.resolve import RUN_RECIPE
    from tenfold.train import write_recipe

    begun, path = folder / "config.json", folder / RUN_RECIPE
    if not begun.exists():
        write_recipe(recipe, path)
    try:
        yield
    finally:
        if not begun.exists():
            path.unlink(missing_ok=True)
            with suppress(OSError):  # it holds something else
                folder.rmdir()


def _show_plan(recipe: Recipe, folder: Path, weights: Path | None, *, as_json: bool) -> None:
    """Build everything but train nothing: data, names, options and the budget are checked on the way."""
    from rich.text import Text

    from tenfold.cli.profile import cost_table
    from tenfold.cli.resolve import make_budget, make_methods, make_network, make_task
    from tenfold.cli.starting_weights import start_from
    from tenfold.cost import profile

    methods, budget = make_methods(recipe), make_budget(recipe)
    task = make_task(recipe)
    network = make_network(recipe, task)
    if weights:
        start_from(network, weights)
    before = profile(network, task.example())
    for one in methods:
        network = one.attach(network, budget, task.example(batch_size=min(64, max(2, recipe.train.batch_size))))
    after = profile(network, task.example())
    steps = task.batches_per_epoch(recipe.train.batch_size)
    excess = budget.excess(after) if budget else {}
    if as_json:
        costs = {"before": before.to_dict(), "after": after.to_dict()}
        for cost in costs.values():
            del cost["layers"]
        write_json(
            {
                "recipe": recipe.to_dict(),
                "run": folder,
                "cost": costs,
                "steps_per_epoch": steps,
                "exceeds": {name: {"asked": asked, "got": got} for name, (asked, got) in excess.items()},
            }
        )
        return
    to_stdout(
        cost_table(after, title=recipe.model.kind if recipe.model else "", image=task.input_shape, width=stdout_width())
    )
    to_stderr(f"\n[bold]Would train[/] {recipe.train.epochs} epochs of {steps} steps, into {folder}:\n")
    for line in _settings_of(recipe.to_dict()):
        to_stderr(Text(f"  {line}"))
    for name, (asked, got) in excess.items():
        to_stderr(f"[yellow]Not within the budget yet: {name} is {got:,.6g}, asked for {asked:,.6g}.[/]")


def _settings_of(tree: Any, path: str = "") -> Iterator[str]:
    """A recipe as `--set` takes it, a setting a line."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _settings_of(value, f"{path}.{name}" if path else name)
    elif isinstance(tree, list) and tree and isinstance(tree[0], Mapping):
        for idx, item in enumerate(tree):
            yield from _settings_of(item, f"{path}.{idx}")
    else:
        yield f"{path} = {json.dumps(tree)}"
