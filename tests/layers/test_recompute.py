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


def run_expanding(expand, layers, x, *, lean):
    """Output, gradients of the input and of all parameters, and how many maps are kept."""
    expand, layers = copy.deepcopy((expand, layers))
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        y = norm_act_conv(*layers, x, expand=expand) if lean else layers(expand(x))
    y.square().sum().backward()
    gradients = [p.grad for p in (x, *expand.parameters(), *layers.parameters())]
    return y.detach(), gradients, sum(t.ndim == 4 and t.shape[-2:] == x.shape[-2:] for t in kept.values())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("wanted", ["all", "no expansion"])
def test_a_cheap_expansion_is_computed_again(layout, wanted):
    torch.manual_seed(1)
    expand = nn.Conv2d(4, 6, 1, bias=False, dtype=torch.float64)
    expand.weight.requires_grad_(wanted != "no expansion")
    x = (3 + 2 * torch.randn(4, 4, 9, 7, dtype=torch.float64)).to(memory_format=layout)
    y, gradients, kept = run_expanding(expand, chain(), x, lean=True)
    expected, expected_gradients, expected_kept = run_expanding(expand, chain(), x, lean=False)
    assert torch.equal(y, expected)
    for found, right in zip(gradients, expected_gradients, strict=True):
        assert (found is None) == (right is None)
        if right is not None:
            torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-10)
    assert (kept, expected_kept) == (1, 3)


@pytest.mark.parametrize(
    "expand",
    [nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.Conv2d(40, 6, 1, bias=False), nn.Identity()],
    ids=["bias", "kernel", "many channels", "no convolution"],
)
def test_any_other_expansion_is_called(expand):
    x = torch.randn(2, getattr(expand, "in_channels", 6), 8, 8)
    expected = chain(dtype=torch.float32)(expand(x))
    y, _, kept = run_expanding(expand, chain(dtype=torch.float32), x, lean=True)
    assert torch.equal(y, expected)
    assert kept == (1 if isinstance(expand, nn.Identity) else 2)


def test_an_expansion_follows_autocast():
    expand = nn.Conv2d(4, 6, 1, bias=False)
    x = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, gradients, _ = run_expanding(expand, chain(dtype=torch.float32), x, lean=True)
        expected, expected_gradients, _ = run_expanding(expand, chain(dtype=torch.float32), x, lean=False)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    for found, right in zip(gradients, expected_gradients, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, right, rtol=0.05, atol=0.05 * float(right.abs().max()))
