"""Identities: MaskTrack R-CNN's sequences, the best assignment in total, and a memory of bounded size."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file

from tenfold.errors import UnknownNameError, UsageError
from tenfold.layers.matching import InnerProductHead, with_new
from tenfold.models.tracking import (
    NEW,
    MatchingRule,
    assign,
    assign_greedy,
    assign_hungarian,
    empty_memory,
    matching_scores,
    remember,
)


def head_of(folder, name):
    weights = load_file(folder / f"head_{name}.safetensors")
    if name == "identity":
        return lambda found, known: with_new(found.flatten(1) @ known.flatten(1).T)
    head = InnerProductHead(4, 2, 8)
    for layer, short in ((head.layers[0], "fc0"), (head.layers[2], "fc1")):
        layer.weight.data, layer.bias.data = weights[f"{short}.weight"].float(), weights[f"{short}.bias"].float()
    return head


def test_greedy_identities_are_those_of_masktrack_in_every_sequence(shared):
    folder = shared / "reference/compfeat/masktrack_match"
    rule = MatchingRule(assign="greedy", place=0.0)
    summary = json.loads((folder / "summary.json").read_text())
    assert len(summary) == 16
    for sequence, facts in summary.items():
        name = sequence.partition(".")[2]
        tensors, head = load_file(folder / f"{sequence}.safetensors"), head_of(folder, name)
        memory = empty_memory(64, torch.zeros(4, 2, 2))
        for frame, wanted in enumerate(facts["ids"]):
            boxes, labels = tensors[f"in.{frame}.boxes"].float(), tensors[f"in.{frame}.labels"].long()
            features = tensors[f"in.{frame}.feats"].float()
            known = memory.known
            with torch.no_grad():
                logits = head(features, memory.templates[known])
            fit = logits.log_softmax(1)
            if not name.endswith("nocoeff"):
                fit = matching_scores(logits, boxes[:, 4], boxes[:, :4], labels, memory.boxes[known],
                                      memory.labels[known], rule)  # fmt: skip
            if f"out.{frame}.match_logits" in tensors:
                torch.testing.assert_close(logits, tensors[f"out.{frame}.match_logits"].float(), rtol=1e-5, atol=1e-5)
            memory, ids = remember(memory, assign(fit, boxes[:, 4], rule), features, boxes[:, :4], labels,
                                   boxes[:, 4], rule)  # fmt: skip
            assert ids.tolist() == wanted, (sequence, frame)
            assert len(memory.known) == facts["memory_size"][frame]
        known = memory.known
        assert torch.equal(memory.boxes[known], tensors["out.final_boxes"][:, :4].float())
        assert torch.equal(memory.templates[known], tensors["out.final_feats"].float())


def test_scores_follow_the_equations(shared):
    tensors = load_file(shared / "reference/compfeat/attention_equations/correlation.safetensors")
    names = ("logits", "scores", "boxes", "labels", "mem_boxes", "mem_labels")
    fit = matching_scores(*(tensors[name] for name in names), MatchingRule(), tensors["map_score"])
    torch.testing.assert_close(fit, tensors["v"], rtol=0, atol=1e-12)


def test_hungarian_is_best_in_total_and_gives_every_identity_once():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        fit = torch.randn(3, 4, generator=generator)
        options = [
            choice for choice in itertools.product((NEW, 0, 1, 2), repeat=3)
            if len({c for c in choice if c >= 0}) == sum(c >= 0 for c in choice)
        ]  # fmt: skip
        best = max(options, key=lambda choice: sum(float(fit[at, c + 1]) for at, c in enumerate(choice)))
        assert assign_hungarian(fit) == list(best)
    assert assign_hungarian(torch.zeros(0, 3)) == []
    assert assign_hungarian(torch.zeros(2, 1)) == [NEW, NEW]


def test_confidence_decides_only_where_rows_are_weighed():
    fit = torch.tensor([[0.0, 2.0], [0.0, 1.9]])
    scores = torch.tensor([0.1, 0.9])
    assert assign(fit, scores, MatchingRule()) == [0, NEW]
    assert assign(fit, scores, MatchingRule(row_weight=True)) == [NEW, 0]


def test_the_confidence_never_changes_what_a_row_prefers_and_another_class_starts_anew():
    logits, boxes = torch.tensor([[0.0, 3.0]]), torch.tensor([[0.0, 0, 9, 9]])
    for score in (0.05, 0.9):
        for label, wanted in ((4, 0), (5, NEW)):
            fit = matching_scores(logits, torch.tensor([score]), boxes, torch.tensor([label]), boxes,
                                  torch.tensor([4]), MatchingRule())  # fmt: skip
            assert assign_greedy(fit) == [wanted]


def frame_of(count, value=1.0):
    boxes = torch.arange(count)[:, None] * 10 + torch.tensor([0.0, 0, 8, 8])
    return torch.full((count, 2, 1, 1), value), boxes, torch.zeros(count, dtype=torch.long), torch.full((count,), 0.5)


def test_a_full_memory_forgets_whom_it_has_not_seen_for_longest():
    rule, memory = MatchingRule(), empty_memory(3, torch.zeros(2, 1, 1))
    memory, ids = remember(memory, [NEW] * 3, *frame_of(3), rule)
    assert ids.tolist() == [0, 1, 2]
    memory, ids = remember(memory, [NEW, 1, 2], *frame_of(3), rule)  # 1 and 2 are seen again, 0 is not
    assert ids.tolist() == [3, 1, 2]
    assert sorted(memory.ids.tolist()) == [1, 2, 3]
    assert all(one.shape[:1] == (3,) for one in memory[:5])


def test_forgetting_newcomers_and_mixing_follow_the_rule():
    rule = MatchingRule(max_age=2, momentum=0.75, new_score=0.6)
    memory = empty_memory(4, torch.zeros(2, 1, 1))
    memory, ids = remember(memory, [NEW], *frame_of(1), rule)
    assert ids.tolist() == [-1]  # not sure enough
    features, boxes, labels, _ = frame_of(1)
    memory, ids = remember(memory, [NEW], features, boxes, labels, torch.tensor([0.7]), rule)
    before = memory
    memory, ids = remember(memory, [0], *frame_of(1, 5.0), rule)
    assert ids.tolist() == [0]
    assert memory.templates[0].flatten().tolist() == [2.0, 2.0]
    assert before.templates[0].flatten().tolist() == [1.0, 1.0]  # a memory is a value: two videos never mix
    for _ in range(2):
        memory, _ = remember(memory, [], *frame_of(0), rule)
    assert len(memory.known) == 0


def test_wrong_rules_are_named():
    with pytest.raises(UnknownNameError, match="unknown assignment 'best'"):
        MatchingRule(assign="best")
    with pytest.raises(UsageError, match="momentum is 1"):
        MatchingRule(momentum=1)
    with pytest.raises(UsageError, match="max_age is 0"):
        MatchingRule(max_age=0)
    with pytest.raises(UsageError, match="a memory of 0 identities"):
        empty_memory(0, torch.zeros(2, 1, 1))
