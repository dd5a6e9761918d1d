"""Layers on the integer engine give what the simulated layers give, forward and backward."""

import copy
import itertools

import pytest
import torch
from torch import nn

from tenfold.errors import UsageError
from tenfold.kernels import library
from tenfold.quant import (
    SCHEMES,
    FixedBits,
    FractionalBits,
    IntegerEngine,
    LayerScheme,
    engine,
    engine_report,
    make_switchable,
    missing_instructions,
    quantize,
    set_bits,
    use_engine,
    why_simulated,
)
from tenfold.quant.layers import quantize_layer

needs_instructions = pytest.mark.skipif(missing_instructions() is not None, reason=str(missing_instructions()))

# kernel, stride, padding, dilation, groups
WINDOWS = {"3x3": (3, 1, 1, 1, 1), "strided": (3, 2, 1, 1, 1), "pointwise": (1, 1, 0, 1, 2), "dilated": (5, 2, 3, 2, 2)}


def convolution(window=(3, 1, 1, 1, 1), bias=True, **scheme):
    torch.manual_seed(0)
    kernel, stride, padding, dilation, groups = window
    plain = nn.Conv2d(16, 12, kernel, stride, padding, dilation, groups, bias=bias)
    layer = quantize_layer(plain.to(memory_format=torch.channels_last), LayerScheme(**scheme))
    layer.input_quantizer.alpha.data.fill_(1.5)
    return layer


def images(*shape):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return values.to(memory_format=torch.channels_last) if len(shape) == 4 else values


def results(layer, values, engine):
    """Output, and all gradients."""
    layer = copy.deepcopy(layer)
    layer.engine = engine
    values = values.clone().requires_grad_(True)
    output = layer(values)
    output.backward(torch.randn(output.shape, generator=torch.Generator().manual_seed(2)))
    gradients = {name: one.grad for name, one in layer.named_parameters() if one.grad is not None}
    return {"output": output.detach(), "input": values.grad, **gradients}


def assert_same(layer, values, used=None):
    """Equal to float rounding: 5e-6 of the largest number; the level's gradient, a sum of both signs, of its parts."""
    used = used or IntegerEngine()
    assert why_simulated(layer) is None
    simulated, integer = results(layer, values, None), results(layer, values, used)
    assert simulated.keys() == integer.keys()
    for name, expected in simulated.items():
        scale = float(expected.abs().max())
        if "alpha" in name:
            scale = float(simulated["input"].abs().sum())
        assert scale > 0, name
        difference = float((integer[name] - expected).abs().max())
        assert difference <= 5e-6 * scale, (name, difference / scale)
    return simulated, integer


@needs_instructions
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize(("scheme", "w_bits"), [*itertools.product(SCHEMES, (2, 4, 7, 8)), ("original", 1)])
def test_every_grid_of_weights(scheme, w_bits, two_sided):
    options = {"scheme": scheme, "w_bits": w_bits, "a_bits": 4, "two_sided": two_sided, "rescale": "constant"}
    assert_same(convolution(**options), images(3, 16, 9, 7))


@needs_instructions
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("a_scheme", "a_bits"), [*itertools.product(SCHEMES, (2, 7, 8)), ("original", 1)])
def test_every_grid_of_inputs_in_every_window(a_scheme, a_bits, window, two_sided):
    # 8 bits on both sides without zero: the worst case, where both are halves
    options = {"scheme": "original", "w_bits": 8, "a_scheme": a_scheme, "a_bits": a_bits, "two_sided": two_sided}
    assert_same(convolution(WINDOWS[window], **options), images(3, 16, 11, 9))


