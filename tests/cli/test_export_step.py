"""`tenfold export` of a network that follows objects, and `tenfold segment` with what it wrote."""

import json

import pytest
import torch

from lively_compfeat import enliven
from tenfold import tasks
from tenfold.export import inspect_onnx, write_artifact
from tenfold.export.onnx import TOLERANCES
from tenfold.methods import create
from tenfold.models import build
from tenfold.quant import calibrate, describe
from video_files import write_video

SIZE = (64, 96)


def quantized():
    """An 8-bit network that finds something, and whose aggregation changes what it finds."""
    torch.manual_seed(0)
    network = build(
        "compfeat", network="torchvision:mobilenet_v3_small", channels=16, region_width=32, proposals=20, inner=16,
        object_inner=16, mask_layers=1, frames=(16,), num_classes=8,
    )  # fmt: skip
    enliven(network, spread=2.0)
    frames = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    method = create("qat", w_bits=8, a_bits=8, clamp=False, per_channel=True)
    network = method.attach(network, None, frames)
    calibrate(network, [frames])
    return network.eval()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("artifact")
    network = quantized()
    task = tasks.create("track", image_size=SIZE, sprites=1, eval_clips=1, eval_frames=4, diameter=(16, 40))
    header = {
        "architecture": network.architecture.to_dict(),
        "schemes": {name: scheme.to_dict() for name, scheme in describe(network).items()},
        "task": json.loads(json.dumps(task.describe())),
    }
    write_artifact(tmp_path / "artifact.safetensors", dict(network.state_dict()), header)
    return tmp_path / "artifact.safetensors"


# torch takes half a minute to translate a detector.
@pytest.mark.slow
def test_a_quantized_step_is_written_with_integers_checked_and_run(tenfold, artifact, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    # An untrained network has many equally good detections; a wrong graph shows an error of 0.5 and more.
    monkeypatch.setitem(TOLERANCES, "compact", 0.5)
    from tenfold.video.exported_step import ExportedStep

    outcome = tenfold("export", artifact, "--images", "3", "--json")
    assert outcome.code == 0, outcome.err
    path = artifact.with_name("step.onnx")
    told = outcome.json
    assert (told["file"], told["profile"], told["width"], told["height"]) == (str(path), "compact", 96, 64)
    assert told["error"] < 0.5  # of every layer and output, on exact inputs, over a sequence
    facts = inspect_onnx(path)
    assert facts.weights["INT8"] > 0.95 * facts.weights["FLOAT"] + 500_000
    assert facts.file_bytes == told["file_bytes"] < 0.4 * artifact.stat().st_size
    exported = ExportedStep(path, threads=1)
    state = exported.start(*SIZE)
    for number, frame in enumerate(torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(5)), 1):
        found, state = exported.step(frame[None], state)
        assert found.valid.any()
        assert found.ids.max() >= 0
        assert int(state.memory.frame) == number
    clip = write_video(tmp_path / "clip.mp4")
    tracks = tmp_path / "tracks.json"
    outcome = tenfold("segment", clip, "--network", path, "--least-score", "0.05", "-o", tracks, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["frames"] == 8
    entries = json.loads(tracks.read_text())
    assert {entry["category"] for entry in entries} <= set(told_labels(artifact))
    assert all((entry["width"], entry["height"]) == (64, 48) for entry in entries)
    outcome = tenfold("segment", clip, "--network", path, "--box", "1,1,9,9", "-o", tracks)
    assert outcome.code == 2
    assert "To point at objects, give the artifact" in outcome.words


def told_labels(artifact):
    from tenfold.export import read_artifact

    return read_artifact(artifact)[0]["task"]["labels"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--profile", "fast"), "--profile fast is for networks that take images"),
        (("--frame-size", "wide"), "--frame-size wide is not WIDTHxHEIGHT"),
        (("--out", "step.pb"), "must end in .onnx"),
    ],
)
def test_what_a_step_cannot_be_is_told(tenfold, artifact, words, message):
    outcome = tenfold("export", artifact, *words)
    assert outcome.code == 2
    assert message in outcome.words


def test_frames_have_the_wanted_size_and_come_from_sprites():
    from tenfold.cli.example_frames import example_frames, frame_size

    task = tasks.create("track", image_size=SIZE, sprites=1, eval_clips=1, eval_frames=4, diameter=(16, 40)).describe()
    assert frame_size(task, None) == SIZE
    assert frame_size({}, None) == (240, 432)
    size = frame_size(task, "120x80")
    frames = example_frames(task, None, 3, size)
    assert frames.shape == (3, 3, 80, 120)
    assert 0 <= frames.min() < frames.max() <= 1
