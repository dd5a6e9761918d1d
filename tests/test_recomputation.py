"""Activations that the backward pass computes again: the same gradients from less memory."""

import gc

import pytest
import torch
from torch import nn

from tenfold import recomputation
from tenfold.methods import QAT, SAT, AdaBits, FracBits
from tenfold.models import build
from tenfold.recomputation import recomputable, recomputing

IMAGES = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 255


def kept_bytes() -> int:
    """What stands in boxes now, each storage once, without parameters."""
    tensors = [one.tensor for one in gc.get_objects() if type(one) is recomputation._Saved]
    storages = [one.untyped_storage() for one in tensors if not isinstance(one, nn.Parameter)]
    return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


def gradients(network, *, enabled, images=IMAGES, autocast=False):
    """Loss, gradients, and the bytes that were kept between the passes (0 unless enabled)."""
    network.zero_grad(set_to_none=True)
    with recomputing(enabled), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = network(images).float().square().mean()
        kept = kept_bytes()
        loss.backward()
    return loss.detach(), {name: p.grad for name, p in network.named_parameters()}, kept


def check_equal(network, **options):
    states = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    loss, usual, _ = gradients(network, enabled=False, **options)
    after = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(states)
    again, found, kept = gradients(network, enabled=True, **options)
    assert torch.equal(loss, again)
    assert all((a is None and found[name] is None) or torch.equal(a, found[name]) for name, a in usual.items())
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in after.items())  # counted once
    return kept


def depthwise_network():
    """An inverted residual between a stem and a classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 24, 1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU6(inplace=True),
        nn.Conv2d(24, 24, 3, groups=24, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU6(inplace=True),
        nn.Conv2d(24, 16, 1),
        nn.BatchNorm2d(16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


METHODS = {
    "float": None,
    "sat": SAT(w_bits=4, a_bits=4),
    "qat": QAT(w_bits=8, a_bits=8),
    "adabits": AdaBits(bits=(8, 4, 2)),
    "fracbits": FracBits(like=3, start=3.5),
    "fracbits by kernel": FracBits(like=3, start=3.5, weight_bits="kernel"),
}


@pytest.mark.parametrize("method", list(METHODS))
def test_gradients_are_equal_to_the_bit(method):
    network = depthwise_network().to(memory_format=torch.channels_last).train()
    if METHODS[method] is not None:
        network = METHODS[method].attach(network, None, IMAGES)
    check_equal(network)
    check_equal(network, autocast=True)


def test_memory_is_below_that_of_float_whatever_is_quantized():
    torch.manual_seed(0)

    def kept(enabled, method=None):
        network = build("resnet20_cifar", num_classes=10)
        if method is not None:
            network = method.attach(network, None, IMAGES)
        boxes = recomputation._Book.find if enabled else lambda *_, **__: None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recomputation._Book, "find", boxes)
            return gradients(network, enabled=True)[2]

    usual = kept(False)
    assert kept(True) < 0.76 * usual
    assert kept(False, METHODS["sat"]) > 1.4 * usual
    assert kept(True, METHODS["sat"]) < 0.76 * usual
    assert kept(True, METHODS["fracbits"]) < 0.76 * usual


class Residual(nn.Module):
    """Writes into what a norm gave, and uses what an activation gave whole, cut and turned around."""

    def __init__(self, inplace):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.act = nn.BatchNorm2d(16), nn.ReLU(inplace=inplace)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.act(self.norm(self.first(x)))
        y = self.norm(self.second(x))
        y += x
        y = self.act(y)
        cut = self.head(x.flip(-1)) + self.head(x[:, :, 1:-1, 1:-1]).sum()
        return self.head(y) + self.head(self.act(self.norm(y))) + cut


@pytest.mark.parametrize("inplace", [False, True])
def test_tensors_that_are_shared_cut_or_written_into(inplace):
    torch.manual_seed(0)
    check_equal(Residual(inplace).train())


def test_a_second_backward_pass_and_frozen_parts():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 8, 3)).train()
    network[3].requires_grad_(False)
    check_equal(network)
    with recomputing():
        loss = network(IMAGES).square().mean()
        first = torch.autograd.grad(loss, network[0].weight, retain_graph=True)[0]
        second = torch.autograd.grad(loss, network[0].weight)[0]
    assert torch.equal(first, second)


def test_a_norm_that_does_not_train_is_left_alone():
    torch.manual_seed(0)
    network = METHODS["sat"].attach(build("resnet20_cifar", num_classes=10), None, IMAGES).eval()
    check_equal(network)
    with recomputing(), torch.inference_mode():
        network(IMAGES)


def test_writing_into_what_is_needed_is_still_an_error():
    weight = torch.randn(64, 64, requires_grad=True)
    with recomputing():
        x = weight * 2
        y = (x * x).sum()
        x.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


def test_memory_that_is_used_again_has_no_recipe():
    with recomputing():
        for _ in range(20):  # the allocator gives the same place again and again
            made = torch.zeros(5000)
            recomputable(made, lambda: pytest.fail("a recipe outlived its tensor"))
            del made
            weight = torch.ones(5000, requires_grad=True)
            (torch.full((5000,), 2.0) * weight).sum().backward()
            assert torch.equal(weight.grad, torch.full((5000,), 2.0))
            del weight


def test_contexts_may_be_nested_and_leave_nothing_behind():
    with recomputing(), recomputing():
        assert recomputation._book is not None
    assert recomputation._book is None
    with recomputing(False):
        assert recomputation._book is None
