"""Quantized vision transformers in both runtimes: integers inside, and the answers of the network."""

import numpy as np
import onnx
import pytest
import torch

from tenfold.export import export_onnx, open_engine
from tenfold.export.capture import activation_grid, frozen_activation
from tenfold.export.integers import ActivationGrid
from tenfold.methods import SAT, AdaBits
from tenfold.models import build
from tenfold.quant import ActivationQuantizer, LayerScheme, measure_norms, set_bits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))


def _images(count=16):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _quantized(name, method, depth=2):
    torch.manual_seed(0)
    network = method.attach(build(name, depth=depth), None, _images())
    for parameter in network.parameters():
        if parameter.dim() == 1 and parameter.numel() > 1:  # biases and norms that do something
            parameter.data += 0.1 * torch.randn(parameter.shape)
    for one in method.settings(network):
        one.enter()
        measure_norms(network, [_images()])
    return network.eval()


def _answers(network):
    with torch.no_grad():
        return network(_images()).numpy()


def _error(found, wanted):
    return np.sqrt(np.square(found - wanted).mean()) / wanted.std()


@pytest.mark.parametrize("name", ["vit_tiny", "deepvit_tiny"])
@pytest.mark.parametrize("products", [False, True])
def test_compact_equals_the_network_in_both_runtimes(name, products, tmp_path):
    network = _quantized(name, SAT(w_bits=4, a_bits=4, attention_products=products))
    path = tmp_path / "net.onnx"
    report = export_onnx(network, path, example=_images(), profile="compact")
    assert report.exact_codes > 0.9999
    assert all(error < 0.01 for error in report.engines.values())
    assert {"onnxruntime", "openvino"} == report.engines.keys()
    wanted = _answers(network)
    assert wanted.std() > 0.01
    for runtime in report.engines:
        assert _error(open_engine(path, runtime).run(_images().numpy()), wanted) < 0.05, runtime


@pytest.mark.parametrize(("name", "bits"), [("vit_tiny", 4), ("vit_tiny", 8), ("deepvit_tiny", 4)])
def test_fast_multiplies_integers_with_integers(name, bits, tmp_path):
    network = _quantized(name, SAT(w_bits=bits, a_bits=bits, attention_products=True))
    path = tmp_path / "net.onnx"
    report = export_onnx(network, path, example=_images(), profile="fast", any_cpu=True)
    parts = {layer.name: layer for layer in report.layers}
    assert len(parts) == 2 * (4 + 2 + name.startswith("deepvit")) + 2
    in_float = [one for one in parts if parts[one].runs != "integer"]
    assert in_float[0] == "patch_embed.proj"  # a normalized image
    assert all("mixes attention maps" in parts[one].why for one in in_float[1:])
    assert len(in_float) == (3 if name.startswith("deepvit") else 1)
    kernels = ("MatMulIntegerToFloat", "QLinearMatMul", "QGemm")
    assert sum(report.nodes.get(kernel, 0) for kernel in kernels) == len(parts) - len(in_float)
    if bits == 4:
        assert report.exact_codes > 0.9999
    assert "MatMul" not in report.nodes
    assert {"Softmax", "LayerNormalization"} <= report.nodes.keys()
    assert report.any_cpu
    assert all(error < 0.05 for error in report.engines.values())  # eight bits lose one on processors without VNNI
    for runtime in report.engines:
        found, wanted = open_engine(path, runtime).run(_images().numpy()), _answers(network)
        assert _error(found, wanted) < 0.3, runtime
        assert wanted.std() > 0.01


def _openvino_products(path):
    """The precisions in which OpenVINO multiplies activations with each other."""
    openvino = pytest.importorskip("openvino")
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = [one["layerType"].astype(str) for one in found]
    if "MatMul" not in kinds and "Subgraph" in kinds:
        pytest.skip("on this processor OpenVINO fuses the whole attention, and does not tell its precision")
    return [str(one["runtimePrecision"].astype(str)) for one in found if one["layerType"].astype(str) == "MatMul"]


@pytest.mark.parametrize("name", ["vit_tiny", "deepvit_tiny"])
def test_openvino_multiplies_activations_as_integers(name, tmp_path):
    network = _quantized(name, SAT(w_bits=4, a_bits=4, attention_products=True), depth=1)
    export_onnx(network, tmp_path / "net.onnx", example=_images(4), profile="fast")
    assert _openvino_products(tmp_path / "net.onnx") == ["u8", "u8"]


def test_right_operands_are_signed_where_products_cannot_saturate(tmp_path):
    kinds = {}
    for bits in (4, 8):
        network = _quantized("vit_tiny", SAT(w_bits=bits, a_bits=bits, attention_products=True), depth=1)
        export_onnx(network, tmp_path / "net.onnx", example=_images(4), profile="fast", any_cpu=True)
        graph = onnx.load(tmp_path / "net.onnx").graph
        types = {constant.name: constant.data_type for constant in graph.initializer}
        kinds[bits] = [types[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    signed = onnx.TensorProto.INT8
    assert kinds[4].count(signed) >= 2  # keys and values; once more where they are transposed
    assert kinds[8].count(signed) == 0


def test_a_product_left_in_float_by_a_float_operand_says_so(tmp_path):
    network = _quantized("vit_tiny", SAT(w_bits=4, a_bits=4, attention_products=True), depth=1)
    product = network.blocks[0].attn.query_key
    product.use_scheme(LayerScheme(w_bits=32, a_bits=4, scheme="original", a_scheme="symmetric", two_sided=True))
    report = export_onnx(network, tmp_path / "net.onnx", example=_images(4), profile="fast")
    part = next(layer for layer in report.layers if layer.name == "blocks.0.attn.query_key")
    assert (part.runs, part.why) == ("float", "its operands are not both on 8-bit grids")


@pytest.mark.parametrize("name", ["vit_tiny", "deepvit_tiny"])
def test_one_file_switches_products_with_the_layers(name, tmp_path):
    network = _quantized(name, AdaBits(bits=(8, 4), attention_products=True), depth=1)
    path = tmp_path / "net.onnx"
    report = export_onnx(network, path, example=_images(), profile="switchable")
    assert [width.w_bits for width in report.widths] == [8, 4]
    for bits in (8, 4):
        set_bits(network, bits)
        found = open_engine(path, "onnxruntime", bits=bits).run(_images().numpy())
        assert _error(found, _answers(network)) < 0.05, bits


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_symmetric_grid_of_activations_is_exported_with_a_zero_point(bits):
    layer = LayerScheme(w_bits=8, a_bits=bits, a_scheme="symmetric", two_sided=True)
    quantizer = ActivationQuantizer(layer, 1.7)
    grid = activation_grid(quantizer)
    assert grid.zero == 2 ** (bits - 1) - 1
    assert grid.top == 2 * grid.zero
    values = torch.cat([torch.zeros(5), torch.arange(1001) * 0.00601317 - 3.01, torch.tensor([1e9, -1e9])])
    found = frozen_activation(values, grid.step, grid.shift, grid.offset, grid.top, "layer")
    wanted = quantizer(values).detach()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert len(wanted.unique()) == grid.top + 1
    assert wanted[0] == 0


def test_a_grid_knows_the_code_of_zero_if_there_is_one():
    assert ActivationGrid(0.5, 0.0, 0.0, 15).zero == 0
    assert ActivationGrid(0.5, 3.5, -3.5, 14).zero == 7
    assert ActivationGrid(0.5, 3.75, -3.75, 15).zero is None  # half-way between two levels
    assert ActivationGrid(0.5, -0.25, 0.0, 15).zero is None  # rounds down
