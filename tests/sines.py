"""The recipe by which the reference tensors of NCP were filled (reference/ncp/README.md)."""

import math

import torch


def _count(shape):
    return torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)


def sine_state(shapes):
    """A state by the shapes of its floating-point tensors, in the authors' order; float32."""
    state = {}
    for k, (name, shape) in enumerate(shapes.items()):
        i, kind = _count(shape), name.rpartition(".")[2]
        if kind == "weight" and len(shape) > 1:
            scale = math.sqrt(2 / math.prod(shape[1:]))
            values = scale * torch.sin(0.37 * i * (1 + 0.618 * (i % 7)) + k)
        else:
            base, scale = {"weight": (1, 0.2), "running_var": (1, 0.3)}.get(kind, (0, 0.1))
            values = base + scale * torch.sin(0.37 * i + k)
        state[name] = values.reshape(shape).float()
    return state


def sine_image(*shape):
    """Images and cotangents, float32."""
    i = _count(shape)
    return (torch.sin(0.113 * i) + 0.5 * torch.sin(0.0071 * i + 1)).reshape(shape).float()
