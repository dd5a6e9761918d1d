"""Networks that take windows of a video, as ONNX: any number of frames of any size, in both runtimes."""

import numpy as np
import pytest
import torch
from torch import nn

from tenfold import build, methods, quant
from tenfold.errors import ArtifactError
from tenfold.export import export_onnx, open_engine
from tenfold.models import NetworkArguments, PackedWindow
from tenfold.video import NetworkInputs, run_file, run_module

SMALL = {"planes": 4, "blocks": (1, 1, 1, 1), "decoder": (8, 8, 8), "stem": 8}
SIZES = ((8, 32, 48), (5, 48, 40), (2, 32, 48), (1, 32, 48))


def window_of(frames, height, width, seed=2):
    generator = torch.Generator().manual_seed(seed)

    def uniform(count, channels):
        return torch.rand(1, count, channels, height, width, generator=generator)

    known = (uniform(frames, 1) > 0.3).float()
    copied = known * (uniform(frames, 1) > 0.5)
    flows = [4 * uniform(frames - 1, 2) - 2 for _ in range(2)]
    invalid = [(uniform(frames - 1, 1) > 0.8).float() for _ in range(2)]
    return NetworkArguments(uniform(frames, 3) * known, known, copied, *flows, *invalid)


def network_of(window, **options):
    """A small network whose batch norms have seen the window."""
    torch.manual_seed(0)
    network = build("tsam_tiny", **SMALL, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(*window)
    return network.eval()


@pytest.mark.slow  # tracing and translating the network takes a minute
def test_a_float_network_gives_the_same_in_both_runtimes_at_every_size(tmp_path):
    window = window_of(*SIZES[0])
    network = network_of(window)
    path = tmp_path / "float.onnx"
    task = {"task": "inpaint", "base": "none"}
    report = export_onnx(PackedWindow(network), path, example=PackedWindow.pack(window), profile="float", task=task)
    assert report.top1_agreement is None  # frames are no classes
    assert set(report.engines) == {"onnxruntime", "openvino"}
    assert report.nodes["GridSample"]
    for engine in ("onnxruntime", "openvino"):
        run = run_file(path, engine)
        for size in SIZES:
            inputs = NetworkInputs(*(one.numpy() for one in window_of(*size)))
            np.testing.assert_allclose(run(inputs), run_module(network)(inputs), atol=2e-5, err_msg=f"{engine} {size}")
    opened = open_engine(path, "onnxruntime")
    assert opened.input_shape == (None, 11, None, None)
    assert opened.example_shape == (1, 11, 32, 48)


@pytest.mark.slow  # tracing and translating takes a minute, with flows that are followed three; integers meet none
def test_a_quantized_network_gives_the_same_in_both_runtimes(tmp_path):
    window = window_of(*SIZES[0])
    network = network_of(window, shift="plain")
    network = methods.create("qat", w_bits=8, a_bits=8, clamp=False).attach(network, None, window)
    quant.calibrate(network, [window])
    network.eval()
    path = tmp_path / "fast.onnx"
    report = export_onnx(PackedWindow(network), path, example=PackedWindow.pack(window), profile="fast")
    assert report.worst_relative < 0.35
    runs = {layer.name: layer.runs for layer in report.layers}
    assert runs["network.decoder.mix_half.conv.feature"] == "integer"  # the widest of the decoder's
    for engine in ("onnxruntime", "openvino"):
        for size in SIZES[:3]:
            inputs = NetworkInputs(*(one.numpy() for one in window_of(*size)))
            made, wanted = run_file(path, engine)(inputs), run_module(network)(inputs)
            assert np.sqrt(np.square(made - wanted).mean()) < 0.2 * wanted.std()


def test_a_file_for_images_fills_no_video(monkeypatch):
    class Engine:
        input_shape = (None, 3, 224, 224)

    monkeypatch.setattr("tenfold.export.engine.open_engine", lambda *_: Engine())
    with pytest.raises(ArtifactError, match=r"takes inputs of any x 3 x 224 x 224, so it fills no video\. Export"):
        run_file("resnet18.onnx")
