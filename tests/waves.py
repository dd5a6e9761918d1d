"""The recipe by which the reference tensors of DeepViT were filled (reference/deepvit/README.md)."""

import math

import torch


def wave(count, phase):
    """sin(0.37 u + 0.011 (u^2 mod 10007) + phase) for u = 1 ... count, float64."""
    u = torch.arange(1, count + 1, dtype=torch.int64)
    return torch.sin(0.37 * u.double() + 0.011 * ((u * u) % 10007).double() + phase)


def signal(shape, phase, scale=1.0):
    """An input, float32."""
    return (scale * wave(math.prod(shape), phase)).reshape(shape).float()


def filled_state(rows):
    """The state of a network by its rows of index, key, shape, offset and scale."""
    return {
        row["key"]: torch.zeros(row["shape"], dtype=torch.long)
        if "scale" not in row
        else (row["offset"] + row["scale"] * wave(math.prod(row["shape"]), row["index"])).reshape(row["shape"]).float()
        for row in rows
    }


def close_gradient(got, expected, name, mode):
    """1e-4 of the largest entry; the gradient of a bias that a norm takes away is rounding around 0 (1e-3)."""
    got = torch.zeros_like(expected) if got is None else got
    limit = 1e-4 * float(expected.abs().max())
    if name.endswith("reatten_matrix.bias") and mode == "train":
        limit = 1e-3
    difference = float((got - expected).abs().max())
    assert difference <= limit, f"{name}: {difference} is more than {limit}"
