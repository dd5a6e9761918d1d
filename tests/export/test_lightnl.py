"""Networks with LightNL leave as ONNX: float as they are, quantized with both products in float."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tenfold.export import export_onnx, open_engine
from tenfold.layers.lightnl import LightNonLocal, cheaper_order
from tenfold.methods import SAT
from tenfold.models import build
from tenfold.quant import calibrate, measure_norms

BLOCKS = [
    [16, 1, 16, 0, 0.0, 0.25, 1],
    [24, 2, 48, 0, 0.0, 0.25, 2],
    [24, 1, 0, 48, 0.25, 0.25, 1],
    [128, 2, 0, 48, 0.25, 0.25, 1],
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))


def _network(padding="symmetric"):
    torch.manual_seed(0)
    network = build("autonl", num_classes=10, blocks=BLOCKS, stem=16, tail=64, stride=1, dropout=0.0, padding=padding)
    for block in network.modules():
        if isinstance(block, LightNonLocal):
            nn.init.constant_(block.bn.weight, 0.2)
    measure_norms(network, [torch.randn(32, 3, 12, 12)])
    return network.eval()


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_a_float_file_answers_as_the_network_in_both_orders(tmp_path, padding):
    network, images = _network(padding), torch.randn(3, 3, 12, 12)
    assert cheaper_order(16, 12, 12, 0.25, 1) == "channel"
    assert cheaper_order(128, 3, 3, 0.25, 1) == "affinity"
    export_onnx(network, tmp_path / "net.onnx", example=images[:1])
    answers = open_engine(tmp_path / "net.onnx").run(images.numpy())
    with torch.no_grad():
        expected = network(images).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(answers, expected, atol=1e-5)


@pytest.mark.parametrize("profile", ["fast", "compact"])
def test_a_quantized_file_keeps_the_products_in_float(tmp_path, profile):
    images = torch.randn(16, 3, 12, 12)
    network = SAT(w_bits=8, a_bits=8).attach(_network(), None, images)
    calibrate(network, [images])
    # The export compares its file with the network by itself, and fails where they differ.
    export_onnx(network.eval(), tmp_path / "net.onnx", example=images[:2], profile=profile, calibration=images)
    nodes = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert nodes.count("MatMul") >= 2 * len(BLOCKS)
