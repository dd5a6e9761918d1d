"""What a run writes about itself: `config.json`, its identity in checkpoints, the artifact's header, `report.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from torch import nn

from tenfold import quant
from tenfold.cost import Budget, Profile
from tenfold.errors import CheckpointError
from tenfold.methods import Method
from tenfold.tasks import Task
from tenfold.train.config import FREE_TO_CHANGE, TrainConfig
from tenfold.train.distributed import World
from tenfold.train.machine import describe_machine, git_state, versions
from tenfold.train.run import Run

REPORT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Order:
    """What was asked of one training."""

    task: Task
    methods: Sequence[Method]
    budget: Budget | None
    config: TrainConfig
    command: Sequence[str]
    architecture: Mapping[str, Any] | None
    """The network's description, or None for a class that the model registry does not know."""
    model: str
    """The network's name, for people."""

    def to_dict(self) -> dict[str, Any]:
        """Everything but the command, as JSON values."""
        order = {
            "model": self.architecture or {"name": self.model},
            "task": self.task.describe(),
            "methods": [method.to_dict() for method in self.methods],
            "budget": None if self.budget is None else str(self.budget),
            "train": self.config.to_dict(),
        }
        plain: dict[str, Any] = json.loads(json.dumps(order))
        return plain


def model_name(network: nn.Module) -> str:
    """The network's name for people, from the registry or of its class."""
    return getattr(getattr(network, "architecture", None), "title", type(network).__name__)


def architecture_of(network: nn.Module) -> dict[str, Any] | None:
    """The description that rebuilds a network, or None."""
    architecture = getattr(network, "architecture", None)
    return None if architecture is None else architecture.to_dict()


def schemes_of(network: nn.Module) -> dict[str, Any]:
    """How each quantized layer is quantized, as JSON values."""
    return {name: scheme.to_dict() for name, scheme in quant.describe(network).items()}


def config_file(order: Order, world: World) -> dict[str, Any]:
    """The content of `config.json`: the order, and where and by what it is carried out."""
    return {
        "version": REPORT_VERSION,
        "command": list(order.command),
        **order.to_dict(),
        "machine": {**describe_machine(world.device), "processes": world.size},
        "versions": versions(),
        "git": git_state(),
    }


def identity(order: Order, network: nn.Module, *, steps_per_epoch: int, processes: int) -> dict[str, Any]:
    """What must be equal for a checkpoint to be the beginning of this very training."""
    asked = order.to_dict()
    train = {name: value for name, value in asked.pop("train").items() if name not in FREE_TO_CHANGE}
    # What counts is the engine at work: "auto" means another one on another machine.
    del train["engine"], train["engine_backward"]
    engine = next((layer.engine for _, layer in quant.quantized_layers(network) if layer.engine is not None), None)
    return {
        **asked,
        "train": train,
        **({} if engine is None else {"engine": f"integer, backward in {engine.backward}"}),
        "schemes": schemes_of(network),
        "steps_per_epoch": steps_per_epoch,
        "processes": processes,
    }


def check_identity(stored: Mapping[str, Any], now: Mapping[str, Any], order: Order) -> None:
    """Compare the identity in a checkpoint with that of the call that wants to resume it.

    An option that the checkpoint does not name came with a later version, and had its default.

    Raises:
        CheckpointError: naming every field that differs, with both values.
    """
    methods = list(map(_with_newer_options, stored["methods"], now["methods"], order.methods))
    stored = {
        **stored,
        "train": _with_newer_options(stored["train"], now["train"], order.config),
        "methods": methods + stored["methods"][len(methods) :],
    }
    before, after = _flatten(stored), _flatten(now)
    lines = [
        f"  {name}: {_shown(before, name)} in the checkpoint, {_shown(after, name)} now"
        for name in sorted(before.keys() | after.keys())
        if before.get(name, _ABSENT) != after.get(name, _ABSENT)
    ]
    if lines:
        more = f"\n  and {len(lines) - 10} more" if len(lines) > 10 else ""
        raise CheckpointError(
            "the checkpoint belongs to another training:\n" + "\n".join(lines[:10]) + more + "\n"
            "Resume with the settings of the checkpoint (config.json in the run folder has them), "
            "or train anew in another run folder."
        )


