"""The authors' predictor, a small perceptron from a code to metrics and costs, and several of them side by side.

The members of an ensemble are one network with one more dimension: they are trained and asked in one pass, each with
weights, batches and dropout of its own, at hardly more than the time of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.errors import UsageError

_SHARED, _SEPARATE = 256, 128
DROPOUT = 0.5


class _Linears(nn.Module):
    """One linear layer for each member, with PyTorch's usual start."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(members, N, inputs) to (members, N, outputs)."""
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))


class _Norms(nn.Module):
    """One batch norm for each member."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(members, width))
        self.bias = nn.Parameter(torch.zeros(members, width))
        self.register_buffer("running_mean", torch.zeros(members, width))
        self.register_buffer("running_var", torch.ones(members, width))

    def forward(self, x: Tensor) -> Tensor:
        """(members, N, width) to the same shape."""
        members, _, width = x.shape
        flat = x.transpose(0, 1).flatten(1)  # (N, members * width): every member has columns of its own
        mean, var, weight, bias = (
            one.reshape(-1) for one in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        y = F.batch_norm(flat, mean, var, weight, bias, training=self.training, momentum=0.1, eps=1e-5)
        return y.unflatten(1, (members, width)).transpose(0, 1)


class PredictorNetwork(nn.Module):
    """A trunk and one head for each group of metrics, for every member.

    Source: arXiv 2103.13253, official code (ncp.md section 5).

    Args:
        inputs: coordinates of a point.
        heads: outputs of each head.
        members: of the ensemble; the authors have one.
        cost_heads: heads at the end that predict costs; they have no dropout.
    """

    def __init__(self, inputs: int, heads: Sequence[int], members: int = 1, cost_heads: int = 1) -> None:
        super().__init__()
        self.members = members
        self.fc = nn.Sequential(
            _Norms(members, inputs),
            _Linears(members, inputs, _SHARED),
            _Norms(members, _SHARED),
            nn.SiLU(),
            nn.Dropout(DROPOUT),
        )
        self.nets = nn.ModuleList(
            nn.Sequential(
                _Linears(members, _SHARED, _SEPARATE),
                _Norms(members, _SEPARATE),
                nn.SiLU(),
                nn.Dropout(DROPOUT if at < len(heads) - cost_heads else 0.0),
                _Linears(members, _SEPARATE, outputs),
            )
            for at, outputs in enumerate(heads)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Standardised points (N, inputs), or (members, N, inputs), to outputs (members, N, sum of heads)."""
        if x.dim() == 2:
            x = x.expand(self.members, *x.shape)
        shared = self.fc(x)
        return torch.cat([net(shared) for net in self.nets], 2)

    def load_official(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Load predictors that the authors' program trained, one for each member.

        Args:
            states: tensors by the authors' names, `fc.*` and `nets.*`; counters of batches are left alone.

        Raises:
            UsageError: if there are not as many as members, or a tensor is missing or has another shape.
        """
        if len(states) != self.members:
            raise UsageError(f"{len(states)} predictors do not fill an ensemble of {self.members}.")
        own = self.state_dict()
        wrong = [
            name
            for name, tensor in own.items()
            for state in states
            if name not in state or state[name].shape != tensor.shape[1:]
        ]
        if wrong:
            raise UsageError(
                f"the weights do not fit the predictor: {', '.join(wrong[:3])}, {len(wrong)} in all, are missing or "
                "have another shape. Give it the heads that they were trained with."
            )
        self.load_state_dict({name: torch.stack([state[name] for state in states]) for name in own})


def train_predictor(
    network: PredictorNetwork,
    points: Tensor,
    values: Tensor,
    *,
    seed: int = 0,
    epochs: int = 200,
    batch: int = 128,
    lr: float = 1e-2,
    weight_decay: float = 1e-7,
) -> None:
    """Train by the authors' recipe: Adam, one cycle of the learning rate, smooth L1 on all standardised outputs.

    The authors keep the epoch that was best on the validation rows; here the last one stays, since choosing by rows
    that one reports on flatters the report.

    Source: arXiv 2103.13253, official code (ncp.md section 5).

    Args:
        network: trained in place, and left in evaluation mode.
        points: (N, inputs), standardised.
        values: (N, outputs), standardised.
        seed: of batches and dropout; each member has its own batches.
        epochs: passes over all rows.
        batch: rows of a step; the last, partial one is kept.
        lr: the highest learning rate.
        weight_decay: of Adam.
    """
    count, members = len(points), network.members
    steps = math.ceil(count / batch)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=epochs * steps, pct_start=0.3, div_factor=10
    )
    network.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(epochs):
            order = torch.rand(members, count).argsort(1)
            for start in range(0, count, batch):
                rows = order[:, start : start + batch]
                if rows.shape[1] < 2:
                    continue  # a batch norm needs two rows
                loss = F.smooth_l1_loss(network(points[rows]), values[rows], reduction="none").mean((1, 2)).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    network.eval()
