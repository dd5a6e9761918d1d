"""Network code propagation: the authors' trajectories, many starts at once, one edit at a time."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sines import sine_state
from tenfold.search.code_spaces import MULTIRES
from tenfold.search.predictor_network import PredictorNetwork
from tenfold.search.propagation import Standard, propagate

TRAINED = ("seg", "cls-50-1000", "video")


def _read(shared, name):
    return json.loads((shared / "reference/ncp" / name).read_text())


def _filled(shared):
    facts = _read(shared, "propagation.json")
    network = PredictorNetwork(27, facts["predictor"]["heads"]).eval()
    network.load_official([sine_state({name: shape for _, name, shape in facts["predictor"]["tensors"]})])
    return network, facts


def _standard(stats):
    return Standard(torch.tensor(stats["input_mean"]), torch.tensor(stats["input_std"]))


def _objective(network, alpha):
    def objective(x):
        answers = network(x)[0]
        return answers[:, 0] - alpha * answers[:, -2]

    return objective


def _agrees(path, network, stats, trajectory, tolerance):
    """Every step's point, code and predictions are the authors'."""
    mean, std = (torch.tensor(stats[f"output_{kind}"]) for kind in ("mean", "std"))
    standard = _standard(stats)
    for step, expected in enumerate(trajectory):
        point = path.points[step, 0]
        np.testing.assert_allclose(point, expected["continuous"], rtol=tolerance, atol=tolerance)
        near = MULTIRES.steps / 2 - np.abs((point % MULTIRES.steps) - MULTIRES.steps / 2)  # distance from a whole step
        on_edge = np.abs(near - MULTIRES.steps / 2) < 1e-3
        assert (path.codes[step, 0] == expected["rounded"])[~on_edge].all()
        with torch.no_grad():
            answers = (
                network(((torch.from_numpy(point).float() - standard.mean) / standard.std)[None])[0, 0] * std + mean
            )
        np.testing.assert_allclose(answers, expected["pred_continuous"], rtol=tolerance, atol=tolerance)


def test_the_predictor_equals_the_official_one(shared):
    network, facts = _filled(shared)
    forward = facts["forward"]
    x = torch.tensor(forward["normalized_input"]).requires_grad_()
    answers = network(x)[0]
    torch.testing.assert_close(answers, torch.tensor(forward["output"]), atol=1e-6, rtol=1e-5)
    for key, column in (("grad_main", 0), ("grad_flops", -2)):
        (gradient,) = torch.autograd.grad(answers[:, column].sum(), x, retain_graph=True)
        torch.testing.assert_close(gradient, torch.tensor(forward[key]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("case", range(4))
def test_editing_follows_the_official_trajectory(shared, case):
    network, facts = _filled(shared)
    settings = facts["cases"][case]
    alpha = settings["alpha"] if settings["use_flops"] else 0.0
    path = propagate(
        _objective(network, alpha),
        MULTIRES,
        settings["start"],
        _standard(facts["stats_seg_all_rows"]),
        lr=settings["lr"],
        iterations=settings["iters"] - 1,
        dtype=torch.float32,
    )
    _agrees(path, network, facts["stats_seg_all_rows"], settings["trajectory"], 1e-4)


@pytest.mark.parametrize("task", TRAINED)
def test_editing_by_a_trained_predictor_follows_the_official_trajectory(shared, task):
    facts = _read(shared, f"trajectory_{task}_seed233.json")
    network = PredictorNetwork(27, facts["heads"]).eval()
    network.load_official([load_file(shared / f"reference/ncp/predictor_{task}_seed233.safetensors")])
    settings = facts["settings"]
    path = propagate(
        _objective(network, settings["alpha"]),
        MULTIRES,
        facts["trajectory"][0]["rounded"],
        _standard(facts["stats"]),
        lr=settings["lr"],
        iterations=settings["iters"] - 1,
        dtype=torch.float32,
    )
    _agrees(path, network, facts["stats"], facts["trajectory"], 1e-4)
