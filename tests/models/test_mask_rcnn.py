"""The detector with fixed sizes sees what torchvision's Mask R-CNN sees."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.ops import batched_nms

from tenfold.models import build
from tenfold.models.compfeat_state import paste_masks
from tenfold.models.mask_rcnn import kept_by_suppression, read_regions


@pytest.mark.parametrize("seed", range(5))
def test_suppression_keeps_what_torchvision_keeps(seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(600, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 5 + 20 * torch.rand(600, 2, generator=generator)], 1)
    scores = torch.rand(600, generator=generator).sort(descending=True).values
    groups = torch.randint(0, 3, (600,), generator=generator)
    valid = torch.rand(600, generator=generator) < 0.9
    index = valid.nonzero()[:, 0]
    expected = torch.zeros(600, dtype=torch.bool)
    expected[index[batched_nms(boxes[index], scores[index], groups[index], 0.5)]] = True
    kept = kept_by_suppression(boxes, groups, 0.5, valid)
    assert 20 < expected.sum() < 500
    assert torch.equal(kept, expected)


def test_regions_are_those_of_torchvisions_pool():
    torch.manual_seed(0)
    network = build("compfeat_tiny")
    pool = network.heads.box_roi_pool
    maps = [torch.randn(2, 64, 256 // stride, 256 // stride) for stride in network.strides]
    corners = torch.rand(40, 2) * 100
    boxes = torch.cat([corners, corners + 2 + torch.rand(40, 1) * 150], 1)
    named = dict(zip(pool.featmap_names, maps, strict=True))
    expected = pool(named, [boxes[:25], boxes[25:]], [(256, 256)] * 2)
    assert len(pool.map_levels([boxes]).unique()) >= 3
    owners = torch.arange(40) // 25
    for static in (False, True):
        torch.testing.assert_close(read_regions(pool, maps, boxes, owners, static=static), expected)


class _Pyramid(nn.Module):
    """The backbone and pyramid of a network, as torchvision wants them."""

    def __init__(self, network):
        super().__init__()
        self.network, self.out_channels = network, network.settings.detector.channels

    def forward(self, x):
        maps = self.network._pyramid(self.network.backbone(x))
        return dict(zip([*self.network.heads.box_roi_pool.featmap_names, "pool"], maps, strict=True))


@pytest.mark.parametrize("size", [(96, 128), (90, 121)])
def test_a_fresh_network_sees_what_plain_mask_rcnn_sees(size):
    """New modules change nothing at first, whatever the frames before show."""
    torch.manual_seed(1)
    network = build("compfeat_tiny")
    for layer in (network.proposals.head.bbox_pred, network.heads.box_predictor.bbox_pred):
        nn.init.normal_(layer.weight, std=0.1)
    nn.init.normal_(network.heads.box_predictor.cls_score.weight, std=0.5)
    network.eval()
    oracle = MaskRCNN(
        _Pyramid(network), 9, min_size=min(size), max_size=max(size), size_divisible=32,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    oracle.rpn, oracle.roi_heads = network.proposals, network.heads
    oracle.eval()
    frames = torch.rand(3, 3, *size)
    state = network.start(*size)
    for frame in frames:
        found, state = network.step(frame[None], state)
        with torch.no_grad():
            expected = oracle([frame])[0]
        count = int(found.valid.sum())
        assert count == len(expected["scores"]) > 4
        torch.testing.assert_close(found.scores[:count], expected["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.boxes[:count], expected["boxes"], rtol=0, atol=1e-3)
        assert torch.equal(found.labels[:count] + 1, expected["labels"])
        masks = expected["masks"][:, 0] > 0.5
        assert (found.paste(*size)[:count] != masks).float().mean() < 1e-4
        assert not found.paste(*size)[count:].any()


def test_no_masks_paste_to_no_masks():
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), 5, 6).shape == (0, 5, 6)
