"""The open choices of a network, what each saves, and how to settle them within a limit.

Source: AutoNL (arXiv 2004.01961), `autonl.md` section 4.4. Keeping a limit for certain is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tenfold.layers.searchable import Searchable
from tenfold.layers.searchable_block import SearchableBlock
from tenfold.layers.searchable_lightnl import SearchableNonLocal
from tenfold.modes import evaluating

Opened = Mapping[str, Any]
"""How open each choice is, by its full name: tensors (0-d) or numbers."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A searchable layer in its place.

    Attributes:
        name: of the layer.
        layer: itself.
        height: of its input.
        width: of its input.
        around: name of the searchable block that it is a part of, or "".
    """

    name: str
    layer: Searchable
    height: int
    width: int
    around: str = ""

    def full(self, choice: str) -> str:
        """The name of one of its choices in the network."""
        return f"{self.name}:{choice}"


def input_sizes(network: nn.Module, layers: Mapping[str, nn.Module], example: Tensor) -> dict[str, tuple[int, int]]:
    """Height and width of the map that reaches each of some layers, in the order of execution.

    Args:
        network: left as it was.
        layers: of it, by name.
        example: a batch of its inputs, (B, C, H, W), on the network's device.
    """
    sizes: dict[str, tuple[int, int]] = {}  # in the order of the calls

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sizes[name] = (inputs[0].shape[2], inputs[0].shape[3])

        return hook

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in layers.items()]
    try:
        with evaluating(network), torch.no_grad():
            network(example[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def find_sites(network: nn.Module, example: Tensor) -> list[Site]:
    """All searchable layers of a network with the sizes of their inputs, in the order of execution.

    Args:
        network: left as it was.
        example: a batch of its inputs, (B, C, H, W), on the network's device.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, Searchable)}
    sizes = input_sizes(network, layers, example)
    blocks = [name for name, layer in layers.items() if isinstance(layer, SearchableBlock)]
    return [
        Site(
            name=name,
            layer=layers[name],
            height=height,
            width=width,
            around=next((block for block in blocks if name.startswith(f"{block}.")), ""),
        )
        for name, (height, width) in sizes.items()
    ]


