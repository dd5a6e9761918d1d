"""Putting blocks behind layers of a network that somebody else wrote."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn

from tenfold.errors import UnknownNameError
from tenfold.layers.lightnl import LightNonLocal

BLOCK = "attention"
"""What an inserted block is called where it stands."""


def insert_behind(network: nn.Module, name: str, block: nn.Module) -> str:
    """Let a block work on the output of a module, in place.

    At the end of a plain `Sequential` the block is appended, and other names stay as they are. Elsewhere module and
    block become a `Sequential` under the module's name, as `layer` and `attention`.

    Args:
        network: holds the module.
        name: of the module.
        block: keeps the shape of its input.

    Returns:
        The name of the block.

    Raises:
        UnknownNameError: if there is no such module.
    """
    modules = dict(network.named_modules())
    if not name or name not in modules:
        raise UnknownNameError("layer to insert a block behind", name, [one for one in modules if one])
    module = modules[name]
    block.train(module.training)
    parent_name, _, child = name.rpartition(".")
    parent = modules[parent_name]
    if _is_plain_sequence(module):
        module.add_module(BLOCK, block)
        return f"{name}.{BLOCK}"
    if parent_name and _is_plain_sequence(parent) and list(parent._modules)[-1] == child:
        parent.add_module(BLOCK, block)
        return f"{parent_name}.{BLOCK}"
    setattr(parent, child, nn.Sequential(OrderedDict([("layer", module), (BLOCK, block)])))
    return f"{name}.{BLOCK}"


def take_out(network: nn.Module, name: str) -> None:
    """The inverse of `insert_behind`.

    Args:
        network: holds the block; changed in place.
        name: of the block, as `insert_behind` gave it.
    """
    holder_name = name.rpartition(".")[0]
    holder = network.get_submodule(holder_name)
    if list(holder._modules) == ["layer", BLOCK]:
        parent_name, _, child = holder_name.rpartition(".")
        setattr(network.get_submodule(parent_name), child, holder.get_submodule("layer"))
    else:
        delattr(holder, BLOCK)


def insert_light_non_local(network: nn.Module, places: Iterable[tuple[str, int, float, int]]) -> nn.Module:
    """Put LightNL blocks behind layers of any convolutional network, in place; it answers as before until it trains.

    Args:
        network: any.
        places: (layer, its output channels, ratio, stride) of each block.

    Returns:
        The network.

    Raises:
        UnknownNameError: if there is no such layer.
        UsageError: if a ratio or stride is not allowed.
    """
    for name, channels, ratio, stride in places:
        insert_behind(network, name, LightNonLocal(channels, ratio=ratio, stride=stride))
    return network


def _is_plain_sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module) > 0
