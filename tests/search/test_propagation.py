"""Network code propagation: the authors' trajectories, many starts at once, one edit at a time."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sines import sine_state
from tenfold.errors import UsageError
from tenfold.search.code_spaces import MULTIRES, NAS_BENCH_201
from tenfold.search.predictor_network import PredictorNetwork
from tenfold.search.propagation import Standard, propagate, winner_takes_all

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


def test_many_starts_move_as_each_would_alone():
    starts = MULTIRES.random(5, np.random.default_rng(0))
    standard = Standard.of(MULTIRES.to_points(MULTIRES.random(50, np.random.default_rng(1))))

    def objective(x):
        return torch.sin(2 * x).sum(1) - 0.1 * (x[:, 0] * x[:, 5])

    together = propagate(objective, MULTIRES, starts, standard, lr=0.3, iterations=6)
    assert (together.codes[0] == starts).all()
    assert (together.codes[-1] != starts).any(1).all()
    for at, start in enumerate(starts):
        alone = propagate(objective, MULTIRES, start[None], standard, lr=0.3, iterations=6)
        np.testing.assert_allclose(together.points[:, at], alone.points[:, 0], atol=1e-9)


def test_winner_takes_all_makes_the_best_edit_and_stops_where_none_helps():
    goal = np.full(27, 3)
    goal[[0, 1, -1]] = 24
    goal = MULTIRES.to_codes(goal[None].astype(float))[0]

    def scores(codes):
        return -(np.abs(codes - goal) / MULTIRES.steps).sum(1)

    starts = MULTIRES.random(3, np.random.default_rng(0))
    path = winner_takes_all(scores, MULTIRES, starts)
    assert (path.codes[-1] == goal).all()
    changed = (path.codes[1:] != path.codes[:-1]).sum(2)
    assert changed.max() == 1  # one number at a time
    for before, after in zip(path.codes, path.codes[1:], strict=False):
        for code, edited in zip(before, after, strict=True):
            best = scores(MULTIRES.neighbours(code)).max()
            assert scores(edited[None])[0] == max(best, scores(code[None])[0])


def test_a_limit_is_kept_at_every_edit():
    def scores(codes):
        total = codes.sum(1)
        return np.where(total <= 18, total, -np.inf)

    path = winner_takes_all(scores, NAS_BENCH_201, np.zeros((1, 6), np.int64))
    assert path.codes.sum(2).max() <= 18
    assert path.codes[-1].sum() == 18


def test_a_start_outside_of_the_space_and_an_empty_walk_are_refused():
    outside = np.full((1, 27), 3)
    standard = Standard.of(MULTIRES.to_points(MULTIRES.random(9, np.random.default_rng(0))))
    with pytest.raises(UsageError, match="lies outside of the space multires"):
        winner_takes_all(lambda codes: codes.sum(1), MULTIRES, outside)
    with pytest.raises(UsageError, match="both must be above zero"):
        propagate(lambda x: x.sum(1), MULTIRES, MULTIRES.random(1, np.random.default_rng(0)), standard, iterations=0)
