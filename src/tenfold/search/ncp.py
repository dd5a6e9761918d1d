"""The search by network code propagation: from a table of trained candidates to codes within a budget.

A predictor is fitted for each target. From many starts at once, codes follow the gradient of what the predictors say,
then single edits finish what rounding has left. What is maximised is a weighted sum over the targets of cautious
estimates (mean minus a number of deviations) in units of each target's own spread, so that propagation does not end
where a predictor knows least. The cost is counted from the code; a budget is never exceeded.

A space of no more than 20,000 codes is asked about as a whole instead.

Several rounds weigh the cost differently and together give a Pareto front. A round that is done is in the run folder; a
search that was killed does only the others.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.cost import Budget
from tenfold.errors import CheckpointError
from tenfold.files import written_whole
from tenfold.search.code_costs import CodeCosts, check_budget
from tenfold.search.code_spaces import Codes
from tenfold.search.ncp_rounds import FoundCode, Rounds
from tenfold.search.run_folders import claim, differences
from tenfold.search.scoring import NcpConfig, Score, Target, check_targets
from tenfold.search.tables import Table

_SETTINGS, _ROUND = "search.json", "round_{}.npz"


@dataclass(frozen=True, kw_only=True)
class NcpResult:
    """What a search found."""

    best: FoundCode
    """The highest score within the budget."""
    front: list[FoundCode]
    """Codes within the budget that no cheaper code equals, cheapest first."""
    start: FoundCode
    """The code of the table with the highest score within the budget, for comparison."""
    proposed: list[FoundCode]
    """Codes within the budget that the table lacks, the highest score first: those to measure next."""
    asked: int
    """Codes that the predictors were asked about by single edits and at the end."""
    seconds: dict[str, float]
    """Of fitting and of searching."""


def search_ncp(
    table: Table,
    targets: Sequence[Target],
    *,
    budget: Budget | None = None,
    costs: CodeCosts | None = None,
    config: NcpConfig | None = None,
    starts: Sequence[Sequence[int | float]] | None = None,
    rows: NDArray[np.integer] | None = None,
    run_dir: Path | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> NcpResult:
    """Search for codes that are best at some targets within a budget.

    Args:
        table: of trained candidates.
        targets: what to raise.
        budget: of multiply-adds and parameters; never exceeded.
        costs: image and classes by which the budget is counted; default: those of the first target's task.
        config: how to search.
        starts: further codes to start from, as people write them, such as the network that is used today, or what
            another task's search found.
        rows: of the table to learn from and to start from; default: all.
        run_dir: keeps what is done; a search that was killed goes on from there, to the same result.
        notice: is told what happens, in a few words.

    Raises:
        UnknownNameError: if a target or the predictor does not exist.
        UsageError: if the budget limits something that cannot be counted from a code, or a start is no code.
        BudgetError: if no code keeps the budget.
        DataError: if too few candidates were measured.
        CheckpointError: if the run folder belongs to another search, or does not say to which.
    """
    budget, config = budget or Budget(), config or NcpConfig()
    check_targets(table, targets)
    costs = costs or table.costs_of(targets[0].name)
    check_budget(table.space, costs, budget)
    given = table.space.read(starts, "start") if starts is not None else table.codes[:0]
    order = _fingerprint(table, targets, budget, costs, config, given, rows)
    if run_dir is not None and (differing := differences(run_dir / _SETTINGS, order)):
        raise CheckpointError(
            f"{run_dir} holds another search: {', '.join(differing)} differ; {_SETTINGS} says what it was. Give "
            "another folder (--out), or the same options to go on with that one."
        )
    began = time.perf_counter()
    score = Score(table, targets, config, rows, notice)
    fitted = time.perf_counter()
    if run_dir is not None:
        claim(run_dir / _SETTINGS, order)
    known = table.codes if rows is None else table.codes[np.asarray(rows)]
    task = table.measured_task(targets[0].name)
    per_pixel = (costs is not None and costs.pixels) or (task is not None and task.per_pixel)
    search = Rounds(score, budget, costs, config, np.concatenate([given, known]), per_pixel=per_pixel)
    found = [search.first]
    for number, weight in enumerate(search.cost_weights):
        notice(f"round {number + 1} of {len(search.cost_weights)}")
        found.append(_kept_round(run_dir, number, lambda weight=weight: search.round(weight, len(given))))  # type: ignore[misc]
    visited = np.unique(np.concatenate(found), axis=0)
    best, front, start = search.judge(visited, table)
    proposed = search.propose(visited, table)
    seconds = {"fit": fitted - began, "search": time.perf_counter() - fitted}
    return NcpResult(best=best, front=front, start=start, proposed=proposed, asked=score.asked, seconds=seconds)


def _kept_round(run_dir: Path | None, number: int, make: Callable[[], Codes]) -> Codes:
    """What a round found, read from the run folder if it is done."""
    if run_dir is None:
        return make()
    path = run_dir / _ROUND.format(number)
    if path.is_file():
        with suppress(Exception), np.load(path, allow_pickle=False) as archive:  # a damaged round is done again
            return archive["codes"]
    codes = make()
    with written_whole(path) as part, part.open("wb") as file:
        np.savez(file, codes=codes)
    return codes


def _fingerprint(
    table: Table,
    targets: Sequence[Target],
    budget: Budget,
    costs: CodeCosts | None,
    config: NcpConfig,
    starts: Codes,
    rows: NDArray[np.integer] | None,
) -> dict[str, Any]:
    """All that decides what a search finds."""
    digest = hashlib.sha256(table.codes.tobytes())
    tasks = sorted({target.name.partition("/")[0] for target in targets})
    for column in (*(one for task in tasks for one in table.metrics[task].values()), *table.costs.values()):
        digest.update(np.ascontiguousarray(column).tobytes())
    if rows is not None:
        digest.update(np.asarray(rows, np.int64).tobytes())
    return {
        "targets": {target.name: target.weight for target in targets},
        "budget": budget.to_dict(),
        "costs": None if costs is None else costs.to_dict(),
        "config": {**vars(config), "cost_weights": list(config.cost_weights)},
        "starts": starts.tolist(),
        "table": digest.hexdigest(),
    }
