"""The task of finding and following objects: what a batch holds, how tracks are judged, and that trainings repeat."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tenfold import tasks
from tenfold.data.run_lengths import encode_mask
from tenfold.errors import DataError, MissingDataError, UnknownNameError, UsageError
from tenfold.models import build
from tenfold.models.compfeat_state import Detections
from tenfold.tasks.found_tracks import FoundTrack, gather_tracks
from tenfold.tasks.instance_batches import boxes_of, draw_item
from tenfold.tasks.instance_sources import LabelledClip
from tenfold.train import TrainConfig, fit

SMALL = {"sprites": 4, "image_size": 64, "frames": 3, "eval_clips": 1, "eval_frames": 2, "diameter": (16, 40)}


def small_task(**options):
    return tasks.create("track", **{**SMALL, **options})


def same(one, other):
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def coco_file(folder, photographs=3):
    """Photographs with a bright square each, and masks of them."""
    content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "square"}]}
    rng = np.random.default_rng(0)
    for number in range(photographs):
        picture = rng.integers(0, 90, (100, 120, 3), np.uint8)
        mask = np.zeros((100, 120), np.bool_)
        mask[25:75, 30:90] = True
        picture[mask] += 150
        Image.fromarray(picture).save(folder / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": 100, "width": 120})
        entry = {"id": number, "image_id": number, "category_id": 7, "area": int(mask.sum()), "iscrowd": 0}
        content["annotations"].append(entry | {"segmentation": encode_mask(mask)})
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def test_batches_follow_from_seed_epoch_and_step_alone():
    task = small_task(sprites=6)
    assert (task.train_size, task.batches_per_epoch(2), task.eval_size) == (6, 3, 1)
    first = list(task.train_batches(epoch=1, batch_size=2, seed=3))
    ahead = list(task.train_batches(epoch=1, batch_size=2, seed=3, start=1, workers=2))
    assert len(first) == 3
    assert all(same(one[0], other[0]) for one, other in zip(first[1:], ahead, strict=True))
    other_epoch = next(iter(task.train_batches(epoch=2, batch_size=2, seed=3)))
    assert not torch.equal(first[0][0].frames, other_epoch[0].frames)
    ranks = [next(iter(task.train_batches(epoch=1, batch_size=1, seed=3, rank=rank, world_size=2))) for rank in (0, 1)]
    assert torch.equal(torch.cat([one[0].frames for one in ranks]), first[0][0].frames)
    assert sorted(torch.cat([rows for _, rows in first]).tolist()) == list(range(6))


def test_a_batch_holds_frames_and_the_truth_of_them():
    task = small_task()
    inputs, _ = next(iter(task.train_batches(epoch=0, batch_size=4, seed=0)))
    assert inputs.frames.shape == (4, 4, 3, 64, 64)
    assert 0 <= inputs.frames.min() < 0.4 < 0.6 < inputs.frames.max() <= 1
    for item in range(4):
        for place in range(inputs.labels.shape[1]):
            rows, columns = inputs.masks[item, place].nonzero(as_tuple=True)
            assert bool(len(rows)) == bool(inputs.here[item, place])
            if len(rows):
                expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert inputs.boxes[item, place].tolist() == [float(one) for one in expected]
    assert inputs.here.any(1).all()
    assert inputs.there.any()


def _counted_clip(count, seen):
    frames = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 3))
    masks = np.zeros((count, 1, 4, 4), np.bool_)
    masks[seen, 0, 1:3, 0:2] = True
    return LabelledClip(frames, masks, np.array([5]))


def test_frames_of_an_item_are_chosen_as_specified():
    rng = np.random.default_rng(0)
    clip = _counted_clip(20, [3, 9, 15])
    for _ in range(50):
        item = draw_item(clip, 2, 0.5, False, rng)
        current, reference, *around = item.frames[:, 0, 0, 0].tolist()
        assert {current, reference} < {3, 9, 15}
        assert current != reference
        assert all(0 < abs(at - current) <= 5 for at in around)
        assert len(set(around)) == 2
    alone = draw_item(_counted_clip(1, [0]), 2, 0.0, False, rng)
    assert alone.frames[:, 0, 0, 0].tolist() == [0, 0, 0, 0]
    assert alone.filled.all()
    nobody = draw_item(_counted_clip(3, []), 1, 0.0, False, rng)
    assert nobody.masks.shape == (2, 0, 4, 4)


def test_mirrored_items_mirror_their_masks():
    clip = _counted_clip(2, [0, 1])
    seen = {draw_item(clip, 1, 0.0, True, np.random.default_rng(seed)).masks[0, 0, 1].tobytes() for seed in range(20)}
    assert len(seen) == 2
    assert not boxes_of(np.zeros((2, 3, 3), np.bool_)).any()


def test_stills_move_with_their_masks(tmp_path):
    task = small_task(sprites=0, stills=4, still_files=[coco_file(tmp_path)], degraded=0.0)
    assert task.classes == ["square"]
    inputs, _ = next(iter(task.train_batches(epoch=0, batch_size=4, seed=0)))
    assert inputs.here.any(1).all()
    for item in range(4):
        inside = inputs.masks[item].bool().any(0)
        brightness = inputs.frames[item, 0].mean(0)
        assert brightness[inside].mean() > brightness[~inside].mean() + 0.3
    assert not torch.equal(inputs.boxes[0], inputs.reference_boxes[0])


def test_sources_of_different_classes_mix_as_one_class(tmp_path):
    file = coco_file(tmp_path)
    mixed = {"real_sprites": 2, "cut_outs": file, "cut_out_count": 2, "stills": 2, "still_files": file}
    with pytest.raises(UsageError, match='Mix sources with classes="object"'):
        small_task(**mixed)
    task = small_task(classes="object", photographs=[tmp_path], **mixed)
    assert (task.classes, task.train_size, task.eval_size) == (["object"], 8, 3)
    assert task.describe()["num_outputs"] == 1
    assert [one["name"] for one in task.describe()["data"]["train"]] == ["sprites", "real sprites", "stills"]
    inputs, _ = next(iter(task.train_batches(epoch=0, batch_size=8, seed=0)))
    assert not inputs.labels.any()


class _Oracle(nn.Module):
    """Finds just what is there."""

    def __init__(self, targets):
        super().__init__()
        self.targets = targets

    def start(self, height, width):
        return 0

    def step(self, frame, at):
        masks = self.targets.masks[0, :, at].bool()
        count = len(masks)
        found = Detections(
            torch.zeros(count, 4), self.targets.labels[0], torch.full((count,), 0.9), masks, torch.arange(count),
            masks.flatten(1).any(1),
        )  # fmt: skip
        found_with_masks = type("Found", (), {**found._asdict(), "paste": lambda self, *_: masks})
        return found_with_masks(), at + 1


def test_a_network_that_finds_what_is_there_is_perfect():
    task = small_task(eval_clips=3)
    metrics = task.metrics()
    missing = []
    for frames, targets in task.eval_batches(batch_size=8):
        found = task.infer(_Oracle(targets), frames)
        metrics.update(found, targets)
        missing.append(float(task.loss(found, targets)))
        assert task.loss([{}], targets) == 1
    scores = metrics.compute()
    assert missing == [0, 0, 0]
    assert set(scores) == {"ap", "ap50", "ap75", "ar1", "ar10", "frame_ap"}
    assert 0 < scores.pop("ar1") < 1  # one track of each class in each clip, where two look the same
    assert {float(value) for value in scores.values()} == {1.0}


def test_tracks_take_the_class_of_most_frames_and_the_mean_score():
    track = FoundTrack(masks={}, scores={0: 0.5, 2: 1.0, 3: 0.6}, labels={0: 4, 2: 1, 3: 4})
    assert (track.label, track.score) == (4, pytest.approx(0.7))
    tie = FoundTrack(masks={}, scores={0: 1.0}, labels={0: 4, 1: 2})
    assert tie.label == 2
    masks = torch.zeros(2, 3, 3, dtype=torch.bool)
    masks[1, 0] = True
    twice = type("Found", (), {"paste": lambda self, *_: masks})()
    twice.ids, twice.labels, twice.scores = torch.tensor([7, 7]), torch.tensor([0, 1]), torch.tensor([0.2, 0.8])
    twice.valid = torch.tensor([True, True])
    gathered = gather_tracks([twice], 3, 3)
    assert gathered[7].scores == {0: pytest.approx(0.8)}  # the later claim stays
    assert gathered[7].masks[0].sum() == 3


CONFIG = {"epochs": 2, "batch_size": 2, "optimizer": "adamw", "lr": 1e-3, "channels_last": False}


def tiny(**options):
    torch.manual_seed(0)
    return build(
        "compfeat", num_classes=8, channels=16, region_width=32, proposals=20, inner=16, object_inner=16, mask_layers=1,
        network="torchvision:mobilenet_v3_small", **options,
    )  # fmt: skip


# Two trainings of a whole detector.
@pytest.mark.slow
def test_a_training_that_was_stopped_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    task = small_task()
    whole = fit(tiny(), task, config=TrainConfig(**CONFIG), run_dir=tmp_path / "whole", quiet=True)
    from tenfold.train.loop import Loop

    update, steps = Loop._update, []

    def dies(self):
        steps.append(0)
        if len(steps) == 4:
            raise KeyboardInterrupt
        update(self)

    config = TrainConfig(**CONFIG, checkpoint_steps=1)
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_update", dies)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny(), task, config=config, run_dir=tmp_path / "parts", quiet=True)
    again = fit(tiny(), task, config=config, run_dir=tmp_path / "parts", resume=True, quiet=True)
    for (name, one), other in zip(whole.network.state_dict().items(), again.network.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert whole.metrics == again.metrics
    assert set(whole.metrics) == {"ap", "ap50", "ap75", "ar1", "ar10", "frame_ap", "loss"}
    assert len(list((tmp_path / "whole/pictures").iterdir())) == 1


def test_the_task_comes_back_from_its_description():
    task = small_task(classes="object")
    again = tasks.reopen(json.loads(json.dumps(task.describe())), None)
    assert again.classes == ["object"]
    assert same(next(task.eval_batches(batch_size=1))[1], next(again.eval_batches(batch_size=1))[1])
    with pytest.raises(MissingDataError, match="no data folder at some/where"):
        tasks.reopen(task.describe(), "some/where")


def test_example_frames_are_those_of_training():
    task = small_task()
    assert task.example().shape == (1, 3, 64, 64)
    assert torch.equal(task.example(9)[0], task.example(9)[4])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": "all"}, UnknownNameError, "unknown kind of classes 'all'"),
        ({"sprites": -1}, UsageError, "sprites is -1"),
        ({"sprites": 0}, UsageError, "there is nothing to learn from"),
        ({"real_sprites": 1}, UsageError, "give cut_outs"),
        ({"stills": 1}, UsageError, "give still_files"),
        ({"image_size": 7}, UsageError, "image_size is 7"),
        ({"objects": (1, 2, 3)}, UsageError, "two whole numbers"),
        ({"dropped": 1.0}, UsageError, "dropped is 1.0"),
        ({"subset": 9}, UsageError, "subset is 9"),
        ({"photographs": ["nowhere.png"]}, MissingDataError, "nowhere.png"),
    ],
)
def test_wrong_options_are_told(options, error, message):
    with pytest.raises(error, match=message):
        small_task(**options)


def test_folders_without_pictures_and_files_without_objects_are_told(tmp_path):
    with pytest.raises(MissingDataError, match="there are no pictures"):
        small_task(photographs=[tmp_path])
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(DataError, match="no photograph with an object"):
        small_task(stills=1, still_files=empty)
    with pytest.raises(DataError, match="no clips to learn from"):
        tasks.VideoInstances([], [], size=(64, 64))
