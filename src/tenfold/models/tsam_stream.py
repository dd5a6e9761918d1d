"""TSAM over a clip of any length in bounded memory: every map of every frame is computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from tenfold.errors import ShapeError
from tenfold.layers.temporal_align import Flows
from tenfold.layers.temporal_stream import ClipStream
from tenfold.models.tsam import NetworkArguments, Tsam, check_frames
from tenfold.models.tsam_parts import ShiftedBottleneck


class TsamStream:
    """Paints one clip, or one scene of a video, while it comes in.

    What comes out is what the network gives for the whole clip at once, up to rounding. A window by window computation
    that sees as much computes most frames several times; one that sees less gives other answers.

    Args:
        network: in evaluation mode from now on.

    Example:
        >>> from tenfold import build
        >>> network = build("tsam_tiny").eval()
        >>> clip = network.example_inputs((3, 16, 16), frames=14)
        >>> stream = TsamStream(network)
        >>> early = stream.push(*(one[:, :13] for one in clip[:3]), *(one[:, :12] for one in clip[3:]))
        >>> late = stream.push(*(one[:, 13:] for one in clip[:3]), *(one[:, 12:] for one in clip[3:]), ends=True)
        >>> early.shape[1], late.shape[1]
        (2, 12)
    """

    def __init__(self, network: Tsam) -> None:
        self._network = network.eval()
        aligned = network.shift_kind == "aligned"
        self._clock = ClipStream(aligned=aligned, mode=network.mode, edge=network.edge)
        self._size: tuple[int, ...] | None = None

    @property
    def delay(self) -> int:
        """How many further frames a frame waits for: one for each layer in a row that looks at its neighbours."""
        blocks = sum(isinstance(module, ShiftedBottleneck) for module in self._network.modules())
        return blocks + 3  # and the three gated convolutions of the decoder that follow each other

    @torch.inference_mode()
    def push(
        self,
        frames: Tensor,
        known: Tensor,
        copied: Tensor,
        flow_fwd: Tensor,
        flow_bwd: Tensor,
        invalid_fwd: Tensor,
        invalid_bwd: Tensor,
        *,
        ends: bool = False,
    ) -> Tensor:
        """Take the next frames; see `NetworkArguments`.

        Args:
            frames: (1, N, 3, H, W).
            known: (1, N, 1, H, W).
            copied: (1, N, 1, H, W).
            flow_fwd: (1, N, 2, H, W), of the pairs whose later frame is among these; N - 1 with the first frames.
            flow_bwd: likewise.
            invalid_fwd: (1, N, 1, H, W), likewise.
            invalid_bwd: likewise.
            ends: whether no more frames come.

        Returns:
            The frames that are painted by now, in order, (1, M, 3, H, W).

        Raises:
            ShapeError: if shapes do not fit together, or differ from those of the frames before.
            UsageError: if the clip has ended before.
        """
        check_frames(frames, known, copied)
        pairs = frames.shape[1] - (self._size is None)
        given = NetworkArguments(frames, known, copied, flow_fwd, flow_bwd, invalid_fwd, invalid_bwd)
        if frames.shape[0] != 1 or any(one.shape[1] != pairs for one in given[3:]):
            raise ShapeError(
                f"a stream takes one clip and the flows that lead to its new frames: for {frames.shape[1]} frames of a "
                f"batch of 1, {pairs} flows; got a batch of {frames.shape[0]} with "
                f"{', '.join(str(one.shape[1]) for one in given[3:])}."
            )
        size = tuple(frames.shape[3:])
        if self._size not in (None, size) or any(tuple(one.shape[3:]) != size for one in given[3:]):
            raise ShapeError(f"frames and flows of a clip have one size; got {size} after {self._size or size}.")
        self._size = size
        self._clock.begin(Flows(*given[3:]), ends=ends)
        return self._network.paint(frames, known, copied, self._clock)
