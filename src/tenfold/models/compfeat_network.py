"""CompFeat: find objects in the frames of a video with the help of the frames before, and follow them.

No code of the paper was released and its equations could not be read. Where features go is read off its figure; how
they are combined is our own.

Source: CompFeat, arXiv 2012.03400, figure 2; MaskTrack R-CNN, arXiv 1905.04804; compfeat.md sections 2 to 5 and 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from tenfold.errors import ShapeError, UsageError
from tenfold.layers.aggregation import Aggregation
from tenfold.layers.matching import CorrelationHead, InnerProductHead, map_scores
from tenfold.models.compfeat_losses import Truth, losses
from tenfold.models.compfeat_objects import ObjectAggregation
from tenfold.models.compfeat_state import Detections, Look, VideoState, conclude, only_known
from tenfold.models.mask_rcnn import (
    DetectorSettings,
    Picked,
    named,
    pick,
    predict_masks,
    proposal_network,
    propose,
    read_regions,
    region_heads,
)
from tenfold.models.tracking import NEW, MatchingRule, empty_memory, matching_scores, remember

Tracker: TypeAlias = Literal["correlation", "fc"]

_PADDED_TO = 32
_COARSEST_OF_MAPS = 8
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class CompFeatSettings:
    """What of CompFeat is there, and how wide it is.

    Args:
        detector: sizes of the detector.
        frames: strides of the backbone's maps that other frames refine; none for a single-frame detector.
        objects: "none"; "dense": regions look at whole maps of other frames; "roi:L": at the L times larger region.
        tracker: "correlation" is CompFeat's head, "fc" MaskTrack R-CNN's.
        inner: widest attention of maps; each has a quarter of its map's channels, from 16 up to this.
        object_inner: width of the attention of regions.
        scope: of the attention to other frames, see `Attend`.
        position: whether that attention knows places.
        supports: how many frames before are looked at.
        support_stride: every so many frames one is kept for being looked at.
        memory: identities that can be known at once.
        detached_supports: whether gradients do not flow through support frames, which saves training time and memory;
            what reads them learns nevertheless.
        frozen_norm: whether the statistics of the backbone's batch norms stay as they are in training.
    """

    detector: DetectorSettings = field(default_factory=DetectorSettings)
    frames: tuple[int, ...] = (16, 32)
    objects: str = "dense"
    tracker: Tracker = "correlation"
    inner: int = 256
    object_inner: int = 128
    scope: str = "global"
    position: bool = False
    supports: int = 3
    support_stride: int = 1
    memory: int = 20
    detached_supports: bool = False
    frozen_norm: bool = False

    def __post_init__(self) -> None:
        if min(self.supports, self.support_stride, self.memory) < 1:
            raise UsageError(
                f"{self.supports} frames to look at, every {self.support_stride}th, with {self.memory} identities, are "
                "not allowed; each is at least 1."
            )


class CompFeat(nn.Module):
    """A detector whose features are refined by other frames, and which follows what it finds.

    Called with frames and truth it gives losses, to train it (see `forward`). In use, `start` begins a video and `step`
    takes its frames one after another.

    Args:
        backbone: gives maps, finest first, each of twice the stride of the one before, listed in `feature_info`.
        num_classes: kinds of objects, without the background.
        settings: what is there, and how wide.
        standard: mean and standard deviation of the channels that the backbone expects, for pixels 0..1.

    Raises:
        UsageError: if a stride is asked to be refined that the backbone does not have.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        settings: CompFeatSettings,
        standard: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        features: Any = backbone.feature_info
        self.settings, self.num_classes = settings, num_classes
        self.strides = [info.stride for info in features]
        if unknown := set(settings.frames) - set(self.strides):
            raise UsageError(f"maps of stride {sorted(unknown)} cannot be refined; the backbone has {self.strides}.")
        self.stage_channels = {info.stride: info.channels for info in features}
        detector = settings.detector
        self.backbone = backbone
        self.frame_aggregation = nn.ModuleDict(
            {
                str(stride): Aggregation(
                    self.stage_channels[stride],
                    max(16, min(self.stage_channels[stride] // 4, settings.inner)),
                    scope=settings.scope,
                    pool="auto",
                    position=settings.position,
                )
                for stride in settings.frames
            }
        )
        self.pyramid = FeaturePyramidNetwork(
            [info.channels for info in features], detector.channels, extra_blocks=LastLevelMaxPool()
        )
        self.proposals = proposal_network(detector, [*self.strides, 2 * self.strides[-1]])
        self.heads = region_heads(detector, self.strides, num_classes)
        self.object_aggregation: ObjectAggregation | None = None
        if settings.objects != "none":
            self.object_aggregation = ObjectAggregation(detector, self.strides, settings.object_inner, settings.objects)
        correlates = settings.tracker == "correlation"
        self.tracker = CorrelationHead(detector.channels) if correlates else InnerProductHead(detector.channels)
        self.map_stride = min(max(self.strides[0], _COARSEST_OF_MAPS), self.strides[-1])
        self.rule = MatchingRule(place=2.0 if correlates else 0.0)
        mean, deviation = standard or _IMAGENET
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> CompFeat:
        """As any module's; frozen statistics stay frozen."""
        super().train(mode)
        if self.settings.frozen_norm:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    # --- use ---------------------------------------------------------------------------------------------------------

    def start(self, height: int, width: int) -> VideoState:
        """The state before the first frame of a video; every video needs its own.

        Args:
            height: of the frames in pixels; all frames of a video have one size.
            width: of the frames in pixels.
        """
        if min(height, width) < 1:
            raise ShapeError(f"frames of {width} x {height} are not allowed; both sides are at least 1 pixel.")
        count, detector = self.settings.supports, self.settings.detector
        parameter = next(self.parameters())
        sizes = self._map_sizes(height, width)
        stages = [
            parameter.new_zeros(count, self.stage_channels[stride], *sizes[self.strides.index(stride)])
            for stride in self.settings.frames
        ]
        pyramid = [parameter.new_zeros(count, detector.channels, *size) for size in sizes] if self._keeps else []
        side = self.heads.box_roi_pool.output_size
        return VideoState(
            stages=tuple(stages),
            pyramid=tuple(pyramid),
            filled=torch.zeros(count, dtype=torch.bool, device=parameter.device),
            memory=empty_memory(self.settings.memory, parameter.new_zeros(detector.channels, *side)),
        )

    @torch.no_grad()
    def step(self, frame: Tensor, state: VideoState, rule: MatchingRule | None = None) -> tuple[Detections, VideoState]:
        """Find the objects of the next frame, and give them identities.

        Args:
            frame: pixels 0..1, (1, C, H, W), of the size that `start` was told.
            state: what the step before gave; it is not changed.
            rule: how identities are given; default: the network's own.

        Returns:
            What was found, and the state for the next frame.

        Raises:
            ShapeError: if the frame does not fit the state.
        """
        rule = rule or self.rule
        self._check(frame, state)
        seen = self.look(frame, state, state.memory.known, rule=rule, static=False)
        return conclude(seen, state, rule, self.settings.support_stride)

    @torch.no_grad()
    def introduce(
        self, frame: Tensor, state: VideoState, boxes: Tensor, labels: Tensor | None = None
    ) -> tuple[Detections, VideoState]:
        """Make objects known that someone points at; `step` follows them from then on.

        Call it after the `step` of the frame they are pointed at in.

        Args:
            frame: as `step` got it.
            state: what that step gave.
            boxes: in pixels of the frame, (D, 4).
            labels: class of each; default: what the network takes it for.

        Returns:
            The objects with their masks and new identities (all valid, score 1), and the state for the next frame.
        """
        self._check(frame, state)
        plain = self._pyramid(self.backbone(self._prepared(frame)))
        owners = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        templates = read_regions(self.heads.box_roi_pool, plain[:-1], boxes, owners)
        if labels is None:
            labels = self.heads.box_predictor(self.heads.box_head(templates))[0][:, 1:].argmax(1)
        masks = predict_masks(self.heads, plain[:-1], boxes, labels)
        sure = boxes.new_ones(len(boxes))
        count = state.memory.frame - 1  # they belong to the frame that was counted already
        memory, ids = remember(
            state.memory._replace(frame=count), [NEW] * len(boxes), templates, boxes, labels, sure, self.rule
        )
        found = Detections(boxes, labels, sure, masks, ids, torch.ones_like(ids, dtype=torch.bool))
        return found, state._replace(memory=memory)

    def look(
        self,
        frame: Tensor,
        state: VideoState,
        places: Tensor | None = None,
        *,
        rule: MatchingRule | None = None,
        static: bool = True,
    ) -> Look:
        """All of a step but giving identities.

        Args:
            frame: (1, C, H, W), 0..1.
            state: see `start`.
            places: of the memory to compare with, (M,); default: all, known or not.
            rule: factors of the fit.
            static: leave no size to what is seen, at the price of some work for nothing; for profiling and export.
        """
        rule, memory = rule or self.rule, state.memory
        size = (frame.shape[-2], frame.shape[-1])
        padded = self._prepared(frame)
        maps = self.backbone(padded)
        inside = self._inside(maps, size)
        refined = self._refined(maps, [one[None] for one in state.stages], state.filled[None], inside)
        whole = self._pyramid(refined)
        aggregates = bool(self.settings.frames)
        plain = self._pyramid(maps)[:-1] if aggregates else whole[:-1]
        proposals = propose(self.proposals, padded, size, whole, self.settings.detector.proposals)

        def attended(boxes: Tensor) -> Tensor:
            owners = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
            regions = read_regions(self.heads.box_roi_pool, whole[:-1], boxes, owners, static=static)
            if self.object_aggregation is None:
                return regions
            supports = [one[None] for one in state.pyramid]
            return self.object_aggregation(regions, boxes, owners, supports, state.filled[None], inside, static=static)

        class_logits, deltas = self.heads.box_predictor(self.heads.box_head(attended(proposals.boxes)))
        picked = pick(self.heads, class_logits, deltas, proposals, size)
        masks = predict_masks(self.heads, whole[:-1], picked.boxes, picked.labels, static=static)
        owners = torch.zeros_like(picked.labels)
        templates = read_regions(self.heads.box_roi_pool, plain, picked.boxes, owners, static=static)
        places = torch.arange(len(memory.ids), device=frame.device) if places is None else places
        fit = self._fit(attended(picked.boxes), picked, whole, memory, places, rule)
        stages = tuple(maps[self.strides.index(stride)] for stride in self.settings.frames)
        return Look(
            picked.boxes, picked.labels, picked.scores, masks, picked.valid, templates, fit, stages,
            tuple(plain) if self._keeps else (),
        )  # fmt: skip

    def _fit(
        self, regions: Tensor, picked: Picked, whole: Sequence[Tensor], memory: Any, places: Tensor, rule: MatchingRule
    ) -> Tensor:
        known = memory.templates[places]
        boxes = memory.boxes[places]
        free = F.pad(memory.ids[places] < 0, (1, 0))  # column 0 is nobody, who is always there
        logits = self.tracker(regions, known).masked_fill(free, -torch.inf)
        at = None
        if isinstance(self.tracker, CorrelationHead):
            features = whole[self.strides.index(self.map_stride)][0]
            at = map_scores(self.tracker.maps(features, known), picked.boxes, self.map_stride)
        scores = picked.scores.clamp(min=1e-12)  # of places that hold nothing, too, whose rows nobody reads
        return matching_scores(logits, scores, picked.boxes, picked.labels, boxes, memory.labels[places], rule, at)

    # --- both --------------------------------------------------------------------------------------------------------

    def forward(self, frame: Tensor, *truth: Tensor) -> Any:
        """With truth, losses; else what the first frames of a video show.

        Args:
            frame: pixels 0..1, (T, C, H, W). With truth (B, 2 + S, C, H, W): the current frame, the reference frame,
                and S support frames of each item.
            truth: the fields of `Truth`.

        Returns:
            With truth a tensor of losses, in the order of LOSSES. Else a `Look`; a list of them for several frames.
        """
        if truth:
            return losses(self, frame, Truth(*truth))
        state = self.start(*frame.shape[-2:])
        if len(frame) == 1:
            return self.look(frame, state)
        seen = []
        for one in frame:
            seen.append(self.look(one[None], state))
            _, state = conclude(only_known(seen[-1], state.memory), state, self.rule, self.settings.support_stride)
        return seen

    def example_inputs(self, shape: tuple[int, int, int]) -> tuple[Tensor]:
        """The arguments of `forward` for one frame (C, H, W), of zeros."""
        return (torch.zeros(1, *shape),)

    @property
    def _keeps(self) -> bool:
        """Whether plain pyramids of frames are needed later."""
        return self.object_aggregation is not None

    def _check(self, frame: Tensor, state: VideoState) -> None:
        if frame.ndim != 4 or frame.shape[0] != 1:
            raise ShapeError(f"a step takes one frame (1, C, H, W), got {tuple(frame.shape)}.")
        sizes = dict(zip(self.strides, self._map_sizes(frame.shape[-2], frame.shape[-1]), strict=True))
        for stride, kept in zip(self.settings.frames, state.stages, strict=True):
            if kept.shape[-2:] != sizes[stride]:
                raise ShapeError(
                    f"a frame of {frame.shape[-1]} x {frame.shape[-2]} does not fit the state of a video of another "
                    "size. All frames of a video have one size: resize them, or start anew."
                )

    def _map_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        padded = [-(-side // _PADDED_TO) * _PADDED_TO for side in (height, width)]
        return [(-(-padded[0] // stride), -(-padded[1] // stride)) for stride in self.strides]

    def _prepared(self, frames: Tensor) -> Tensor:
        """Frames (B, C, H, W) as the backbone expects them, filled up with zeros to multiples of 32 pixels."""
        height, width = frames.shape[-2:]
        padding = (0, -width % _PADDED_TO, 0, -height % _PADDED_TO)
        return F.pad((frames - self.mean) / self.deviation, padding)

    def _inside(self, maps: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """For each map which cells begin inside of the frame, bool (h, w)."""
        found = []
        for stride, one in zip(self.strides, maps, strict=True):
            down, across = (
                torch.arange(cells, device=one.device) * stride < side
                for cells, side in zip(one.shape[-2:], size, strict=True)
            )
            found.append(down[:, None] & across)
        return found

    def _refined(
        self, maps: Sequence[Tensor], supports: Sequence[Tensor], filled: Tensor, inside: Sequence[Tensor]
    ) -> list[Tensor]:
        """The backbone's maps, those of some strides with what other frames show.

        Args:
            maps: (B, C, h, w) of every stride.
            supports: (B, N, C, h, w) of the strides that are refined.
            filled: which frames are there, bool (B, N).
            inside: see `_inside`.
        """
        refined = list(maps)
        for stride, frames in zip(self.settings.frames, supports, strict=True):
            at = self.strides.index(stride)
            own = inside[at].expand(len(frames), -1, -1)
            valid = filled[:, :, None, None] & own[:, None]
            refined[at] = self.frame_aggregation[str(stride)](maps[at], frames, valid, own)
        return refined

    def _pyramid(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """All maps of the pyramid, the coarsest, which is for proposals only, last."""
        return list(self.pyramid(named(maps, self.strides)).values())
