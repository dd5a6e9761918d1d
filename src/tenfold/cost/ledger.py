"""The bill of a network: one row a layer, and the totals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What one layer costs for one image.

    A row is one kind of work in one module: an attention module that multiplies by weights and also multiplies
    activations with each other has two rows. A module that is called several times has one row with the sum.

    Attributes:
        name: qualified name of the module; "" is the network itself.
        kind: "conv", "linear", "matmul" (of two activations), "attention", "interpolate", ...; for a row that only
            holds parameters "norm" or "parameters".
        macs: multiply-adds.
        params: number of parameters; a tied parameter counts in the first row that uses it.
        w_bits: bits of a weight, 32 for float; the mean where kernels differ. For a product of activations, the bits of
            the second operand.
        a_bits: bits of an input value, 32 for float; the mean where channels differ.
        bitops: sum over the multiply-adds of weight bits times input bits.
        size_bytes: bytes of the parameters in a file: weights at `w_bits`, biases and all others at 32 bits, the affine
            parameters of norms and clipping levels (`alpha`) not counted, as both fold away before deployment.
        input_bytes: bytes of the activations read, at `a_bits`.
        activation_bytes: bytes of the output, at `a_bits`. Of several calls, the one that moves most counts.
        output_shape: shape of the output, batch of 1 included; () where nothing was computed.
    """

    name: str
    kind: str
    macs: int
    params: int
    w_bits: float
    a_bits: float
    bitops: int
    size_bytes: int
    input_bytes: int
    activation_bytes: int
    output_shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values; `size_bytes` is called "bytes", as in budgets."""
        row = asdict(self)
        row["bytes"] = row.pop("size_bytes")
        row["output_shape"] = list(self.output_shape)
        return row


@dataclass(frozen=True)
class Profile:
    """What a network costs for one image: its rows, in the order of execution, and the totals."""

    layers: tuple[LayerCost, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(layer.macs for layer in self.layers)

    @property
    def params(self) -> int:
        """Parameters, each counted once; buffers are not parameters."""
        return sum(layer.params for layer in self.layers)

    @property
    def bitops(self) -> int:
        """Sum of macs * w_bits * a_bits."""
        return sum(layer.bitops for layer in self.layers)

    @property
    def size_bytes(self) -> int:
        """Bytes of the parameters in a file, by the convention of `LayerCost`."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Peak: the largest sum of input and output bytes of any layer that multiplies.

        Norms and nonlinearities fold into their neighbours, and so do not count. Values that a shortcut keeps alive
        meanwhile are not included.
        """
        return max((layer.input_bytes + layer.activation_bytes for layer in self.layers if layer.macs), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Totals and rows as JSON values."""
        return {
            "macs": self.macs,
            "params": self.params,
            "bitops": self.bitops,
            "bytes": self.size_bytes,
            "activation_bytes": self.activation_bytes,
            "layers": [layer.to_dict() for layer in self.layers],
        }
