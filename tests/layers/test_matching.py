"""Heads that compare objects of two frames: tensors of the equations and of MaskTrack R-CNN's program."""

import pytest
import torch
from safetensors.torch import load_file

from tenfold.layers.matching import (
    CorrelationHead,
    InnerProductHead,
    cells_inside,
    identity_loss,
    map_loss,
    map_scores,
    with_new,
)

NEAR = {"rtol": 0, "atol": 1e-13}


@pytest.fixture
def correlation(shared):
    tensors = load_file(shared / "reference/compfeat/attention_equations/correlation.safetensors")
    inner, channels = tensors["psi.w"].shape[:2]
    head = CorrelationHead(channels, inner).double()
    for layer, name in ((head.embed, "psi"), (head.score[0], "score1"), (head.score[2], "score2"),
                        (head.map[0], "map1"), (head.map[2], "map2")):  # fmt: skip
        layer.weight.data = tensors[f"{name}.w"].reshape(layer.weight.shape).clone()
        layer.bias.data = tensors[f"{name}.b"].clone()
    return head, tensors


def test_correlation_follows_the_equations(correlation):
    head, tensors = correlation
    logits = head(tensors["f"], tensors["z"])
    torch.testing.assert_close(logits, tensors["logits"], **NEAR)
    torch.testing.assert_close(logits.log_softmax(1), tensors["logprob"], **NEAR)
    maps = head.maps(tensors["F"], tensors["z"])
    torch.testing.assert_close(maps, tensors["M"], **NEAR)
    stride = int(tensors["stride"])
    torch.testing.assert_close(map_scores(maps, tensors["boxes"], stride), tensors["map_score"], **NEAR)
    present = (tensors["gt_boxes"] >= 0).all(1)
    inside = cells_inside(tensors["gt_boxes"], *maps.shape[1:], stride) & present[:, None, None]
    assert torch.equal(inside.double(), tensors["map_target"].double())
    torch.testing.assert_close(map_loss(maps, tensors["gt_boxes"], present, stride).double()[None],
                               tensors["loss_map"], rtol=1e-6, atol=1e-7)  # fmt: skip


def test_inner_products_and_their_loss_are_those_of_masktrack(shared):
    folder = shared / "reference/compfeat/masktrack_match"
    weights, tensors = load_file(folder / "head_two_fc.safetensors"), load_file(folder / "loss.two_fc.safetensors")
    head = InnerProductHead(4, 2, 8)
    for layer, name in ((head.layers[0], "fc0"), (head.layers[2], "fc1")):
        layer.weight.data, layer.bias.data = weights[f"{name}.weight"].float(), weights[f"{name}.bias"].float()
    for case in "012":
        logits = head(tensors[f"{case}.x"].float(), tensors[f"{case}.ref"].float())
        torch.testing.assert_close(logits, tensors[f"{case}.logits"].float(), rtol=1e-5, atol=1e-6)
        positive = tensors[f"{case}.weights"] > 0
        loss = identity_loss(logits[positive], tensors[f"{case}.ids"][positive].long())
        if case != "2":  # a single positive, for which the official program forgets the loss
            torch.testing.assert_close(loss, tensors[f"{case}.loss_match"][0].float(), rtol=1e-5, atol=1e-6)
        else:
            assert positive.sum() == 1
            assert loss > 0


def test_the_heads_have_as_many_parameters_as_specified():
    assert sum(one.numel() for one in CorrelationHead(256).parameters()) == 722_178
    assert sum(one.numel() for one in InnerProductHead(256).parameters()) == 13_895_680


def test_a_box_between_all_centres_gets_its_own_cell():
    maps = torch.arange(6.0).reshape(1, 2, 3)
    boxes = torch.tensor([[9.0, 1, 10, 2], [17, 9, 30, 15], [0, 0, 24, 16], [-9, -9, -8, -8]])
    got = map_scores(maps, boxes, 8)[:, 0]
    sure = maps.sigmoid()[0]
    torch.testing.assert_close(got, torch.stack([sure[0, 1], sure[1, 2], sure.mean(), sure[0, 0]]))


def test_nobody_known_leaves_only_newcomers():
    head = CorrelationHead(4)
    found = torch.randn(3, 4, 7, 7)
    nobody = found[:0]
    assert torch.equal(head(found, nobody), torch.zeros(3, 1))
    assert head.maps(torch.randn(4, 5, 6), nobody).shape == (0, 5, 6)
    assert identity_loss(with_new(torch.zeros(0, 2)), torch.zeros(0, dtype=torch.long)) == 0
    assert map_loss(torch.zeros(0, 5, 6), torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool), 8) == 0
