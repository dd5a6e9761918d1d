"""An adversary: a discriminator that learns with the network to tell what the network made from what is real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from tenfold.cost import Budget
from tenfold.errors import UnknownNameError, UsageError
from tenfold.layers.adversarial_losses import (
    hinge_discriminator,
    hinge_generator,
    least_squares_discriminator,
    least_squares_generator,
)
from tenfold.layers.temporal_discriminator import TemporalDiscriminator
from tenfold.methods.method import Method, register

Loss = Literal["hinge", "least_squares"]
_LOSSES = {
    "hinge": (hinge_discriminator, hinge_generator),
    "least_squares": (least_squares_discriminator, least_squares_generator),
}


@register
@dataclass(kw_only=True)
class Adversarial(Method):
    """Reward a network that fills video for frames that a temporal patch discriminator takes for real.

    For tasks whose targets have a method `pair(outputs)` that gives real clips, made clips and what of them is known,
    as the task "inpaint" has. The discriminator and an Adam of its own are in every checkpoint, so a run that was
    killed goes on bit for bit; what leaves the training has nothing of them.

    In each step the network is judged by the discriminator as it is, then the discriminator learns from the same
    frames. Its learning rate follows the network's.

    Source: TSAM, arXiv 2104.03507 (`tsam.md` sections 5 and 7); defaults after STTN, arXiv 2007.10247.
    """

    name: ClassVar[str] = "adversarial"

    weight: float = 0.01
    """Of the adversarial term beside the task's loss."""
    loss: Loss = "hinge"
    """"hinge", or the authors' "least_squares"."""
    spectral: bool = True
    """Whether the discriminator's weights are normalised by their largest singular value; the authors' are not."""
    channels: int = 64
    """Of the discriminator's first layer; up to four times as many behind it."""
    lr_scale: float = 1.0
    """The discriminator's learning rate over the network's."""
    momentum: float = 0.0
    """Beta 1 of the discriminator's Adam; beta 2 is 0.99."""

    _discriminator: nn.Module | None = field(default=None, init=False, repr=False)
    _optimizer: torch.optim.Optimizer | None = field(default=None, init=False, repr=False)
    _seen: tuple[Tensor, Tensor, Tensor] | None = field(default=None, init=False, repr=False)
    _told: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in get_args(Loss):
            raise UnknownNameError("adversarial loss", self.loss, get_args(Loss))
        limits = {"weight": (0, 100), "channels": (4, 1024), "lr_scale": (0, 100), "momentum": (0, 0.999)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name} of the method 'adversarial' is {value}; allowed is {low} to {high}.")

    def attach(self, network: nn.Module, budget: Budget | None, example: Any) -> nn.Module:
        """Draw a fresh discriminator; the network stays as it is."""
        made = TemporalDiscriminator(channels=self.channels, spectral=self.spectral)
        self._discriminator = made.to(next(network.parameters()).device)
        self._optimizer = torch.optim.Adam(self._discriminator.parameters(), lr=0.0, betas=(self.momentum, 0.99))
        return network

    def term(self, outputs: Any, targets: Any) -> Tensor | None:
        """What the network has to pay for frames that are seen through."""
        assert self._discriminator is not None
        if not hasattr(targets, "pair"):
            raise UsageError(
                "the method 'adversarial' works with tasks that make pictures of what is real, such as 'inpaint'; this "
                "task does not. Leave the method out."
            )
        real, made, known = targets.pair(outputs)
        self._seen = (real.detach(), made.detach(), known)
        self._discriminator.requires_grad_(False)  # the network's gradients pass through, its own are not wanted here
        try:
            return self.weight * _LOSSES[self.loss][1](self._scores(made, known))
        finally:
            self._discriminator.requires_grad_(True)

    def step_end(self, run: Any) -> None:
        """Let the discriminator learn from what the network made in this step."""
        assert self._discriminator is not None
        assert self._optimizer is not None
        if self._seen is None:
            return
        real, made, known = self._seen
        self._seen = None
        loss = _LOSSES[self.loss][0](self._scores(real, known), self._scores(made, known))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        run.average_gradients(self._discriminator.parameters())
        for group in self._optimizer.param_groups:
            group["lr"] = run.last_lr * self.lr_scale
        self._optimizer.step()
        self._told = f"{float(loss.detach()):.3f}"

    def status(self) -> dict[str, str]:
        """The discriminator's own loss in the last step."""
        return {"discriminator": self._told} if self._told else {}

    def state_dict(self) -> dict[str, Any]:
        """The discriminator and its optimiser."""
        assert self._discriminator is not None
        assert self._optimizer is not None
        return {
            "discriminator": self._discriminator.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "told": self._told,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        assert self._discriminator is not None
        assert self._optimizer is not None
        self._discriminator.load_state_dict(state["discriminator"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._told = state["told"]

    def _scores(self, frames: Tensor, known: Tensor) -> Tensor:
        assert self._discriminator is not None
        scores: Tensor = self._discriminator(torch.cat([frames, known, torch.zeros_like(known)], 2))
        return scores
