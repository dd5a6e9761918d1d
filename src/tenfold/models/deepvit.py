"""Vision transformers, plain and with re-attention: ViT and DeepViT (arXiv 2103.11886).

Names of parameters are those of the authors and of timm. Where the paper and the authors' code differ the code is
followed: batch norm behind the mixing of heads, in S and L in the last blocks only (`deepvit.md` section 7). Images of
another size than `image_size` are taken too, with the position embedding resized; batch norms over maps then have to be
measured anew, since the entries of a map shrink with the number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from tenfold.errors import ShapeError
from tenfold.layers.reattention import Attention, Norm, ReAttention, Theta, head_width
from tenfold.layers.reattention_insertion import choose_blocks
from tenfold.models.classifier import FeatureInfo
from tenfold.models.weights import load_renamed

Stem: TypeAlias = Literal["patch", "conv"]
"""One convolution with the patch as kernel, or three (from T2T-ViT)."""

_STEM_CHANNELS = 64


class PatchStem(nn.Module):
    """Cuts an image into patches: one convolution."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, dim, H / patch, W / patch)."""
        return self.proj(x)


class ConvStem(nn.Module):
    """Three convolutions to the same grid of tokens."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, _STEM_CHANNELS, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.conv2 = nn.Conv2d(_STEM_CHANNELS, _STEM_CHANNELS, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.proj = nn.Conv2d(_STEM_CHANNELS, dim, patch_size // 2, patch_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, dim, H / patch, W / patch)."""
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.proj(x)


class MLP(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) to the same."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class TransformerBlock(nn.Module):
    """x + attention(norm(s x)) / s, then x + mlp(norm(s x)) / s.

    Since the norm takes s away but for its epsilon, s = 0.5 doubles what both branches add.

    Args:
        attention: plain or re-attention.
        dim: channels of a token.
        hidden: channels between the layers of the MLP.
        drop_path: share of the images for which a branch is left out while training.
        dropout: inside the MLP.
        residual_scale: s.
    """

    def __init__(
        self,
        attention: Attention,
        dim: int,
        hidden: int,
        *,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        residual_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, hidden, dropout)
        self.drop_path, self.residual_scale = drop_path, residual_scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) to the same."""
        scale = self.residual_scale
        if scale == 1.0:
            x = x + self._dropped(self.attn(self.norm1(x)))
            return x + self._dropped(self.mlp(self.norm2(x)))
        x = x + self._dropped(self.attn(self.norm1(x * scale))) / scale
        return x + self._dropped(self.mlp(self.norm2(x * scale))) / scale

    def _dropped(self, branch: Tensor) -> Tensor:
        if not (self.training and self.drop_path):
            return branch
        from torchvision.ops import stochastic_depth  # importing torchvision takes seconds

        return stochastic_depth(branch, self.drop_path, "row")


class VisionTransformer(nn.Module):
    """Patches of an image as tokens, with a class token in front that is classified in the end.

    Args:
        image_size: side of the images that the position embedding is made for, in pixels.
        patch_size: side of a patch.
        dim: channels of a token.
        depth: number of blocks.
        heads: of each attention.
        mlp_ratio: channels inside the MLPs over `dim`.
        blocks: numbers of the blocks with re-attention; None is all.
        stem: how patches become tokens.
        theta: how the mixing of heads starts.
        norm: of mixed maps.
        gain: factor on normalised maps.
        residual_scale: see `TransformerBlock`.
        drop_path: of the last block; it rises linearly from 0 in the first.
        dropout: of tokens, and inside the blocks.
        num_classes: outputs.
        in_channels: of the image.

    Raises:
        ShapeError: if patches do not divide the image.
        UsageError: if heads do not divide the width, or there is no such block.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        blocks: Sequence[int] | None,
        stem: Stem = "patch",
        theta: Theta = "random",
        norm: Norm = "batch",
        gain: float = 1.0,
        residual_scale: float = 1.0,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.feature_info = [FeatureInfo("norm", dim, patch_size)]
        if stem == "conv" and patch_size % 2:
            raise ShapeError(f"a patch of {patch_size} pixels does not go with the stem 'conv'; it has to be even.")
        head_width(dim, heads)
        height, width = self._grid((image_size, image_size))
        mixed = choose_blocks(depth, blocks)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + height * width, dim))
        self.patch_embed = (PatchStem if stem == "patch" else ConvStem)(in_channels, dim, patch_size)
        self.pos_drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(
                    ReAttention(dim, heads, theta=theta, norm=norm, gain=gain, dropout=dropout)
                    if number in mixed
                    else Attention(dim, heads, dropout=dropout),
                    dim,
                    int(dim * mlp_ratio),
                    drop_path=drop_path * number / max(depth - 1, 1),
                    dropout=dropout,
                    residual_scale=residual_scale,
                )
                for number in range(depth)
            )
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        _initialise(self)

    def forward_tokens(self, x: Tensor) -> Tensor:
        """All tokens behind the last norm, the class token first: (B, C, H, W) to (B, N, dim)."""
        grid = self._grid(x.shape[2:])
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)  # (B, N, dim)
        return self.norm(self.blocks(self.pos_drop(x + self._positions(grid))))

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The tokens of the patches as a map, (B, dim, H / patch, W / patch), the only item of the list."""
        grid = self._grid(x.shape[2:])
        return [self.forward_tokens(x)[:, 1:].transpose(1, 2).unflatten(2, grid)]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, C, H, W), whose sides are multiples of the patch."""
        return self.head(self.forward_tokens(x)[:, 0])

    def _grid(self, sides: Sequence[int]) -> tuple[int, int]:
        height, width = sides
        patch = self.patch_size
        if height % patch or width % patch or not height or not width:
            fitting = [max(1, round(side / patch)) * patch for side in (height, width)]
            raise ShapeError(
                f"an image of {height}x{width} pixels cannot be cut into patches of {patch}x{patch}: both sides have "
                f"to be multiples of {patch}. Resize it, for instance to {fitting[0]}x{fitting[1]}."
            )
        return height // patch, width // patch

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        side = round((self.pos_embed.shape[1] - 1) ** 0.5)
        return self.pos_embed if grid == (side, side) else resize_positions(self.pos_embed, grid)


def resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embedding of a class token and a square grid (1, 1 + n * n, dim), resampled for another grid."""
    from timm.layers import resample_abs_pos_embed  # importing timm takes seconds

    return resample_abs_pos_embed(positions, list(grid), num_prefix_tokens=1)


def load_official_deepvit(network: VisionTransformer, state: Mapping[str, Tensor]) -> None:
    """Load a checkpoint of the authors, or of timm's plain vision transformers: the names are the same.

    A position embedding for another image size is resized. Batch norms over maps keep statistics of the old size then:
    measure them anew (`tenfold.quant.measure_norms`) or fine-tune.

    Args:
        network: with the same options as the checkpoint's.
        state: tensors by name, as `read_checkpoint` reads them.

    Raises:
        UsageError: if a tensor is missing or has another shape.
    """
    fitting, wanted = dict(state), network.pos_embed.shape
    given = fitting.get("pos_embed")
    if given is not None and given.dim() == 3 and given.shape[1] != wanted[1] and given.shape[2] == wanted[2]:
        side = round((wanted[1] - 1) ** 0.5)
        fitting["pos_embed"] = resize_positions(given, (side, side))
    load_renamed(network, {name: name for name in network.state_dict()}, fitting)


def _initialise(network: VisionTransformer) -> None:
    """Linear weights and embeddings are normal with 0.02, biases 0; the rest, Theta too, as PyTorch draws it."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(network.cls_token, std=0.02)
    nn.init.trunc_normal_(network.pos_embed, std=0.02)
