"""The recipe by which the reference tensors of AtomNAS and AutoNL were filled (reference/atomnas/README.md)."""

import math

import numpy as np
import torch


def uniform(count, t, seed):
    """u in (-1, 1) of elements 0 to count - 1 of tensor t, float64."""
    with np.errstate(over="ignore"):
        i = np.arange(count, dtype=np.uint32)
        offset = ((t + 1) * 0x85EBCA77 + seed * 0xC2B2AE3D) % 2**32
        h = (i + np.uint32(1)) * np.uint32(0x9E3779B1) + np.uint32(offset)
        h ^= h >> np.uint32(16)
        h *= np.uint32(0x7FEB352D)
        h ^= h >> np.uint32(15)
        h *= np.uint32(0x846CA68B)
        h ^= h >> np.uint32(16)
    return torch.from_numpy((h.astype(np.float64) + 0.5) / 2.0**31 - 1)


def fill(t, shape, kind, seed, amplitude):
    """Tensor t of a network, float64."""
    if kind == "counter":
        return torch.zeros((), dtype=torch.long)
    u = uniform(math.prod(shape), t, seed).reshape(shape)
    fan_in = math.prod(shape[1:]) or 1
    return {
        "conv": lambda: amplitude / math.sqrt(fan_in) * u,
        "linear": lambda: math.sqrt(3 / fan_in) * u,
        "bn_gamma": lambda: 1 + 0.25 * u,
        "bn_var": lambda: 1 + 0.5 * u,
        "bn_mean": lambda: 0.1 * u,
        "bn_beta": lambda: 0.1 * u,
        "bias": lambda: 0.1 * u,
        "nl_gamma": lambda: 0.5 * u,
    }[kind]()


def fill_by_keys(keys, seed, amplitude):
    """The state of a network by the official names, from rows [t, name, shape, kind]."""
    return {name: fill(t, shape, kind, seed, amplitude) for t, name, shape, kind in keys}


def image(batch, channels, height, width, seed):
    """A batch of images, float64, (B, C, H, W)."""
    n, c, h, w = np.ogrid[:batch, :channels, :height, :width]
    waves = torch.from_numpy(np.sin(0.05 * (c + 1) * h + 0.031 * (n + 2) * w + 0.7 * c))
    noise = uniform(batch * channels * height * width, 1000003, seed).reshape(batch, channels, height, width)
    return waves + 0.25 * noise


def statistics(x):
    """[mean, population deviation, mean |x|, max |x|, 2-norm] of a feature map."""
    x = x.detach().double().flatten()
    return torch.stack([x.mean(), x.std(correction=0), x.abs().mean(), x.abs().max(), x.norm()])


def probes(x):
    """64 entries of a feature map at scattered places."""
    flat = x.detach().flatten()
    return flat[torch.tensor([(j * 2654435761 % 2**32) % flat.numel() for j in range(64)])]
