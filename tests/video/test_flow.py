"""Flow: estimated, checked both ways, complete in holes; and clear words where it cannot be."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.models.optical_flow import raft_small

from tenfold.errors import DataError, MissingDataError, MissingExtraError, ShapeError, UnknownNameError, UsageError
from tenfold.video import flow as flow_module
from tenfold.video.flow import (
    DisFlow,
    RaftFlow,
    consistent,
    grid,
    lands_in,
    make_estimator,
    near_hole,
    pair_flow,
    sample,
    smoothed,
    within,
)


def texture(seed, height=96, width=128):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def shifted_pair(right, down):
    """A picture and the same moved, cut from a larger one."""
    scene = texture(0, 140, 180)
    return scene[20:116, 20:148], scene[20 - down : 116 - down, 20 - right : 148 - right]


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
def test_dis_finds_a_known_motion(preset):
    first, second = shifted_pair(4, -3)
    found = DisFlow(preset)(first, second)
    assert found.shape == (2, 96, 128)
    inner = found[:, 12:-12, 12:-12]
    np.testing.assert_allclose(np.median(inner, (1, 2)), [4, -3], atol=0.3)


def test_frames_too_small_for_dis_are_padded():
    for size in ((1, 1), (9, 40), (40, 3)):
        frame = texture(1)[: size[0], : size[1]]
        assert np.abs(DisFlow()(frame, frame)).max() < 0.5


@pytest.mark.parametrize("small", [(16, 16), (32, 40), (24, 64)])
def test_what_was_estimated_before_has_no_influence(small):
    first, second = texture(0), np.roll(texture(0), (2, 3), (0, 1))
    expected = DisFlow()(first, second)
    used = DisFlow()
    used(np.ascontiguousarray(first[: small[0], : small[1]]), np.ascontiguousarray(second[: small[0], : small[1]]))
    np.testing.assert_array_equal(used(first, second), expected)


def test_the_check_both_ways_is_that_of_the_reference(shared):
    tensors = load_file(shared / "reference/tsam/warp_flow.safetensors")
    forward = tensors["fb_flow_fwd"][0]
    inside = within(grid(forward.shape[1:]) + forward, forward.shape[1:])
    assert 0.5 < inside.mean() < 1
    # The reference does not ask whether a point leaves the frame; the rule does.
    expected = (tensors["fb_valid"][0, 0] > 0) & inside
    np.testing.assert_array_equal(consistent(forward, tensors["fb_flow_bwd"][0]), expected)


def test_sampling_is_that_of_torch():
    rng = np.random.default_rng(0)
    values, place = rng.normal(size=(3, 9, 14)).astype(np.float32), rng.uniform(-4, 18, (2, 7, 5)).astype(np.float32)
    normal = np.stack([(2 * place[0] + 1) / 14 - 1, (2 * place[1] + 1) / 9 - 1], -1)
    expected = F.grid_sample(
        torch.from_numpy(values)[None], torch.from_numpy(normal)[None], align_corners=False, padding_mode="border"
    )[0]
    np.testing.assert_allclose(sample(values, place), expected.numpy(), atol=2e-5)


def test_an_estimator_that_fails_is_not_trusted():
    def broken(first, second):
        flow = np.zeros((2, 20, 30), np.float32)
        flow[0, 3, 4], flow[1, 5, 6], flow[0, 7, 8] = np.nan, np.inf, -1e30
        return flow

    frame, known = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), bool)
    pair = pair_flow(broken, frame, frame, known, known)
    assert np.isfinite(pair.forward).all()
    for row, column in ((3, 4), (5, 6), (7, 8)):
        assert not pair.valid_forward[row, column]
        assert not pair.valid_backward[row, column]
    assert pair.valid_forward.mean() > 0.9


def test_flow_behind_a_hole_continues_what_is_around_it():
    first, second = (frame.copy() for frame in shifted_pair(3, 2))
    hole = np.zeros((96, 128), bool)
    hole[35:60, 40:80] = True
    moving = np.zeros_like(hole)
    moving[35:60, 30:70] = True
    first[hole], second[moving] = 255, 255  # an object that moves against the scene
    pair = pair_flow(DisFlow(), smoothed(first, hole), smoothed(second, moving), near_hole(hole), near_hole(moving))
    error = np.abs(pair.forward - np.array([[[3]], [[2]]]))
    assert np.median(error[:, hole]) < 0.3
    assert np.percentile(error[:, hole], 95) < 1


def test_the_rim_grows_with_the_thickness_of_the_hole():
    hole = np.zeros((80, 80), bool)
    assert near_hole(hole) is hole
    hole[40, 5:75] = True
    assert near_hole(hole).any(1).sum() == 3
    hole[:] = False
    hole[20:60, 20:60] = True
    assert near_hole(hole)[8:12].any(1).sum() == 2  # ten pixels above row 20
    assert near_hole(hole, 0).sum() == hole.sum()


def test_where_a_flow_ends_is_looked_up():
    region = np.zeros((6, 8), bool)
    region[2, 5] = True
    flow = np.zeros((2, 6, 8), np.float32)
    flow[0, 2, 1] = 3.6
    flow[:, 0, 0] = 1e4
    assert np.argwhere(lands_in(flow, region)).tolist() == [[2, 1], [2, 5]]
    np.testing.assert_array_equal(grid((6, 8))[:, 2, 5], [5, 2])


def test_raft_runs_with_the_users_weights(tmp_path):
    torch.manual_seed(0)
    network = raft_small(weights=None)
    save_file(network.state_dict(), tmp_path / "raft.safetensors")
    first, second = texture(2, 66, 70), texture(3, 66, 70)
    found = RaftFlow("raft_small", tmp_path / "raft.safetensors", updates=1)(first, second)
    padded = [
        torch.from_numpy(np.pad(one, ((0, 62), (0, 58), (0, 0)), "edge")).permute(2, 0, 1)[None] / 127.5 - 1
        for one in (first, second)
    ]
    with torch.no_grad():
        expected = network.eval()(*padded, num_flow_updates=1)[-1][0, :, :66, :70]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_estimators_are_made_by_name(tmp_path, monkeypatch):
    assert isinstance(make_estimator("dis"), DisFlow)
    assert isinstance(make_estimator("dis:fast"), DisFlow)
    with pytest.raises(UnknownNameError, match="unknown flow estimator 'farneback'"):
        make_estimator("farneback")
    with pytest.raises(UnknownNameError, match="preset of DIS flow"):
        make_estimator("dis:slow")
    with pytest.raises(UsageError, match="takes no weights"):
        make_estimator("dis", tmp_path / "raft.safetensors")
    with pytest.raises(UsageError, match="raft_small needs weights"):
        make_estimator("raft_small")
    with pytest.raises(UnknownNameError, match="RAFT network"):
        RaftFlow("raft_huge", tmp_path / "none")
    with pytest.raises(UsageError, match="0 updates"):
        RaftFlow("raft_small", tmp_path / "none", updates=0)
    with pytest.raises(MissingDataError, match="no RAFT weights"):
        make_estimator("raft_small", tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(DataError, match="does not hold the weights"):
        make_estimator("raft_small", tmp_path / "bad.safetensors")
    monkeypatch.setattr(flow_module, "require", _missing)
    with pytest.raises(MissingExtraError, match="not here"):
        make_estimator("dis")


def _missing(package, extra):
    raise MissingExtraError("not here")


def test_frames_must_fit_each_other():
    frame = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ShapeError, match=r"needed is uint8 \(H, W, 3\)"):
        DisFlow()(frame.astype(np.float32), frame)
    with pytest.raises(ShapeError, match="must be the same"):
        DisFlow()(frame, frame[:10])
    with pytest.raises(ShapeError, match="all must be of one size"):
        pair_flow(DisFlow(), frame, frame, np.zeros((20, 20), bool), np.zeros((4, 4), bool))
