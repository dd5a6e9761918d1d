"""Attention collapse: do the blocks of a vision transformer still do different things?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.analysis.similarity import Axis, FeatureSimilarity, MapEntropy, MapSimilarity
from tenfold.errors import UsageError
from tenfold.layers.map_capture import self_attentions, watch_maps
from tenfold.layers.reattention import ReAttention
from tenfold.modes import evaluating

THRESHOLDS = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Maps:
    """Measures of one kind of maps.

    Attributes:
        matrix: mean cosine of each two blocks, L x L.
        ratios: by threshold, the share of each block's vectors that are similar to the next block's, L - 1 numbers.
        similar_blocks: how many blocks have a share above the limit, at the threshold of the analysis.
        heads: mean cosine between different heads of each block, L numbers.
    """

    matrix: list[list[float]]
    ratios: dict[str, list[float]]
    similar_blocks: int
    heads: list[float]


@dataclass(frozen=True, kw_only=True)
class Collapse:
    """What `analyze_collapse` found.

    Attributes:
        blocks: names of the attentions, in order.
        reattention: numbers of the blocks whose maps are mixed.
        images: how many images were seen.
        tokens: tokens of an image, the class token included.
        axis: "key" compares columns of the maps, "query" rows.
        threshold: cosine above which two vectors are similar.
        share: a block is similar to the next if more than this share of its vectors is.
        maps: measures by kind. "used" are the maps that multiply the values, "softmax" those before re-attention (only
            where there is any); "used, centred" and "softmax, centred" the same without the mean of each map.
        entropy: of the softmax maps of each block, 1 for uniform ones.
        features_to_last: mean cosine of tokens behind each block and behind the last.
        features_to_next: and behind the next one.
        between_tokens: mean cosine of different tokens of an image, behind each block.
    """

    blocks: list[str]
    reattention: list[int]
    images: int
    tokens: int
    axis: str
    threshold: float
    share: float
    maps: dict[str, Maps]
    entropy: list[float]
    features_to_last: list[float]
    features_to_next: list[float]
    between_tokens: list[float]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)


@dataclass
class _Seen:
    """What one batch has shown so far."""

    before: dict[int, Tensor] = field(default_factory=dict)
    after: dict[int, Tensor] = field(default_factory=dict)
    features: dict[int, Tensor] = field(default_factory=dict)

    def maps(self, number: int, before: Tensor, after: Tensor) -> None:
        self.before[number], self.after[number] = before, after

    def tokens(self, number: int, module: nn.Module, args: Any, output: Any) -> None:
        self.features[number] = output

    def take(self) -> list[list[Tensor]]:
        """Maps before and after re-attention, and features, by block; they are forgotten here."""
        taken = [[one.pop(number) for number in sorted(one)] for one in (self.before, self.after, self.features)]
        if not taken[0]:
            raise UsageError("no attention ran: the network computes without the blocks that were found in it.")
        return taken


@torch.no_grad()
def analyze_collapse(
    network: nn.Module,
    batches: Iterable[Tensor],
    *,
    axis: Axis = "key",
    threshold: float = 0.9,
    share: float = 0.5,
    progress: Callable[[int], None] | None = None,
) -> Collapse:
    """Measure on images how alike the attention maps and the features of all blocks are.

    The memory needed is that of the maps of one batch: 4 B L H T T bytes, twice with re-attention.

    Source: `deepvit.md` section 2. The paper's rule for "similar blocks" is not public; here a block is similar if more
    than `share` of the vectors of its maps have a cosine above `threshold` with those of the next block.

    Args:
        network: a vision transformer of Tenfold, timm or torchvision; runs in evaluation mode.
        batches: of images (B, C, H, W) as the network is used to.
        axis: "key" (the paper's) or "query".
        threshold: see above.
        share: see above.
        progress: called with the number of images seen so far.

    Raises:
        UsageError: if the network is no vision transformer, has a single block, or there is no image.
        ShapeError: if its blocks have different numbers of tokens or heads.
    """
    attentions = self_attentions(network)
    if len(attentions) < 2:
        raise UsageError("a network of one block has nothing to compare; give one of two blocks or more.")
    mixed = [number for number, one in enumerate(attentions.values()) if isinstance(one, ReAttention)]
    thresholds = sorted({*THRESHOLDS, threshold})
    kinds = {
        f"{kind}{', centred' if centred else ''}": MapSimilarity(axis=axis, centred=centred, thresholds=thresholds)
        for kind in (("used", "softmax") if mixed else ("used",))
        for centred in (False, True)
    }
    entropy, features, tokens = MapEntropy(), FeatureSimilarity(), 0
    seen = _Seen()
    with ExitStack() as stack:
        stack.enter_context(evaluating(network))
        stack.enter_context(watch_maps(network, seen.maps))
        for number, name in enumerate(attentions):
            block = network.get_submodule(name.rpartition(".")[0])
            handle = block.register_forward_hook(partial(seen.tokens, number))
            stack.callback(handle.remove)
        for images in batches:
            network(images)
            before, after, behind = seen.take()
            for kind, similarity in kinds.items():
                similarity.add(after if kind.startswith("used") else before)
            entropy.add(before)
            features.add(behind)
            tokens = before[0].shape[3]
            if progress is not None:
                progress(entropy.images)
    maps = {
        kind: Maps(
            matrix=similarity.matrix(),
            ratios={str(one): similarity.ratio(one) for one in thresholds},
            similar_blocks=similarity.similar_blocks(threshold, share),
            heads=similarity.heads(),
        )
        for kind, similarity in kinds.items()
    }
    return Collapse(
        blocks=list(attentions),
        reattention=mixed,
        images=entropy.images,
        tokens=tokens,
        axis=axis,
        threshold=threshold,
        share=share,
        maps=maps,
        entropy=entropy.mean(),
        features_to_last=features.to_last(),
        features_to_next=features.to_next(),
        between_tokens=features.between_tokens(),
    )
