"""The search by propagation: better than its table, within the budget, the same after a kill; predictors learn."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from search.test_tables import small_table
from tenfold import build
from tenfold.cost import Budget, profile
from tenfold.errors import BudgetError, CheckpointError, UnknownNameError, UsageError
from tenfold.search.code_costs import CodeCosts
from tenfold.search.code_spaces import NAS_BENCH_201
from tenfold.search.ncp import search_ncp
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
    network = build(result.best.architecture(num_classes=50))
    assert profile(network, (3, 128, 128)).macs == result.best.costs["macs"]
    # A round that is done is not done again, and the end is the same.
    (tmp_path / "run" / "round_1.npz").unlink()
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
        Target.parse("seg=-1")
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
