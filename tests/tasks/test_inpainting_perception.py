"""LPIPS and VFID of filled windows, by networks that stand in for those that users bring."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchmetrics
import torchvision

from perception_networks import BUILD_ALEXNET, write_network
from tenfold.errors import DataError, MissingDataError, ShapeError
from tenfold.tasks.inpainting_batches import WindowTargets
from tenfold.tasks.inpainting_metrics import frechet_distance
from tenfold.tasks.inpainting_perception import FrameDistance, WindowDistance

# The mean and deviation of ImageNet for images in -1..1, as LPIPS has them.
SHIFT = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
SCALE = torch.tensor([0.458, 0.448, 0.450])[:, None, None]


def batch(seed, size=(64, 72), empty=()):
    """An answer and its targets; frames named in `empty` have nothing to fill."""
    draw = torch.Generator().manual_seed(seed)
    truth, answer = ((torch.rand(2, 3, 3, *size, generator=draw) * 255).round() / 255 for _ in range(2))
    rest = torch.zeros(2, 3, 1, *size, dtype=torch.bool)
    rest[..., 8:40, 10:50] = True
    for at in empty:
        rest[at] = False
    nothing = torch.zeros_like(rest)
    flow = torch.zeros(2, 2, 2, *size)
    return answer, WindowTargets(truth, truth, torch.zeros_like(truth), rest, nothing, flow, nothing[:, 1:])


@pytest.fixture
def alexnet(monkeypatch):
    torch.manual_seed(0)
    network = BUILD_ALEXNET(weights=None)
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights: network)
    return network.features.eval()


def test_lpips_is_that_of_its_definition_over_frames_with_something_to_fill(alexnet):
    answer, targets = batch(0, empty=[(1, 2)])
    metric = FrameDistance()
    metric.update(answer, targets)
    metric.update(*batch(1, empty=[(slice(None),)]))  # nothing at all to fill
    found = float(metric.compute()["lpips"])

    folder = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
    weights = list(torch.load(folder / "alex.pth", map_location="cpu", weights_only=True).values())
    shown = [(b, t) for b in range(2) for t in range(3) if (b, t) != (1, 2)]
    distances = []
    with torch.no_grad():
        for at in shown:
            pair = (targets.composited(answer)[at], targets.truth[at])
            maps = [((2 * one - 1 - SHIFT) / SCALE)[None] for one in pair]
            distance, level = 0.0, 0
            for number, layer in enumerate(alexnet):
                maps = [layer(one) for one in maps]
                if isinstance(layer, torch.nn.ReLU) and number < 12:
                    directions = [one / one.norm(dim=1, keepdim=True) for one in maps]
                    distance += float((weights[level] * (directions[0] - directions[1]) ** 2).sum(1).mean())
                    level += 1
            distances.append(distance)
    assert found == pytest.approx(sum(distances) / len(distances), rel=1e-4)
    assert found > 0


def test_lpips_of_nothing_is_no_number_and_small_frames_are_refused(alexnet):
    metric = FrameDistance()
    metric.update(*batch(0, empty=[(slice(None),)]))
    assert metric.compute()["lpips"].isnan()
    with pytest.raises(ShapeError, match=r"frames are 24x40 pixels; LPIPS needs 35 on each side"):
        metric.update(*batch(0, size=(24, 40)))


def test_where_the_weights_go_is_told_when_they_cannot_be_had(monkeypatch):
    def unreachable(weights):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models, "alexnet", unreachable)
    with pytest.raises(MissingDataError, match=r"no route to host.*Put alexnet-owt-7be5be79.pth into .*checkpoints"):
        FrameDistance()


def test_vfid_is_the_distance_of_the_features_of_filled_and_true_windows(tmp_path):
    metric = WindowDistance(write_network(tmp_path / "i3d.onnx"))
    batches = [batch(seed) for seed in range(3)]
    for one in batches:
        metric.update(*one)
    true = torch.cat([targets.truth.mean((1, 3, 4)) for _, targets in batches]).double().numpy()
    made = torch.cat([targets.composited(answer).mean((1, 3, 4)) for answer, targets in batches]).double().numpy()
    assert float(metric.compute()["vfid"]) == pytest.approx(frechet_distance(true, made), rel=1e-3)
    answer, targets = batches[0]
    metric.reset()
    metric.update(answer[:1], WindowTargets(*(one[:1] for one in targets)))
    assert metric.compute()["vfid"].isnan()  # one window has no spread


def test_a_file_that_gives_no_features_of_windows_is_refused(tmp_path):
    with pytest.raises(MissingDataError, match=r"there is no file gone\.onnx\. VFID needs an I3D network as ONNX"):
        WindowDistance("gone.onnx")
    (tmp_path / "text.onnx").write_text("weights")
    with pytest.raises(DataError, match=r"text\.onnx is no ONNX network that can be run"):
        WindowDistance(tmp_path / "text.onnx")
    with pytest.raises(DataError, match="has the inputs windows, more; needed is one"):
        WindowDistance(write_network(tmp_path / "two.onnx", inputs=("windows", "more"), operator="Add"))
    longer = WindowDistance(write_network(tmp_path / "longer.onnx", shape=("B", 3, 16, "H", "W")))
    with pytest.raises(ShapeError, match=r"takes no windows of shape \(2, 3, 3, 64, 72\), \(B, 3, T, H, W\)"):
        longer.update(*batch(0))
    total = WindowDistance(write_network(tmp_path / "total.onnx", operator="ReduceSum"))
    with pytest.raises(ShapeError, match="for 2 windows; needed are features"):
        total.update(*batch(0))
