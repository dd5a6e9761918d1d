"""The parts of attention that are neither linear layers nor float functions, as modules that can be found and replaced.

They stand below the floors of layers, costs and quantization, which all know them and not each other.
"""

from __future__ import annotations

from torch import Tensor, nn


class Product(nn.Module):
    """The product of two activations.

    Args:
        is_signed: whether the left operand may be negative; maps that come out of a softmax are not. Of the right
            operand (keys, values) this is taken for granted.
    """

    def __init__(self, is_signed: bool = True) -> None:
        super().__init__()
        self.is_signed = is_signed

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """(…, n, k) and (…, k, m) to (…, n, m)."""
        return left @ right


class HeadMixing(nn.Conv2d):
    """A convolution that makes the attention maps of each head from those of all heads.

    It reads what a softmax gives, and so goes with the products: in float unless those are quantized.
    """
