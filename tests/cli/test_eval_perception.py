"""`tenfold eval --lpips --i3d`."""

import pytest
import torch
import torchvision

from inpainting_data import write_clip
from perception_networks import BUILD_ALEXNET, write_network
from tenfold import build, tasks
from tenfold.export import write_artifact

pytest.importorskip("cv2", reason="needs OpenCV (the extra 'video')")


@pytest.fixture(scope="module")
def filler(tmp_path_factory):
    """An artifact of an untrained network, and the clips that it is judged on."""
    folder = tmp_path_factory.mktemp("filler")
    for name in ("one", "two"):
        write_clip(folder / "clips" / name)
    options = {"image_size": [40, 56], "lengths": [3], "holes": ["stationary"], "eval_clips": ["two"]}
    task = tasks.create("inpaint", data=str(folder / "clips"), **options)
    torch.manual_seed(0)
    network = build("tsam_tiny").eval()
    header = {"architecture": network.architecture.to_dict(), "schemes": {}, "task": task.describe(), "metrics": {}}
    write_artifact(folder / "filler.safetensors", network.state_dict(), header)
    return folder


def test_an_inpainting_network_is_judged_by_networks_of_ones_own(tenfold, filler, monkeypatch):
    alexnet = BUILD_ALEXNET(weights=None)
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights: alexnet)
    file, clips = filler / "filler.safetensors", filler / "clips"
    network = write_network(filler / "i3d.onnx")
    plain = tenfold("eval", file, "--data", clips, "--json").json["metrics"]
    outcome = tenfold("eval", file, "--data", clips, "--lpips", "--i3d", network, "--json")
    assert outcome.code == 0, outcome.err
    metrics = outcome.json["metrics"]
    assert metrics.keys() - plain.keys() == {"lpips", "vfid"}
    assert metrics["lpips"] > 0
    assert metrics["vfid"] >= 0
    assert metrics["psnr_filled"] == plain["psnr_filled"]
    shown = tenfold("eval", file, "--data", clips, "--lpips").out
    assert f"{metrics['lpips']:.4f}" in shown


def test_other_networks_are_not_judged_so(tenfold, filler, tmp_path):
    words = ("eval", filler / "filler.safetensors", "--data", filler / "clips")
    outcome = tenfold(*words, "--i3d", tmp_path / "gone.onnx")
    assert outcome.code == 1
    assert "there is no file" in outcome.err
    network = build("resnet18", num_classes=10, in_channels=1).eval()
    digits = tasks.create("classify", data="digits")
    header = {"architecture": network.architecture.to_dict(), "schemes": {}, "task": digits.describe(), "metrics": {}}
    write_artifact(tmp_path / "images.safetensors", network.state_dict(), header)
    outcome = tenfold("eval", tmp_path / "images.safetensors", "--lpips")
    assert outcome.code == 2
    assert "--lpips and --i3d measure artifacts of the task inpaint" in outcome.err
