"""CompFeat's network: its facts, what it learns from, and what must hold in any video."""

import copy
import functools
import json
import pickle

import pytest
import torch
from torch import nn

from lively_compfeat import enliven
from tenfold.cost import profile
from tenfold.errors import ShapeError, UsageError
from tenfold.models import Architecture, build, facts, list_models
from tenfold.models.compfeat_losses import LOSSES, Truth
from tenfold.models.compfeat_state import without_frames
from tenfold.models.tracking import MatchingRule

NAMES = [name for name in list_models() if facts(name).takes == "frame"]
SIZE = (64, 96)


@functools.cache
def _lively(**options):
    """A small network that finds something, and whose aggregation changes what it finds."""
    torch.manual_seed(0)
    network = build("compfeat_tiny", **options)
    enliven(network, spread=0.5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.backbone.train()(_frames(4, seed=9) * 4 - 2)
    return network.eval()


def lively(**options):
    return copy.deepcopy(_lively(**options))


def _frames(count, seed=0, size=SIZE):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def _run(network, frames):
    state = network.start(*frames.shape[-2:])
    found = []
    for frame in frames:
        detections, state = network.step(frame[None], state)
        found.append(detections)
    return found, state


def _truth(batch=2, supports=2):
    boxes = torch.tensor([[5.0, 5, 40, 40], [50, 20, 80, 60], [5, 40, 30, 60]]).expand(batch, -1, -1)
    masks = torch.zeros(batch, 3, *SIZE, dtype=torch.uint8)
    masks[:, 0, 5:40, 5:40] = masks[:, 1, 20:60, 50:80] = masks[:, 2, 40:60, 5:30] = 1
    labels = torch.tensor([[0, 1, 2], [3, 4, 5]])[:batch]
    here = torch.tensor([[True, True, False], [True, True, True]])[:batch]
    there = torch.tensor([[False, True, True], [True, True, True]])[:batch]
    return Truth(boxes, labels, masks, here, boxes + 1, there, torch.ones(batch, supports, dtype=torch.bool))


def _clips(batch=2, supports=2):
    return _frames(batch * (2 + supports), seed=3).unflatten(0, (batch, 2 + supports))


@pytest.mark.parametrize("name", NAMES)
def test_declared_facts_are_true(name):
    declared = facts(name)
    network = build(name)
    counted = profile(network, declared.input_shape)
    assert sum(one.numel() for one in network.parameters()) == counted.params == declared.params
    assert counted.macs == declared.macs
    assert declared.summary
    assert declared.licence
    assert network.num_classes == declared.num_classes
    description = json.loads(json.dumps(network.architecture.to_dict()))
    again = build(Architecture.from_dict(description))
    again.load_state_dict(network.state_dict())
    assert again.architecture == network.architecture


def test_parameters_of_resnet50_add_up_as_specified():
    """Mask R-CNN of torchvision with 41 classes, two attentions for each of two maps and for regions, and the head."""
    network = build("compfeat_r50")

    def count(module):
        return sum(one.numel() for one in module.parameters())

    assert count(network.frame_aggregation) == 2 * 1_050_368 + 2 * 2_099_968
    assert count(network.object_aggregation) == 2 * 131_712
    assert count(network.tracker) == 722_178
    assert count(network) == 44_185_413 + 2 * 1_050_368 + 2 * 2_099_968 + 2 * 131_712 + 722_178 == 51_471_687
    baseline = build("compfeat_r50", frames=(), objects="none", tracker="fc")
    assert count(baseline) == 58_081_093


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objects": "dense", "scope": "window:1"},
        {"objects": "none"},
        {"frames": (), "objects": "none", "tracker": "fc"},
    ],
)
def test_every_parameter_learns_and_both_modes_give_the_losses(options):
    network = lively(**options).train()
    torch.manual_seed(1)
    losses = network(_clips(), *_truth())
    assert losses.shape == (len(LOSSES),)
    assert (losses[: 6 if options.get("tracker") == "fc" else 7] > 0).all()
    losses.sum().backward()
    silent = {
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    }
    # No region is as large as to be read from the coarsest map, and a softmax does not see the bias of keys.
    assert not {name for name in silent if not name.startswith("pyramid.layer_blocks.3")}
    with torch.no_grad():
        assert network.eval()(_clips(), *_truth()).isfinite().all()


