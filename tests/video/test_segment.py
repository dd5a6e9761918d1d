from types import SimpleNamespace

import numpy as np
import pytest
import torch

from discs import crossing_discs, overlap
from tenfold.errors import ShapeError, UsageError
from tenfold.video.given import Given
from tenfold.video.segment import GivenSegmenter, NetworkSegmenter, segment_frames


class RedFinder:
    """Finds what is red, in the form of CompFeat's answers; what is given gets the next number."""

    def start(self, height, width):
        return {"next": 1}

    def step(self, frame, state):
        assert frame.shape[:2] == (1, 3)
        assert 0 <= frame.min() <= frame.max() <= 1
        red = (frame[0, 0] > 0.74) & (frame[0, 1:].amax(0) < 0.31)
        scores = torch.tensor([0.9, 0.2])
        return self.found(torch.stack([red, ~red]), scores, torch.tensor([0, 1])), state

    def introduce(self, frame, state, boxes):
        masks = torch.zeros(len(boxes), *frame.shape[2:], dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = True
        ids = torch.arange(len(boxes)) + 5
        return self.found(masks, torch.ones(len(boxes)), ids), state

    @staticmethod
    def found(masks, scores, ids):
        return SimpleNamespace(
            valid=torch.ones(len(ids), dtype=torch.bool),
            ids=ids,
            scores=scores,
            labels=torch.zeros(len(ids), dtype=torch.int64),
            paste=lambda height, width: masks,
        )


def test_given_objects_are_seen_from_where_they_are_given():
    frames, masks = crossing_discs(5)
    seen = list(segment_frames(frames, GivenSegmenter(), [Given(mask=masks[1][0], frame=1, id=4)]))
    assert [sorted(one) for one in seen] == [[], [4], [4], [4], [4]]
    assert overlap(seen[4][4].mask, masks[4][0]) > 0.85


def test_what_a_network_finds_has_its_category_and_score_above_the_least():
    frames, masks = crossing_discs(3)
    segmenter = NetworkSegmenter(RedFinder(), ["ball"])
    seen = list(segment_frames(frames, segmenter))
    assert [sorted(one) for one in seen] == [[1], [1], [1]]
    assert segmenter.categories == {1: "ball"}
    assert seen[2][1].category == 1
    assert seen[2][1].score == pytest.approx(0.9)
    assert overlap(seen[2][1].mask, masks[2][0]) > 0.85


def test_ids_asked_for_are_kept_from_what_a_network_finds():
    frames, masks = crossing_discs(1)
    segmenter = NetworkSegmenter(RedFinder(), ["ball"])
    segmenter.reserve([1])
    (seen,) = segment_frames(frames, segmenter, [Given(mask=masks[0][0], id=1)])
    assert sorted(seen) == [1, 2]
    rows, columns = (np.flatnonzero(masks[0][0].any(axis)) for axis in (1, 0))
    assert seen[1].mask.sum() == len(rows) * len(columns)  # the box of what was given


def test_frames_are_shrunk_to_what_a_network_was_trained_at_and_masks_enlarged():
    frames, masks = crossing_discs(2)
    large = [np.repeat(np.repeat(frame, 2, 0), 2, 1) for frame in frames]
    segmenter = NetworkSegmenter(RedFinder(), ["ball"], longest_side=128)
    seen = list(segment_frames(large, segmenter, [Given(box=(24, 54, 54, 54), id=2)]))
    assert seen[1][1].mask.shape == large[1].shape[:2]
    assert overlap(seen[1][1].mask[::2, ::2], masks[1][0]) > 0.8
    assert overlap(seen[0][2].mask[::2, ::2], masks[0][0]) > 0.6  # its box


def test_two_videos_do_not_share_a_state():
    segmenter = NetworkSegmenter(RedFinder(), ["ball"])
    frames, masks = crossing_discs(1)
    list(segment_frames(frames, segmenter, [Given(mask=masks[0][0], id=7)]))
    assert sorted(next(segment_frames(frames, segmenter))) == [1]


@pytest.mark.parametrize("segmenter", [GivenSegmenter(), NetworkSegmenter(RedFinder(), ["ball"])])
def test_a_step_before_the_start_is_refused(segmenter):
    with pytest.raises(UsageError, match="step was called before start"):
        segmenter.step(np.zeros((8, 8, 3), np.uint8))


def test_a_frame_of_another_size_than_the_first_is_refused():
    segmenter = NetworkSegmenter(RedFinder(), ["ball"])
    segmenter.start(8, 9)
    with pytest.raises(ShapeError, match=r"a frame is uint8 \(9, 8, 3\); needed is uint8 \(8, 9, 3\)"):
        segmenter.step(np.zeros((9, 8, 3), np.uint8))


def test_a_score_that_is_none_is_refused():
    with pytest.raises(UsageError, match="least_score is 2; allowed is 0 to 1"):
        NetworkSegmenter(RedFinder(), ["ball"], least_score=2)


def test_an_object_given_after_the_end_is_refused():
    frames, masks = crossing_discs(2)
    with pytest.raises(UsageError, match="given on frame 5, but the video has 2 frames"):
        list(segment_frames(frames, GivenSegmenter(), [Given(mask=masks[0][0], frame=5)]))


@pytest.mark.slow  # builds and runs a whole detector
def test_compfeat_follows_what_is_given_behind_the_same_call():
    from tenfold.models import build

    torch.manual_seed(0)
    frames, masks = crossing_discs(2)
    segmenter = NetworkSegmenter(build("compfeat_tiny", num_classes=1).eval(), ["object"], least_score=0)
    segmenter.reserve([5])
    seen = list(segment_frames(frames, segmenter, [Given(mask=masks[0][0], id=5)]))
    assert len(seen) == 2
    assert all(one.mask.shape == frames[0].shape[:2] and one.mask.any() for all_ in seen for one in all_.values())
    assert {one.category for all_ in seen for one in all_.values()} <= {1}
