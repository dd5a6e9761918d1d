"""A whole search at the smallest size: it keeps its budget, and survives whatever stops it."""

import json

import pytest
import torch

from tenfold.cost import Budget, profile
from tenfold.errors import ArtifactError, BudgetError, CheckpointError, MissingDataError, UsageError
from tenfold.models import Architecture, build
from tenfold.models.autospace import Skeleton
from tenfold.search import AutoSpace, CellSpace, read_space, search_autospace
from tenfold.search.autospace import HAND_MADE
from tenfold.search.cell_costs import CellCosts
from tenfold.search.finding import write_space
from tenfold.search.supernet import cell_supernet, mixed_blocks
from tenfold.train import Interrupted, fit
from train.toy_training import ToyTask, assert_same_end, toy_config

LIMIT = 45_000
MICRO = Skeleton(4, 1, 4, ((6, 2, 1), (8, 1, 2)), 16)
CONFIG = {"epochs": 2, "checkpoint_steps": 3, "ema_decay": 0.5}


def _search(run_dir, budget="macs=45k", task=None, resume=False, **options):
    method = AutoSpace(**{"rounds": 2, "evolved": 2, "kept": 2, "population": 5, **options})
    torch.manual_seed(0)
    network = cell_supernet(MICRO, capacity=method.capacity, space=CellSpace(), num_classes=4, in_channels=1)
    return fit(
        network,
        task or ToyTask(train_images=160),
        [method],
        Budget.parse(budget) if budget else None,
        config=toy_config(**CONFIG),
        run_dir=run_dir,
        resume=resume,
        quiet=True,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return _search(tmp_path_factory.mktemp("search") / "whole")


def test_the_found_network_is_ordinary_and_keeps_the_budget(whole):
    assert not mixed_blocks(whole.network)
    found = whole.report["found"]["autospace"]
    counted = profile(whole.network, (1, 8, 8))
    assert counted.macs == found["chosen"]["macs"] <= LIMIT
    assert counted.params == found["chosen"]["params"]
    again = build(Architecture.from_dict(found["architecture"]))
    again.load_state_dict(whole.network.state_dict())
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), whole.network(x))


def test_every_round_is_recorded_and_expects_the_limit(whole):
    rows = whole.report["found"]["autospace"]["trajectory"]
    assert [row["round"] for row in rows] == [1, 2]
    # The limit binds in one round at least; where it does not, the network is expected to be cheaper.
    assert max(row["macs"] for row in rows) == pytest.approx(LIMIT, rel=0.01)
    assert all(row["macs"] <= 1.01 * LIMIT for row in rows)
    space = whole.report["found"]["autospace"]["space"]
    assert [len(layer["evolved"]) for layer in space] == [2, 2]
    for layer in space:
        fitness = [cell["fitness"] for cell in layer["evolved"]]
        assert fitness == sorted(fitness, reverse=True)
        assert any(fitness)


# In the second round of the evolution, while scores are trained; and in the choice of a network.
@pytest.mark.parametrize("step", [8, 14])
def test_a_search_that_was_stopped_ends_as_if_it_had_not(whole, tmp_path, step):
    with pytest.raises(Interrupted):
        _search(tmp_path / "run", task=ToyTask(train_images=160, interrupted_step=step))
    _search(tmp_path / "run", resume=True)
    assert_same_end(whole.run_dir, tmp_path / "run")


def test_a_killed_search_goes_on_from_its_last_checkpoint(whole, tmp_path):
    """As after a kill: the newest checkpoints are gone or broken, and so is the end of the run."""
    with pytest.raises(Interrupted):
        _search(tmp_path / "run", task=ToyTask(train_images=160, interrupted_step=11))
    newest, before = sorted((tmp_path / "run/checkpoints").glob("step_*"), reverse=True)
    assert before.exists()
    newest.write_bytes(newest.read_bytes()[:-100])
    _search(tmp_path / "run", resume=True)
    assert_same_end(whole.run_dir, tmp_path / "run")


def test_no_round_makes_it_a_search_in_the_hand_made_space(tmp_path):
    result = _search(tmp_path / "run", budget="macs=70k,params=3k", rounds=0)
    found = result.report["found"]["autospace"]
    assert found["space"] == found["trajectory"] == []
    assert set(found["chosen"]["genes"]) <= {*map(str, HAND_MADE), "skip"}
    counted = profile(result.network, (1, 8, 8))
    assert counted.macs <= 70_000
    assert counted.params <= 3_000


