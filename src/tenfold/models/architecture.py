"""`Architecture`, the small description of a network that a file can carry, and `build`, which follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tenfold.errors import ArtifactError, UsageError
from tenfold.models.options import read_options
from tenfold.models.registry import lookup

# Where weights come from is no part of a network's shape: a file brings its own, and never makes a download happen.
_NOT_SHAPE = frozenset({"pretrained"})


@dataclass(frozen=True)
class Architecture:
    """A network's name and options: all that is needed to build it again, and nothing that can run code.

    Example:
        >>> Architecture("mobilenet_v2", {"width": 0.5}).to_dict()
        {'name': 'mobilenet_v2', 'options': {'width': 0.5}}
    """

    name: str
    """A name that the registry knows."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of its builder, JSON values."""

    @property
    def title(self) -> str:
        """The name for people: of a network built on another one, both.

        Example:
            >>> Architecture("segmenter", {"network": "resnet18"}).title
            'segmenter on resnet18'
        """
        inner = self.options.get("network")
        return f"{self.name} on {inner}" if isinstance(inner, str) else self.name

    def to_dict(self) -> dict[str, Any]:
        """The description as a JSON object."""
        return {"name": self.name, "options": _shape_options(self.options)}

    @classmethod
    def from_dict(cls, description: object) -> Architecture:
        """Read what `to_dict` wrote; the object may come from anywhere, so everything about it is checked.

        Args:
            description: object with exactly the keys "name" and "options".

        Raises:
            ArtifactError: if the object has another form.
            UnknownNameError: if no such model or option is known here.
            UsageError: if an option has a value that its builder does not allow.
        """
        if not isinstance(description, dict) or description.keys() != {"name", "options"}:
            raise ArtifactError(
                f"an architecture must be an object with the keys 'name' and 'options', not {_shown(description)}. "
                "The file is damaged, or was not written by Tenfold."
            )
        name, options = description["name"], description["options"]
        if not isinstance(name, str) or not isinstance(options, dict):
            raise ArtifactError(
                f"an architecture's name must be text and its options an object, not {_shown(name)} and "
                f"{_shown(options)}. The file is damaged, or was not written by Tenfold."
            )
        return cls(name, _shape_options(read_options(name, lookup(name).builder, options)))

    def with_lightnl(self, places: Sequence[tuple[str, int, float, int]]) -> Architecture:
        """The same network with LightNL blocks behind layers of it.

        Args:
            places: (layer, its output channels, ratio, stride) of each block.
        """
        known = {"num_classes", "in_channels"}
        outer = {option: value for option, value in self.options.items() if option in known}
        inner = {option: value for option, value in _shape_options(self.options).items() if option not in known}
        table = [list(place) for place in places]
        return Architecture("with_lightnl", {**outer, "network": self.name, "options": inner, "places": table})


def build(architecture: str | Architecture, **options: Any) -> nn.Module:
    """Build a network by name.

    Args:
        architecture: registered name, `timm:NAME`, `torchvision:NAME`, or an `Architecture`.
        options: options of the model's builder, such as num_classes, in_channels, width. With an `Architecture` they
            take the place of its own.

    Returns:
        The network in training mode, freshly initialised, with its complete description as attribute `architecture`.

    Raises:
        UnknownNameError: if no such model or option is known.
        UsageError: if an option has a value that is not allowed.
        DataError: if pretrained weights were asked for and could not be had.

    Example:
        >>> build("mobilenet_v2", width=0.5).architecture.options
        {'num_classes': 1000, 'in_channels': 3, 'width': 0.5}
    """
    if isinstance(architecture, Architecture):
        name, given = architecture.name, {**architecture.options, **options}
    elif isinstance(architecture, str):
        name, given = architecture, options
    else:
        raise UsageError(f"build takes a model's name or an Architecture, not {_shown(architecture)}.")
    entry = lookup(name)
    complete = read_options(name, entry.builder, given)
    if complete.get("num_classes", 0) is None:  # a library's default, which may change with its version: pin it
        complete["num_classes"] = entry.facts.num_classes or None
    network = entry.builder(**complete)
    network.architecture = Architecture(name, _shape_options(complete))  # type: ignore[assignment]
    return network


def _shape_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if option not in _NOT_SHAPE}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
