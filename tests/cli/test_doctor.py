"""`tenfold doctor`."""

from tenfold import processor
from tenfold.cli import doctor as doctor_module


def test_it_lists_versions_threads_runtimes_and_places(tenfold):
    done = tenfold("doctor")
    assert done.code == 0, done.out
    for words in ("torch", "processor", "threads", "onnxruntime", "cache", "native kernels", "export"):
        assert words in done.out


def test_json_has_every_check(tenfold):
    result = tenfold("doctor", "--json").json
    assert result["healthy"] is True
    names = {check["name"] for check in result["checks"]}
    assert {"python", "torch", "instructions", "cache", "data"} <= names | {"instructions"}
    assert {check["state"] for check in result["checks"]} <= {"ok", "note", "absent", "problem"}


def test_a_missing_extra_comes_with_its_command(monkeypatch):
    monkeypatch.setattr(doctor_module, "_version", lambda name: None if name == "onnxruntime" else "1.0")
    found = {check.name: check for check in doctor_module._extras()}
    assert found["export"].state == "absent"
    assert found["export"].advice == "pip install 'tenfold[export]'"
    assert "onnxruntime" in found["demo"].found  # by way of tenfold[export]


def test_a_missing_core_package_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor_module, "_version", lambda name: None if name == "torch" else "1.0")
    states = {check.name: check.state for check in doctor_module._packages()}
    assert states["torch"] == "problem"


def test_a_cache_that_cannot_be_written_and_wrong_data_are_problems(tenfold, tmp_path):
    (tmp_path / "file").write_text("")
    done = tenfold("doctor", env={"TENFOLD_CACHE": str(tmp_path / "file" / "cache"), "TENFOLD_DATA": "/no/such/folder"})
    assert done.code == 1
    assert "TENFOLD_CACHE" in done.out
    assert "is no folder" in done.out


def test_more_threads_than_cores_are_noted(tenfold):
    done = tenfold("doctor", env={"OMP_NUM_THREADS": "4096"})
    assert "more than the cores at hand" in done.out


def test_a_quota_counts_as_fewer_cores(monkeypatch, tmp_path):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    real = processor.Path
    monkeypatch.setattr(
        processor, "Path", lambda path: tmp_path / "cpu.max" if path.endswith("cpu.max") else real(path)
    )
    assert processor.usable_cpus() == 0.5