def test_frames_without_objects_and_without_frames_to_look_at_have_losses():
    network = lively().train()
    truth = _truth()
    nobody, nothing = torch.zeros_like(truth.here), torch.zeros_like(truth.filled)
    losses = network(_clips(), *truth._replace(here=nobody, there=nobody, filled=nothing))
    assert losses[2] > 0
    assert losses.isfinite().all()
    assert not losses[[1, 3, 4, 5, 6]].any()
    losses.sum().backward()


def test_items_of_a_batch_do_not_mix():
    network = lively().eval()
    clips, truth = _clips(), _truth()
    seen = []
    network.heads.box_head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for other in (0, 5):
        changed = clips.clone()
        changed[1] = changed[1].roll(other, -1)
        torch.manual_seed(2)
        with torch.no_grad():
            network(changed, *truth)
    one, again = (regions[:20] for regions in seen)  # of the first item
    torch.testing.assert_close(one, again)
    assert one.std() > 0.01
    assert not torch.equal(seen[0][-20:], seen[1][-20:])


@pytest.mark.parametrize("options", [{}, {"objects": "dense"}, {"tracker": "fc", "frames": (), "objects": "none"}])
def test_fixed_sizes_change_nothing(options):
    network = lively(**options)
    frames = _frames(3, size=(60, 90))
    _, state = _run(network, frames[:2])
    with torch.no_grad():
        known = state.memory.known
        few = network.look(frames[2:], state, known, static=False)
        all_places = network.look(frames[2:], state)
    assert few.valid.sum() > 3
    for name in ("boxes", "labels", "scores", "masks", "valid", "templates"):
        torch.testing.assert_close(getattr(few, name), getattr(all_places, name), rtol=1e-4, atol=1e-4)
    columns = torch.cat([torch.zeros(1, dtype=torch.int64), known + 1])
    torch.testing.assert_close(few.fit, all_places.fit[:, columns], rtol=1e-4, atol=1e-4)
    free = torch.ones(all_places.fit.shape[1], dtype=torch.bool)
    free[columns] = False
    assert (all_places.fit[:, free] == -torch.inf).all()


def test_the_same_frame_again_finds_the_same_identities():
    network = lively(tracker="fc", frames=(), objects="none")
    found, state = _run(network, _frames(1).expand(3, -1, -1, -1))
    assert found[0].valid.sum() > 3
    for again in found[1:]:
        assert torch.equal(again.ids, found[0].ids)
    assert (found[0].ids[found[0].valid] >= 0).all()
    assert (found[0].ids[~found[0].valid] == -1).all()
    assert len(set(found[0].ids[found[0].valid].tolist())) == int(found[0].valid.sum())
    assert int(state.memory.frame) == 3


def test_frames_before_are_seen_and_those_before_a_cut_are_not():
    network = lively()
    frames = _frames(3)
    _, fresh = _run(network, frames[:0])
    _, after = _run(network, frames[:2])
    assert after.filled.tolist() == [True, True, False]
    with torch.no_grad():
        alone, helped = (network.look(frames[2:], state).scores for state in (fresh, after))
        cut = network.look(frames[2:], without_frames(after)).scores
    assert not torch.equal(alone, helped)
    assert torch.equal(alone, cut)
    assert torch.equal(after.memory.ids, without_frames(after).memory.ids)


def test_states_are_plain_tensors_of_one_size_and_videos_do_not_mix():
    network = lively()
    videos = [_frames(3, seed=1), _frames(3, seed=2)]
    expected = [_run(network, frames)[0] for frames in videos]
    states = [network.start(*SIZE) for _ in videos]
    sizes = [one.shape for one in torch.utils._pytree.tree_leaves(states[0])]
    for at in range(3):
        for video, frames in enumerate(videos):
            found, state = network.step(frames[at : at + 1], pickle.loads(pickle.dumps(states[video])))
            states[video] = state
            for got, wanted in zip(found, expected[video][at], strict=True):
                assert torch.equal(got, wanted)
            assert [one.shape for one in torch.utils._pytree.tree_leaves(state)] == sizes