_ABSENT = object()


def _with_newer_options(stored: Mapping[str, Any], now: Mapping[str, Any], owner: Any) -> dict[str, Any]:
    """Options as a checkpoint has them, and those that it does not name but that have their default now."""
    defaults = {
        one.name: one.default if one.default_factory is MISSING else one.default_factory()
        for one in fields(owner)
        if one.init and (one.default, one.default_factory) != (MISSING, MISSING)
    }
    as_json = json.loads(json.dumps(defaults))
    newer = {name: value for name, value in now.items() if name not in stored and as_json.get(name, _ABSENT) == value}
    return {**newer, **stored}


def _flatten(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping) and tree:
        return {k: v for key, item in tree.items() for k, v in _flatten(item, f"{path}.{key}" if path else key).items()}
    if isinstance(tree, list) and tree:
        return {k: v for i, item in enumerate(tree) for k, v in _flatten(item, f"{path}[{i}]").items()}
    return {path: tree}


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "absent"


def costs(before: Profile, after: Profile) -> dict[str, dict[str, int]]:
    """The totals before and after the training."""
    return {"before": totals(before), "after": totals(after)}


def totals(profile: Profile) -> dict[str, int]:
    """The totals of a bill."""
    return {
        "macs": profile.macs,
        "params": profile.params,
        "bitops": profile.bitops,
        "bytes": profile.size_bytes,
        "activation_bytes": profile.activation_bytes,
    }


def artifact_header(
    order: Order, network: nn.Module, metrics: Mapping[str, float], cost: Mapping[str, Any]
) -> dict[str, Any]:
    """The header of the artifact. It holds no times, so that equal trainings leave equal files."""
    asked = order.to_dict()
    switch, cuts = quant.describe_switch(network), getattr(network, "cuts", [])
    return {
        "architecture": architecture_of(network),
        "schemes": schemes_of(network),
        **({} if switch is None else {"switch": switch}),
        **({"cuts": cuts} if cuts else {}),
        "task": asked["task"],
        "metrics": finite(metrics),
        "budget": asked["budget"],
        "cost": cost,
        "config": {"methods": asked["methods"], "train": asked["train"]},
        "versions": versions(),
    }


def build_report(
    order: Order,
    run: Run,
    network: nn.Module,
    *,
    before: Profile,
    after: Profile,
    metrics: Mapping[str, float],
    settings: Sequence[Mapping[str, Any]],
    float_metrics: Mapping[str, float] | None,
    latency_ms: float | None,
    engine: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of `report.json`."""
    asked = order.to_dict()
    cost = costs(before, after)
    outcome: dict[str, Any] = {"final": finite(metrics)}
    if float_metrics is not None:
        outcome["float"] = finite(float_metrics)
    if run.best is not None:
        outcome["best"] = finite(run.best)
    report = {
        "version": REPORT_VERSION,
        "command": list(order.command),
        "model": order.model,
        "architecture": order.architecture,
        "task": asked["task"],
        "main_metric": order.task.main_metric,
        "takes": order.task.takes,
        "methods": asked["methods"],
        "budget": {} if order.budget is None else {"asked": order.budget.to_dict()},
        "cost": cost,
        "metrics": outcome,
        "curves": [finite(row) for row in run.curves],
        "layers": [layer.to_dict() for layer in after.layers],
        "config": asked["train"],
        "machine": {**describe_machine(run.world.device), "processes": run.world.size},
        "versions": versions(),
        "git": git_state(),
        "seed": order.config.seed,
        "seconds": run.seconds,
        "data_seconds": sum(row["data_seconds"] for row in run.curves),
        "artifact": "artifact.safetensors",
    }
    if settings:
        report["settings"] = list(settings)
    for method in order.methods:
        if found := method.report(network):
            report.setdefault("found", {})[method.name] = found
    if engine:
        report["engine"] = dict(engine)
    if latency_ms is not None:
        report["latency_ms"] = latency_ms
    return report


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """The same numbers with None for those that JSON cannot write."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
