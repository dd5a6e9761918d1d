"""Classification: batches that depend on their coordinates alone, honest evaluation, and the usual loss and metrics."""

import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold import tasks
from tenfold.data import Preprocess, read_image
from tenfold.errors import DataError, MissingDataError, ShapeError, UnknownNameError, UsageError


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of JPEGs of differing sizes, three classes."""
    folder, noise = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in (("train", 7), ("val", 3)):
        for label in ("ant", "bee", "cat"):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                shape = (*noise.integers(20, 60, 2), 3)
                Image.fromarray(noise.integers(0, 256, shape, np.uint8)).save(folder / part / label / f"{number}.jpg")
    return folder


@pytest.fixture(params=["digits", "photos"])
def task(request):
    data = request.getfixturevalue("photos") if request.param == "photos" else None
    return tasks.create("classify", data=data, image_size=16)


def epoch_of(task, **options):
    return list(task.train_batches(**{"epoch": 0, "batch_size": 6, "seed": 0} | options))


def assert_same(first, second):
    assert len(first) == len(second)
    for (inputs, targets), (other_inputs, other_targets) in zip(first, second, strict=True):
        assert torch.equal(inputs, other_inputs)
        assert torch.equal(targets, other_targets)


def test_batches_have_the_shape_that_the_task_tells(task):
    inputs, targets = next(iter(task.train_batches(epoch=0, batch_size=6, seed=0)))
    assert inputs.shape == (6, *task.input_shape)
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64
    assert task.example(4).shape == (4, *task.input_shape)
    assert len(epoch_of(task)) == task.batches_per_epoch(6)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_result_does_not_depend_on_the_workers(task, workers):
    assert_same(epoch_of(task), epoch_of(task, workers=workers))
    assert_same(list(task.eval_batches(batch_size=4)), list(task.eval_batches(batch_size=4, workers=workers)))


def test_a_start_in_the_middle_gives_the_same_rest(task):
    whole = epoch_of(task)
    assert_same(whole[2:], epoch_of(task, start=2))
    assert epoch_of(task, start=len(whole)) == []


def test_starting_late_decodes_nothing_before(photos, monkeypatch):
    task = tasks.create("classify", data=photos, image_size=16)
    asked = []
    monkeypatch.setattr(
        task.dataset.train, "varied", lambda rows, *_: asked.append(rows) or np.zeros((6, 3, 16, 16), np.uint8)
    )
    epoch_of(task, start=2)
    assert len(asked) == 1


def test_seeds_and_epochs_differ_in_order_and_variation(task):
    first = epoch_of(task)
    for other in (epoch_of(task, seed=1), epoch_of(task, epoch=1)):
        assert any(not torch.equal(a[1], b[1]) for a, b in zip(first, other, strict=True))
        assert all(not torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


def test_global_random_states_are_left_alone(task):
    before = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state()
    epoch_of(task, workers=2)
    list(task.eval_batches(batch_size=50, workers=1))
    task.example(3)
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.random.get_rng_state(), before[2])


def test_an_epoch_shows_each_image_at_most_once_and_drops_only_the_last_part():
    task = tasks.create("classify", augment="none", image_size=8, pixels=True)
    seen = torch.cat([inputs for inputs, _ in epoch_of(task, batch_size=100)]).reshape(-1, 64).numpy()
    pool = task.dataset.train.pixels.reshape(-1, 64).astype(np.float32)
    assert len(seen) == 1400
    assert len(pool) == 1438
    assert len(np.unique(seen, axis=0)) >= 1400 - (len(pool) - len(np.unique(pool, axis=0)))


def test_a_set_smaller_than_a_batch_is_one_batch(photos):
    task = tasks.create("classify", data=photos, image_size=16)
    assert task.batches_per_epoch(64) == 1
    ((inputs, targets),) = epoch_of(task, batch_size=64)
    assert len(inputs) == len(targets) == 21
    shares = [epoch_of(task, batch_size=64, rank=rank, world_size=2) for rank in range(2)]
    assert [len(share[0][0]) for share in shares] == [10, 10]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_what_one_would_see(task, world_size):
    alone = epoch_of(task, batch_size=6)
    shares = [epoch_of(task, batch_size=6 // world_size, rank=r, world_size=world_size) for r in range(world_size)]
    together = [tuple(torch.cat(parts) for parts in zip(*step, strict=True)) for step in zip(*shares, strict=True)]
    assert_same(alone, together)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_evaluation_shares_hold_every_image_once(task, world_size):
    parts = []
    for rank in range(world_size):
        parts += [inputs for inputs, _ in task.eval_batches(batch_size=5, rank=rank, world_size=world_size)]
    got = torch.cat(parts).flatten(1)
    expected = torch.cat([inputs for inputs, _ in task.eval_batches(batch_size=10**6)]).flatten(1)
    assert len(got) == task.eval_size
    assert torch.equal(got[np.lexsort(got.T.numpy())], expected[np.lexsort(expected.T.numpy())])


def test_more_ranks_than_evaluation_images_leave_some_without(photos):
    task = tasks.create("classify", data=photos, image_size=16)
    assert list(task.eval_batches(batch_size=5, rank=10, world_size=12)) == []


def test_evaluation_sees_what_predict_would_see(photos):
    task = tasks.create("classify", data=photos, image_size=16)
    inputs, targets = next(iter(task.eval_batches(batch_size=9)))
    preprocess = Preprocess.from_dict(json.loads(json.dumps(task.describe()))["preprocess"])
    for path, image, target in zip(sorted((photos / "val").rglob("*.jpg")), inputs, targets, strict=True):
        np.testing.assert_array_equal(preprocess(read_image(path)), image.numpy())
        assert task.dataset.labels[target] == path.parent.name


def test_pixels_are_raw_and_padding_is_black():
    task = tasks.create("classify", pixels=True, image_size=8)
    inputs = torch.cat([inputs for inputs, _ in epoch_of(task, batch_size=50)])
    assert torch.equal(inputs, inputs.round())
    assert inputs.min() == 0
    assert inputs.max() == 255


def test_normalised_digits_have_zero_mean_and_unit_spread():
    inputs = torch.cat([inputs for inputs, _ in epoch_of(tasks.create("classify", augment="none"), batch_size=479)])
    assert abs(inputs.mean()) < 0.01
    assert abs(inputs.std() - 1) < 0.01


def test_digits_keep_their_size_unless_another_is_asked_for():
    assert tasks.create("classify").input_shape == (1, 8, 8)
    assert tasks.create("classify", image_size=12, channels=3).input_shape == (3, 12, 12)


def test_defaults_suit_the_data(photos):
    digits, folder = tasks.create("classify"), tasks.create("classify", data=photos)
    assert (digits.augmentation.crop, digits.augmentation.padding, digits.augmentation.flip) == ("pad", 1, False)
    assert (folder.augmentation.crop, folder.augmentation.flip) == ("resized", True)
    assert (folder.preprocess.size, folder.preprocess.resize) == (224, 256)
    assert folder.preprocess.mean == (0.485, 0.456, 0.406)
    own = tasks.create("classify", data=photos, mean=[0.5] * 3, std=[0.5] * 3, interpolation="bicubic", resize=230)
    assert own.preprocess == Preprocess(size=224, resize=230, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")
    grey = tasks.create("classify", data=photos, channels=1, image_size=16)
    assert epoch_of(grey)[0][0].shape == (6, 1, 16, 16)


def test_a_subset_is_fixed_and_in_proportion():
    task = tasks.create("classify", subset=100)
    assert task.train_size == 100
    assert task.batches_per_epoch(30) == 3
    counts = [
        torch.cat([targets for _, targets in epoch_of(task, batch_size=100, seed=seed)]).bincount().tolist()
        for seed in range(2)
    ]
    assert counts[0] == counts[1]
    assert min(counts[0]) >= 9
    assert max(counts[0]) <= 11


def test_loss_takes_labels_and_probabilities(task):
    outputs, targets = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0])
    log_p = outputs.log_softmax(1)
    hard = -log_p[torch.arange(5), targets].mean()
    smooth = -(0.9 * log_p[torch.arange(5), targets] + 0.1 * log_p.mean(1)).mean()
    torch.testing.assert_close(task.loss(outputs, targets), hard)
    torch.testing.assert_close(task.loss(outputs, targets, label_smoothing=0.1), smooth)
    soft = torch.nn.functional.one_hot(targets, 3).float()
    torch.testing.assert_close(task.loss(outputs, soft, label_smoothing=0.1), smooth)
    mixed = 0.3 * soft + 0.7 * soft.flip(0)
    torch.testing.assert_close(task.loss(outputs, mixed), -(mixed * log_p).sum(1).mean())


def test_metrics_are_shares_of_images(photos):
    task = tasks.create("classify")
    outputs = torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(200) % 10
    metrics = task.metrics()
    metrics.update(outputs[:150], targets[:150])
    metrics.update(outputs[150:], targets[150:])
    ranks = (outputs > outputs[torch.arange(200), targets][:, None]).sum(1)
    got = metrics.compute()
    assert set(got) == {"top1", "top5"}
    assert got["top1"].item() == pytest.approx((ranks < 1).float().mean().item())
    assert got["top5"].item() == pytest.approx((ranks < 5).float().mean().item())
    assert set(tasks.create("classify", data=photos).metrics()) == {"top1"}


def test_the_example_holds_every_class_and_is_always_the_same():
    task = tasks.create("classify", pixels=True)
    example = task.example(10)
    assert torch.equal(example, task.example(10))
    pool = task.dataset.train.pixels.reshape(-1, 64)
    places = [int(np.flatnonzero((pool == image.reshape(64).numpy()).all(1))[0]) for image in example]
    assert len(set(task.dataset.train.targets[places])) >= 9
    assert task.example(2000).shape[0] == 2000


def test_the_description_is_json_and_tells_how_to_use_the_network(task):
    told = json.loads(json.dumps(task.describe()))
    assert told["task"] == "classify"
    assert told["num_outputs"] == len(told["labels"]) == task.num_classes
    assert told["data"]["eval_images"] == task.eval_size
    assert Preprocess.from_dict(told["preprocess"]).input_shape == task.input_shape


@pytest.mark.parametrize("size", [0, -8, 5000, 10**12, 2.5])
def test_a_size_that_makes_no_sense_is_refused(size):
    with pytest.raises(ShapeError, match=r"image_size is .*; allowed is a whole number of pixels from 1 to 4096"):
        tasks.create("classify", image_size=size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subset": 0}, "subset is 0; allowed is 1 to 1438"),
        ({"subset": 10**6}, "subset is 1000000; allowed is 1 to 1438"),
        ({"augment": "resize"}, "unknown augment 'resize'. Did you mean resized"),
        ({"mean": [0.5, 0.5]}, "mean is .*it needs 1 finite numbers"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        tasks.create("classify", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; allowed is a whole number from 1"),
        ({"rank": 2, "world_size": 2}, "rank is 2; allowed is 0 to 1"),
        ({"world_size": 0}, "world_size is 0"),
        ({"start": 1000}, "start is 1000; allowed is 0 to 239"),
        ({"world_size": 2000}, "1438 training images are too few for 2000 processes"),
    ],
)
def test_batches_that_make_no_sense_are_refused_at_once(options, message):
    with pytest.raises(UsageError, match=message):
        tasks.create("classify").train_batches(**{"epoch": 0, "batch_size": 6, "seed": 0} | options)


def test_wrong_data_is_named(tmp_path, photos):
    with pytest.raises(MissingDataError, match=r"no data folder at .*gone"):
        tasks.create("classify", data=tmp_path / "gone")
    with pytest.raises(UnknownNameError, match="Did you mean digits"):
        tasks.create("classify", data="digts")
    with pytest.raises(UsageError, match="eval_fraction"):
        tasks.create("classify", data=photos, eval_fraction=3)


def test_a_truncated_file_stops_the_epoch_by_name_unless_skipped(photos, tmp_path):
    folder = tmp_path / "photos"
    for source in photos.rglob("*.jpg"):
        target = folder / source.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    bad = folder / "train" / "bee" / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"bee.3\.jpg .*skip_bad=True"):
            epoch_of(tasks.create("classify", data=folder, image_size=16), batch_size=21, workers=workers)
    task = tasks.create("classify", data=folder, image_size=16, skip_bad=True)
    assert len(epoch_of(task, batch_size=20)) == 1
    (line,) = task.describe()["data"]["skipped"]
    assert str(Path("bee") / "3.jpg") in line


def test_cifar_style_archives_train(tmp_path, monkeypatch, photos):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    for part in ("train", "test"):
        with tarfile.open(tmp_path / "data" / "tiny" / f"{part}.tar.xz", "w:xz") as archive:
            for number in range(12):
                picture = tmp_path / "one.jpg"
                Image.fromarray(np.full((32, 32, 3), number * 20, np.uint8)).save(picture)
                archive.add(picture, f"{part}/{number % 3}/{number}.jpg")
    told = []
    task = tasks.create("classify", data="tiny", pixels=True, progress=told.append)
    assert told[-1] == 1.0
    assert task.input_shape == (3, 32, 32)
    assert (task.augmentation.padding, task.augmentation.flip) == (4, True)
    inputs, targets = next(iter(task.train_batches(epoch=0, batch_size=12, seed=0, workers=2)))
    for image, target in zip(inputs, targets, strict=True):
        number = round(image.max().item() / 20)
        assert abs(image.max().item() - number * 20) <= 2
        assert number % 3 == target


def test_the_imagenet_samples_give_their_own_pixels(shared):
    task = tasks.create("classify", data=shared / "data" / "imagenet_samples", subset=8, pixels=True)
    assert task.num_classes == 1000
    inputs, targets = next(iter(task.eval_batches(batch_size=2, workers=1)))
    path = shared / "data" / "imagenet_samples" / "images" / "0001_n01443537.jpg"
    whole = np.asarray(Image.open(path))
    top, left = round((whole.shape[0] - 224) / 2), round((whole.shape[1] - 224) / 2)
    np.testing.assert_array_equal(inputs[1], whole[top : top + 224, left : left + 224].transpose(2, 0, 1))
    assert targets.tolist() == [0, 1]
    ((inputs, _),) = epoch_of(task, batch_size=32, workers=2)
    assert inputs.shape == (8, 3, 224, 224)