class ChoiceSearch:
    """What a network costs as a function of its choices.

    Args:
        sites: of its searchable layers.
        macs: of the network with everything open, for one image.
    """

    def __init__(self, sites: list[Site], macs: int) -> None:
        self.sites = sites
        self._fixed = 0
        self._fixed = macs - int(self.macs({}))

    @property
    def names(self) -> list[str]:
        """The full names of all undecided choices."""
        return [site.full(choice) for site in self.sites for choice in site.layer.choices]

    def macs(self, opened: Opened) -> Any:
        """Multiply-adds for one image; a choice that is not named is open."""
        return sum(self.macs_by_site(opened).values(), self._fixed)

    def macs_by_site(self, opened: Opened) -> dict[str, Any]:
        """What each site has of the multiply-adds, by its name; a block without the LightNL inside it."""
        return {
            site.name: (opened.get(f"{site.around}:keep", 1) if site.around else 1)
            * site.layer.macs(site.height, site.width, _local(site, opened))
            for site in self.sites
        }

    def chosen(self, opened: Mapping[str, bool]) -> dict[str, dict[str, float]]:
        """The settings of the sites that a decision leaves, by name."""
        return {
            site.name: site.layer.chosen(_local(site, opened))
            for site in self.sites
            if opened.get(f"{site.around}:keep", True)
            and all(opened.get(site.full(choice), True) for choice in ("keep", "place"))
        }

    def smallest(self) -> int:
        """Multiply-adds with everything closed."""
        return int(self.macs(dict.fromkeys(self.names, 0)))

    def openness(self) -> dict[str, Tensor]:
        """How open each choice is now (0-d), differentiable in thresholds and weights."""
        return {site.full(choice): value for site in self.sites for choice, value in site.layer.openness().items()}

    def margins(self) -> dict[str, float]:
        """The running mean of norm - threshold of each choice."""
        return {name: float(gate.margin) for name, gate in self._gates().items()}

    def thresholds(self) -> dict[str, float]:
        """The threshold of each choice."""
        return {name: float(gate.threshold.detach()) for name, gate in self._gates().items()}

    def _gates(self) -> dict[str, Any]:
        return {site.full(name): choice.gate for site in self.sites for name, choice in site.layer.choices.items()}

    @torch.no_grad()
    def share(self) -> None:
        """Let all processes of a group judge by the first one's running means; they must call it together."""
        means = [mean for gate in self._gates().values() for mean in (gate.level, gate.margin)]
        if means:
            together = torch.stack(means)  # one message instead of hundreds
            dist.broadcast(together, src=0)
            for mean, value in zip(means, together.unbind(), strict=True):
                mean.copy_(value)

    def savings(self, opened: Opened) -> dict[str, int]:
        """Multiply-adds that closing each open choice alone would save."""
        total = self.macs(opened)
        return {name: int(total - self.macs({**opened, name: 0})) for name in self.names if opened.get(name, 1)}

    def decide(self, limit: float | None = None) -> dict[str, bool]:
        """Whether each choice is taken: where its margin is above zero, and as far as the limit allows.

        While the limit is exceeded, the choice is closed that loses the least margin for each multiply-add saved. Then
        those closed so are opened again, the largest margin first, where the limit leaves room for them.
        """
        margins = self.margins()
        opened: dict[str, bool] = {name: margin > 0 for name, margin in margins.items()}
        if limit is None:
            return opened
        forced: list[str] = []
        while self.macs(opened) > limit:
            savings = {name: saved for name, saved in self.savings(opened).items() if saved > 0}
            if not savings:
                break
            cheapest = min(savings, key=lambda name: margins[name] / savings[name])
            opened[cheapest] = False
            forced.append(cheapest)
        for name in sorted(forced, key=lambda one: -margins[one]):
            if self.macs({**opened, name: True}) <= limit:
                opened[name] = True
        return opened

    def description(self, opened: Mapping[str, bool]) -> dict[str, Any]:
        """What to remove from the network so that it has become what was chosen, as `cut_channels` takes it."""
        cut: dict[str, Any] = {"removed": {}, "through": {}, "consumers": {}, "biased": [], "dropped": []}
        gone: list[str] = []
        for site in self.sites:
            if any(site.name.startswith(f"{one}.") for one in gone):
                continue
            if not all(opened.get(site.full(choice), True) for choice in ("keep", "place")):
                gone.append(site.name)
                cut["dropped"].append(site.name)
                continue
            for choice in site.layer.choices:
                is_open = _is_reached(site, choice, opened)
                cut["dropped"].append(f"{site.name}.options.{choice}" + (".gate" if is_open else ""))
            if isinstance(site.layer, SearchableBlock) and not opened.get(site.full("wide"), True):
                _describe_narrowing(cut, site.name, site.layer)
        return cut

    def settle(self, network: nn.Module) -> None:
        """Fit the statistics of the LightNL blocks that remain in a network, once it is decided."""
        modules = dict(network.named_modules())
        for site in self.sites:
            layer = modules.get(site.name)
            if isinstance(layer, SearchableNonLocal):
                layer.settle(site.height, site.width)


def _local(site: Site, opened: Opened) -> dict[str, Any]:
    """How open the choices of one site are, by their names there."""
    return {choice: opened.get(site.full(choice), 1) for choice in site.layer.choices}


def _is_reached(site: Site, choice: str, opened: Mapping[str, bool]) -> bool:
    """Whether a choice and all that come before it in a nested list are open."""
    layer = site.layer
    chain = [choice]
    if isinstance(layer, SearchableNonLocal):
        for names in (layer.ratio_names, layer.stride_names):
            if choice in names:
                chain = names[: names.index(choice) + 1]
    return all(opened.get(site.full(one), True) for one in chain)


def _describe_narrowing(cut: dict[str, Any], name: str, block: SearchableBlock) -> None:
    """The larger expansion goes, in every layer of the block that has its channels."""
    expand, channels = f"{name}.expand.conv", block.removed_channels()
    cut["removed"][expand] = channels
    cut["through"][expand] = [f"{name}.expand.bn", f"{name}.depthwise.k5.conv", f"{name}.depthwise.k5.bn"]
    cut["consumers"][expand] = [f"{name}.project.conv"]
    if block.squeezed:
        gate = f"{name}.squeeze_excite.expand"
        cut["consumers"][expand].append(f"{name}.squeeze_excite.reduce")
        cut["removed"][gate], cut["through"][gate], cut["consumers"][gate] = channels, [], []
