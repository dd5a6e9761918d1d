"""Segmentation: batches that depend on their coordinates alone, and metrics as their definition says."""

import json
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from masked_images import write_pairs, write_segmentation
from tenfold import tasks
from tenfold.data import Draws, WholeImage
from tenfold.data.label_sets import IGNORE
from tenfold.errors import DataError, ShapeError, UsageError
from tenfold.tasks.pixel_scores import windowed_scores
from tenfold.tasks.scale_crop import ScaleCrop


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return write_segmentation(tmp_path_factory.mktemp("squares"))


@pytest.fixture
def task(squares):
    return tasks.create("segment", data=squares)


def epoch_of(task, **options):
    return list(task.train_batches(**{"epoch": 0, "batch_size": 4, "seed": 0} | options))


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_batches_have_the_shape_that_the_task_tells(task):
    inputs, targets = epoch_of(task)[0]
    assert task.input_shape == (3, 24, 32)
    assert (inputs.shape, inputs.dtype) == ((4, 3, 24, 32), torch.float32)
    assert (targets.shape, targets.dtype) == ((4, 24, 32), torch.int64)
    assert set(targets.unique().tolist()) <= {0, 1, 2, IGNORE}
    assert task.example(3).shape == (3, 3, 24, 32)
    assert len(epoch_of(task)) == task.batches_per_epoch(4) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_the_result_does_not_depend_on_the_workers(task, workers):
    assert_same(epoch_of(task), epoch_of(task, workers=workers))
    assert_same(list(task.eval_batches(batch_size=2)), list(task.eval_batches(batch_size=2, workers=workers)))


