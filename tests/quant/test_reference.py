"""Every tensor of the official layers that concerns SAT: primitives, weights, activations, codes, training steps."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from reference import Reference, TinyNetwork, close, close_sum, official_optimizer
from tenfold.quant import ActivationQuantizer, LayerScheme, QuantLinear, WeightQuantizer, quantize
from tenfold.quant.operators import quantize_activation, quantize_weight
from tenfold.quant.schemes import num_steps, quantize_unit


@pytest.fixture(scope="session")
def folder(shared):
    return shared / "reference" / "quant"


def test_integer_quantizers_equal_the_official_ones(folder):
    reference, seen = Reference(folder, "primitives"), 0
    for case in reference.cases:
        if case.get("bits", 0) == 0 or case["case"].endswith(("ties", "per_channel")):
            continue
        tensors = reference.tensors(case)
        torch.testing.assert_close(quantize_unit(tensors["x"], case["bits"], case["scheme"]), tensors["out"])
        seen += 1
    assert seen >= 30


def _weight_scheme(case) -> LayerScheme:
    return LayerScheme(
        w_bits=case["bits"],
        a_bits=32,
        scheme=case["scheme"] if case["bits"] != 32 else "original",
        rescale=case["rescale"],
        clamp=case.get("clamp", True),
        rescale_in_eval=False,
    )


def test_effective_weights_and_their_gradients_equal_the_official_ones(folder):
    reference = Reference(folder, "weights")
    for case in reference.cases:
        tensors = reference.tensors(case)
        weight = tensors["weight"].clone().requires_grad_()
        quantizer = WeightQuantizer(_weight_scheme(case))
        effective = quantizer(weight)
        factor = quantizer.factor(effective, weight)
        if factor is not None and case["mode"] == "train":
            effective = effective * factor
        close(effective, tensors["weff"], 2e-6, case["case"])
        if case["bits"] != 32:
            unscaled, expected = effective.detach(), tensors["weff"]
            scale = 1 if factor is None or case["mode"] == "eval" else factor
            steps = num_steps(case["bits"], case["scheme"])
            assert torch.equal((unscaled / scale * steps).round(), (expected / scale * steps).round()), case["case"]
        (effective * tensors["gout"]).sum().backward()
        close(weight.grad, tensors["gw"], 3e-6, case["case"])
    assert len(reference.cases) >= 80


def test_the_official_linear_layer_scales_its_weight_in_training_and_its_bias_in_evaluation(folder):
    reference, seen = Reference(folder, "weights"), 0
    for case in reference.cases:
        tensors = reference.tensors(case)
        if case["kind"] != "linear" or "beff" not in tensors:
            continue
        outputs, inputs = tensors["weight"].shape
        layer = QuantLinear(_weight_scheme(case), inputs, outputs).train(case["mode"] == "train")
        layer.weight.data, layer.bias.data = tensors["weight"], tensors["bias"]
        input = torch.randn(5, inputs, generator=torch.Generator().manual_seed(0))
        close(layer(input), F.linear(input, tensors["weff"], tensors["beff"]), 2e-6, case["case"])
        seen += 1
    assert seen >= 20


def _activation_quantizer(case, alpha, calibrated=True) -> ActivationQuantizer:
    scheme = LayerScheme(
        w_bits=32,
        a_bits=case["bits"],
        a_scheme=case.get("scheme", "original"),
        two_sided=case["double_side"],
        calibrated=calibrated,
    )
    quantizer = ActivationQuantizer(scheme, 1.0)
    quantizer.alpha.data = alpha.clone()
    return quantizer


def test_quantized_activations_and_both_gradients_equal_the_official_ones(folder):
    reference, pact = Reference(folder, "activations"), 0
    for case in reference.cases:
        if case["case"].startswith("hand"):
            continue
        tensors = reference.tensors(case)
        quantizer = _activation_quantizer(case, tensors["alpha"])
        input = tensors["x"].clone().requires_grad_()
        output = quantizer(input)
        close(output, tensors["xeff"], 2e-6, case["case"])
        (output * tensors["gout"]).sum().backward()
        close(input.grad, tensors["gx"], 3e-6, case["case"])
        close_sum(quantizer.alpha.grad, tensors["galpha"], case["case"])
        if "pact_galpha_formula" in tensors:
            original = _activation_quantizer(case, tensors["alpha"], calibrated=False)
            (original(tensors["x"]) * tensors["gout"]).sum().backward()
            close_sum(original.alpha.grad, tensors["pact_galpha_formula"], case["case"])
            pact += 1
    assert pact >= 10


def test_hand_points_of_cg_pact(folder):
    reference, seen = Reference(folder, "activations"), 0
    for case in reference.cases:
        if not case["case"].startswith("hand"):
            continue
        tensors = reference.tensors(case)
        for x, y, slope, pass_through in zip(*(tensors[k] for k in ("x", "y", "dy_dalpha", "dy_dx")), strict=True):
            input = x.clone().requires_grad_()
            alpha = torch.tensor(2.0, requires_grad=True)
            output = quantize_activation(input, alpha, case["bits"], "original", False, True)
            output.backward()
            close(output, y, 2e-6, case["case"])
            close(alpha.grad, slope, 3e-6, case["case"])
            assert float(input.grad) == float(pass_through), (case["case"], float(x))
            seen += 1
    assert seen == 24


def test_integer_weights_equal_the_exported_codes(folder):
    codes, weights, seen = Reference(folder, "export_codes"), Reference(folder, "weights"), 0
    settings = {case["case"]: case for case in weights.cases}
    for case in codes.cases:
        if case["case"].endswith("eval"):
            continue  # the same codes; our layers scale in both modes
        source = settings[case["case"]]
        quantizer = WeightQuantizer(_weight_scheme(source))
        integers = quantizer.integers(weights.tensors(source)["weight"])
        assert torch.equal(integers.codes, codes.tensors(case)["odd_code"]), case["case"]
        assert float(integers.scale) == pytest.approx(case["scale2"], rel=2e-6), case["case"]
        close(integers.codes * integers.scale, weights.tensors(source)["weff"], 1e-6, case["case"])
        seen += 1
    assert seen >= 60


def _official_name(name: str) -> str:
    name = name.replace(".input_quantizer.alpha", ".alpha")
    return name.replace(".", ".bn.0.", 1) if name.startswith("bn") else name


def _state(network) -> dict[str, torch.Tensor]:
    state = {_official_name(name): value for name, value in network.state_dict().items()}
    return {name: value for name, value in state.items() if "num_batches" not in name}


@pytest.mark.parametrize(
    "name", ["sat_original_b4", "sat_original_b3_rescaleconv", "sat_centered_b2", "dorefa_pact_norescale_b4"]
)
def test_whole_training_steps_equal_the_official_ones(folder, name):
    reference = Reference(folder, "tinynet_sat_adabits")
    case = next(case for case in reference.cases if case["case"] == name)
    tensors = reference.tensors(case)
    bits = case["bits_list"][0]
    network = TinyNetwork(tensors)
    flags = case["flags"]
    convolution = "constant" if flags["rescale_conv"] else "none"
    linear = "constant" if flags["rescale"] else "none"

    def scheme(w_bits, rescale, pixels=False):
        return LayerScheme(
            w_bits=w_bits,
            a_bits=8 if pixels else bits,
            scheme=flags["weight_quant_scheme"],
            rescale=rescale,
            pixels=pixels,
            rescale_in_eval=False,
        )

    quantize(
        network,
        {
            "conv0": scheme(max(bits, 8), convolution, pixels=True),
            "dw": scheme(bits, convolution),
            "pw": scheme(bits, convolution),
            "fc": scheme(max(bits, 8), linear),
        },
    )
    own = network.state_dict()
    network.load_state_dict(
        {key: tensors.get(f"init.{_official_name(key)}", value).clone() for key, value in own.items()}
    )
    optimizer = official_optimizer(network)
    steps = sum(key.endswith("x_uint8") and key.startswith("step") for key in tensors)
    assert steps >= 1
    for k in range(steps):
        network.train()
        logits = network(tensors[f"step{k}.x_uint8"].float())
        close(logits, tensors[f"step{k}.b{bits}.logits"], 5e-6, name)
        loss = F.cross_entropy(logits, tensors[f"step{k}.target"].long())
        close(loss, tensors[f"step{k}.b{bits}.loss"], 5e-6, name)
        optimizer.zero_grad()
        loss.backward()
        gradients = {_official_name(key): p.grad for key, p in network.named_parameters()}
        expected = {
            key.removeprefix(f"step{k}.grad."): v for key, v in tensors.items() if key.startswith(f"step{k}.grad.")
        }
        assert expected.keys() == gradients.keys()
        for key, gradient in expected.items():
            close(gradients[key], gradient, 5e-6, f"{name} {key}")
        optimizer.step()
        state = _state(network)
        for key, value in state.items():
            close(value, tensors[f"step{k}.after.{key}"], 5e-6, f"{name} {key}")
    network.eval()
    input = tensors["step0.x_uint8"].float()
    with torch.no_grad():
        close(network(input), tensors[f"eval.b{bits}.logits_official"], 5e-6, name)
        network.fc.layer = replace(network.fc.layer, rescale_in_eval=True)
        close(network(input), tensors[f"eval.b{bits}.logits_trainscale"], 5e-6, name)


def test_the_scale_in_both_modes_gives_the_training_scale_logits(folder):
    reference = Reference(folder, "weights")
    case = next(c for c in reference.cases if c["kind"] == "linear" and c["rescale"] == "constant" and c["bits"] == 4)
    tensors = reference.tensors(case)
    outputs, inputs = tensors["weight"].shape
    layer = QuantLinear(LayerScheme(w_bits=4, a_bits=32, scheme=case["scheme"], rescale="constant"), inputs, outputs)
    layer.weight.data, layer.bias.data = tensors["weight"], tensors["bias"]
    input = torch.randn(5, inputs)
    torch.testing.assert_close(layer.train()(input), layer.eval()(input))
    assert quantize_weight(tensors["weight"], 4, case["scheme"], False, True).unique().numel() <= 16
