"""How one training runs: every option, its unit, and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from tenfold.errors import UsageError


class Rule(NamedTuple):
    """What a field may hold."""

    holds: Callable[[Any], bool]
    allowed: str


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every option of one training. The defaults train a small network well; a recipe sets its own.

    Raises:
        UsageError: naming every field whose value is not allowed, in one message.
    """

    epochs: int = 30
    """Passes over the training data; 0 only attaches, calibrates and finishes (post-training quantization)."""
    batch_size: int = 128
    """Images per optimiser step, over all processes together."""
    eval_batch_size: int = 256
    """Images per evaluation batch, in each process."""
    eval_epochs: int = 1
    """Evaluate after every so many epochs, and after the last; the best is the best of those evaluated."""

    optimizer: Literal["sgd", "rmsprop_tf", "adamw"] = "sgd"
    """SGD with momentum, RMSprop with TensorFlow's epsilon inside the root (timm), or AdamW."""
    lr: float = 0.1
    """Peak learning rate, for `reference_batch` images if that is set, else for the batch as it is."""
    momentum: float = 0.9
    """Momentum of SGD and RMSprop; beta 1 of AdamW. In [0, 1)."""
    nesterov: bool = True
    """Nesterov's form of the momentum; SGD only."""
    weight_decay: float = 1e-4
    """On linear weights and on convolution weights with more than one input channel per group; 0 on all else."""
    epsilon: float | None = None
    """Stabiliser of RMSprop and AdamW; None takes the optimiser's own."""

    schedule: Literal["cosine", "linear", "exponential", "step", "constant"] = "cosine"
    """How the learning rate falls after the warm-up, update by update: to `last_lr` (cosine, linear), to exp(-8) of
    the peak (exponential), by `step_factor` at each of `step_epochs` (step), or not at all."""
    warmup_epochs: float = 0.0
    """Epochs in which the learning rate rises linearly from `warmup_start` to 1 times the peak."""
    warmup_start: float = 0.0
    """First learning rate as a fraction of the peak, in [0, 1]."""
    reference_batch: int | None = None
    """If set, a larger batch multiplies `lr` by batch / reference, and the warm-up starts from the rate as it was."""
    cycles: int = 1
    """How many times the cosine falls, one after another, each over an equal part of the training."""
    last_lr: float = 0.0
    """Where the cosine and the linear schedule end, as a fraction of the peak, in [0, 1]."""
    cooldown_epochs: float = 0.0
    """Epochs at the end that stay at `last_lr`."""
    step_epochs: tuple[float, ...] = ()
    """Epochs, counted from the start of the training, at which the step schedule cuts the rate."""
    step_factor: float = 0.1
    """What the step schedule multiplies the rate by, in (0, 1]."""

    label_smoothing: float = 0.0
    """Part of each target spread over all classes, in [0, 1)."""
    mixup: float = 0.0
    """Alpha of mixup's Beta distribution; 0 is off."""
    cutmix: float = 0.0
    """Alpha of cutmix's Beta distribution; 0 is off. With mixup too, each batch takes one of them by lot."""
    ema_decay: float | None = None
    """Decay per update of the weight average, in (0, 1); evaluated and kept instead of the raw weights. None is off."""
    ema_warmup: bool = True
    """Let the decay grow from 0, so that short trainings forget their start."""
    clip_grad: float | None = None
    """Largest L2 norm of all gradients together; None is off."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format inside the forward and backward pass; weights, and evaluation, stay fp32."""
    engine: Literal["auto", "simulated", "integer"] = "auto"
    """How quantized layers multiply: in float numbers on a grid (simulated), on 8-bit integers with the same outputs to
    float rounding (integer; CPUs with VNNI), or on integers where this machine can (auto)."""
    engine_backward: Literal["fp32", "bf16"] = "fp32"
    """Number format of the backward products of the integer engine; bf16 is faster, and rounds gradients to 8 bits."""
    channels_last: bool = True
    """Keep images and weights in channels-last order, which convolutions on CPUs and GPUs prefer."""
    compile: bool = False
    """Compile the training's forward and backward with torch.compile."""
    recompute: bool = False
    """Keep less for the backward pass, and compute activations behind batch norms, and quantized tensors, again; same
    results to the bit, for some more time. See `tenfold.recomputation`."""
    deterministic: bool = False
    """Refuse operations without a repeatable result (matters on GPUs; CPU training is repeatable anyway)."""
    sync_bn: bool = False
    """Batch-norm statistics over all processes; GPUs only."""
    device: str = "auto"
    """"auto" (CUDA, then Apple's MPS, then CPU) or a torch device such as "cuda:1"."""

    seed: int = 0
    """Seed of data order, augmentation and everything random in the network and the methods."""
    workers: int = 0
    """Processes per training process that load data; the result does not depend on it."""
    calibration_batches: int = 0
    """Training batches that set batch-norm statistics and clipping levels before the first step; 0 is off."""

    checkpoint_minutes: float | None = 10.0
    """Save when this many minutes have passed since the last save; None saves at the end of epochs only."""
    checkpoint_steps: int | None = None
    """Save every so many steps as well."""
    log_steps: int = 50
    """Write a line of metrics every so many steps."""
    tensorboard: bool = False
    """Write TensorBoard events too (needs the extra "track")."""

    def __post_init__(self) -> None:
        problems = broken_rules(asdict(self))
        if problems:
            raise UsageError("this training cannot be set up so:\n" + "\n".join(f"  {p}" for p in problems))

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {**asdict(self), "step_epochs": list(self.step_epochs)}

    def peak_lr(self) -> float:
        """The highest learning rate, with the batch size taken into account.

        Source: sat.md section 4 (lr *= batch / 256 above 256).
        """
        return self.lr / self._unmultiplied()

    def warmup_fraction(self) -> float:
        """First learning rate over the peak: `warmup_start`, or r = reference / batch where the rate is multiplied."""
        r = self._unmultiplied()
        return r if r < 1 else self.warmup_start

    def _unmultiplied(self) -> float:
        return 1.0 if self.reference_batch is None else min(1.0, self.reference_batch / self.batch_size)


