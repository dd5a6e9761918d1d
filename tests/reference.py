"""Reading the tensors that the authors' programs produced."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class Reference:
    """One pair NAME.json and NAME.safetensors: `cases` with settings, `tensors(case)` by short name."""

    def __init__(self, folder: Path, name: str):
        self.cases = json.loads((folder / f"{name}.json").read_text())["cases"]
        self._tensors = load_file(folder / f"{name}.safetensors")

    def tensors(self, case: dict) -> dict[str, torch.Tensor]:
        prefix = case["case"] + "/"
        return {key.removeprefix(prefix): value for key, value in self._tensors.items() if key.startswith(prefix)}


def close(got, expected, tolerance, case=""):
    """Equal up to `tolerance`, absolute and relative; names the case when not."""
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance, msg=lambda text: f"{case}: {text}")


def close_sum(got, expected, case=""):
    """The README's tolerance for long sums: 2e-5 of the largest, and 2e-5 absolute."""
    limit = 2e-5 * max(1.0, float(expected.abs().max()))
    assert float((got - expected).abs().max()) <= limit, f"{case}: {got} is not {expected} to {limit}"


class TinyNetwork(nn.Module):
    """conv 3x3 on pixels, depthwise 3x3, pointwise 1x1, each with batch norm and ReLU; mean; linear."""

    def __init__(self, tensors):
        super().__init__()
        width, outputs = tensors["init.conv0.weight"].shape[0], tensors["init.pw.weight"].shape[0]
        self.conv0 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn0 = nn.BatchNorm2d(width)
        self.dw = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pw = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.fc = nn.Linear(outputs, tensors["init.fc.weight"].shape[0])

    def forward(self, x):
        x = F.relu(self.bn0(self.conv0(x)))
        x = F.relu(self.bn1(self.dw(x)))
        x = F.relu(self.bn2(self.pw(x)))
        return self.fc(x.mean((2, 3)))


def official_optimizer(network):
    """SGD as the authors set it: weight decay on weights that mix channels only."""
    decayed = [p for p in network.parameters() if p.dim() == 2 or (p.dim() == 4 and p.size(1) != 1)]
    others = [p for p in network.parameters() if not any(p is q for q in decayed)]
    groups = [{"params": decayed, "weight_decay": 4e-5}, {"params": others}]
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