def test_a_start_in_the_middle_gives_the_same_rest_and_epochs_differ(task):
    whole = epoch_of(task, batch_size=2)
    assert_same(whole[2:], epoch_of(task, batch_size=2, start=2))
    for other in (epoch_of(task, batch_size=2, seed=1), epoch_of(task, batch_size=2, epoch=1)):
        assert not any(torch.equal(a[0], b[0]) for a, b in zip(whole, other, strict=True))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_steps_and_the_evaluation(task, world_size):
    alone = epoch_of(task)
    shares = [epoch_of(task, batch_size=4 // world_size, rank=r, world_size=world_size) for r in range(world_size)]
    together = [tuple(torch.cat(parts) for parts in zip(*step, strict=True)) for step in zip(*shares, strict=True)]
    assert_same(alone, together)
    parts = [list(task.eval_batches(batch_size=2, rank=r, world_size=world_size)) for r in range(world_size)]
    assert sum(len(targets) for part in parts for _, targets in part) == task.eval_size


def test_global_random_states_are_left_alone(task):
    before = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state()
    epoch_of(task, workers=2)
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.random.get_rng_state(), before[2])


@pytest.mark.parametrize("seed", range(12))
def test_image_and_mask_are_varied_alike(seed):
    # An image that is its own mask: wherever a whole neighbourhood has one class, both must agree afterwards.
    mask = torch.zeros(40, 50, dtype=torch.uint8)
    mask[8:24, 10:40], mask[30:, :20] = 1, 2
    image = (mask * 100)[None].repeat(3, 1, 1)
    crop = ScaleCrop(height=32, width=40)
    varied, classes = crop(image, mask, [200.0, 200.0, 200.0], Draws(seed, 0, np.array([3])))
    assert varied.shape == (3, 32, 40)
    assert classes.shape == (32, 40)
    assert type(varied) is type(classes) is torch.Tensor
    expected = torch.where(classes == IGNORE, 200, classes.int() * 100)
    windows = nn.functional.pad(classes.float()[None], (2, 2, 2, 2), mode="replicate").unfold(1, 5, 1).unfold(2, 5, 1)
    calm = (windows == classes[None, :, :, None, None]).all(-1).all(-1)[0]
    calm[[0, 1, -2, -1]], calm[:, [0, 1, -2, -1]] = False, False
    assert calm.float().mean() > 0.2
    assert ((varied[0].int() - expected).abs()[calm] <= 2).float().mean() > 0.99


def test_zoom_covers_its_range_and_half_is_mirrored():
    crop, mask = ScaleCrop(height=32, width=32, scale=(0.5, 2.0)), torch.zeros(32, 32, dtype=torch.uint8)
    mask[:, 16:] = 1
    image = mask[None].repeat(3, 1, 1)
    results = [crop(image, mask, [0.0] * 3, Draws(0, 0, np.array([k])))[1] for k in range(200)]
    bordered = sum(bool((one == IGNORE).any()) for one in results)
    assert 70 < bordered < 130  # a zoom below 1, half of the logarithmic range
    mirrored = sum(bool(one[16, 9] == 1) and bool(one[16, 22] == 0) for one in results)
    assert mirrored > 30


def test_an_unvaried_pair_is_the_pair(squares):
    task = tasks.create("segment", data=squares, scale=(1.0, 1.0), flip=False, pixels=True)
    inputs, targets = epoch_of(task, batch_size=8)[0]
    known = {}
    for pair in task.dataset.train:
        image, mask = task.dataset.read(pair)
        known[np.asarray(image).transpose(2, 0, 1).tobytes()] = mask
    for image, target in zip(inputs, targets, strict=True):
        np.testing.assert_array_equal(known[image.to(torch.uint8).numpy().tobytes()], target.numpy())


def test_loss_leaves_ignored_pixels_out_and_takes_scores_at_a_stride(task):
    scores = torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(0, 3, (2, 24, 32), generator=torch.Generator().manual_seed(1))
    targets[:, :5] = IGNORE
    for smoothing in (0.0, 0.1):
        wanted = nn.functional.cross_entropy(scores, targets, ignore_index=IGNORE, label_smoothing=smoothing)
        torch.testing.assert_close(task.loss(scores, targets, label_smoothing=smoothing), wanted)
    coarse = scores[..., ::4, ::4]
    fine = nn.functional.interpolate(coarse, (24, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(task.loss(coarse, targets), task.loss(fine, targets))
    assert task.loss(scores, torch.full_like(targets, IGNORE)) == 0


def test_metrics_are_the_definition_and_leave_ignored_pixels_out(task):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 3, 24, 32, generator=generator)
    targets = torch.randint(0, 3, (4, 24, 32), generator=generator)
    targets[:, :3] = IGNORE
    metrics = task.metrics()
    metrics.update(scores[:1], targets[:1])
    metrics.update(scores[1:], targets[1:])
    found, counted = scores.argmax(1), targets != IGNORE
    each = [
        (((found == k) & (targets == k)).sum() / (((found == k) & counted) | (targets == k)).sum()).item()
        for k in range(3)
    ]
    got = {name: value.item() for name, value in metrics.compute().items()}
    assert got == pytest.approx(
        {
            "miou": np.mean(each),
            "pixel_accuracy": (found == targets)[counted].float().mean().item(),
            **dict(zip(("iou_ground", "iou_square", "iou_edge"), each, strict=True)),
        },
        rel=1e-5,
    )


def test_a_class_that_does_not_occur_does_not_count(task):
    metrics = task.metrics()
    scores = torch.tensor([5.0, 0.0, -5.0])[None, :, None, None].expand(1, 3, 24, 32)
    metrics.update(scores, torch.zeros(1, 24, 32, dtype=torch.int64))
    got = metrics.compute()
    assert got["miou"] == got["iou_ground"] == 1
    assert torch.isnan(got["iou_edge"])


def test_the_description_is_json_and_opens_the_task_again(task, squares, tmp_path):
    told = json.loads(json.dumps(task.describe()))
    assert told["num_outputs"] == len(told["labels"]) == len(told["colours"]) == 3
    assert WholeImage.from_dict(told["preprocess"]).input_shape == task.input_shape
    again = tasks.reopen(told, squares)
    assert_same(list(task.eval_batches(batch_size=3)), list(again.eval_batches(batch_size=3)))
    shutil.copytree(squares, tmp_path / "unnamed")
    (tmp_path / "unnamed" / "labels.txt").unlink()
    assert tasks.reopen(told, tmp_path / "unnamed").dataset.labels == task.dataset.labels


def test_images_of_several_sizes_are_brought_to_one_but_judged_at_their_own(tmp_path):
    folder = write_segmentation(tmp_path)
    write_pairs(folder / "val", 2, first=200, height=48, width=48)
    with pytest.raises(DataError, match=r"2 different sizes, such as 32 x 24 and 48 x 48\. Say to what size"):
        tasks.create("segment", data=folder)
    task = tasks.create("segment", data=folder, image_size=[24, 40])
    shapes = [(tuple(x.shape), tuple(y.shape)) for x, y in task.eval_batches(batch_size=4)]
    assert shapes == [((3, 3, 24, 40), (3, 24, 32)), ((2, 3, 24, 40), (2, 48, 48))]
    assert tasks.create("segment", data=folder, image_size=12).input_shape == (3, 12, 16)


def test_windows_are_cut_from_whole_images_and_put_together(squares):
    task = tasks.create("segment", data=squares, crop=[16, 16], windows=True)
    assert task.input_shape == (3, 16, 16)
    assert epoch_of(task)[0][0].shape == (4, 3, 16, 16)
    inputs, targets = next(task.eval_batches(batch_size=3))
    assert inputs.shape[2:] == targets.shape[1:] == (24, 32)
    pointwise = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        torch.testing.assert_close(task.infer(pointwise, inputs), pointwise(inputs))
        assert windowed_scores(nn.AvgPool2d(4), inputs, (16, 16)).shape == (3, 3, 24, 32)


def test_illustrations_show_image_truth_and_answer_side_by_side(task):
    class Right(nn.Module):
        """Answers what the pixel's brightness says."""

        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            level = x.mean(1, keepdim=True)
            return torch.cat([-level, level, -10 + 0 * level], 1)

    pictures = task.illustrate(Right())
    assert len(pictures) == 3
    assert pictures[0].caption == "100.png"
    assert pictures[0].image.size == (3 * 32 + 8, 24)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"crop": [48, 48]}, ShapeError, r"has 32 x 24 pixels, less than the crop of 48 x 48\. Take a smaller crop"),
        ({"crop": [16]}, ShapeError, r"crop is \[16\]; needed is \[height, width\]"),
        ({"image_size": 0}, ShapeError, "image_size is 0; allowed is a whole number of pixels from 1 to 4096"),
        ({"windows": True}, UsageError, r"windows=true needs the size of the windows: crop=\[HEIGHT, WIDTH\]"),
        ({"windows": True, "crop": [8, 8], "image_size": 12}, UsageError, "leave image_size out"),
        ({"scale": (2.0, 0.5)}, UsageError, r"scale is \(2.0, 0.5\); allowed are two numbers"),
        ({"subset": 9}, UsageError, "subset is 9; allowed is 1 to 8"),
        ({"eval_fraction": 2}, UsageError, "eval_fraction is 2; allowed is 0 up to below 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(squares, options, error, message):
    with pytest.raises(error, match=message):
        tasks.create("segment", data=squares, **options)


def test_an_unknown_label_stops_the_epoch_by_name(tmp_path):
    folder = write_segmentation(tmp_path)
    Image.fromarray(np.full((24, 32), 77, np.uint8)).save(folder / "train" / "masks" / "2.png")
    with pytest.raises(DataError, match=r"2\.png holds the value 77, which is no label"):
        epoch_of(tasks.create("segment", data=folder), batch_size=8, workers=1)


def test_camvid_trains_at_its_own_size(shared):
    task = tasks.create("segment", data=shared / "data" / "camvid")
    assert (task.input_shape, task.num_classes, task.train_size, task.eval_size) == ((3, 180, 240), 11, 367, 101)
    inputs, targets = next(task.train_batches(epoch=0, batch_size=4, seed=0))
    assert inputs.shape == (4, 3, 180, 240)
    assert set(targets.unique().tolist()) <= {*range(11), IGNORE}