# Fields that may differ between a run and its continuation: none of them changes the numbers of a training.
FREE_TO_CHANGE = frozenset(
    {"workers", "checkpoint_minutes", "checkpoint_steps", "log_steps", "tensorboard", "device", "recompute"}
)


def broken_rules(values: Mapping[str, Any]) -> list[str]:
    """Say for each of the given fields what is wrong with it.

    Args:
        values: fields of a `TrainConfig` by name; may be incomplete.

    Returns:
        One line per problem: the field, the value got, what is allowed.
    """
    problems = []
    for name, rule in _RULES.items():
        if name in values and not _holds(rule, values[name]):
            problems.append(f"{name} = {values[name]!r}: must be {rule.allowed}")
    if problems:
        return problems
    if values.get("schedule") == "step" and not values.get("step_epochs"):
        problems.append("step_epochs = (): the step schedule needs at least one epoch at which to cut the rate")
    if values.get("cycles", 1) != 1 and values.get("schedule", "cosine") != "cosine":
        problems.append(f"cycles = {values['cycles']!r}: only the cosine schedule falls more than once")
    for name in ("last_lr", "cooldown_epochs"):
        if values.get(name) and values.get("schedule", "cosine") not in ("cosine", "linear"):
            problems.append(f"{name} = {values[name]!r}: only the cosine and the linear schedule have it")
    if values.get("compile") and values.get("recompute"):
        problems.append("recompute = True: not with compile, which decides for itself what is kept")
    outside = values.get("warmup_epochs", 0) + values.get("cooldown_epochs", 0)
    if values.get("epochs") and outside >= values["epochs"]:
        names = "warmup_epochs + cooldown_epochs" if values.get("cooldown_epochs") else "warmup_epochs"
        problems.append(f"{names} = {outside:g}: must be below epochs = {values['epochs']!r}")
    return problems


