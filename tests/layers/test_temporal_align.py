"""Temporal shift and aligned shift: the authors' tensors, and what must hold for any features and flows."""

import pytest
import torch
from torch import nn

from tenfold.errors import ShapeError
from tenfold.layers.temporal_align import Flows, WholeClip, check_flows, pairs_at, shift
from tsam_reference import case, flows_of, read, time_first

CASES = ("same_res", "down4_odd", "zero_flow", "int_shift", "frac_mask", "far_out", "nondiv", "relu_sparse")
SIZE = (6, 8)


def _features(frames=4, channels=8, batch=2, size=SIZE, dtype=torch.float32):
    return torch.randn(batch, frames, channels, *size, generator=torch.Generator().manual_seed(0), dtype=dtype)


def _flows(frames=4, batch=2, size=SIZE, motion=2.0, invalid=0.2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)

    def made(channels):
        return torch.randn(batch, frames - 1, channels, *size, generator=generator, dtype=dtype)

    masks = [(made(1) < -1).to(dtype) if invalid else torch.zeros_like(made(1)) for _ in range(2)]
    return Flows(motion * made(2), motion * made(2), *masks)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["tsm", "compat", "exact"])
def test_shifts_and_their_gradients_equal_the_official_ones(shared, name, mode):
    tensors, facts = case(read(shared, "shift_align"), name), read(shared, "values.json")["shift_align"][name]
    x = time_first(tensors["x"]).requires_grad_()
    pairs = None if mode == "tsm" else pairs_at(flows_of(tensors), (facts["H"], facts["W"]), mode)
    got = shift(x, facts["C"] // facts["fold_div"], pairs)
    got.backward(time_first(tensors["cotangent"]))
    tolerance = 0 if mode == "tsm" else 5e-6
    torch.testing.assert_close(got, time_first(tensors[f"{mode}_out"]), atol=tolerance, rtol=0)
    torch.testing.assert_close(x.grad, time_first(tensors[f"{mode}_grad_x"]), atol=tolerance, rtol=0)


def test_a_plain_shift_is_what_it_says():
    x = _features()
    got = shift(x, 2)
    assert torch.equal(got[:, :-1, :2], x[:, 1:, :2])
    assert torch.equal(got[:, 1:, 2:4], x[:, :-1, 2:4])
    assert torch.equal(got[:, :, 4:], x[:, :, 4:])
    assert got[:, -1, :2].abs().sum() == 0
    assert got[:, 0, 2:4].abs().sum() == 0


def test_without_motion_the_aligned_shift_is_the_plain_one():
    x, flows = _features(), _flows(motion=0.0, invalid=0)
    torch.testing.assert_close(shift(x, 2, pairs_at(flows, SIZE)), shift(x, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["exact", "compat"])
def test_where_no_flow_is_trusted_frames_keep_their_own_features(mode):
    x, flows = _features(), _flows()
    flows = flows._replace(**{name: torch.ones_like(getattr(flows, name)) for name in Flows._fields[2:]})
    got = shift(x, 2, pairs_at(flows, SIZE, mode))
    assert torch.equal(got[:, :-1, :2], x[:, :-1, :2])
    assert torch.equal(got[:, 1:, 2:4], x[:, 1:, 2:4])


def test_ends_may_keep_their_own_features():
    x = _features()
    got = shift(x, 2, pairs_at(_flows(), SIZE), edge="self")
    assert torch.equal(got[:, -1, :2], x[:, -1, :2])
    assert torch.equal(got[:, 0, 2:4], x[:, 0, 2:4])
    assert torch.equal(shift(x[:, :1], 2, edge="self"), x[:, :1])


def test_a_flow_of_whole_pixels_moves_features_exactly():
    x, flows = _features(), _flows(motion=0.0, invalid=0)
    flows.forward[:, :, 0], flows.forward[:, :, 1] = 2, -1
    got = shift(x, 2, pairs_at(flows, SIZE))[:, :-1, :2]
    torch.testing.assert_close(got[..., 1:, :-2], x[:, 1:, :2, :-1, 2:], atol=2e-6, rtol=0)
    assert torch.equal(got[..., 0, :], x[:, :-1, :2, 0])  # from above the frame nothing comes
    assert torch.equal(got[..., -2:], x[:, :-1, :2, :, -2:])


def test_time_backwards_exchanges_the_two_parts():
    x, flows = _features(), _flows()
    back = Flows(flows.backward, flows.forward, flows.invalid_backward, flows.invalid_forward)
    turned = shift(_exchanged(x).flip(1), 2, pairs_at(Flows(*(one.flip(1) for one in back)), SIZE))
    torch.testing.assert_close(_exchanged(turned.flip(1)), shift(x, 2, pairs_at(flows, SIZE)), atol=1e-6, rtol=0)


def _exchanged(x):
    return torch.cat((x[:, :, 2:4], x[:, :, :2], x[:, :, 4:]), 2)


def test_a_mirrored_clip_gives_the_mirrored_answer():
    x, flows = _features(), _flows()
    mirrored = Flows(*(one.flip(-1) for one in flows))
    for one in mirrored[:2]:
        one[:, :, 0] *= -1
    got = shift(x.flip(-1), 2, pairs_at(mirrored, SIZE)).flip(-1)
    torch.testing.assert_close(got, shift(x, 2, pairs_at(flows, SIZE)), atol=3e-6, rtol=0)


@pytest.mark.parametrize("mode", ["exact", "compat"])
def test_flow_that_is_no_number_is_not_followed(mode):
    x, flows = _features().requires_grad_(), _flows(motion=0.0, invalid=0)
    flows.forward[:, :, :, 0, 0] = float("nan")
    flows.forward[:, :, :, 0, 1] = float("inf")
    flows.backward[:, :, :, 1, 1] = -1e30
    got = shift(x, 2, pairs_at(flows, SIZE, mode))
    got.sum().backward()
    assert got.isfinite().all()
    assert x.grad.isfinite().all()
    assert torch.equal(got[:, :-1, :2, 0, :2], x[:, :-1, :2, 0, :2])
    if mode == "exact":  # theirs looks at the forward flow in both directions
        assert torch.equal(got[:, 1:, 2:4, 1, 1], x[:, 1:, 2:4, 1, 1])


def test_the_gradient_is_right_to_double_precision_and_none_goes_to_the_flows():
    x = _features(frames=3, channels=4, batch=1, size=(3, 4), dtype=torch.float64).requires_grad_()
    flows = _flows(frames=3, batch=1, size=(6, 8), dtype=torch.float64)
    for one in flows:
        one.requires_grad_()
    pairs = pairs_at(flows, (3, 4))
    assert torch.autograd.gradcheck(lambda x: shift(x, 1, pairs), (x,))
    shift(x, 1, pairs).sum().backward()
    assert all(one.grad is None for one in flows)


@pytest.mark.parametrize("mode", ["exact", "compat"])
@pytest.mark.parametrize(("start", "stop"), [(0, 5), (0, 3), (1, 4), (2, 5), (1, 3)])
def test_a_part_of_a_clip_with_its_neighbours_gives_that_part_of_the_answer(mode, start, stop):
    x, flows = _features(frames=5), _flows(frames=5)
    whole = shift(x, 2, pairs_at(flows, SIZE, mode))
    past, future = min(start, 1), min(5 - stop, 1)
    low, high = start - past, stop + future
    pairs = pairs_at(Flows(*(one[:, low : high - 1] for one in flows)), SIZE, mode)
    got = shift(x[:, low:high], 2, pairs, past=past, future=future)
    torch.testing.assert_close(got, whole[:, start:stop], atol=1e-6, rtol=0)


def test_one_frame_needs_no_flow_and_two_frames_one():
    layer = nn.Identity()
    for frames in (1, 2):
        x, flows = _features(frames=frames), _flows(frames=frames)
        shifted, own = WholeClip(frames, flows).shift(layer, x.flatten(0, 1), 4)
        assert own.shape == shifted.shape
        assert torch.equal(shifted.unflatten(0, (-1, frames)), shift(x, 2, pairs_at(flows, SIZE)))


def test_flows_are_brought_to_each_size_once(monkeypatch):
    asked = []

    def counted(flows, size, mode):
        asked.append(size)
        return pairs_at(flows, size, mode)

    monkeypatch.setattr("tenfold.layers.temporal_align.pairs_at", counted)
    clip = WholeClip(4, _flows())
    for size in (SIZE, (3, 4), SIZE, (3, 4)):
        clip.shift(nn.Identity(), _features(size=size).flatten(0, 1), 4)
    assert asked == [SIZE, (3, 4)]


def test_flows_that_do_not_fit_their_frames_are_refused():
    frames = torch.zeros(2, 4, 3, *SIZE)
    check_flows(_flows(), frames)
    with pytest.raises(ShapeError, match=r"forward has the shape \(2, 2, 2, 6, 8\).* must be \(2, 3, 2, 6, 8\)"):
        check_flows(_flows(frames=3), frames)