def test_every_so_many_frames_one_is_kept():
    network = build("compfeat", network="efficientnet_lite0", support_stride=2, supports=2, channels=16).eval()
    _, state = _run(network, _frames(4))
    assert state.filled.tolist() == [True, True]
    newest = network.backbone(network._prepared(_frames(4)[2:3]))[2]
    torch.testing.assert_close(state.stages[0][:1], newest)


def test_who_is_pointed_at_is_followed():
    network = lively(tracker="fc")
    frames = _frames(2)
    _, state = _run(network, frames[:1])
    before = int(state.memory.next_id)
    box = torch.tensor([[3.0, 5, 60, 50]])
    given, state = network.introduce(frames[:1], state, box)
    assert given.ids.tolist() == [before]
    assert torch.equal(given.boxes, box)
    assert given.paste(*SIZE).shape == (1, *SIZE)
    assert int(state.memory.frame) == 1
    assert before in state.memory.ids
    _, later = network.step(frames[1:], state, MatchingRule(assign="greedy", place=0))
    assert int(later.memory.frame) == 2


def test_several_frames_at_once_are_seen_as_a_video():
    network = lively()
    frames = _frames(2)
    found, _ = _run(network, frames)
    with torch.no_grad():
        both = network(frames)
        alone = network(frames[1:])
    torch.testing.assert_close(both[1].scores, found[1].scores)
    assert not torch.equal(both[1].scores, alone.scores)
    assert both[1].fit.isfinite().sum() > alone.fit.isfinite().sum()  # it compares with who was seen before


def test_odd_sizes_and_a_video_of_one_frame():
    network = lively()
    for size in ((33, 65), (7, 130)):
        found, state = _run(network, _frames(1, size=size))
        assert found[0].paste(*size).shape == (10, *size)
        assert state.filled.tolist() == [True, False, False]


def test_frozen_statistics_stay_as_they_are():
    network = build("compfeat_tiny", frozen_norm=True).train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    network(_clips(), *_truth())
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    assert network.heads.training


@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_050", "torchvision:mobilenet_v3_small", "atomnas_a"])
def test_any_convolutional_network_carries_it(name):
    network = build("compfeat", network=name, channels=16, proposals=20, region_width=32).eval()
    found, _ = _run(network, _frames(1))
    assert found[0].boxes.shape == (10, 4)
    assert network.strides == [4, 8, 16, 32]


def test_wrong_use_is_told():
    network = lively()
    state = network.start(*SIZE)
    with pytest.raises(ShapeError, match="a step takes one frame"):
        network.step(_frames(2), state)
    with pytest.raises(ShapeError, match="does not fit the state of a video of another size"):
        network.step(_frames(1, size=(128, 96)), state)
    with pytest.raises(ShapeError, match="frames of 0 x 3 are not allowed"):
        network.start(3, 0)
    with pytest.raises(UsageError, match=r"maps of stride \[2\] cannot be refined"):
        build("compfeat", frames=[2])
    with pytest.raises(UsageError, match="objects is 'near'"):
        build("compfeat", objects="near")
    with pytest.raises(UsageError, match="cannot stand on 'resnet20_cifar'"):
        build("compfeat", network="resnet20_cifar")
    with pytest.raises(UsageError, match="comes without pretrained weights"):
        build("compfeat", network="resnet18", pretrained=True)
    with pytest.raises(UsageError, match="takes no options"):
        build("compfeat", network="timm:resnet18", options={"width": 2})


def test_quantization_leaves_the_places_of_boxes_in_float():
    from tenfold.quant import quantizable_layers

    network = build("compfeat_tiny")
    layers = quantizable_layers(network)
    assert "heads.box_predictor.cls_score" in layers
    assert {"backbone.body.stem.conv", "pyramid.inner_blocks.0.0"} <= layers.keys()
    for name in ("proposals.head.cls_logits", "proposals.head.bbox_pred", "heads.box_predictor.bbox_pred"):
        assert name not in layers
