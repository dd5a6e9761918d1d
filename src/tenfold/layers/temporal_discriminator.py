"""The critic of filled video: it scores patches of a clip as real or made (TSAM, arXiv 2104.03507)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from tenfold.layers.temporal_align import shift

_DIVISOR = 4
_WIDTHS = (1, 2, 4, 4, 4, 4)


class TemporalDiscriminator(nn.Module):
    """Six strided convolutions on frames, each behind a plain temporal shift.

    The authors' shift overwrites what the activation before it has kept for its gradient, so their gradients are wrong;
    their values are those of this network. Their spectral norm has no effect. `spectral` is the real one, and goes well
    with the hinge loss (`tenfold.layers.adversarial_losses`).

    Source: TSAM, arXiv 2104.03507, released code (`tsam.md` section 5).

    Args:
        in_channels: three colours, what is known, and the guidance channel.
        channels: of the first convolution; the others have up to four times as many.
        spectral: whether the weights are divided by their largest singular value.
    """

    def __init__(self, in_channels: int = 5, channels: int = 64, *, spectral: bool = False) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for number, width in enumerate(_WIDTHS):
            conv = nn.Conv2d(in_channels, width * channels, 5, stride=2, padding=1 if number == 0 else 2)
            self.convs.append(spectral_norm(conv) if spectral else conv)
            in_channels = width * channels
        self.act = nn.LeakyReLU(0.2)

    def forward(self, clip: Tensor) -> Tensor:
        """Scores of patches, (B, T, 4 * channels, H / 64, W / 64) of (B, T, in_channels, H, W).

        Higher is more real; every element is a score. The authors' least-squares loss takes their sigmoid.
        """
        batch, frames = clip.shape[:2]
        x = clip
        for number, conv in enumerate(self.convs):
            x = conv(shift(x, x.shape[2] // _DIVISOR).flatten(0, 1))
            x = (x if number == len(self.convs) - 1 else self.act(x)).unflatten(0, (batch, frames))
        return x
