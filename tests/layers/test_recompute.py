import copy

import pytest
import torch
from torch import nn

from tenfold.layers.recompute import norm_act_conv


def chain(channels=6, kernel=3, stride=1, groups=6, activation=None, dtype=torch.float64):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.BatchNorm2d(channels, 1e-3, 0.01),
        activation or nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
    ).to(dtype)
    nn.init.uniform_(layers[0].weight, -1, 1)
    nn.init.uniform_(layers[0].bias, -1, 1)
    return layers


def run(layers, x, *, lean):
    """Output, gradient of the input, and of all parameters, and the batch norm's state."""
    layers = copy.deepcopy(layers)
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm_act_conv(*layers, x * 1) if lean else layers(x * 1)
    y.square().sum().backward()
    return y.detach(), [x.grad, *(p.grad for p in layers.parameters())], dict(layers.named_buffers())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "shape", [{"kernel": 3}, {"kernel": 5, "stride": 2}, {"kernel": 1, "groups": 1}, {"kernel": 7, "stride": 2}]
)
def test_values_are_the_same_to_the_bit_and_gradients_within_rounding(layout, shape):
    layers = chain(**shape)
    x = (3 + 2 * torch.randn(4, 6, 9, 7, dtype=torch.float64)).to(memory_format=layout)
    y, gradients, state = run(layers, x, lean=True)
    expected, expected_gradients, expected_state = run(layers, x, lean=False)
    assert torch.equal(y, expected)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    assert state.keys() == expected_state.keys()
    assert all(torch.equal(state[name], expected_state[name]) for name in state)


def test_channels_whose_values_hardly_differ():
    layers = chain(dtype=torch.float32)
    x = 1e-4 * torch.randn(4, 6, 8, 8)
    _, gradients, _ = run(layers, x, lean=True)
    _, expected, _ = run(layers, x, lean=False)
    for found, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_what_lies_between_is_not_kept():
    x = torch.randn(2, 6, 8, 8, requires_grad=True)

    def maps_kept(lean):
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
            layers = chain(dtype=torch.float32)
            y = norm_act_conv(*layers, x * 1) if lean else layers(x * 1)
        assert y.requires_grad
        return sum(t.numel() == x.numel() for t in kept.values())

    assert maps_kept(lean=True) == 1
    assert maps_kept(lean=False) == 2


@pytest.mark.parametrize(
    "layers",
    [
        chain(activation=nn.SiLU()),
        chain(activation=nn.ReLU6()),
        chain().eval(),
        nn.Sequential(nn.Identity(), nn.ReLU(), chain()[2]),
        nn.Sequential(nn.BatchNorm2d(6, momentum=None, dtype=torch.float64), nn.ReLU(), chain()[2]),
    ],
    ids=["swish", "relu6", "evaluation", "no norm", "cumulative average"],
)
def test_everything_else_is_computed_as_always(layers):
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    y, gradients, state = run(layers, x, lean=True)
    expected, expected_gradients, expected_state = run(layers, x, lean=False)
    assert torch.equal(y, expected)
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True))
    assert all(torch.equal(state[name], expected_state[name]) for name in state)


def test_hooks_are_called():
    layers = chain(dtype=torch.float32)
    seen = []
    layers[1].register_forward_hook(lambda *_: seen.append("activation"))
    norm_act_conv(*layers, torch.randn(2, 6, 8, 8))
    assert seen == ["activation"]


def test_bfloat16_follows_autocast():
    layers = chain(dtype=torch.float32)
    expand = nn.Conv2d(6, 6, 1, bias=False)
    x = torch.randn(2, 6, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = norm_act_conv(*layers, expand(x))
        expected = copy.deepcopy(layers)(expand(x))
    assert y.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    y.float().square().sum().backward()
    assert expand.weight.grad.dtype == torch.float32
    assert layers[2].weight.grad.dtype == torch.float32
