"""Weights that come with Tenfold: small networks trained by a committed recipe, each with a card in docs/models."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from tenfold.errors import MissingDataError, UsageError

_FOLDER = Path(__file__).parents[1] / "weights"


def packaged_weights(name: str) -> Path | None:
    """The artifact with the weights of a model, or None if none come with Tenfold.

    Args:
        name: of the registry, such as "tsam_tiny". A file is called NAME.TAG.safetensors; the tag says what it learned.
    """
    found = sorted(_FOLDER.glob(f"{name}.*.safetensors"))
    return found[0] if found else None


def list_packaged() -> list[str]:
    """Names of all models whose weights come with Tenfold, sorted."""
    return sorted({path.name.partition(".")[0] for path in _FOLDER.glob("*.*.safetensors")})


def load_packaged(network: nn.Module, name: str) -> None:
    """Pour the weights that come with Tenfold into a network; stored in half precision, they become what it has.

    Raises:
        MissingDataError: if none come for this model.
        UsageError: if the network was built with other options than theirs.
    """
    path = packaged_weights(name)
    if path is None:
        raise MissingDataError(
            f"no weights come with Tenfold for {name!r}; there are some for {', '.join(list_packaged()) or 'none'}. "
            "Train it with `tenfold fit`, or build it with pretrained=False."
        )
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        with safe_open(path, framework="pt") as file:
            options = json.loads(file.metadata()["tenfold"])["architecture"]["options"]
        told = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise UsageError(f"the weights that come for {name!r} are of the network with {told}; build it so.") from error
