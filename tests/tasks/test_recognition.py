"""Recognition: a clip's scores are the mean of its frames', with any network that classifies images."""

import pytest
import torch
import torch.nn.functional as F

from tenfold import build, fit, tasks
from tenfold.errors import UnknownNameError, UsageError
from tenfold.train import TrainConfig


@pytest.fixture(scope="module")
def task():
    return tasks.create("recognize", frames=3, image_size=16, subset=64)


def test_batches_hold_the_frames_of_a_clip_in_a_row(task):
    inputs, targets = next(iter(task.train_batches(epoch=0, batch_size=8, seed=0)))
    assert inputs.shape == (24, 1, 16, 16)
    assert targets.shape == (8,)
    again, _ = next(iter(task.train_batches(epoch=0, batch_size=8, seed=0, workers=2)))
    assert torch.equal(inputs, again)
    judged = list(task.eval_batches(batch_size=30))
    assert judged[0][0].shape == (30, 1, 16, 16)
    assert sum(len(targets) for _, targets in judged) == task.eval_size == 359
    assert len(next(iter(task.eval_batches(batch_size=1)))[1]) == 1  # one clip at least
    assert task.example(4).shape == (4, 1, 16, 16)


def test_scores_of_a_clip_are_the_mean_of_its_frames(task):
    class Network(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10]

    inputs, targets = next(iter(task.eval_batches(batch_size=12)))
    frames = inputs.flatten(1)[:, :10]
    wanted = torch.stack([frames[3 * clip : 3 * clip + 3].mean(0) for clip in range(4)])
    assert torch.allclose(task.infer(Network(), inputs), wanted)
    assert torch.allclose(task.loss(frames, targets), F.cross_entropy(wanted, targets))
    assert torch.equal(task.loss(wanted, targets), F.cross_entropy(wanted, targets))


def test_multires_gives_a_clip_what_the_task_gives_it(task):
    torch.manual_seed(0)
    network = build("multires_tiny", num_classes=10, in_channels=1).eval()
    inputs, _ = next(iter(task.eval_batches(batch_size=6)))
    with torch.no_grad():
        assert torch.allclose(network(inputs.unflatten(0, (2, 3))), task.infer(network, inputs), atol=1e-5)


def test_it_is_described_and_opened_again(task):
    described = task.describe()
    assert (described["task"], described["frames"], described["num_outputs"]) == ("recognize", 3, 10)
    again = tasks.reopen(described, None)
    first, second = (next(iter(one.eval_batches(batch_size=9))) for one in (task, again))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_what_cannot_be_is_refused(task, tmp_path):
    for options, reason in (({"frames": 0}, "frames is 0"), ({"eval_fraction": 1.0}, r"eval_fraction is 1\.0")):
        with pytest.raises(UsageError, match=reason):
            tasks.create("recognize", **options)
    with pytest.raises(UnknownNameError, match=r"'padd'.*pad"):
        tasks.create("recognize", augment="padd")
    config = TrainConfig(epochs=1, batch_size=16, mixup=0.2, device="cpu")
    with pytest.raises(UsageError, match="3 images have one together"):
        fit(build("mobilenet_v2_tiny", in_channels=1), task, config=config, run_dir=tmp_path / "run", quiet=True)
