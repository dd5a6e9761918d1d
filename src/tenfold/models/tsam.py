"""TSAM, which fills holes in video (arXiv 2104.03507).

A gated encoder and decoder whose layers see the neighbouring frames, aligned by optical flow. Time is mixed by
`tenfold.layers.temporal_align` alone; all convolutions see one frame. What the network gives is the
picture as it would paint it everywhere; `composited` keeps the known pixels.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tenfold.errors import ShapeError
from tenfold.layers.gated import GatedConv2d
from tenfold.layers.temporal_align import Edge, Flows, Mode, WholeClip, check_flows
from tenfold.models.packaged import load_packaged
from tenfold.models.registry import register
from tenfold.models.tsam_parts import Clock, Decoder, Encoder

_PACKED = (3, 1, 1, 2, 2, 1, 1)
MULTIPLE = 8
"""The sides of the frames are multiples of this."""

Planes = Annotated[int, Field(ge=4, le=512)]
_Count = Annotated[int, Field(ge=1, le=64)]
_Width = Annotated[int, Field(ge=4, le=4096)]
Blocks = tuple[_Count, _Count, _Count, _Count]
Widths = tuple[_Width, _Width, _Width]
StemKernel = Literal[3, 5, 7]
Shift = Literal["aligned", "plain"]


class NetworkArguments(NamedTuple):
    """What `Tsam` takes, in this order; see `tenfold.video.NetworkInputs`, which is the same in NumPy.

    Args:
        frames: (B, T, 3, H, W) in 0..1.
        known: (B, T, 1, H, W), 1 = known, 0 = hole.
        copied: (B, T, 1, H, W), guidance: 1 = copied from another frame; the authors' weights have never seen but 0.
        flow_fwd: (B, T-1, 2, H, W), pixels.
        flow_bwd: (B, T-1, 2, H, W), pixels.
        invalid_fwd: (B, T-1, 1, H, W), 1 = do not use the flow there.
        invalid_bwd: (B, T-1, 1, H, W), likewise.
    """

    frames: Tensor
    known: Tensor
    copied: Tensor
    flow_fwd: Tensor
    flow_bwd: Tensor
    invalid_fwd: Tensor
    invalid_bwd: Tensor


class Tsam(nn.Module):
    """The whole network.

    Args:
        stem: channels and kernel of the first convolution.
        planes: narrow channels of the first stage.
        blocks: of each of the four stages.
        decoder: channels of the decoder at 1/4, 1/2 and the full size.
        mode: how flow is followed.
        edge: what stands in for the neighbours before the first and behind the last frame.
        shift: "plain" leaves the flows alone: the TSM twin.
        corrects: for a network that says what is to be added to a filling which is there already: the last layer has
            no gate, which would learn to shut for good, and the first answer is zero everywhere.
    """

    multiple = MULTIPLE

    def __init__(
        self,
        *,
        stem: tuple[int, int],
        planes: int,
        blocks: Blocks,
        decoder: Widths,
        mode: Mode = "exact",
        edge: Edge = "zero",
        shift: Shift = "aligned",
        corrects: bool = False,
    ) -> None:
        super().__init__()
        self.mode, self.edge, self.shift_kind = mode, edge, shift
        self.encoder = Encoder(stem, planes, blocks)
        self.decoder = Decoder([4 * planes * 2**stage for stage in range(4)], decoder, gated_end=not corrects)
        initialise_tsam(self)
        if corrects:
            nn.init.zeros_(self.decoder.last.conv.feature.weight)

    def forward(
        self,
        frames: Tensor,
        known: Tensor,
        copied: Tensor,
        flow_fwd: Tensor,
        flow_bwd: Tensor,
        invalid_fwd: Tensor,
        invalid_bwd: Tensor,
    ) -> Tensor:
        """Paint a clip; see `NetworkArguments`. Pixels of the holes are not looked at.

        Returns:
            Frames (B, T, 3, H, W), nominally in 0..1, not clamped. See `composited`.

        Raises:
            ShapeError: if shapes do not fit together, or a side is no multiple of 8.
        """
        check_frames(frames, known, copied)
        flows = None
        if self.shift_kind == "aligned":
            flows = Flows(flow_fwd, flow_bwd, invalid_fwd, invalid_bwd)
            check_flows(flows, frames)
        clock = WholeClip(frames.shape[1], flows, mode=self.mode, edge=self.edge)
        return self.paint(frames, known, copied, clock)

    def paint(self, frames: Tensor, known: Tensor, copied: Tensor, clock: Clock) -> Tensor:
        """What `forward` does, with any clock; of a stream the frames that are ready come out.

        Args:
            frames: (B, T, 3, H, W).
            known: (B, T, 1, H, W).
            copied: (B, T, 1, H, W).
            clock: gives layers their neighbours in time.

        Returns:
            (B, T', 3, H, W).
        """
        seen = torch.cat((frames * known, known, copied), 2)  # (B, T, 5, H, W)
        painted = self.decoder(self.encoder(seen.flatten(0, 1), clock), clock)
        batch = frames.shape[0]
        return painted.unflatten(0, (batch, painted.shape[0] // batch))  # a stream may have none ready

    def example_inputs(self, shape: tuple[int, int, int], frames: int = 1) -> NetworkArguments:
        """Inputs of the right form: grey frames with all known, and no motion.

        Args:
            shape: 3, height, width.
            frames: T.

        Raises:
            ShapeError: if the shape is none of colour frames.
        """
        if len(shape) != 3 or shape[0] != 3:
            raise ShapeError(f"frames of {tuple(shape)} are not allowed; TSAM takes colour frames (3, height, width).")
        weight = next(self.parameters())

        def filled(value: float, count: int, channels: int) -> Tensor:
            return torch.full((1, count, channels, *shape[1:]), value, dtype=weight.dtype, device=weight.device)

        return NetworkArguments(
            filled(0.5, frames, 3),
            filled(1, frames, 1),
            filled(0, frames, 1),
            *(filled(0, frames - 1, channels) for channels in (2, 2, 1, 1)),
        )


class PackedWindow(nn.Module):
    """A network that takes windows, with all its inputs in one tensor, as exported files take them.

    An export leaves the number of frames free, and both sides of the frames up to a multiple.

    Frames stand where images stand elsewhere, (T, 11, H, W): the channels are those of `NetworkArguments`, in order. A
    flow is stored with the earlier frame of its pair; what the last frame says of a next one means nothing.

    Args:
        network: such as `Tsam`.
    """

    takes = "window"
    multiple = MULTIPLE

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @staticmethod
    def pack(window: NetworkArguments) -> Tensor:
        """Frames (B * T, 11, H, W) of the windows of a batch, one behind the other; no flow leads to the next one's."""
        length = window.frames.shape[1]
        fills = (0, 0, 0, 0, 0, 1, 1)  # the last frame of a window trusts no flow
        maps = (
            F.pad(one, (0, 0, 0, 0, 0, 0, 0, length - one.shape[1]), value=fill)
            for one, fill in zip(window, fills, strict=True)
        )
        return torch.cat(list(maps), 2).flatten(0, 1)

    def forward(self, packed: Tensor) -> Tensor:
        """Painted frames (T, 3, H, W)."""
        frames, known, copied, *pairs = packed[None].split(_PACKED, 2)
        return self.network(frames, known, copied, *(one[:, :-1] for one in pairs))[0]


def check_frames(frames: Tensor, known: Tensor, copied: Tensor) -> None:
    """Whether frames and masks fit together and can be painted.

    Raises:
        ShapeError: if they do not.
    """
    if frames.dim() != 5 or frames.shape[1] < 1 or frames.shape[2] != 3:
        raise ShapeError(f"frames are (B, T, 3, H, W) with at least one frame, not {tuple(frames.shape)}.")
    batch, count, _, height, width = frames.shape
    for name, mask in (("known", known), ("copied", copied)):
        if tuple(mask.shape) != (batch, count, 1, height, width):
            raise ShapeError(
                f"{name} has the shape {tuple(mask.shape)}; for frames of {tuple(frames.shape)} it must be "
                f"{(batch, count, 1, height, width)}."
            )
    if height % MULTIPLE or width % MULTIPLE:
        raise ShapeError(
            f"frames of {height} x {width} (height x width) do not fit: both sides must be multiples of {MULTIPLE}. "
            "Pad them, the added pixels as known, and cut the result."
        )


def composited(painted: Tensor, frames: Tensor, known: Tensor) -> Tensor:
    """The known pixels of the frames, and the painted ones elsewhere.

    Args:
        painted: (B, T, 3, H, W), from the network.
        frames: (B, T, 3, H, W).
        known: (B, T, 1, H, W), 0 or 1.
    """
    return torch.where(known > 0.5, frames, painted)


def initialise_tsam(network: nn.Module) -> None:
    """Draw fresh weights: the decoder's and biases as the authors do, the encoder's as those of a ResNet.

    The authors start the encoder from ImageNet weights, its gates with the weights of the convolutions that they gate.

    Source: TSAM, arXiv 2104.03507, released code (`tsam.md` section 4).
    """
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if name.startswith("decoder."):
            nn.init.kaiming_uniform_(module.weight, a=1)
        else:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for name, module in network.named_modules():
        if isinstance(module, GatedConv2d) and module.gate is not None and name.startswith("encoder."):
            with torch.no_grad():
                module.gate.weight.copy_(module.feature.weight)


_SOURCE = "TSAM, arXiv 2104.03507"
_SIZE = (3, 240, 432)


@register(
    takes="window",
    source=_SOURCE,
    input_shape=_SIZE,
    params=31_661_510,
    macs=99_753_431_040,
    tags=("inpainting", "video", "residual"),
)
def tsam(
    *,
    planes: Planes = 64,
    blocks: Blocks = (3, 4, 6, 3),
    decoder: Widths = (256, 256, 256),
    stem: Planes = 64,
    stem_kernel: StemKernel = 7,
    mode: Mode = "exact",
    edge: Edge = "zero",
    shift: Shift = "aligned",
    corrects: bool = False,
) -> Tsam:
    """TSAM in the authors' size; for their weights say mode="compat"."""
    return Tsam(
        stem=(stem, stem_kernel),
        planes=planes,
        blocks=blocks,
        decoder=decoder,
        mode=mode,
        edge=edge,
        shift=shift,
        corrects=corrects,
    )


@register(
    takes="window",
    source=f"after {_SOURCE}; a small one of ours",
    input_shape=_SIZE,
    params=1_213_094,
    macs=4_059_694_080,
    tags=("inpainting", "video", "residual"),
)
def tsam_small(
    *,
    planes: Planes = 16,
    blocks: Blocks = (2, 2, 2, 2),
    decoder: Widths = (64, 48, 32),
    stem: Planes = 16,
    stem_kernel: StemKernel = 7,
    mode: Mode = "exact",
    edge: Edge = "zero",
    shift: Shift = "aligned",
    corrects: bool = False,
) -> Tsam:
    """TSAM that fills video on a CPU: a quarter of the channels, half of the blocks."""
    return tsam(
        planes=planes,
        blocks=blocks,
        decoder=decoder,
        stem=stem,
        stem_kernel=stem_kernel,
        mode=mode,
        edge=edge,
        shift=shift,
        corrects=corrects,
    )


@register(
    takes="window",
    source=f"after {_SOURCE}; a tiny one of ours",
    input_shape=_SIZE,
    params=349_510,
    macs=1_587_962_880,
    tags=("inpainting", "video", "residual", "tiny"),
)
def tsam_tiny(
    *,
    planes: Planes = 8,
    blocks: Blocks = (2, 2, 2, 2),
    decoder: Widths = (48, 32, 24),
    stem: Planes = 16,
    stem_kernel: StemKernel = 5,
    mode: Mode = "exact",
    edge: Edge = "zero",
    shift: Shift = "aligned",
    corrects: bool = False,
    pretrained: bool = False,
) -> Tsam:
    """TSAM for trying things out: an eighth of the channels, half of the blocks."""
    network = tsam(
        planes=planes,
        blocks=blocks,
        decoder=decoder,
        stem=stem,
        stem_kernel=stem_kernel,
        mode=mode,
        edge=edge,
        shift=shift,
        corrects=corrects,
    )
    if pretrained:
        load_packaged(network, "tsam_tiny")
    return network
