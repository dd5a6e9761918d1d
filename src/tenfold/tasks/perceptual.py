"""Features of VGG-16 for perceptual and style losses, with weights that the user brings (arXiv 1603.08155)."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from tenfold.errors import DataError, MissingDataError

_PARTS = ((0, 4), (4, 9), (9, 16), (16, 23))
"""Layers of torchvision's `features` up to relu1_2, relu2_2, relu3_3 and relu4_3."""


class VggFeatures(nn.Module):
    """relu2_2, relu3_3 and relu4_3 of VGG-16, fixed; colours in 0..1 go in as they are, as TSAM has it.

    Source: TSAM, arXiv 2104.03507, released code (`tsam.md` section 7).

    Args:
        weights: a .safetensors file with torchvision's parameter names of vgg16; those of the classifier may be absent.

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it is damaged, or holds other weights.
    """

    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        path = Path(weights)
        if not path.is_file():
            raise MissingDataError(
                f"there are no VGG weights at {path}; give a .safetensors file of torchvision's vgg16."
            )
        layers = make_layers(cfgs["D"][:13])
        try:
            state = load_file(path)
            own = {f"features.{name}": name for name in layers.state_dict()}
            layers.load_state_dict({short: state[name] for name, short in own.items()})
        except (SafetensorError, RuntimeError, KeyError) as error:
            raise DataError(
                f"{path} does not hold the weights of torchvision's vgg16 as safetensors ({error}). Save them with "
                "safetensors.torch.save_file(network.state_dict(), path)."
            ) from error
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # what is given out must stay
        self.parts = nn.ModuleList(layers[start:stop] for start, stop in _PARTS)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> VggFeatures:
        """It never trains."""
        return super().train(False)

    def forward(self, clip: Tensor) -> list[Tensor]:
        """Features of a clip (B, T, 3, H, W) in 0..1: three levels, (B, T, C, H / 2^n, W / 2^n) each."""
        x, levels = clip.flatten(0, 1), []
        for part in self.parts:
            x = part(x)
            levels.append(x.unflatten(0, clip.shape[:2]))
        return levels[1:]
