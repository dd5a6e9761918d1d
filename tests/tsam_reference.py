"""The recipe by which the reference tensors of TSAM were filled (reference/tsam/README.md), and their layouts."""

import json
import math

import torch
from safetensors.torch import load_file

from tenfold.layers.temporal_align import Flows

FLOWS = ("flow_fwd", "flow_bwd", "invalid_fwd", "invalid_bwd")


def wave(shape, k, scale, offset=0.0):
    i = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return (offset + scale * torch.sin(0.37 * i + k)).reshape(shape).float()


def filled(rows, gain=2.0):
    """The state of a module by its rows of index, key and shape."""
    state = {}
    for row in rows:
        key, shape, k = row["key"], row["shape"], row["index"]
        if key.endswith("running_mean"):
            state[key] = wave(shape, k, 0.1)
        elif key.endswith("running_var"):
            state[key] = wave(shape, k, 0.3, 1)
        elif len(shape) > 1:
            state[key] = wave(shape, k, gain / math.sqrt(math.prod(shape[1:])))
        else:
            state[key] = wave(shape, k, 0.1, 0 if key.endswith("bias") else 1)
    return state


def read(shared, name):
    """A file of JSON or tensors."""
    folder = shared / "reference/tsam"
    if name.endswith(".json"):
        return json.loads((folder / name).read_text())
    return load_file(folder / f"{name}.safetensors")


def case(tensors, prefix):
    """The tensors of a case by short name."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def time_first(tensor):
    """(B, C, T, H, W) to (B, T, C, H, W), or back."""
    return tensor.transpose(1, 2).contiguous()


def flows_of(tensors, layout=time_first):
    return Flows(*(layout(tensors[name]) for name in FLOWS))
