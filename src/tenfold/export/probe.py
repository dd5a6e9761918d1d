"""A graph cut open at its quantized activations, to see each layer's own error.

In a deep low-bit network one code that falls to the other side of a tie changes many others after it, in PyTorch as
well. So each layer of the graph gets the very codes that it gets in the network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tenfold.export.graph import Codes, Quantizer
from tenfold.quant import activation_quantizers

Array = NDArray[Any]


@dataclass(frozen=True)
class Check:
    """The comparison of one tensor."""

    worst_steps: float
    exact: float
    size: int
    relative: float

    @classmethod
    def worst_of(cls, checks: Sequence[Check]) -> Check:
        """Several comparisons of one tensor as one."""
        sizes = [check.size for check in checks]
        exact = float(np.average([check.exact for check in checks], weights=sizes))
        worst = max(check.worst_steps for check in checks)
        return cls(worst, exact, sum(sizes), max(check.relative for check in checks))


class Watched(NamedTuple):
    """One run of a network."""

    outputs: list[Array]
    activations: dict[str, list[Array]]
    """What its activation quantizers gave, by layer name in the order of calls."""


def watch(network: nn.Module | None, run: Callable[[], Any]) -> Watched:
    """Run something, and keep what the activation quantizers of a network give meanwhile; none without a network."""
    activations: dict[str, list[Array]] = defaultdict(list)

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            activations[name].append(array(output))

        return hook

    quantizers = {} if network is None else activation_quantizers(network)
    hooks = [quantizer.register_forward_hook(keep(name)) for name, quantizer in quantizers.items()]
    with torch.no_grad():
        result = run()
    for hook in hooks:
        hook.remove()
    tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    return Watched([array(tensor) for tensor in tensors], activations)


class Probe:
    """A graph cut open at every quantized activation, with the network's own codes to put in at the cuts.

    Args:
        model: as it will be written.
        quantizers: the activation quantizers that were in it.
        codes: how each is written now.
        truth: any run of the network.
    """

    def __init__(
        self, model: ir.Model, quantizers: Sequence[Quantizer], codes: Sequence[Codes], truth: Watched
    ) -> None:
        self.model = model.clone()
        graph = self.model.graph
        self._output_names = [value.name for value in graph.outputs]
        values = {value.name: value for node in graph for value in node.outputs}
        watched = [values[code.value.name] for code in codes if code.value is not None]
        self._quantizers, self._codes, self._names = quantizers, codes, [value.name for value in watched]
        self._forced: dict[int, str] = {}
        for index, (value, code, seen) in enumerate(zip(watched, codes, self._truths(truth), strict=True)):
            if len(list(value.uses())) == 1 and watched.count(value) == 1:
                # Only this layer reads these codes.
                forced = ir.Value(name=f"forced_{index}", type=_tensor_of(code))
                forced.shape = ir.Shape([f"d{index}_{axis}" for axis in range(seen.ndim)])
                ir.convenience.replace_all_uses_with(value, forced)
                graph.inputs.append(forced)
                self._forced[index] = forced.name
            if not value.is_graph_output():
                value.type = _tensor_of(code)
                graph.outputs.append(value)

    def feeds(self, truth: Watched) -> dict[str, Array]:
        """What to put in at the cuts, by the name of the input."""
        found, truths = {}, self._truths(truth)
        for index, name in self._forced.items():
            code = self._codes[index]
            exact = np.rint((truths[index] - code.offset) / code.scale) + code.zero
            kind = np.iinfo(code.kind)
            found[name] = np.clip(exact, kind.min, kind.max).astype(code.kind)
        return found

    def compare(self, found: dict[str, Array], truth: Watched) -> tuple[dict[str, Check], float]:
        """The codes by layer, and the largest relative error of the outputs.

        Args:
            found: what a runtime gives, by name.
            truth: the network's run on the same.
        """
        pairs = zip(self._output_names, truth.outputs, strict=True)
        return self.codes(found, truth), max(relative_error(found[name], wanted) for name, wanted in pairs)

    def codes(self, found: dict[str, Array], truth: Watched) -> dict[str, Check]:
        """The comparison of the codes, by layer; of one that runs several times all runs together."""
        checks: dict[str, list[Check]] = defaultdict(list)
        rows = zip(self._quantizers, self._codes, self._names, self._truths(truth), strict=True)
        for quantizer, code, name, wanted in rows:
            real = code.scale * (found[name].astype(np.float64) - code.zero) + code.offset
            steps = np.abs(real - wanted) / quantizer.grid.step
            checks[quantizer.name].append(
                Check(
                    float(steps.max(initial=0)),
                    float((steps < 0.25).mean()) if steps.size else 1.0,
                    max(1, steps.size),
                    relative_error(real, wanted, floor=quantizer.grid.step),
                )
            )
        return {name: Check.worst_of(some) for name, some in checks.items()}

    def _truths(self, truth: Watched) -> list[Array]:
        """What each quantizer of the graph should give."""
        left = {name: list(calls) for name, calls in truth.activations.items()}
        return [left[quantizer.name].pop(0) for quantizer in self._quantizers]


def relative_error(found: Array, wanted: Array, floor: float = 0.0) -> float:
    """Root mean square error as a share of the deviation of the wanted values; infinite for NaN."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    error = float(np.sqrt(np.square(found - wanted).mean())) if wanted.size else 0.0
    if not np.isfinite(error):
        return np.inf
    scale = max(float(wanted.std()), floor, 1e-6 * float(np.abs(wanted).max(initial=0)))
    return error / scale if error else 0.0


def _tensor_of(codes: Codes) -> ir.TensorType:
    return ir.TensorType(ir.DataType.from_numpy(np.dtype(codes.kind)))


def array(tensor: Tensor) -> Array:
    """A tensor as real numbers of numpy."""
    return tensor.detach().float().cpu().contiguous().numpy()
