"""Watching the values that the profile `fast` must round although the network does not, and choosing their range."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from tenfold.export.compact import write_compact
from tenfold.export.graph import Network, bypass
from tenfold.export.integers import UINT8_TOP
from tenfold.export.session import open_session

_SAMPLE = 16384
"""How many values of one image are kept of each place."""
_TINY = float(np.finfo(np.float32).tiny)
_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Which parts of the full range are tried."""


def observe_ranges(network: Network, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, tuple[float, float]]:
    """Run the network, with its own quantizers at work, and choose the range of each observed value.

    Args:
        network: after `place`; left as it was.
        inputs: what to give one after another, by the name of the graph's input.

    Returns:
        Smallest and largest value to represent, by the name of the observation.
    """
    watched = network.clone()
    names = _watch(watched)
    if not names:
        return {}
    write_compact(watched)
    session = reference_session(watched.model)
    samples = defaultdict(list)
    lows: dict[str, float] = defaultdict(float)
    highs: dict[str, float] = defaultdict(float)
    for one in inputs:
        found = session.run(list(names), dict(one))
        for name, values in zip(names, found, strict=True):
            flat = values.reshape(-1)
            lows[name], highs[name] = min(lows[name], float(flat.min())), max(highs[name], float(flat.max()))
            samples[name].append(flat[:: max(1, flat.size // _SAMPLE)].copy())
    return {
        place: best_range(np.concatenate(samples[name]), lows[name], highs[name])
        for name, places in names.items()
        for place in places
    }


def best_range(values: NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    """The part of a range whose 8-bit grid has the smallest mean squared error; rare large values may be clipped.

    Args:
        values: a sample.
        low: the smallest of all values, or 0.
        high: the largest of all values, or 0.
    """

    def error(share: float) -> float:
        step = max((high - low) * share / UINT8_TOP, _TINY)
        zero = np.rint(-low * share / step)
        rounded = (np.clip(np.rint(values / step) + zero, 0, UINT8_TOP) - zero) * step
        return float(np.square(rounded - values).mean())

    share = min(_SHARES, key=error)
    return low * share, high * share


def _watch(network: Network) -> dict[str, list[str]]:
    """Make every value that an `Observe` node reads an output of the graph; the names of the nodes by value."""
    names: dict[str, list[str]] = defaultdict(list)
    for node in [node for node in network.graph if node.op_type == "Observe"]:
        value = node.inputs[0]
        assert value is not None
        name = node.attributes["name"].value
        bypass(node, value)
        if value.is_graph_input():
            value = _copy(network.graph, value)
        if not names[value.name]:
            value.type = ir.TensorType(ir.DataType.FLOAT)
            if not value.is_graph_output():
                network.graph.outputs.append(value)
        names[value.name].append(name)
    return dict(names)


def _copy(graph: ir.Graph, value: ir.Value) -> ir.Value:
    node = ir.Node("", "Identity", [value])
    node.outputs[0].name = f"{value.name}_copy"
    graph.append(node)
    return node.outputs[0]


def reference_session(model: ir.Model) -> Any:
    """A session that computes as the network does: without integer kernels."""
    return open_session(ir.to_proto(model).SerializeToString(), {"session.disable_quant_qdq": "1"})