def _holds(rule: Rule, value: Any) -> bool:
    try:
        return bool(rule.holds(value))
    except TypeError:
        return False


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _choice(*choices: str) -> Rule:
    return Rule(lambda v: v in choices, "one of " + ", ".join(map(repr, choices)))


def _optional(rule: Rule) -> Rule:
    return Rule(lambda v: v is None or rule.holds(v), f"{rule.allowed}, or nothing")


_FLAG = Rule(lambda v: isinstance(v, bool), "true or false")
_COUNT = Rule(lambda v: _is_int(v) and v >= 0, "a whole number, 0 or more")
_POSITIVE_COUNT = Rule(lambda v: _is_int(v) and v >= 1, "a whole number, 1 or more")
_NOT_NEGATIVE = Rule(lambda v: _is_number(v) and v >= 0, "a number, 0 or more")
_POSITIVE = Rule(lambda v: _is_number(v) and v > 0, "a number above 0")
_FRACTION = Rule(lambda v: _is_number(v) and 0 <= v <= 1, "a number from 0 to 1")
_BELOW_ONE = Rule(lambda v: _is_number(v) and 0 <= v < 1, "a number from 0 to below 1")
_INSIDE_ONE = Rule(lambda v: _is_number(v) and 0 < v < 1, "a number between 0 and 1, both excluded")

_RULES: dict[str, Rule] = {
    "epochs": _COUNT,
    "batch_size": _POSITIVE_COUNT,
    "eval_batch_size": _POSITIVE_COUNT,
    "eval_epochs": _POSITIVE_COUNT,
    "optimizer": _choice("sgd", "rmsprop_tf", "adamw"),
    "lr": _POSITIVE,
    "momentum": _BELOW_ONE,
    "nesterov": _FLAG,
    "weight_decay": _NOT_NEGATIVE,
    "epsilon": _optional(_POSITIVE),
    "schedule": _choice("cosine", "linear", "exponential", "step", "constant"),
    "warmup_epochs": _NOT_NEGATIVE,
    "cycles": _POSITIVE_COUNT,
    "warmup_start": _FRACTION,
    "last_lr": _FRACTION,
    "cooldown_epochs": _NOT_NEGATIVE,
    "reference_batch": _optional(_POSITIVE_COUNT),
    "step_epochs": Rule(
        lambda v: isinstance(v, (tuple, list)) and all(_is_number(e) and e > 0 for e in v) and sorted(set(v)) == [*v],
        "rising numbers above 0",
    ),
    "step_factor": Rule(lambda v: _is_number(v) and 0 < v <= 1, "a number above 0, at most 1"),
    "label_smoothing": _BELOW_ONE,
    "mixup": _NOT_NEGATIVE,
    "cutmix": _NOT_NEGATIVE,
    "ema_decay": _optional(_INSIDE_ONE),
    "ema_warmup": _FLAG,
    "clip_grad": _optional(_POSITIVE),
    "precision": _choice("fp32", "bf16", "fp16"),
    "engine": _choice("auto", "simulated", "integer"),
    "engine_backward": _choice("fp32", "bf16"),
    "channels_last": _FLAG,
    "compile": _FLAG,
    "recompute": _FLAG,
    "deterministic": _FLAG,
    "sync_bn": _FLAG,
    "device": Rule(lambda v: isinstance(v, str) and v != "", 'a device name such as "auto", "cpu" or "cuda:0"'),
    "seed": _COUNT,
    "workers": _COUNT,
    "calibration_batches": _COUNT,
    "checkpoint_minutes": _optional(_POSITIVE),
    "checkpoint_steps": _optional(_POSITIVE_COUNT),
    "log_steps": _POSITIVE_COUNT,
    "tensorboard": _FLAG,
}
