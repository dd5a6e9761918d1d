"""Re-attention: the authors' tensors, the properties of the specification, and both ways of computing it."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from tenfold.errors import ShapeError, UnknownNameError, UsageError
from tenfold.layers import mixed_attention
from tenfold.layers.map_capture import watch_maps
from tenfold.layers.reattention import Attention, ReAttention
from waves import close_gradient, filled_state, signal

CASES = (
    "m0_train",
    "m0_eval",
    "m1_train_scale",
    "m1_eval_scale",
    "m2_nobias_qkscale",
    "m3_plain",
    "m3_attention_class",
    "m4_n1_batch1",
)


def _case(shared, name):
    folder = shared / "reference" / "deepvit"
    case = json.loads((folder / "modules.json").read_text())[name]
    tensors = load_file(folder / "modules.safetensors")
    prefix = f"{name}."
    return case, {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _built(case):
    options = case["cfg"]
    common = {"qkv_bias": options.get("qkv_bias", False), "scale": options.get("qk_scale")}
    width = options["dim"] // options["num_heads"]
    scale = options.get("qk_scale") or width**-0.5
    if case["cls"] == "Attention" or not options.get("apply_transform"):
        module = Attention(options["dim"], options["num_heads"], **common)
    else:
        gain = scale if options.get("transform_scale") else 1.0
        module = ReAttention(options["dim"], options["num_heads"], gain=gain, **common)
    module.load_state_dict(filled_state(case["state"]))
    return module.train(case["mode"] == "train")


@pytest.mark.parametrize("name", CASES)
def test_outputs_maps_gradients_and_statistics_equal_the_authors(shared, name):
    case, tensors = _case(shared, name)
    module = _built(case)
    x = signal([case["B"], case["N"], case["cfg"]["dim"]], 900).requires_grad_()
    maps = []
    module.observer = lambda _, after: maps.append(after)
    out = module(x)
    torch.testing.assert_close(out, tensors["out"], atol=2e-5, rtol=0)
    torch.testing.assert_close(maps[0], tensors["attn"], atol=2e-5, rtol=0)
    loss = (out * signal(out.shape, 901, 0.5)).sum() + (maps[0] * signal(maps[0].shape, 902, 0.5)).sum()
    torch.testing.assert_close(loss, tensors["loss"][0], atol=1e-4, rtol=1e-4)
    loss.backward()
    close_gradient(x.grad, tensors["grad_x"], "x", case["mode"])
    for key, parameter in module.named_parameters():
        close_gradient(parameter.grad, tensors[f"grad.{key}"], key, case["mode"])
    for key, value in tensors.items():
        if key.startswith("after."):
            got = module.get_buffer(key.removeprefix("after.")).to(value.dtype)
            torch.testing.assert_close(got, value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in CASES if "plain" not in name and "class" not in name])
def test_without_an_observer_outputs_and_statistics_equal_the_authors_too(shared, name):
    case, tensors = _case(shared, name)
    module = _built(case)
    assert module._is_plain()
    out = module(signal([case["B"], case["N"], case["cfg"]["dim"]], 900))
    torch.testing.assert_close(out, tensors["out"], atol=2e-5, rtol=0)
    for key, value in tensors.items():
        if key.startswith("after."):
            got = module.get_buffer(key.removeprefix("after.")).to(value.dtype)
            torch.testing.assert_close(got, value, atol=1e-6, rtol=1e-5)


def _random(heads=3, dim=12, **options):
    """Float64, with a norm that has seen something."""
    module = ReAttention(dim, heads, **options).double()
    if isinstance(module.var_norm, nn.BatchNorm2d):
        nn.init.uniform_(module.var_norm.weight, 0.5, 1.5)
        nn.init.normal_(module.var_norm.bias, std=0.1)
        module.var_norm.running_mean.normal_(std=0.1)
        module.var_norm.running_var.uniform_(0.01, 0.02)
    return module


def _openly(module):
    """The same module, kept on the open way."""
    twin = copy.deepcopy(module)
    twin.observer = lambda *_: None
    return twin


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 5),
    tokens=st.integers(2, 9),
    training=st.booleans(),
    norm=st.sampled_from(["batch", "none"]),
    piece=st.sampled_from([64, 500, 2**21]),
    seed=st.integers(0, 9),
)
def test_the_fast_way_equals_the_formula_however_the_batch_is_cut(batch, tokens, training, norm, piece, seed):
    torch.manual_seed(seed)
    module = _random(norm=norm, gain=0.7).train(training)
    slow = _openly(module)
    x = torch.randn(batch, tokens, 12, dtype=torch.float64)
    outputs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed_attention, "_PIECE_BYTES", piece)
        for one in (module, slow):
            given_x = x.clone().requires_grad_()
            out = one(given_x)
            (out * torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)).sum().backward()
            outputs.append((out, given_x.grad))
        with torch.no_grad():
            without_gradients = copy.deepcopy(module)(x)
    for fast, expected in zip(*outputs, strict=True):
        torch.testing.assert_close(fast, expected, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(without_gradients, outputs[0][0], atol=1e-10, rtol=1e-10)
    expected_gradients = {name: parameter.grad for name, parameter in slow.named_parameters()}
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, expected_gradients[name], atol=1e-7, rtol=1e-7)
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(buffer, slow.get_buffer(name), atol=1e-12, rtol=1e-10)


def test_gradients_of_the_fast_way_are_derivatives():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mixing = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.rand(2, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def normalized(q, k, v, mixing, weight, bias):
        norm = mixed_attention.BatchNorm(weight, bias, 1e-5)
        return mixed_attention.normalized_mixed_attention(q, k, v, mixing, norm, 0.5, 0.3)[0]

    assert torch.autograd.gradcheck(normalized, (q, k, v, mixing, weight, bias))
    assert torch.autograd.gradcheck(
        lambda *given: mixed_attention.mixed_attention(*given, 0.5), (q, k, v, mixing, bias)
    )


def _maps(module, x):
    seen = []
    with watch_maps(module, lambda _, before, after: seen.append((before, after))):
        module(x)
    return seen[0]


@pytest.mark.parametrize("training", [True, False])
def test_each_row_of_a_mixed_map_sums_to_the_same_constant(training):
    torch.manual_seed(1)
    module = _random(gain=0.4).train(training)
    norm, mixing, tokens = module.var_norm, module.reatten_matrix, 7
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    before, after = _maps(module, torch.randn(2, tokens, 12, dtype=torch.float64))
    torch.testing.assert_close(before.mean((0, 2, 3)), torch.full((3,), 1 / tokens, dtype=torch.float64))
    expected = norm.bias
    if not training:
        deviation = mixing.weight.sum((1, 2, 3)) / tokens + mixing.bias - mean
        expected = norm.weight * deviation / (variance + norm.eps).sqrt() + norm.bias
    sums = (0.4 * tokens * expected).view(1, 3, 1).expand(2, 3, tokens)
    torch.testing.assert_close(after.sum(3), sums, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_an_identity_start_answers_like_plain_attention(gain):
    torch.manual_seed(2)
    mixed = ReAttention(12, 3, gain=gain).double().eval()
    mixed.start_as_identity()
    plain = Attention(12, 3).double()
    plain.load_state_dict({name: value for name, value in mixed.state_dict().items() if "_" not in name.split(".")[0]})
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(mixed(x), plain(x), atol=1e-12, rtol=1e-9)


def test_a_layer_norm_over_the_heads_normalises_each_place():
    module = ReAttention(12, 3, norm="heads")
    _, after = _maps(module, torch.randn(2, 5, 12))
    torch.testing.assert_close(after.mean(1), torch.zeros(2, 5, 5), atol=1e-5, rtol=0)


def test_hooks_and_dropout_of_maps_are_respected():
    module = ReAttention(12, 3, attention_dropout=0.5)
    assert not module._is_plain()
    assert module.eval()._is_plain()
    seen = []
    module.reatten_matrix.register_forward_hook(lambda *_: seen.append(1))
    module(torch.randn(1, 4, 12))
    assert seen


def test_under_autocast_maps_are_normalised_in_float32():
    module = ReAttention(12, 3).train()
    seen = []
    module.observer = lambda _, after: seen.append(after.dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(torch.randn(2, 4, 12))
    assert seen == [torch.float32]
    assert out.dtype == torch.bfloat16


def test_a_compiled_network_gets_the_open_way():
    module = ReAttention(12, 3).eval()
    exported = torch.export.export(module, (torch.randn(1, 4, 12),))
    x = torch.randn(1, 4, 12)
    torch.testing.assert_close(exported.module()(x), module(x))


def test_wrong_arguments_are_told():
    with pytest.raises(
        UsageError, match=r"5 heads do not divide a width of 12\. Take a number of heads that does \(1, 2"
    ):
        Attention(12, 5)
    with pytest.raises(UnknownNameError, match="unknown start of the mixing 'zero'"):
        ReAttention(12, 3, theta="zero")
    with pytest.raises(UnknownNameError, match="unknown norm of mixed maps 'layer'"):
        ReAttention(12, 3, norm="layer")
    with pytest.raises(ShapeError, match=r"width 12 got tokens of shape \(2, 4, 8\); needed is \(B, N, 12\)"):
        Attention(12, 3)(torch.randn(2, 4, 8))
    with pytest.raises(UsageError, match="takes no mask"):
        Attention(12, 3)(torch.randn(2, 4, 12), is_causal=True)
