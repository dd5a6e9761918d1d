"""What may happen to a network during one training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from tenfold.cost import Budget
from tenfold.errors import UnknownNameError, UsageError
from tenfold.methods.option_kinds import check_kinds


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass over a batch.

    Attributes:
        weight: factor of the pass's loss; the gradients of all passes of a batch are summed.
        enter: called before the pass, to put the network into its setting (AdaBits: one bit-width).
        name: of the setting, for metrics and reports ("4" for four bits); "" for the only one.
        adjust: (outputs, loss) -> the loss to use instead (distillation), or None.
    """

    weight: float = 1.0
    enter: Callable[[], None] = _nothing
    name: str = ""
    adjust: Callable[[Tensor, Tensor], Tensor] | None = None


@dataclass(kw_only=True)
class Method:
    """Something that `fit` lets happen to a network; subclass it and override what you need.

    `fit` takes a list of methods and applies each step in the order of the list. A method names no network: it works on
    any `torch.nn.Module`. Its options are the fields of the dataclass, all JSON-able, so that a recipe can name them.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the options; a subclass with rules of its own begins with this.

        Raises:
            UsageError: if an option is of another kind than its field.
        """
        check_kinds(self)

    def attach(self, network: nn.Module, budget: Budget | None, example: Any) -> nn.Module:
        """Rewrite layers and add parameters before the training; returns the network to train.

        Args:
            network: the network so far; may be changed in place.
            budget: what the final network may cost, or None.
            example: a batch of real inputs, such as images (B, C, H, W), on the network's device.

        Raises:
            BudgetError: if the budget is out of reach whatever the training does.
        """
        return network

    def passes(self, network: nn.Module) -> Sequence[Pass]:
        """The settings that each batch runs in."""
        return (Pass(),)

    def settings(self, network: nn.Module) -> Sequence[Pass]:
        """All settings that the network will have, also those that no batch runs in now; each is calibrated."""
        return self.passes(network)

    def batch(self, network: nn.Module) -> AbstractContextManager[None]:
        """A context around all passes of a batch, for work that they share."""
        return nullcontext()

    def term(self, outputs: Any, targets: Any) -> Tensor | None:
        """A differentiable term that is added to the loss of each pass (0-d), or None.

        Args:
            outputs: what the network gave.
            targets: what the task compares it with.
        """
        return None

    def penalty(self, network: nn.Module) -> Tensor | None:
        """A differentiable term that is added to the loss once a batch (0-d), or None."""
        return None

    def step_end(self, run: Any) -> None:
        """Called after each optimiser step with the run: anneal, shrink, round."""

    def network_cut(self, network: nn.Module) -> None:
        """Called after channels or modules were removed from the network: count again what it costs."""

    def prepare_evaluation(self, network: nn.Module, batches: Iterator[Any]) -> None:
        """Called before the network, or its weight average, is evaluated during the training.

        Args:
            network: that will be evaluated; may be changed in place.
            batches: training inputs, such as images (B, C, H, W), on the network's device.
        """

    def status(self) -> dict[str, str]:
        """What to show of the method's progress beside the metrics of an epoch: short texts by name."""
        return {}

    def finish(self, network: nn.Module, batches: Iterator[Any]) -> nn.Module:
        """The plain network that leaves the training.

        Args:
            network: as trained; may be changed in place.
            batches: training inputs, such as images (B, C, H, W), on the network's device, for those that must
                calibrate something.

        Raises:
            BudgetError: if it does not keep the budget, saying by how much.
        """
        return network

    def report(self, network: nn.Module) -> dict[str, Any]:
        """What the method has found out, for the report: JSON values; empty for nothing to tell."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs besides the network: JSON-able values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""

    def resumed(self, run: Any) -> None:
        """Called with a run that was restored, networks and methods: bring along what no state holds."""

    def to_dict(self) -> dict[str, Any]:
        """The kind and the options, as a recipe writes them."""
        return {"kind": self.name, **{one.name: getattr(self, one.name) for one in fields(self) if one.init}}


_METHODS: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    """Make a method known under its `name`; a decorator.

    Raises:
        UsageError: if the name is taken.
    """
    if method.name in _METHODS:
        raise UsageError(f"a method named {method.name!r} is registered already; choose another name.")
    _METHODS[method.name] = method
    return method


def list_methods() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(_METHODS)


def list_options(name: str) -> list[str]:
    """The options that a method takes.

    Raises:
        UnknownNameError: if there is no such method.
    """
    if name not in _METHODS:
        raise UnknownNameError("method", name, _METHODS)
    return [one.name for one in fields(_METHODS[name]) if one.init]


def create(name: str, **options: Any) -> Method:
    """A method by its name.

    Raises:
        UnknownNameError: if there is no such method, or it has no such option.
        UsageError: if an option has a value that is not allowed.
    """
    known = list_options(name)
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of method {name!r}", option, known)
    return _METHODS[name](**options)
