"""A step that was exported finds and follows what the network finds and follows."""

import json

import pytest
import torch

from lively_compfeat import enliven
from tenfold.errors import ArtifactError, ExportError, ShapeError, UnknownNameError
from tenfold.export import export_step
from tenfold.export.metadata import KEY
from tenfold.models import build

SIZE = (64, 96)
SMALL = {
    "network": "torchvision:mobilenet_v3_small", "channels": 16, "region_width": 32, "proposals": 20, "inner": 16,
    "object_inner": 16, "mask_layers": 1, "frames": (16,), "num_classes": 2,
}  # fmt: skip


def lively(**options):
    torch.manual_seed(0)
    network = build("compfeat", **SMALL, **options)
    enliven(network, spread=2.0)
    return network.eval()


# torch takes half a minute to translate a detector. `roi:2`, quantized, is in tests/cli/test_export_step.py.
@pytest.mark.slow
def test_the_file_follows_as_the_network_does(tmp_path):
    pytest.importorskip("onnxruntime")
    from tenfold.video.exported_step import ExportedStep

    network = lively(objects="dense")
    frames = torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(5))
    path = tmp_path / "step.onnx"
    error = export_step(network, path, height=SIZE[0], width=SIZE[1], frames=frames, facts={"labels": ["a", "b"]})
    assert error < 1e-3
    exported = ExportedStep(path, threads=1)
    assert exported.facts["labels"] == ["a", "b"]
    state, again = network.start(*SIZE), exported.start(*SIZE)
    for frame in frames:
        found, state = network.step(frame[None], state)
        same, again = exported.step(frame[None], again)
        assert found.valid.sum() > 2
        assert torch.equal(same.ids, found.ids)
        assert torch.equal(same.labels, found.labels)
        assert torch.equal(same.valid, found.valid)
        torch.testing.assert_close(same.boxes, found.boxes, rtol=0, atol=1e-2)
        torch.testing.assert_close(same.masks, found.masks, rtol=0, atol=1e-3)
    assert torch.equal(again.memory.ids, state.memory.ids)
    assert again.filled.all()
    with pytest.raises(ShapeError, match="the file takes frames of 96 x 64, not 64 x 64"):
        exported.start(64, 64)


def test_what_is_wrong_is_told(tmp_path):
    network = lively()
    with pytest.raises(UnknownNameError, match="unknown profile of a step 'fast'"):
        export_step(network, tmp_path / "step.onnx", height=64, width=96, profile="fast")
    with pytest.raises(ShapeError, match="frames to check with are"):
        export_step(network, tmp_path / "step.onnx", height=64, width=96, frames=torch.rand(1, 3, 32, 32))
    pytest.importorskip("onnxruntime")
    import onnx

    from tenfold.video.exported_step import ExportedStep

    graph = onnx.helper.make_graph([], "none", [], [])
    model = onnx.helper.make_model(graph)
    model.metadata_props.add(key=KEY, value=json.dumps({"profile": "fast"}))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ArtifactError, match="follows no objects"):
        ExportedStep(tmp_path / "other.onnx")


def test_a_file_that_differs_from_the_network_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    import onnx_ir as ir

    from tenfold.export import video_step

    empty = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 21}), ir_version=10)
    monkeypatch.setattr(video_step, "translate", lambda *_, **__: empty)
    monkeypatch.setattr(video_step, "_error", lambda *_: float("inf"))
    with pytest.raises(ExportError, match="give something else than the network"):
        export_step(lively(), tmp_path / "step.onnx", height=64, width=96)
    assert not list(tmp_path.iterdir())
