"""Start a training from weights that are there already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenfold.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

_FLOAT = 32


def start_from(network: nn.Module, path: str | Path) -> dict[str, float] | None:
    """Pour weights into a fresh float network.

    From an artifact of Tenfold everything that the network has is taken, and what only quantizers have is left behind
    (SAT's second stage starts so, sat.md section 4). Other files must fit the network: by name, or else by position.

    Weights of a classifier start the backbone of a segmentation network; its head stays fresh.

    Args:
        network: freshly built; changed in place.
        path: an artifact, or the `.safetensors` or PyTorch checkpoint of another program.

    Returns:
        The metrics of the artifact's network if that was a float one, to compare with; else None.

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it is damaged.
        UsageError: if the weights do not fit the network.
    """
    from tenfold import export, models

    if Path(path).suffix == ".safetensors":
        try:
            header, tensors = export.read_artifact(path)
        except ArtifactError:
            header, tensors = {}, {}  # not ours: read_checkpoint says what is wrong, if anything is
        if header:
            started = _part_that_starts(network, tensors)
            _load_shared(started, tensors, path)
            return _float_metrics(header) if started is network else None
    state = models.read_checkpoint(path)
    network = _part_that_starts(network, state)
    if state.keys() == network.state_dict().keys():
        _load_shared(network, state, path)
    else:
        models.load_by_position(network, state)
    return None


def _part_that_starts(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network, or the backbone of a segmentation network for weights that know no backbone."""
    from tenfold.models import Segmenter

    if isinstance(network, Segmenter) and not any(name.startswith("backbone.") for name in tensors):
        return network.get_submodule("backbone")
    return network


def _load_shared(network: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    own = network.state_dict()
    missing = [name for name in own if name not in tensors]
    misfits = [
        f"{name} is {tuple(tensors[name].shape)} there and {tuple(own[name].shape)} here"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    problems = [f"{name} is missing" for name in missing] + misfits
    if problems:
        more = f", and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise UsageError(
            f"the weights in {path} do not fit this network: {'; '.join(problems[:4])}{more}. "
            "Build the network that they were trained for: the same --model, options and number of classes."
        )
    network.load_state_dict({name: tensors[name] for name in own})


def _float_metrics(header: Mapping[str, Any]) -> dict[str, float] | None:
    if any(_is_quantized(scheme) for scheme in header.get("schemes", {}).values()):
        return None
    metrics = {name: value for name, value in header.get("metrics", {}).items() if value is not None}
    return metrics or None


def _is_quantized(scheme: Mapping[str, Any]) -> bool:
    # Pixels have 8 bits by nature; a layer that takes them as they are is not quantized by that.
    return scheme["w_bits"] < _FLOAT or (scheme["a_bits"] < _FLOAT and not scheme.get("pixels"))
