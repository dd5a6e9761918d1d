"""`tenfold fit --task recognize`: trained, exported, judged by artifact and file, and asked about a clip."""

import pytest
import torch

from tenfold.tasks import recognize

pytest.importorskip("onnxruntime", reason="needs the extra export")


def test_a_network_tells_the_same_of_clips_in_every_form(tenfold, tmp_path):
    run, file = tmp_path / "run", tmp_path / "net.onnx"
    words = ("--model", "mobilenet_v2_tiny", "--set", "task.frames=3", "--set", "task.image_size=16")
    brief = ("--set", "task.subset=64", "--epochs", 1, "--batch-size", 16, "--device", "cpu")
    done = tenfold("fit", "--task", "recognize", *words, *brief, "-o", run)
    assert done.code == 0, done.err
    assert tenfold("export", run / "artifact.safetensors", "-o", file).code == 0
    judged = [tenfold("eval", one, "--json").json for one in (run, file)]
    assert [one["images"] for one in judged] == [359, 359]
    assert judged[0]["metrics"]["top1"] == pytest.approx(judged[1]["metrics"]["top1"], abs=0.01)
    # A clip as a folder of pictures: what evaluation sees of it, and so the same answer.
    task = recognize(frames=3, image_size=16)
    clip = tmp_path / "clip"
    clip.mkdir()
    for number, frame in enumerate(task.dataset.evaluation.clips[0].read(torch.arange(8).numpy() / 8)):
        frame.save(clip / f"{number}.png")
    answers = [tenfold("predict", one, clip, "--json", "--top", 10).json for one in (run, file)]
    for one in answers:
        assert [row["image"] for row in one["predictions"]] == [str(clip)]
    first, second = ({a["label"]: a["probability"] for a in one["predictions"][0]["answers"]} for one in answers)
    assert first == pytest.approx(second, abs=2e-3)
    assert sum(first.values()) == pytest.approx(1)
    empty = tmp_path / "empty"
    empty.mkdir()
    done = tenfold("predict", file, empty)
    assert done.code == 1
    assert "holds no pictures" in done.words
