"""`fit`: from a network, a task, methods and a budget to an artifact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from tenfold import quant
from tenfold.batches import Inputs, call, placed
from tenfold.cost import Budget, Profile, interleaved, profile
from tenfold.errors import BudgetError, DataError, UsageError
from tenfold.export.artifact import write_artifact
from tenfold.files import write_text, written_whole
from tenfold.kernels.depthwise import native_depthwise
from tenfold.methods import Method
from tenfold.recomputation import recomputing
from tenfold.tasks import Picture, Task
from tenfold.train import record
from tenfold.train.batch_norm import restore_batch_norm, synchronize_batch_norm
from tenfold.train.checkpoints import CheckpointFolder, Found, remove_leftovers
from tenfold.train.config import TrainConfig
from tenfold.train.display import Display
from tenfold.train.distributed import World, broadcast_tensors, join_world, wait_for_all
from tenfold.train.engine import choose_engine, engine_facts, engine_text
from tenfold.train.evaluation import evaluate_passes
from tenfold.train.interrupts import stop_requests
from tenfold.train.journal import Journal
from tenfold.train.loop import Loop
from tenfold.train.machine import command_line
from tenfold.train.mixing import create_mixing
from tenfold.train.passes import combined_passes, combined_settings
from tenfold.train.random_states import seed_everything, untouched_random_states
from tenfold.train.record import Order
from tenfold.train.report import write_report
from tenfold.train.run import Run

# Images that methods see when they look at what flows through the network.
_EXAMPLE_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a training leaves behind."""

    run_dir: Path
    """The run folder."""
    artifact: Path
    """The network as one file, for `load` and for export."""
    network: nn.Module
    """The finished network in eval mode, on the CPU."""
    metrics: dict[str, float]
    """Its metrics on the evaluation data, such as top1 (0 to 1), and "loss"."""
    report: dict[str, Any]
    """The content of report.json."""


def fit(
    network: nn.Module,
    task: Task,
    methods: Sequence[Method] = (),
    budget: Budget | None = None,
    *,
    config: TrainConfig | None = None,
    run_dir: str | Path,
    resume: bool = False,
    float_metrics: Mapping[str, float] | None = None,
    command: Sequence[str] | None = None,
    quiet: bool = False,
) -> FitResult:
    """Train a network under a budget; leave an artifact and a report in the run folder.

    The folder then holds `config.json` (everything that was asked), `metrics.jsonl`, `checkpoints/`,
    `artifact.safetensors`, `report.json` and `report.html`. A run that was killed goes on with `resume=True` and the
    same arguments, and ends as if it had never been killed. Under `torchrun`, all processes make the same call.

    Args:
        network: what to train; any module. It is changed.
        task: data, loss and metrics.
        methods: what happens to the network meanwhile, in this order.
        budget: what the finished network may cost.
        config: the training's options; None takes the defaults.
        run_dir: the run folder; made if it is not there.
        resume: go on with the run in `run_dir` (from the start, if it was killed before its first checkpoint).
        float_metrics: metrics of the float network to compare with, for the report.
        command: what to type to repeat this; None takes this process's command line.
        quiet: show nothing.

    Returns:
        The finished network, its metrics, and where the files are. The same in every process.

    Raises:
        UsageError: if an argument does not fit, or `run_dir` holds a run and `resume` is not set.
        BudgetError: if the budget is out of reach, or the finished network does not keep it.
        CheckpointError: if the run cannot be resumed: its checkpoints are damaged, or of other arguments.
        NonFiniteLossError: if the loss became NaN or infinite.
        Interrupted: if SIGINT or SIGTERM asked to stop; everything is saved.
        StorageError: if a file could not be written.
    """
    config = config or TrainConfig()
    run_dir = Path(run_dir)
    order = Order(
        task=task,
        methods=tuple(methods),
        budget=budget,
        config=config,
        command=list(command or command_line()),
        architecture=record.architecture_of(network),
        model=record.model_name(network),
    )
    world = join_world(config.device)
    with untouched_random_states(world.device), _determinism(config):
        display = Display(metric=task.main_metric, shown=world.is_first and not quiet)
        steps_per_epoch = _steps_per_epoch(order, world)
        checkpoints = CheckpointFolder(run_dir / "checkpoints")
        found = _open_folder(run_dir, checkpoints, world, resume=resume, display=display)
        lines = 0 if found is None else found.state["journal_lines"]
        start = _start(network, order, world, steps_per_epoch, found)
        run = start.run
        if found is not None and run.is_best and world.is_first:
            checkpoints.keep_best(found.path)  # the kill may have come just before this
        found = None  # frees the memory of its tensors
        if text := engine_text(engine_facts(config, world.device, run.network)):
            display.note(text)
        if world.is_first:
            write_text(run_dir / "config.json", _json(record.config_file(order, world)))
        with (
            Journal(
                run_dir, keep=lines, tensorboard=config.tensorboard, first_step=run.step, enabled=world.is_first
            ) as journal,
            display.live(epochs=config.epochs, steps_per_epoch=steps_per_epoch, first_step=run.step),
        ):
            with (
                native_depthwise(run.network),
                recomputing(config.recompute),
                stop_requests(launched=world.size > 1) as stop,
            ):
                Loop(
                    run,
                    task,
                    checkpoints=checkpoints,
                    journal=journal,
                    display=display,
                    stop=stop,
                    identity=start.identity,
                ).train()
            display.phase("finishing")
            return _finish(run, order, start.cost, journal, run_dir, float_metrics)


