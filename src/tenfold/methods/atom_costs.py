"""What a network with removable atoms costs: atoms do not depend on each other, so what is removed is subtracted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from tenfold.cost import profile
from tenfold.errors import BudgetError
from tenfold.methods.atom_selection import by_block
from tenfold.methods.atoms import AtomGroup, count_atoms


class AtomCosts:
    """The account of one search.

    Args:
        network: before anything is removed.
        groups: of its atoms.
        example: a batch of images, (B, C, H, W).

    Attributes:
        groups: those of the start.
        counts: atoms at the start, by the group's producer.
        whole: what the network costs at the start, by quantity.
        latencies: measured milliseconds of one atom, by the group's producer; empty before `set_latencies`.
    """

    def __init__(self, network: nn.Module, groups: Sequence[AtomGroup], example: Tensor) -> None:
        counted = profile(network, example)
        self.whole: dict[str, float] = {
            "macs": counted.macs,
            "params": counted.params,
            "bytes": counted.size_bytes,
            "bitops": counted.bitops,
        }
        self.groups = list(groups)
        self.counts = {group.producer: count_atoms(network, group) for group in groups}
        self.latencies: dict[str, float] = {}

    def set_latencies(self, table: Mapping[str, float], whole: float) -> None:
        """Let atoms cost measured milliseconds.

        Args:
            table: of one atom, by its group.
            whole: of the network before anything was removed.
        """
        self.latencies, self.whole["latency_ms"] = dict(table), whole
        self.groups = [
            replace(group, costs={**group.costs, "latency_ms": table[group.producer]}) for group in self.groups
        ]

    def with_left(self, counts: Mapping[str, int]) -> dict[str, float]:
        """What the network costs with so many atoms of each group; groups that are not named have none."""
        return {
            quantity: whole
            - sum(
                (self.counts[group.producer] - counts.get(group.producer, 0)) * group.costs[quantity]
                for group in self.groups
            )
            for quantity, whole in self.whole.items()
        }

    def penalty_weights(self, quantity: str | None) -> dict[str, float]:
        """The weight of each atom's penalty, by its group: mean 1 over all atoms, and fixed from the start.

        Args:
            quantity: what weighs; None: all atoms weigh the same.
        """
        if quantity is None:
            return {group.producer: 1.0 for group in self.groups}
        total = sum(self.counts[group.producer] * group.costs[quantity] for group in self.groups)
        mean = total / (sum(self.counts.values()) + 1e-5)  # the guard of the official code
        return {group.producer: group.costs[quantity] / mean for group in self.groups}

    def check_reach(self, limits: Mapping[str, float], quantity: str) -> None:
        """See whether limits can be kept at all.

        Args:
            limits: by quantity.
            quantity: of which the cheapest atom stays where one must.

        Raises:
            BudgetError: if a limit is out of reach with the fewest atoms.
        """
        smallest = self.with_left(self._fewest(quantity))
        for name, limit in limits.items():
            if smallest[name] > limit:
                raise BudgetError(
                    f"removing atoms cannot keep {name}={limit:,.6g}: with the fewest atoms {name} is "
                    f"{smallest[name]:,.6g}. Raise the budget, or take a smaller network."
                )

    def _fewest(self, quantity: str) -> dict[str, int]:
        """How many atoms of each group must stay: one in all where a block changes the shape, the cheapest."""
        fewest = {group.producer: 0 for group in self.groups}
        for groups in by_block(self.groups).values():
            if not groups[0].is_residual or groups[0].branch is None:
                fewest[min(groups, key=lambda group: group.costs[quantity]).producer] = 1
        return fewest
