"""Methods on a network that finds and follows objects in video: what they see of it, and that it trains."""

import pytest
import torch
from torch import nn

from tenfold import tasks
from tenfold.cost import Budget, profile
from tenfold.errors import BudgetError, UsageError
from tenfold.methods import create
from tenfold.models import build
from tenfold.quant import describe
from tenfold.train import TrainConfig, fit

OPTIONS = {
    "qat": {"w_bits": 8, "a_bits": 8},
    "sat": {"w_bits": 4, "a_bits": 4},
    "fracbits": {"like": 4},
    "adabits": {"bits": (8, 4)},
}
HEADLESS = ["backbone", "pyramid"]


def tiny(**options):
    torch.manual_seed(0)
    return build(
        "compfeat", num_classes=8, channels=16, region_width=32, proposals=20, inner=16, object_inner=16, mask_layers=1,
        network="torchvision:mobilenet_v3_small", frames=(16,), detections=4, memory=4, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def task():
    return tasks.create(
        "track", sprites=2, image_size=64, frames=3, eval_clips=1, eval_frames=2, diameter=(16, 40), supports=1
    )


# What learns its bits counts the costs of a whole detector several times.
SLOW = pytest.param("fracbits", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["adabits", "qat", "sat", SLOW])
def test_every_layer_of_a_quantized_network_learns_from_clips(task, name):
    method = create(name, **OPTIONS[name])
    network = method.attach(tiny(), None, task.example(batch_size=2)).train()
    inputs, _ = next(iter(task.train_batches(epoch=0, batch_size=2, seed=0)))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(2):  # behind the weights that begin as zeros nothing learns in the first step
        optimizer.zero_grad()
        losses = network(*inputs)
        assert losses.isfinite().all()
        losses.sum().backward()
        optimizer.step()
    gradients = {name: one.grad for name, one in network.named_parameters() if one.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    for part in ("backbone", "pyramid", "frame_aggregation", "object_aggregation", "proposals", "heads", "tracker"):
        assert any(name.startswith(part) and gradient.any() for name, gradient in gradients.items()), part
    nobody = inputs._replace(here=torch.zeros_like(inputs.here), there=torch.zeros_like(inputs.there))
    assert network.eval()(*nobody).isfinite().all()


def test_layers_that_read_other_frames_are_seen_at_work(task):
    """The maps of this backbone have both signs, and the state before a first frame is all zeros."""
    schemes = describe(create("sat", w_bits=4, a_bits=4).attach(tiny(), None, task.example(batch_size=2)))
    assert schemes["frame_aggregation.16.temporal.key"].two_sided
    assert schemes["object_aggregation.temporal.value"].two_sided
    assert not any(name.endswith(("bbox_pred", "cls_logits")) for name in schemes)


def test_one_frame_is_what_a_budget_counts_and_heads_may_stay_in_float(task, tmp_path):
    network = tiny()
    macs = profile(network, (3, 64, 64)).macs
    method = create("sat", w_bits=8, a_bits=8, only=HEADLESS)
    config = TrainConfig(epochs=1, batch_size=2, lr=1e-3, optimizer="adamw", channels_last=False)
    with pytest.raises(BudgetError, match=r"macs: asked for 6e\+07, got 6\.43259e\+07"):
        fit(tiny(), task, config=config, budget=Budget(macs=60_000_000), run_dir=tmp_path / "over", quiet=True)
    result = fit(network, task, [method], Budget(macs=macs), config=config, run_dir=tmp_path / "run", quiet=True)
    assert result.report["cost"]["after"]["macs"] == macs
    assert result.report["takes"] == "frame"
    assert "after, for one frame" in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert {name.split(".")[0] for name in describe(result.network)} == set(HEADLESS)


def test_a_start_by_sensitivity_needs_answers_to_compare():
    with pytest.raises(
        UsageError, match=r'start="sensitivity" compares the answers of a network with classes, and _Two'
    ):
        create("fracbits", like=4, start="sensitivity").attach(_Two(), None, torch.rand(2, 3))


class _Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = self.other(self.one(x))
        return x, self.last(x)