def test_a_known_space_is_searched_without_evolution(tmp_path):
    space = (("253115/0/01", "555155/1/00"), ("235135/0/00",))
    result = _search(tmp_path / "run", budget="", space=space, paths=3)
    found = result.report["found"]["autospace"]
    assert found["trajectory"] == []
    allowed = {*found["always"], "skip", "253115/0/01", "555155/1/00", "752155/1/00", "235135/0/00"}
    assert set(found["chosen"]["genes"]) <= allowed
    assert "912112/2/00" in found["always"]


def test_a_budget_out_of_reach_is_refused_before_the_search(tmp_path):
    with pytest.raises(BudgetError, match=r"no network of this space has 10.0 k macs: the least is \d"):
        _search(tmp_path / "run", budget="macs=10k")
    with pytest.raises(UsageError, match=r"keeps limits on macs and params, not on bitops"):
        _search(tmp_path / "other", budget="macs=60k,bitops=1M")


def test_the_tightest_budget_that_is_promised_is_kept(tmp_path):
    with pytest.raises(BudgetError, match="the least is"):
        _search(tmp_path / "none", budget="params=10", rounds=0)
    torch.manual_seed(0)
    network = cell_supernet(MICRO, capacity=40, space=CellSpace(), num_classes=4, in_channels=1)
    images = torch.zeros(1, 1, 8, 8)
    AutoSpace(rounds=0).attach(network, None, images)
    least = int(CellCosts(network, {}, images).least(list(mixed_blocks(network).values()))[0])
    result = _search(tmp_path / "run", budget=f"macs={least}", rounds=0)
    assert profile(result.network, (1, 8, 8)).macs == least


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rounds": -1, "mutation": 2}, r"rounds is -1; .* from 0; mutation is 2; allowed is 0 to 1"),
        ({"paths": 1}, r"paths is 1; allowed is a whole number from 2, or none"),
        ({"population": 4, "evolved": 4}, r"population is 4; it must be above evolved = 4"),
        ({"score_lr": 0.0}, r"score_lr is 0.0; allowed is a number above 0"),
        ({"space": [["512112/9/00"]]}, r"layer 0 of the space: .*dim is 9; allowed are 0, 1, 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(UsageError, match=reason):
        AutoSpace(**options)


def test_a_search_that_cannot_work_says_why(tmp_path):
    with pytest.raises(UsageError, match=r"the space has 1 layers, but this skeleton needs 2"):
        _search(tmp_path / "a", space=(("235135/0/00",),))
    with pytest.raises(
        UsageError, match=r"10 of 20 steps for 6 rounds of evolution are too few: a round takes at least"
    ):
        _search(tmp_path / "b", rounds=6)
    with pytest.raises(UsageError, match="searches in a supernet of cells only"):
        AutoSpace().attach(build("mobilenet_v2_tiny"), None, torch.zeros(1, 3, 32, 32))
    with pytest.raises(UsageError, match=r"unknown skeleton 'tinny'. Did you mean tiny"):
        search_autospace(ToyTask(), run_dir=tmp_path / "c", skeleton="tinny")
    with pytest.raises(UsageError, match="unknown head"):
        search_autospace(ToyTask(), run_dir=tmp_path / "c", head="none")


def test_a_state_that_is_damaged_is_refused(whole):
    method = AutoSpace(rounds=3, evolved=2, kept=2, population=5)
    torch.manual_seed(0)
    network = cell_supernet(MICRO, capacity=method.capacity, space=CellSpace(), num_classes=4, in_channels=1)
    method.attach(network, None, torch.zeros(1, 1, 8, 8))
    good = method.state_dict()
    method.load_state_dict(good)
    for key, value in {"populations": [[]], "learned": [["9/9"], []], "step": None, "optimizer": {}}.items():
        with pytest.raises(CheckpointError, match="the state of the search is damaged"):
            method.load_state_dict({**good, key: value})


def test_spaces_are_read_from_files_with_care(tmp_path):
    write_space(tmp_path / "space.json", [["253115/0/01"], []], "tiny")
    assert read_space(str(tmp_path)) == read_space(str(tmp_path / "space.json")) == (("253115/0/01",), ())
    published = read_space("published")
    assert (len(published), len(published[0]), published[0][0]) == (11, 9, "255125/1/01")
    with pytest.raises(MissingDataError, match="there is no space"):
        read_space(str(tmp_path / "none.json"))
    for content, reason in {
        "{": "cannot read the space",
        json.dumps({"layers": []}): "is no space: it is not in the form",
        json.dumps({"format": "tenfold.cell_space/1", "layers": [["999"]]}): "is damaged: '999' is no gene",
        json.dumps({"format": "tenfold.cell_space/1", "layers": [3]}): "is damaged",
    }.items():
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ArtifactError, match=reason):
            read_space(str(tmp_path / "bad.json"))