def _steps_per_epoch(order: Order, world: World) -> int:
    batch_size, task = order.config.batch_size, order.task
    if batch_size % world.size:
        raise UsageError(
            f"batch_size = {batch_size} cannot be shared evenly by {world.size} processes; use a multiple."
        )
    steps = task.batches_per_epoch(batch_size // world.size, world.size)
    if steps < 1:
        raise DataError(
            f"the task {task.name!r} has not even one batch of {batch_size} images; use a smaller batch_size."
        )
    return steps


def _open_folder(
    run_dir: Path, checkpoints: CheckpointFolder, world: World, *, resume: bool, display: Display
) -> Found | None:
    """Look what is in the run folder; returns the checkpoint to go on from."""
    holds_run = (run_dir / "config.json").exists() or checkpoints.newest is not None
    wait_for_all(world)  # nobody writes before everybody has looked
    if holds_run and not resume:
        raise UsageError(
            f"{run_dir} already holds a run. Go on with it by resume=True (--resume), "
            "choose another run folder, or remove this one."
        )
    if world.is_first:
        remove_leftovers(run_dir)
        remove_leftovers(checkpoints.folder)
    if not resume:
        return None
    found = checkpoints.load_newest(display.note) if world.is_first else None
    wait_for_all(world)  # now damaged files are out of the way
    if not world.is_first:
        found = checkpoints.load_newest(display.note)
    if found is None:
        display.note(f"{run_dir} has no checkpoint yet: starting from the beginning.")
    else:
        display.note(f"going on from {found.path}")
    return found


class _Start(NamedTuple):
    """A training before its next step."""

    run: Run
    cost: Profile
    """Of the network as it was given."""
    identity: dict[str, Any]


def _start(network: nn.Module, order: Order, world: World, steps_per_epoch: int, found: Found | None) -> _Start:
    """Bring network, optimiser and everything else to the start, or to where the checkpoint left them."""
    seed_everything(order.config.seed)
    network.to(world.device)
    cost = profile(network, placed(order.task.example(), world.device))
    network = _attach(network, order, world, cost)
    identity = record.identity(order, network, steps_per_epoch=steps_per_epoch, processes=world.size)
    if found is None:
        _calibrate(network, order, world)
        broadcast_tensors([*network.parameters(), *network.buffers()], world)
    else:
        record.check_identity(found.state["identity"], identity, order)
    mixing = create_mixing(order.config, order.task)
    run = Run(network, order.methods, order.config, world, steps_per_epoch=steps_per_epoch, mixing=mixing)
    seed_everything(order.config.seed + world.rank)  # from here on each process draws its own numbers
    if found is not None:
        run.load_state_dict(found.state)
    return _Start(run, cost, identity)


def _attach(network: nn.Module, order: Order, world: World, before: Profile) -> nn.Module:
    """Let the methods rewrite the network, and bring it into the form in which it trains."""
    if order.budget is not None and not order.methods:
        _check_budget(
            order.budget, before, None, hint="Add a method that makes the network cheaper, or raise the budget."
        )
    count = min(_EXAMPLE_IMAGES, max(2, order.config.batch_size))  # in one frame a video has nothing to look back at
    example = placed(order.task.example(batch_size=count), world.device)
    for method in order.methods:
        network = method.attach(network, order.budget, example)
    if order.config.sync_bn:
        network = synchronize_batch_norm(network, world)
    network.to(world.device)
    if order.config.channels_last:
        network.to(memory_format=torch.channels_last)
    return quant.use_engine(network, choose_engine(order.config, world.device, network))


def _calibrate(network: nn.Module, order: Order, world: World) -> None:
    """Set batch-norm statistics and clipping levels from training images, where the order says so."""
    count = order.config.calibration_batches
    if count and any(quant.quantized_layers(network)):
        batches = order.task.train_batches(epoch=0, batch_size=order.config.batch_size, seed=order.config.seed)
        images = [placed(inputs, world.device) for inputs, _ in islice(batches, count)]
        for one in reversed(combined_settings(order.methods, network)):  # what all settings share, the first decides
            one.enter()
            quant.calibrate(network, images)


def _finish(
    run: Run, order: Order, before: Profile, journal: Journal, run_dir: Path, float_metrics: Mapping[str, float] | None
) -> FitResult:
    """Make the plain network, judge it, and write what the run leaves behind."""
    world, task = run.world, order.task
    run.share_buffers()
    network = restore_batch_norm(run.evaluated)
    engine = engine_facts(order.config, world.device, network)
    quant.use_engine(network, None)  # what leaves is judged as it will be used
    for method in order.methods:
        network = method.finish(network, _training_images(order, world))
    network.eval()
    size, workers = order.config.eval_batch_size, order.config.workers
    metrics = evaluate_passes(network, task, order.methods, world, batch_size=size, workers=workers)
    assert metrics is not None
    network.cpu()
    network.to(memory_format=torch.contiguous_format)
    example = task.example()
    settings = _settings(network, order, metrics, example)
    after = profile(network, example)
    latency_ms = _latency_ms(network, example) if order.budget is not None and order.budget.latency_ms else None
    if order.budget is not None:
        _check_budget(order.budget, after, latency_ms, hint=f"The last checkpoint is in {run_dir / 'checkpoints'}.")
    report = record.build_report(
        order,
        run,
        network,
        before=before,
        after=after,
        metrics=metrics,
        settings=settings,
        float_metrics=float_metrics,
        latency_ms=latency_ms,
        engine=engine,
    )
    artifact = run_dir / "artifact.safetensors"
    if world.is_first:
        header = record.artifact_header(order, network, metrics, report["cost"])
        write_artifact(artifact, {name: t.contiguous() for name, t in network.state_dict().items()}, header)
        if pictures := _write_pictures(task.illustrate(network), run_dir):
            report["pictures"] = pictures
        journal.write("final", {"step": run.step, **record.finite(metrics)})
        write_text(run_dir / "report.json", _json(report))
        write_report(report, run_dir / "report.html")
    wait_for_all(world)  # nobody leaves before the files are there
    return FitResult(run_dir=run_dir, artifact=artifact, network=network, metrics=metrics, report=report)


def _write_pictures(pictures: Sequence[Picture], run_dir: Path) -> list[dict[str, str]]:
    """Keep pictures beside the report; returns what report.json says of them."""
    rows = []
    for number, picture in enumerate(pictures, 1):
        file = f"pictures/{number}.png"
        with written_whole(run_dir / file) as part:
            picture.image.save(part, format="PNG")
        rows.append({"file": file, "caption": picture.caption})
    return rows


def _training_images(order: Order, world: World) -> Iterator[Inputs]:
    batches = order.task.train_batches(epoch=0, batch_size=order.config.batch_size, seed=order.config.seed)
    return (placed(inputs, world.device) for inputs, _ in batches)


def _settings(network: nn.Module, order: Order, metrics: Mapping[str, float], example: Inputs) -> list[dict[str, Any]]:
    """Metrics and cost of a network in each of its settings (bit-widths); it ends in the first. None if it has one."""
    passes = combined_passes(order.methods, network)
    if len(passes) == 1:
        return []
    rows = []
    for one in passes:
        one.enter()
        ending = f"/{one.name}"
        own = {name.removesuffix(ending): value for name, value in metrics.items() if name.endswith(ending)}
        rows.append({"name": one.name, "metrics": record.finite(own), "cost": record.totals(profile(network, example))})
    passes[0].enter()
    return rows


def _check_budget(budget: Budget, cost: Profile, latency_ms: float | None, *, hint: str) -> None:
    excess = budget.excess(cost, latency_ms)
    if excess:
        lines = "; ".join(f"{name}: asked for {asked:,.6g}, got {got:,.6g}" for name, (asked, got) in excess.items())
        raise BudgetError(f"the network does not keep the budget {budget}: {lines}. {hint}")


def _latency_ms(network: nn.Module, example: Inputs) -> float:
    """Median time of one image through the network, on this machine's CPU."""
    with torch.inference_mode():
        return interleaved({"network": lambda: call(network, example)})["network"].median_ms


@contextmanager
def _determinism(config: TrainConfig) -> Iterator[None]:
    """Refuse operations without a repeatable result, if the configuration says so."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or config.deterministic)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
