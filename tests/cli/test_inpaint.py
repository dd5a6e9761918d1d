"""`tenfold inpaint`: files and folders in, a whole result or none out."""

import numpy as np
import pytest
from PIL import Image

from tenfold.data import read_image
from tenfold.data.video import VideoReader
from tenfold.video.provenance import UNTOUCHED, read_provenance
from video_files import moving_square, write_video, write_with_sound


@pytest.fixture
def clip(tmp_path):
    """A folder with the pictures of a clip, whose square is to be removed."""
    frames = moving_square(8)
    for name in ("frames", "masks"):
        (tmp_path / "clip" / name).mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"clip/frames/{number}.png")
        mask = np.zeros(frame.shape[:2], np.uint8)
        mask[11:25, max(0, 2 * number - 1) : 2 * number + 17] = 255
        Image.fromarray(mask).save(tmp_path / f"clip/masks/{number}.png")
    return tmp_path / "clip"


def frames_of(file):
    with VideoReader(file) as video:
        return [frame.image for frame in video]


def test_a_square_is_removed_from_a_folder(tenfold, clip, tmp_path):
    outcome = tenfold("inpaint", clip, "-o", tmp_path / "out", "--provenance", tmp_path / "maps", "--json")
    assert outcome.code == 0, outcome.err
    told = outcome.json
    assert told["frames"] == 8
    assert told["copied_share"] + told["invented_share"] == pytest.approx(1)
    assert "copied from other frames" in outcome.words
    rows, columns = np.mgrid[:48, :64]
    still = np.stack([rows * 200 // 48, columns * 200 // 64, np.full_like(rows, 60)], axis=2)
    for number in range(8):
        mask = np.asarray(Image.open(clip / f"masks/{number}.png")) > 0
        before, after = read_image(clip / f"frames/{number}.png"), read_image(tmp_path / f"out/{number}.png")
        np.testing.assert_array_equal(after[~mask], before[~mask])
        np.testing.assert_array_equal(read_provenance(tmp_path / f"maps/{number:05d}.png") > UNTOUCHED, mask)
        assert np.abs(after.astype(int) - still)[mask].mean() < 0.1 * np.abs(before.astype(int) - still)[mask].mean()


def test_a_file_keeps_its_sound_and_times(tenfold, clip, tmp_path):
    source = write_with_sound(tmp_path / "clip.mp4")
    outcome = tenfold("inpaint", source, "--mask", clip / "masks", "-o", tmp_path / "out.mp4", "--lossless", "--json")
    assert outcome.code == 0, outcome.err
    before, after = frames_of(source), frames_of(tmp_path / "out.mp4")
    for number, (first, second) in enumerate(zip(before, after, strict=True)):
        mask = np.asarray(Image.open(clip / f"masks/{number}.png")) > 0
        np.testing.assert_array_equal(first[~mask], second[~mask])
    with VideoReader(source) as one, VideoReader(tmp_path / "out.mp4") as other:
        assert other.info.has_sound
        assert [frame.time for frame in one] == [frame.time for frame in other]


def test_empty_masks_leave_every_frame_as_it_was(tenfold, clip, tmp_path):
    Image.new("L", (64, 48), 0).save(tmp_path / "empty.png")
    outcome = tenfold("inpaint", clip, "--mask", tmp_path / "empty.png", "-o", tmp_path / "out")
    assert outcome.code == 0
    assert "every frame is as it was" in outcome.words
    for number in range(8):
        np.testing.assert_array_equal(
            read_image(tmp_path / f"out/{number}.png"), read_image(clip / f"frames/{number}.png")
        )


@pytest.mark.parametrize(("count", "size"), [(1, (48, 64)), (3, (17, 33)), (2, (47, 64))])
def test_short_and_odd_videos(tenfold, tmp_path, count, size):
    frames = np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    source = write_video(tmp_path / "clip.mp4", frames, exact=True)
    mask = np.zeros(size, np.uint8)
    mask[3:9, 4:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = ("inpaint", source, "--mask", tmp_path / "mask.png", "-o", tmp_path / "out.mp4", "--lossless", "--json")
    outcome = tenfold(*words)
    assert outcome.code == 0, outcome.err
    assert outcome.json["frames"] == count
    for before, after in zip(frames_of(source), frames_of(tmp_path / "out.mp4"), strict=True):
        np.testing.assert_array_equal(after[mask == 0], before[mask == 0])


def test_one_picture_masks_all_frames_and_all_masked_is_allowed(tenfold, clip, tmp_path):
    Image.new("L", (64, 48), 1).save(tmp_path / "all.png")
    outcome = tenfold("inpaint", clip, "--mask", tmp_path / "all.png", "-o", tmp_path / "out", "--json")
    assert outcome.json["invented_share"] == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 1, "holds no clip|no data folder"),
        (("--mask", "few"), 1, "3 of 8 frames have none"),
        (("--mask", "small"), 1, "has 8 x 8 pixels, but the frames have 64 x 48"),
        (("-o", "out.avi"), 2, "ends in '.avi'"),
        (("--flow", "raft_small"), 2, "raft_small needs weights"),
        (("--flow", "liteflow"), 2, "unknown flow estimator"),
        (("--passes", "0"), 2, "passes is 0"),
        (("--rate", "fast"), 2, "--rate fast is no number"),
        (("--rate", "1/0"), 2, "is no number"),
        (("--quality", "99", "-o", "out.mp4"), 2, "quality 99"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(tenfold, clip, tmp_path, monkeypatch, words, code, message):
    import re

    monkeypatch.chdir(tmp_path)
    for name, count, size in (("few", 5, (64, 48)), ("small", 8, (8, 8))):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("L", size, 255).save(tmp_path / name / f"{number}.png")
    (tmp_path / "nothing").mkdir()
    before = sorted(tmp_path.iterdir())
    place = clip if words else tmp_path / "nothing"
    outcome = tenfold("inpaint", place, *words, *(() if "-o" in words else ("-o", "out")))
    assert outcome.code == code, outcome.err
    assert re.search(message, outcome.words)
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_ends_in_the_middle_is_refused_or_used_as_far_as_it_goes(tenfold, tmp_path):
    whole = write_video(tmp_path / "whole.mkv", moving_square(40))
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[:-1200])
    Image.new("L", (64, 48), 0).save(tmp_path / "empty.png")
    words = ("inpaint", tmp_path / "cut.mkv", "--mask", tmp_path / "empty.png", "-o", tmp_path / "out.mp4", "--json")
    outcome = tenfold(*words)
    assert outcome.code == 1
    assert "--damage skip" in outcome.words
    assert not (tmp_path / "out.mp4").exists()
    outcome = tenfold(*words, "--damage", "skip")
    assert outcome.code == 0, outcome.err
    assert 0 < outcome.json["frames"] <= 40
    assert len(frames_of(tmp_path / "out.mp4")) == outcome.json["frames"]
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(40):
        Image.new("L", (64, 48), 0).save(masks / f"{number}.png")
    short = (
        "inpaint",
        tmp_path / "cut.mkv",
        "--mask",
        masks,
        "-o",
        tmp_path / "short.mp4",
        "--json",
        "--damage",
        "skip",
    )
    assert tenfold(*short).json["frames"] == outcome.json["frames"]  # masks of the lost end are left over


@pytest.mark.parametrize("out", ["clip.mp4", "mask.mp4"])
def test_a_result_is_not_written_over_what_it_is_made_from(tenfold, tmp_path, out):
    made = {name: write_video(tmp_path / name).read_bytes() for name in ("clip.mp4", "mask.mp4")}
    outcome = tenfold("inpaint", tmp_path / "clip.mp4", "--mask", tmp_path / "mask.mp4", "-o", tmp_path / out)
    assert outcome.code == 2
    assert "would be written over what it is made from" in outcome.words
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == made


def test_what_is_there_is_not_overwritten_by_a_folder(tenfold, clip, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    outcome = tenfold("inpaint", clip, "-o", tmp_path / "out")
    assert outcome.code == 1
    assert "not an empty folder" in outcome.words
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A network, its weights alone and its artifact."""
    import torch
    from safetensors.torch import save_file

    from tenfold import build
    from tenfold.export import write_artifact

    torch.manual_seed(0)
    folder, network = tmp_path_factory.mktemp("tiny"), build("tsam_tiny", edge="self").eval()
    save_file(network.state_dict(), folder / "weights.safetensors")
    header = {"architecture": network.architecture.to_dict(), "schemes": {}, "task": {}, "metrics": {}}
    write_artifact(folder / "artifact.safetensors", network.state_dict(), header)
    return folder, network


def test_a_network_fills_what_no_frame_shows(tenfold, clip, tiny, tmp_path):
    still = np.zeros((48, 64), np.uint8)
    still[20:28, 30:44] = 255  # never visible, save where the square passes
    Image.fromarray(still).save(tmp_path / "still.png")
    made = {}
    for name, words in {
        "smooth": (),
        "run": ("--network", tiny[0]),
        "artifact": ("--network", tiny[0] / "artifact.safetensors"),
        "weights": ("--network", "tsam_tiny", "--network-weights", tiny[0] / "weights.safetensors"),
    }.items():
        out = tmp_path / name
        outcome = tenfold("inpaint", clip, "--mask", tmp_path / "still.png", "-o", out, *words)
        assert outcome.code == 0, outcome.err
        made[name] = read_image(out / "3.png")
        np.testing.assert_array_equal(made[name][still == 0], read_image(clip / "frames/3.png")[still == 0])
    np.testing.assert_array_equal(made["run"], made["artifact"])
    assert (made["artifact"] != made["smooth"]).any()
    assert (made["weights"] != made["artifact"]).any()  # the artifact says how it was built, weights do not


def test_the_authors_checkpoint_is_known_by_its_names(tenfold, clip, tmp_path, monkeypatch):
    import torch

    from tenfold import models

    narrow = models.build("tsam_tiny", decoder=(8, 8, 32))  # with the layers of theirs, and quick to run
    state = {f"generator.{theirs}": narrow.state_dict()[own] for own, theirs in models.official_tsam_names(narrow)}
    torch.save({"state_dict": state}, tmp_path / "official.pth")
    built = []
    monkeypatch.setattr(models, "build", lambda name, **options: built.append(options) or narrow)
    words = ("--network", "tsam_tiny", "--network-weights", tmp_path / "official.pth")
    outcome = tenfold("inpaint", clip, "-o", tmp_path / "out", *words)
    assert outcome.code == 0, outcome.err
    assert built == [{"mode": "compat"}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--network", "tsam_small"), "--network tsam_small is not trained"),
        (("--network", "resnet18"), "resnet18 takes images and fills no video"),
        (("--network", "tsam_tyni"), "Did you mean tsam_tiny"),
        (
            ("--network", "resnet_18"),
            "Allowed: tsam, tsam_small, tsam_tiny. There is no file or run folder of that name",
        ),
        (("--network", "none.safetensors"), "there is no artifact at none.safetensors"),
        (("--network", "none.onnx"), "there is no file none.onnx"),
        (("--network", "none.onnx", "--device", "cuda"), "none.onnx runs on the CPU; got --device cuda"),
        (("--network", "a.onnx", "--network-weights", "b.safetensors"), "--network-weights does not go with a.onnx"),
        (("--network-weights", "b.safetensors"), "--network-weights means nothing without --network"),
        (("--seam", "2"), "--seam means nothing without --network"),
    ],
)
def test_a_network_that_fills_no_video_is_refused(tenfold, clip, tmp_path, words, message):
    outcome = tenfold("inpaint", clip, "-o", tmp_path / "out", *words)
    assert outcome.code != 0
    assert message in outcome.words
    assert not (tmp_path / "out").exists()
