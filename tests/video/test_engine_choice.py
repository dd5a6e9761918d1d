"""A network in several runtimes: the fastest is taken, all are compared, and the choice lasts."""

import time

import numpy as np
import pytest

from tenfold.errors import UsageError
from tenfold.video.engine_choice import EngineChoice
from tenfold.video.network_filling import NetworkFilling, NetworkInputs


def inputs_of():
    known = np.ones((1, 2, 1, 8, 8), np.float32)
    known[:, :, :, 2:4, 2:4] = 0
    flows, invalid = np.zeros((1, 1, 2, 8, 8), np.float32), np.zeros((1, 1, 1, 8, 8), np.float32)
    return NetworkInputs(np.zeros((1, 2, 3, 8, 8), np.float32), known, known * 0, flows, flows, invalid, invalid)


def painting(value, outside=0.0, seconds=0.0):
    def run(inputs):
        time.sleep(seconds)
        run.calls += 1
        painted = np.where(inputs.known < 0.5, value, outside).astype(np.float32)
        return np.broadcast_to(painted, inputs.frames.shape)

    run.calls = 0
    return run


def broken(inputs):
    raise RuntimeError("no kernel for that")


def test_the_fastest_goes_on_and_the_others_are_compared_in_the_pixels_to_be_filled(tmp_path):
    slow, quick = painting(100 / 255, seconds=0.02), painting(103 / 255, outside=1.0)
    choice = EngineChoice({"torch": slow, "openvino": quick, "other": broken}, memory=tmp_path / "engine.json")
    assert choice.report is None
    choice(inputs_of())
    before = slow.calls
    np.testing.assert_array_equal(choice(inputs_of()), quick(inputs_of()))
    assert slow.calls == before
    report = choice.report
    assert report.engine == "openvino"
    assert report.reference == "torch"
    assert report.milliseconds["torch"] > 20 > report.milliseconds["openvino"]
    assert report.differences == {"openvino": {"largest": 3.0, "mean": 3.0}}
    assert report.refused == {"other": "no kernel for that"}

    again = EngineChoice({"torch": painting(0), "openvino": painting(0, seconds=0.02)}, memory=tmp_path / "engine.json")
    again(inputs_of())
    assert again.report == report  # what was begun with one runtime ends with it
    other = EngineChoice({"torch": painting(0), "openvino": painting(0)}, "torch", memory=tmp_path / "engine.json")
    other(inputs_of())
    assert other.report.engine == "torch"
    (tmp_path / "engine.json").write_text("{")
    anew = EngineChoice({"torch": painting(0)}, memory=tmp_path / "engine.json")
    anew(inputs_of())
    assert anew.report.differences == {}


def test_an_engine_that_was_asked_for_is_taken_or_fails():
    slow = painting(0.5, seconds=0.01)
    choice = EngineChoice({"torch": slow, "openvino": painting(0.5)}, "torch")
    filling = NetworkFilling(choice)
    assert filling.engine is None
    choice(inputs_of())
    assert filling.engine.engine == "torch"
    with pytest.raises(RuntimeError, match="no kernel for that"):
        EngineChoice({"torch": slow, "openvino": broken}, "openvino")(inputs_of())
    with pytest.raises(RuntimeError, match="no kernel for that"):
        EngineChoice({"openvino": broken})(inputs_of())
    with pytest.raises(UsageError, match="no engine can run this network: no kernel for that; no kernel for that"):
        EngineChoice({"onnxruntime": broken, "openvino": broken})(inputs_of())
    with pytest.raises(UsageError, match="the engine onnxruntime does not run this network; allowed are auto, torch"):
        EngineChoice({"torch": slow}, "onnxruntime")
