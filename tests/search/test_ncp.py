"""The search by propagation: better than its table, within the budget, the same after a kill; predictors learn."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from search.test_tables import small_table
from tenfold import build
from tenfold.cost import Budget, profile
from tenfold.errors import BudgetError, CheckpointError, UnknownNameError, UsageError
from tenfold.models import Architecture
from tenfold.search.candidates import CandidateSpace
from tenfold.search.code_costs import CodeCosts
from tenfold.search.code_spaces import NAS_BENCH_201
from tenfold.search.ncp import search_ncp
from tenfold.search.origin import MeasuredTask, Origin
from tenfold.search.predictors import PREDICTORS, create_predictor
from tenfold.search.scoring import NcpConfig, Target
from tenfold.search.tables import Table

SMALL = NcpConfig(predictor="gp", starts=4, iterations=5, cost_weights=(0.0, 0.1))
BUDGET = Budget(macs=400_000_000)


@pytest.mark.parametrize("kind", [one for one in PREDICTORS if one != "catboost"])
def test_predictors_learn_a_smooth_table(kind):
    table, fresh = small_table(120), small_table(60, seed=1)
    predictor = create_predictor(kind, table.space).fit(table.codes, table.column("seg"))
    estimate = predictor.predict(fresh.codes)
    truth = fresh.codes.sum(1)
    assert np.corrcoef(estimate.mean, truth)[0, 1] > 0.8
    assert (estimate.std >= 0).all()


def test_what_is_found_beats_the_table_and_keeps_the_budget(tmp_path):
    table = small_table()
    result = search_ncp(table, [Target(name="seg")], budget=BUDGET, config=SMALL, run_dir=tmp_path / "run")
    assert result.best.score > result.start.score
    assert result.best.costs["macs"] <= BUDGET.macs
    costs = [one.costs["macs"] for one in result.front]
    assert costs == sorted(costs)
    network = build(result.best.architecture, num_classes=19)
    assert profile(network, (3, 128, 128)).macs == result.best.costs["macs"]
    # A round that is done is not done again, one that is lost or damaged is, and the end is the same.
    (tmp_path / "run" / "round_1.npz").write_bytes(b"PK")
    again = search_ncp(table, [Target(name="seg")], budget=BUDGET, config=SMALL, run_dir=tmp_path / "run")
    assert again.best.code == result.best.code
    assert [one.code for one in again.front] == [one.code for one in result.front]
    with pytest.raises(CheckpointError, match="holds another search: targets"):
        search_ncp(table, [Target(name="seg/mAcc")], budget=BUDGET, config=SMALL, run_dir=tmp_path / "run")


def test_codes_are_proposed_that_the_table_lacks_within_what_it_has_seen():
    table = small_table()
    small = np.minimum(table.codes, [64 if top > 4 else 2 for top in table.codes.max(0)])
    found, at = np.unique(small, axis=0, return_index=True)
    table = Table(space=table.space, codes=found, metrics={"seg": {"mIoU": table.column("seg")[at]}})
    config = replace(SMALL, caution=-1.0, proposals=5)
    proposed = search_ncp(table, [Target(name="seg")], budget=BUDGET, config=config).proposed
    codes = np.array([one.code for one in proposed])
    assert 2 <= len(codes) <= 5
    assert (codes <= found.max(0)).all()
    assert not set(map(tuple, codes)) & set(map(tuple, found))
    assert all(one.costs["macs"] <= BUDGET.macs for one in proposed)
    assert [one.score for one in proposed] == sorted((one.score for one in proposed), reverse=True)
    assert min((one != other).sum() for one, other in combinations(codes, 2)) > 2


def test_what_cannot_be_searched_is_said():
    table = small_table()
    with pytest.raises(BudgetError, match=r"no code keeps macs=1\.00 k"):
        search_ncp(table, [Target(name="seg")], budget=Budget(macs=1000), config=SMALL)
    with pytest.raises(UsageError, match="only macs and params are counted"):
        search_ncp(table, [Target(name="seg")], budget=Budget(bitops=1000), config=SMALL)
    with pytest.raises(UnknownNameError, match="The table has: seg"):
        search_ncp(table, [Target(name="video")], config=SMALL)
    with pytest.raises(UnknownNameError, match="predictor"):
        create_predictor("oracle", table.space)
    with pytest.raises(UsageError, match="NAME=WEIGHT"):
        Target.parse("seg=0")
    with pytest.raises(UsageError, match="seg is named twice; give it once, with a weight"):
        search_ncp(table, [Target(name="seg/mIoU"), Target(name="seg")], config=SMALL)
    with pytest.raises(UnknownNameError, match="unknown mode of a search 'backwards'"):
        replace(SMALL, mode="backwards")
    with pytest.raises(UsageError, match="the predictor boosting has no gradient"):
        search_ncp(table, [Target(name="seg")], config=replace(SMALL, predictor="boosting", mode="continuous"))
    with pytest.raises(UsageError, match="above zero"):
        CodeCosts(num_classes=0)


def test_of_a_small_space_every_code_is_asked_about():
    space = NAS_BENCH_201
    worth = np.random.default_rng(5).normal(size=(6, 5))
    codes = np.unique(space.random(80, np.random.default_rng(6)), axis=0)
    table = Table(space=space, codes=codes, metrics={"task": {"top1": worth[np.arange(6), codes].sum(1)}})
    config = NcpConfig(predictor="gp", caution=-1.0, proposals=4, cost_weights=(0.0,))
    proposed = search_ncp(table, [Target(name="task")], config=config).proposed
    everything = space.everything()
    assert len(np.unique(everything, axis=0)) == space.size == len(everything)
    fitted = create_predictor("gp", space).fit(codes, table.column("task")).predict(everything)
    known = (everything[:, None] == codes).all(2).any(1)
    best = everything[np.argsort(-np.where(known, -np.inf, fitted.mean + fitted.std), kind="stable")[:4]]
    assert [one.code for one in proposed] == [tuple(map(int, code)) for code in best]


def test_a_search_that_fails_leaves_its_folder_free(tmp_path):
    table = small_table()
    with pytest.raises(UnknownNameError, match="predictor"):
        search_ncp(table, [Target(name="seg")], config=replace(SMALL, predictor="oracle"), run_dir=tmp_path / "run")
    search_ncp(table, [Target(name="seg")], config=SMALL, run_dir=tmp_path / "run")
    other = replace(SMALL, lr=2.0, seed=1)
    with pytest.raises(CheckpointError, match=r"holds another search: config.lr, config.seed differ; search.json says"):
        search_ncp(table, [Target(name="seg")], config=other, run_dir=tmp_path / "run")


def test_less_is_better_where_the_weight_is_below_zero():
    table = small_table()
    most = search_ncp(table, [Target(name="seg")], config=SMALL).best
    least = search_ncp(table, [Target(name="seg", weight=-1.0)], config=SMALL).best
    assert sum(least.code) < table.codes.sum(1).min() < table.codes.sum(1).max() < sum(most.code)
    assert most.score > 0
    assert least.score > 0


@pytest.mark.parametrize("mode", ["continuous", "winner-takes-all"])
def test_either_way_to_move_alone_finds_better_codes(mode):
    table = small_table()
    result = search_ncp(table, [Target(name="seg")], budget=BUDGET, config=replace(SMALL, mode=mode))
    assert result.best.score > result.start.score
    assert all(one.costs["macs"] <= BUDGET.macs for one in result.front)


def test_options_of_any_model_are_searched_by_the_costs_of_its_networks():
    widths = tuple(number / 10 for number in range(24, 0, -1))
    candidates = CandidateSpace(model="mobilenet_v2_tiny", choices={"width": widths})
    task = MeasuredTask(
        kind="classify", options={"data": "x"}, image=(32, 32), in_channels=1, num_classes=4, per_pixel=False
    )
    origin = Origin(candidates=candidates, tasks={"classify": task})
    assert Origin.from_dict(json.loads(json.dumps(origin.to_dict()))) == origin
    space = origin.space
    known = [width for width in sorted(widths) if width not in (0.3, 1.0, 1.7)]
    codes = space.read([[width] for width in known])
    assert codes[:4, 0].tolist() == [0, 1, 3, 4]
    metrics = {"classify": {"top1": np.array(known)}}
    table = Table(space=space, codes=codes, metrics=metrics, origin=origin)

    def macs(width):
        network = build("mobilenet_v2_tiny", width=width, num_classes=4, in_channels=1)
        return profile(network, (1, 32, 32)).macs

    config, targets, costs = (
        NcpConfig(predictor="gp", caution=0.0),
        [Target(name="classify")],
        table.costs_of("classify"),
    )
    found = search_ncp(table, targets, budget=Budget(macs=macs(1.0)), costs=costs, config=config).best
    assert found.code == (1.0,)
    assert found.costs["macs"] == macs(1.0)
    assert found.architecture == Architecture("mobilenet_v2_tiny", {"width": 1.0})
    with pytest.raises(BudgetError, match=r"no code keeps macs=1\.00 k: .* on 32x32 pixels"):
        search_ncp(table, targets, budget=Budget(macs=1000), costs=costs, config=config)
    with pytest.raises(UsageError, match=r"start lies outside of the space mobilenet_v2_tiny: width is 0.35; allowed"):
        search_ncp(table, targets, starts=[[0.35]], config=config)
    with pytest.raises(UsageError, match="start has 2 numbers"):
        search_ncp(table, targets, starts=[[0.2, 1]], config=config)
