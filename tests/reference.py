"""Reading the tensors that the authors' programs produced."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file


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
