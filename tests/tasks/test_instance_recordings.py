"""Recorded clips as a source of training: which are judged, how parts are cut, and that classes are kept."""

import json

import numpy as np
import pytest
from PIL import Image

from tenfold import tasks
from tenfold.data.run_lengths import encode_mask
from tenfold.errors import DataError, UsageError
from tenfold.tasks.instance_recordings import open_recordings

HEIGHT, WIDTH, LENGTH = 48, 80, 4
OPTIONS = {"image_size": 32, "frames": 3, "eval_frames": 3}


def drawn(at):
    """A bright square that moves to the right."""
    frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[16:32, 30 + 3 * at : 46 + 3 * at] = True
    frame[mask] = 220
    return frame, mask


def youtube_vis(folder, clips=3, names=("dog", "zebra")):
    """Clips with one object each, in the form of YouTube-VIS."""
    content = {
        "videos": [],
        "annotations": [],
        "categories": [{"id": 7 * at + 3, "name": n} for at, n in enumerate(names)],
    }
    for clip in range(clips):
        codes, files = [], []
        for at in range(LENGTH):
            frame, mask = drawn(at)
            files.append(f"clip{clip}/{at:05d}.png")
            path = folder / "JPEGImages" / files[-1]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frame).save(path)
            codes.append(encode_mask(mask))
        video = {"id": clip, "height": HEIGHT, "width": WIDTH, "length": LENGTH, "file_names": files}
        content["videos"].append(video)
        category = content["categories"][clip % len(names)]["id"]
        entry = {"id": clip, "video_id": clip, "category_id": category, "iscrowd": 0, "segmentations": codes}
        content["annotations"].append(entry)
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def davis(folder, clips=2, masks=LENGTH):
    """Clips as DAVIS has them; the first frames have masks."""
    for clip in range(clips):
        for part in ("JPEGImages", "Annotations"):
            (folder / part / f"clip{clip}").mkdir(parents=True)
        for at in range(LENGTH):
            frame, mask = drawn(at)
            Image.fromarray(frame).save(folder / f"JPEGImages/clip{clip}/{at:05d}.jpg", quality=95)
            if at < masks:
                Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"Annotations/clip{clip}/{at:05d}.png")
    return folder


def test_clips_of_youtube_vis_are_learned_from_and_judged_with_their_classes(tmp_path):
    task = tasks.create("track", data=youtube_vis(tmp_path), **OPTIONS)
    assert (task.train_size, task.eval_size, task.classes) == (2, 1, ["dog", "zebra"])
    described = json.loads(json.dumps(task.describe()))
    assert (described["labels"], described["data"]["name"]) == (["dog", "zebra"], tmp_path.name)
    inputs, rows = next(iter(task.train_batches(epoch=0, batch_size=2, seed=0)))
    assert inputs.frames.shape == (2, 4, 3, 32, 32)
    for item, row in enumerate(rows.tolist()):
        inside = inputs.masks[item].any(0).bool()
        if inside.any():  # else the square was cut off
            assert inputs.frames[item, 0].mean(0)[inside].mean() > inputs.frames[item, 0].mean(0)[~inside].mean() + 0.4
            assert int(inputs.labels[item, 0]) == (row + 1) % 2
    frames, targets = next(iter(task.eval_batches(batch_size=1)))
    assert (frames.shape, targets.masks.shape) == ((1, 3, 3, 32, 32), (1, 1, 3, 32, 32))
    rows, columns = targets.masks[0, 0, 0].nonzero(as_tuple=True)
    # 16 of 48 pixels become 11 of 32; the middle is cut out of 53 columns.
    assert all(abs(len(found.unique()) - 11) <= 1 for found in (rows, columns))
    again = tasks.reopen(described, tmp_path)
    assert again.classes == ["dog", "zebra"]
    assert np.array_equal(next(iter(again.eval_batches(batch_size=1)))[0], frames)
    with pytest.raises(UsageError, match=r"which clips\? The network learned on"):
        tasks.reopen(described, None)


def test_frames_without_masks_are_not_judged_and_every_epoch_has_other_parts(tmp_path):
    task = tasks.create("track", data=davis(tmp_path, masks=2), **OPTIONS)
    assert task.classes == ["object"]
    frames, targets = next(iter(task.eval_batches(batch_size=1)))
    assert frames.shape[1] == targets.masks.shape[2] == 2
    source = task.train[0]
    parts = {source.read(0, epoch).frames.tobytes() for epoch in range(8)}
    assert len(parts) > 2
    assert np.array_equal(source.read(0, 3).frames, source.read(0, 3).frames)


def test_folders_of_train_and_val_are_the_two_parts_and_sprites_may_be_mixed_in(tmp_path):
    youtube_vis(tmp_path / "train", clips=1)
    youtube_vis(tmp_path / "val", clips=2)
    learned, judged = open_recordings(tmp_path)
    assert (len(learned), len(judged)) == (1, 2)
    mixed = tasks.create("track", data=tmp_path, sprites=2, classes="object", eval_clips=1, diameter=(8, 16), **OPTIONS)
    assert (mixed.train_size, mixed.eval_size, mixed.classes) == (3, 3, ["object"])
    youtube_vis(tmp_path / "val", clips=1, names=("cat",))
    with pytest.raises(DataError, match="have other classes"):
        open_recordings(tmp_path)


def test_a_single_clip_has_nothing_left_to_judge_by(tmp_path):
    with pytest.raises(DataError, match="one of them to judge by"):
        open_recordings(youtube_vis(tmp_path, clips=1))