@needs_instructions
@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("rescale", ["none", "constant", "stddev"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_every_scale_and_gradient(clamp, per_channel, rescale, calibrated):
    options = {"clamp": clamp, "per_channel": per_channel, "rescale": rescale, "calibrated": calibrated}
    layer = convolution(bias=not clamp, w_bits=4, a_bits=4, **options)
    assert_same(layer, images(3, 16, 9, 7))
    layer.input_quantizer.alpha.data.neg_()  # its sign does not matter, but for the gradient
    assert_same(layer, images(3, 16, 9, 7).contiguous())


@needs_instructions
def test_without_native_kernels():
    with library.without_kernels():
        for a_scheme, two_sided in itertools.product(SCHEMES, (False, True)):
            layer = convolution(w_bits=4, a_bits=4, a_scheme=a_scheme, two_sided=two_sided)
            assert_same(layer, images(3, 16, 9, 7))


@needs_instructions
def test_same_padding_of_both_parities():
    for a_bits, size in itertools.product((4, 8), (8, 9)):
        layer = convolution((3, 2, 0, 1, 1), w_bits=8, a_bits=a_bits, two_sided=True)
        layer.same = True
        assert_same(layer, images(2, 16, size, size + 1))


@needs_instructions
@pytest.mark.parametrize("shape", [(40, 64), (3, 13, 64)])
@pytest.mark.parametrize(("scheme", "two_sided"), [*itertools.product(SCHEMES, (False, True))])
def test_linear_layers(shape, scheme, two_sided):
    torch.manual_seed(0)
    for bits in (4, 8):
        options = LayerScheme(w_bits=bits, a_bits=bits, scheme=scheme, two_sided=two_sided, rescale="constant")
        layer = quantize_layer(nn.Linear(64, 10), options)
        layer.input_quantizer.alpha.data.fill_(1.5)
        assert_same(layer, images(*shape))


@needs_instructions
def test_the_official_linear_layer_in_evaluation():
    options = LayerScheme(w_bits=8, a_bits=4, rescale="constant", rescale_in_eval=False)
    layer = quantize_layer(nn.Linear(64, 10), options).eval()
    simulated, integer = layer(images(5, 64)), use_engine(layer, IntegerEngine())(images(5, 64))
    assert not torch.equal(simulated, integer)
    torch.testing.assert_close(integer, simulated, rtol=1e-5, atol=5e-6)


@needs_instructions
def test_bits_of_each_kernel():
    bits = (8, 1, 2, 3, 0, 4, 5, 6, 7, 8, 0, 2)
    layer = convolution(w_bits=bits, a_bits=3, rescale="constant")
    _, integer = assert_same(layer, images(3, 16, 9, 7))
    # A kernel of no bits gives its bias, in both.
    assert torch.equal(integer["output"][:, 4], layer.bias[4].detach().expand_as(integer["output"][:, 4]))


@needs_instructions
def test_learned_bits_are_simulated_until_they_are_frozen():
    layer = convolution(w_bits=4, a_bits=4, rescale="constant")
    layer.weight_quantizer.policy = FractionalBits([3.4] * 12)
    layer.engine = IntegerEngine()
    assert engine_report(layer) == {"": "its bits are being learned"}
    assert torch.equal(layer(images(2, 16, 9, 7)), results(layer, images(2, 16, 9, 7), None)["output"])
    layer.weight_quantizer.policy.freeze(torch.tensor([3.0, 4, 2, 8, 3, 3, 3, 3, 3, 3, 3, 0]))
    assert engine_report(layer) == {"": "integers, since its bits are fixed"}
    assert_same(layer, images(2, 16, 9, 7))


@needs_instructions
def test_switched_widths_share_weights_and_their_normalization():
    network = nn.Sequential(convolution(w_bits=8, a_bits=8, scheme="modified"))
    make_switchable(network, [(8, 8), (5, 5), (2, 2)], {"0": [(8, 8), (5, 5), (2, 2)]})
    layer = network[0]
    gradients = []
    for used in (None, IntegerEngine()):
        use_engine(network, used)
        network.zero_grad()
        with layer.weight_quantizer.sharing_normalization(layer.weight):
            for width in (8, 5, 2):
                set_bits(network, width)
                network(images(2, 16, 9, 7)).square().sum().backward()
        gradients.append([layer.weight.grad.clone(), layer.input_quantizer.alpha.grad.clone()])
    for simulated, integer in zip(*gradients, strict=True):
        torch.testing.assert_close(integer, simulated, rtol=2e-4, atol=2e-5 * float(simulated.abs().max()))


@needs_instructions
def test_a_backward_pass_in_bfloat16_keeps_the_direction():
    layer = convolution(w_bits=4, a_bits=4, rescale="constant")
    simulated, integer = (results(layer, images(4, 16, 16, 16), one) for one in (None, IntegerEngine("bf16")))
    torch.testing.assert_close(integer["output"], simulated["output"], rtol=1e-5, atol=1e-5)
    for name in ("input", "weight"):
        cosine = torch.cosine_similarity(integer[name].flatten(), simulated[name].flatten(), dim=0)
        assert 0.9999 < cosine < 1.0001
        assert not torch.equal(integer[name], simulated[name])


@needs_instructions
def test_mixed_precision_gives_its_own_dtype():
    layer, values = convolution(w_bits=4, a_bits=4), images(2, 16, 9, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        simulated, integer = layer(values), use_engine(layer, IntegerEngine())(values)
    assert integer.dtype == simulated.dtype == torch.bfloat16
    torch.testing.assert_close(integer, simulated, rtol=2e-2, atol=2e-2)


@needs_instructions
@pytest.mark.parametrize("where", ["input", "weight"])
def test_a_nan_is_not_hidden_in_an_integer(where):
    layer, values = convolution(w_bits=4, a_bits=4), images(2, 16, 9, 7)
    (values if where == "input" else layer.weight.data)[0, 0, 0, 0] = torch.nan
    assert use_engine(layer, IntegerEngine())(values).isnan().all()


@needs_instructions
def test_less_is_kept_for_the_backward_pass():
    layer, values = convolution((3, 1, 1, 1, 1), w_bits=4, a_bits=4), images(4, 16, 32, 32)
    kept = {}
    for used in (None, IntegerEngine()):
        layer.engine, storages = used, {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one, seen=storages: (
                seen.update({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()}) or one
            ),
            lambda one: one,
        ):
            output = layer(values.clone().requires_grad_(True))
        kept[used], _ = sum(storages.values()), output
    assert kept[IntegerEngine()] < 0.7 * kept[None]


@needs_instructions
def test_a_hook_on_a_quantizer_sees_what_it_gives():
    layer, seen = convolution(w_bits=4, a_bits=4), []
    layer.engine = IntegerEngine()
    handle = layer.input_quantizer.register_forward_hook(lambda _, inputs, output: seen.append(output))
    first = layer(images(2, 16, 9, 7))
    handle.remove()
    assert len(seen) == 1
    torch.testing.assert_close(layer(images(2, 16, 9, 7)), first, rtol=1e-5, atol=1e-5)


def test_reasons_to_simulate():
    options = {"w_bits": 4, "a_bits": 4}
    network = nn.ModuleDict(
        {
            "stem": nn.Conv2d(3, 8, 3),
            "weights": nn.Conv2d(8, 8, 3),
            "depthwise": nn.Conv2d(8, 8, 3, groups=8),
            "mirrored": nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
            "named": nn.Conv2d(8, 8, 3, padding="same"),
            "unrounded": nn.Conv2d(8, 8, 3),
            "channels": nn.Conv2d(2, 8, 3),
        }
    )
    schemes = {name: LayerScheme(**options) for name in network}
    schemes["stem"] = LayerScheme(w_bits=8, a_bits=8, pixels=True)
    schemes["weights"] = LayerScheme(w_bits=4, a_bits=32)
    schemes["unrounded"] = LayerScheme(w_bits=32, a_bits=4)
    quantize(network, schemes)
    network["channels"].input_quantizer.policy = FixedBits((4, 2))
    reasons = {name: why_simulated(layer) for name, layer in network.items()}
    assert reasons == {
        "stem": "its input is the image itself",
        "weights": "its input is not quantized",
        "depthwise": "it is depthwise, and waits for memory rather than for arithmetic",
        "mirrored": "its padding is 'reflect'",
        "named": "its padding is 'same'",
        "unrounded": "its weight is not quantized",
        "channels": "the channels of its input differ in bits",
    }
    assert set(engine_report(network).values()) == {"no integer engine is in use"}


def test_an_engine_that_cannot_be_says_why(monkeypatch):
    with pytest.raises(UsageError, match='"fp32" or "bf16", not \'fp8\''):
        IntegerEngine("fp8")
    monkeypatch.setattr(engine, "missing_instructions", lambda: "it is a toaster")
    with pytest.raises(UsageError, match=r"cannot train in integers: it is a toaster. Use engine=\"simulated\""):
        IntegerEngine()


def test_a_processor_without_vnni_is_recognised(monkeypatch):
    monkeypatch.setattr(engine, "has_vnni", lambda: False)
    assert "lacks VNNI" in engine.missing_instructions.__wrapped__()
