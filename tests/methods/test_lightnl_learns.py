"""What LightNL is for: comparing what is far apart; and a search that keeps it where it is needed, and only there."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from tenfold import fit
from tenfold.layers.lightnl import LightNonLocal
from tenfold.methods import AutoNL
from tenfold.quant import measure_norms
from tenfold.tasks import Task
from tenfold.train import TrainConfig

SIDE, PATCH = 16, 4
PATTERNS = torch.randn(4, 3, PATCH, PATCH, generator=torch.Generator().manual_seed(9)) * 1.5


def _patches(count, seed, far):
    """Noise with a pattern at the left and one at the right; the class: are they the same (far), or which is left."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    first = torch.randint(4, (count,), generator=generator)
    is_same = torch.randint(2, (count,), generator=generator)
    other = (first + torch.randint(1, 4, (count,), generator=generator)) % 4
    second = torch.where(is_same.bool(), first, other)
    tops = torch.randint(0, SIDE - PATCH + 1, (count, 2), generator=generator).tolist()
    for image, pair, (left, right) in zip(images, zip(first, second, strict=True), tops, strict=True):
        image[:, left : left + PATCH, :PATCH] += PATTERNS[pair[0]]
        image[:, right : right + PATCH, -PATCH:] += PATTERNS[pair[1]]
    return images, is_same if far else first // 2


def _network(light, width=24):
    layers = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    layers += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)]
    layers += [LightNonLocal(width, ratio=0.5)] if light else []
    layers += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))


def _accuracy(light, steps):
    torch.manual_seed(0)
    network = _network(light)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(steps):
        images, targets = _patches(64, step, far=True)
        loss = F.cross_entropy(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    measure_norms(network, [_patches(64, 10_000 + step, far=True)[0] for step in range(10)])
    images, targets = _patches(500, 77_777, far=True)
    with torch.no_grad():
        return float((network.eval()(images).argmax(1) == targets).float().mean())


@pytest.mark.slow  # two trainings of 200 steps
def test_lightnl_compares_what_is_far_apart_and_convolutions_of_the_same_reach_cannot():
    assert _accuracy(light=False, steps=200) < 0.6
    assert _accuracy(light=True, steps=200) > 0.9


class _Patches(Task):
    """The classification of such images as a task."""

    name = "patches"
    input_shape = (3, SIDE, SIDE)
    main_metric = "top1"

    def __init__(self, far):
        self.far = far

    def batches_per_epoch(self, batch_size, world_size=1):
        return 50

    def train_batches(self, *, epoch, batch_size, seed, start=0, rank=0, world_size=1, workers=0):
        for step in range(start, 50):
            yield _patches(batch_size, 1000 * epoch + step, self.far)

    def eval_batches(self, *, batch_size, rank=0, world_size=1, workers=0):
        yield _patches(500, 77_777, self.far)

    def loss(self, outputs, targets, *, label_smoothing=0.0):
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def metrics(self):
        return MetricCollection({"top1": MulticlassAccuracy(2, average="micro")})

    def example(self, batch_size=1):
        return _patches(batch_size, 5, self.far)[0]

    def describe(self):
        return {"task": self.name, "labels": ["0", "1"], "num_outputs": 2}


def _searched(tmp_path, far, weight):
    torch.manual_seed(0)
    config = TrainConfig(
        epochs=10,
        batch_size=64,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=0.0,
        schedule="constant",
        device="cpu",
        seed=1,
    )
    method = AutoNL(cost_weight=weight, ratios=(0.5,), strides=(1,), search_share=0.9, warmup_share=0.3, gate_keep=1.0)
    place = tmp_path / ("far" if far else "near")
    result = fit(_network(light=False), _Patches(far), [method], config=config, run_dir=place, quiet=True)
    (site,) = result.report["found"]["autonl"]["sites"]
    return site["choices"]["place"], result.metrics["top1"]


@pytest.mark.slow  # two searches of 500 steps
def test_a_search_keeps_lightnl_where_the_task_compares_far_places_and_drops_it_where_texture_decides(tmp_path):
    kept, far = _searched(tmp_path, far=True, weight=1.0)
    dropped, near = _searched(tmp_path, far=False, weight=1.0)
    assert kept["open"]
    assert far > 0.9
    assert not dropped["open"]
    assert near > 0.9
