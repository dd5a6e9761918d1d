import json
import resource

import pytest
import torch
from safetensors.torch import save_file

from tenfold.errors import ArtifactError, MissingDataError, StorageError
from tenfold.export import read_artifact, write_artifact

HEADER = {"architecture": {"name": "resnet18", "options": {"width": 0.5}}, "metrics": {"top1": 0.5}}


@pytest.fixture
def tensors():
    shared = torch.arange(6.0)
    return {"weight": torch.randn(4, 3).t(), "count": torch.tensor(3), "tied": shared, "view": shared[2:4]}


def test_what_is_written_is_read_back(tmp_path, tensors):
    write_artifact(tmp_path / "new folder" / "a.safetensors", tensors, HEADER)
    header, read = read_artifact(tmp_path / "new folder" / "a.safetensors")
    assert header == HEADER
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_tensors_outlive_their_file(tmp_path, tensors):
    path = tmp_path / "a.safetensors"
    write_artifact(path, tensors, HEADER)
    _, read = read_artifact(path)
    path.write_bytes(b"")
    assert torch.equal(read["weight"], tensors["weight"])


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_file_cut_short_is_refused(tmp_path, tensors, kept):
    path = tmp_path / "a.safetensors"
    write_artifact(path, tensors, HEADER)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match="damaged"):
        read_artifact(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_under_another_name_is_not_opened(tmp_path, zipped):
    path = tmp_path / "a.safetensors"
    torch.save({"weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ArtifactError, match="pickle"):
        read_artifact(path)


def test_tensors_of_strangers_are_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ArtifactError, match="not the header"):
        read_artifact(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "not JSON"),
        ("[1]", "no format version"),
        ("{}", "no format version"),
        (json.dumps({"format": 99}), "Upgrade"),
    ],
)
def test_a_header_that_cannot_be_understood_is_refused(tmp_path, text, message):
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors", metadata={"tenfold": text})
    with pytest.raises(ArtifactError, match=message):
        read_artifact(tmp_path / "a.safetensors")


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(MissingDataError, match="no artifact at"):
        read_artifact(tmp_path / "a.safetensors")


@pytest.mark.parametrize("value", [{1, 2}, float("nan")])
def test_a_header_that_is_not_json_is_refused_and_nothing_is_written(tmp_path, value):
    with pytest.raises(ArtifactError, match="JSON cannot store"):
        write_artifact(tmp_path / "a.safetensors", {}, {"bad": value})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_artifact(tmp_path, tensors):
    path = tmp_path / "a.safetensors"
    write_artifact(path, tensors, HEADER)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # writing more fails as on a full disk
    try:
        with pytest.raises(StorageError, match="could not write"):
            write_artifact(path, {"large": torch.zeros(1000)}, HEADER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
