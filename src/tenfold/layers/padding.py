"""The padding of TensorFlow's convolutions, for networks whose weights come from there."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SamePad2d(nn.Module):
    """Pad with zeros as TensorFlow's SAME does, for the convolution that follows.

    The output of that convolution has ceil(size / stride) pixels along each side. The padding depends on the size, and
    where it is odd the right and lower sides get the larger half: no `padding` of a PyTorch convolution does that.

    Args:
        kernel: side of the kernel.
        stride: stride of the convolution.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def extra_repr(self) -> str:
        """Both settings, for print(network)."""
        return f"kernel={self.kernel}, stride={self.stride}"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H + padding, W + padding)."""
        vertical, horizontal = self._total(x.shape[2]), self._total(x.shape[3])
        top, left = vertical // 2, horizontal // 2
        return F.pad(x, (left, horizontal - left, top, vertical - top))

    def _total(self, size: int) -> int:
        outputs = -(-size // self.stride)
        return max((outputs - 1) * self.stride + self.kernel - size, 0)
