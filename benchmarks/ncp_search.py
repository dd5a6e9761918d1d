"""What searches find with the same number of measurements: NAS-Bench-201 true to the table, NAS-Bench-MR by a judge.

    python benchmarks/ncp_search.py --tables FOLDER        # half an hour on one core; resumable

"nas-bench-201": every code's accuracy on ImageNet16-120 is known, so regret is true. Measuring in rounds (a table of
20 random codes, then 5 that `search_ncp` proposes, again and again) beside random search, regularised
evolution (population 20, tournaments of 5) and local search (all neighbours in random order, anew from the best random
code when none is better). Also in one go: 100 or 500 random codes, and then the one code that is found.

"nas-bench-mr": no code but those of the table can be measured; a judge that no search saw (CatBoost and SVR with
features, fitted on all rows) says what found codes are worth. Searches learn from the official 2005 rows. The authors'
way is propagation along their perceptron from their start, believing it; what ours may cost is what that finds, or what
its start costs if that is more.
Beside the judge stands what was really measured: of the code itself where the table has it, and the mean of the five
codes of the table that are nearest to it.
Recorded in results/ncp_search.json, drawn in docs/images/ncp_regret.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from record import machine, write_record

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "ncp_search.json"
PICTURE = HERE.parent / "docs" / "images" / "ncp_regret.png"
SEEDS = tuple(range(16))
FIRST, BATCH = 20, 5
QUERIES = {"proposals in rounds": 100, "random search": 500, "regularised evolution": 500, "local search": 500}
ONE_GO = (100, 500)
TASKS = ("cls-50-1000", "cls-50-100", "cls-10-1000", "cls-10c", "seg", "video")
TASK_201 = "imagenet16-120"
JOINT = (("cls-50-1000", "seg"), ("seg", "video"), ("cls-50-1000", "seg", "video"))


class Measured:
    """NAS-Bench-201 as something to ask: each code once, the best so far kept."""

    def __init__(self, path: Path, most: int) -> None:
        from tenfold.search import read_table

        table = read_table(path)
        self.space = table.space
        self.known: dict[tuple[int, ...], float] = {}
        self.best: list[float] = []
        self._truth = {tuple(map(int, code)): v for code, v in zip(table.codes, table.column(TASK_201), strict=True)}
        self.most = most
        self.optimum = max(self._truth.values())

    @property
    def full(self) -> bool:
        """Whether nothing more may be asked."""
        return len(self.best) >= self.most

    def ask(self, code: Any) -> float:
        """The accuracy of a code; one that is known costs nothing."""
        key = tuple(map(int, code))
        if key not in self.known and not self.full:
            self.known[key] = self._truth[key]
            self.best.append(max([self._truth[key], *self.best[-1:]]))
        return self.known.get(key, -np.inf)


def random_search(asked: Measured, rng: np.random.Generator) -> None:
    """Codes as they come."""
    while not asked.full:
        asked.ask(asked.space.random(1, rng)[0])


def regularised_evolution(asked: Measured, rng: np.random.Generator) -> None:
    """The best of a tournament has a child, the oldest dies (Real et al., arXiv 1802.01548)."""
    population = [(asked.ask(code), code) for code in asked.space.random(20, rng)]
    while not asked.full:
        parent = max((population[at] for at in rng.integers(len(population), size=5)), key=lambda one: one[0])
        child = asked.space.mutate(parent[1], rng)
        population = [*population[1:], (asked.ask(child), child)]


def local_search(asked: Measured, rng: np.random.Generator) -> None:
    """Take the first better neighbour; where there is none, begin at another random code (White et al., 2005.02960)."""
    while not asked.full:
        code = asked.space.random(1, rng)[0]
        value, moved = asked.ask(code), True
        while moved and not asked.full:
            moved = False
            for other in rng.permutation(asked.space.neighbours(code)):
                if (found := asked.ask(other)) > value:
                    code, value, moved = other, found, True
                    break


def _table(asked: Measured) -> Any:
    from tenfold.search.tables import Table

    codes = np.array(list(asked.known))
    return Table(space=asked.space, codes=codes, metrics={TASK_201: {"top1": np.array(list(asked.known.values()))}})


def proposals_in_rounds(asked: Measured, rng: np.random.Generator) -> None:
    """Measure what is proposed, and learn from it."""
    from tenfold.search import NcpConfig, Target, search_ncp

    while len(asked.known) < FIRST:
        asked.ask(asked.space.random(1, rng)[0])
    config = NcpConfig(
        predictor="gp", caution=-1.0, proposals=BATCH, cost_weights=(0.0,), seed=int(rng.integers(2**31))
    )
    while not asked.full:
        found = search_ncp(_table(asked), [Target(name=TASK_201)], config=config).proposed
        for one in found:
            asked.ask(one.code)
        if not found:  # all is known
            asked.ask(asked.space.random(1, rng)[0])


def in_one_go(path: Path, seed: int, count: int) -> dict[str, Any]:
    """The true accuracy of what one search finds, beside the best code it learned from."""
    from tenfold.search import NcpConfig, Target, search_ncp

    asked = Measured(path, count + 1)
    rng = np.random.default_rng(seed)
    while len(asked.known) < count:
        asked.ask(asked.space.random(1, rng)[0])
    best = asked.best[-1]
    config = NcpConfig(proposals=1, cost_weights=(0.0,), seed=seed)
    (found,) = search_ncp(_table(asked), [Target(name=TASK_201)], config=config).proposed
    mean, deviation = found.estimates[TASK_201]
    return {"best_of_table": best, "found": asked.ask(found.code), "estimate": mean, "deviation": deviation}


class Judge:
    """What a code is worth, by predictors that no search uses as they are: the mean of CatBoost and SVR."""

    def __init__(self, table: Any, task: str) -> None:
        from catboost import CatBoostRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVR

        rows = table.rows(task)
        columns, values = self._columns(table.codes[rows]), table.column(task)[rows]
        self._mean, self._std = values.mean(), values.std()
        trees = CatBoostRegressor(iterations=1000, depth=6, verbose=0, thread_count=1, allow_writing_files=False)
        machine_ = make_pipeline(StandardScaler(), SVR(C=3.0, epsilon=0.05, gamma=0.003))
        self._models = [one.fit(columns, (values - self._mean) / self._std) for one in (trees, machine_)]

    def __call__(self, code: Any) -> float:
        """The estimate of one code, in the unit of the metric."""
        columns = self._columns(np.array([code]))
        return float(np.mean([one.predict(columns)[0] for one in self._models]) * self._std + self._mean)

    @staticmethod
    def _columns(codes: Any) -> Any:
        import torch

        from tenfold.search.code_features import log_code, size_features

        points = torch.from_numpy(codes.astype(np.float64))
        return torch.cat([points, log_code(points), size_features(points)], 1).numpy()


def authors_way(table: Any, rows: Any, tasks: tuple[str, ...], seed: int) -> tuple[tuple[int, ...], float]:
    """Propagation along their perceptrons, 70 steps of 3 from their start, alpha 0.5; the best code by its mean.

    Returns:
        The code, and what the perceptron of the first task promises.
    """
    import torch

    from tenfold.models.multires_code import DEFAULT_CODE
    from tenfold.search import create_predictor
    from tenfold.search.code_costs import CodeCosts
    from tenfold.search.propagation import Standard, propagate

    fitted = []
    for task in tasks:
        values = table.column(task)[rows]
        fitted.append((create_predictor("mlp", table.space, seed).fit(table.codes[rows], values), values))
    standard, costs = Standard.of(table.space.to_points(table.codes[rows])), CodeCosts()
    macs = np.asarray(costs.of(list(table.codes[rows].T))["macs"], np.float64)

    def objective(x: Any) -> Any:
        points = x * standard.std + standard.mean
        gain = sum((one.at(points)[0] - values.mean()) / values.std() for one, values in fitted) / len(fitted)
        return gain - 0.5 * (costs.of(list(points.unbind(1)))["macs"] - macs.mean()) / macs.std()

    path = propagate(objective, table.space, np.array([DEFAULT_CODE]), standard)
    codes = path.visited()
    worth = sum((one.predict(codes).mean - values.mean()) / values.std() for one, values in fitted)
    best = codes[int(np.argmax(worth))]
    with torch.no_grad():
        promised = fitted[0][0].predict(best[None]).mean[0]
    return tuple(map(int, best)), float(promised)


def on_nas_bench_mr(path: Path, tasks: tuple[str, ...], seed: int, judges: dict[str, Judge]) -> dict[str, Any]:
    """Both ways, and random search within the multiply-adds that ours may have; found codes judged on each task."""
    from tenfold.cost import Budget
    from tenfold.models.multires_code import DEFAULT_CODE
    from tenfold.search import NcpConfig, Target, read_table, search_ncp
    from tenfold.search.code_costs import CodeCosts
    from tenfold.search.tables import official_split

    table, costs = read_table(path), CodeCosts()
    rows = official_split(len(table.codes))[0]
    began = time.process_time()
    theirs, promised = authors_way(table, rows, tasks, seed)
    seconds = [time.process_time() - began]
    limit = max(int(costs.of(theirs)["macs"]), int(costs.of(DEFAULT_CODE)["macs"]))
    began = time.process_time()
    targets = [Target(name=task) for task in tasks]
    result = search_ncp(table, targets, budget=Budget(macs=limit), costs=costs, config=NcpConfig(seed=seed), rows=rows)
    seconds.append(time.process_time() - began)
    rng = np.random.default_rng(seed)
    drawn = table.space.random(20_000, rng)
    drawn = drawn[np.asarray(costs.of(list(drawn.T))["macs"]) <= limit][:1000]
    mean, deviation = result.best.estimates[tasks[0]]
    codes = {
        "start": DEFAULT_CODE,
        "authors' way": theirs,
        "found": result.best.code,
        "best of the table": result.start.code,
    }
    return {
        "seed": seed,
        "tasks": list(tasks),
        "limit": limit,
        "codes": {name: list(code) for name, code in codes.items()},
        "macs": {name: int(costs.of(code)["macs"]) for name, code in codes.items()},
        "judged": {name: {task: judges[task](code) for task in judges} for name, code in codes.items()},
        "random_best": {task: max(judges[task](code) for code in drawn[:200]) for task in tasks},
        "promised": {"authors' way": promised, "found": mean, "deviation": deviation},
        "cpu_seconds": dict(zip(("authors' way", "found"), seconds, strict=True)),
    }


def measured_near(table: Any, code: list[int], tasks: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """What the table says of a code (None where it is not there), and of the five codes nearest to it, in octaves."""
    found: dict[str, dict[str, Any]] = {"itself": {}, "nearest": {}}
    for task in tasks:
        rows = table.rows(task)
        distance = np.linalg.norm(np.log2(table.codes[rows]) - np.log2(code), axis=1)
        near = rows[np.argsort(distance, kind="stable")[:5]]
        found["nearest"][task] = float(table.column(task)[near].mean())
        found["itself"][task] = float(table.column(task)[near[0]]) if distance.min() == 0 else None
    return found


def draw(record: dict[str, Any]) -> None:
    """Regret against measurements, mean over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="networks measured", ylabel="points below the best network of the space")
    for name in QUERIES:
        curves = [run["best"] for run in record["curves"] if run["name"] == name]
        if curves:
            regret = record["optimum"] - np.mean(curves, 0)
            axes.plot(np.arange(1, len(regret) + 1), np.maximum(regret, 1e-3), label=name)
    axes.set_xscale("log")
    axes.set_ylim(0, 3)
    axes.set_xlim(10, 500)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(PICTURE, dpi=150)


WAYS = {
    "proposals in rounds": proposals_in_rounds,
    "random search": random_search,
    "regularised evolution": regularised_evolution,
    "local search": local_search,
}


def main() -> None:
    """Do what is missing in the results, one after another."""
    import torch

    from tenfold.search import read_table

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True, help="folder with nas_bench_201.npz and nas_bench_mr.npz")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells, multires = arguments.tables / "nas_bench_201.npz", arguments.tables / "nas_bench_mr.npz"
    record: dict[str, Any] = {"curves": [], "one_go": [], "multires": []}
    if arguments.results.exists():
        record |= json.loads(arguments.results.read_text())

    def keep() -> None:
        write_record(arguments.results, {**record, "command": "ncp_search.py", "machine": machine()})
        draw(record)

    for name, seed in missing([(name, seed) for seed in SEEDS for name in QUERIES], record["curves"], "name", "seed"):
        asked = Measured(cells, QUERIES[name])
        WAYS[name](asked, np.random.default_rng(seed))
        record["optimum"] = asked.optimum
        record["curves"].append({"name": name, "seed": seed, "best": asked.best})
        print(f"{name}, seed {seed}: {asked.best[-1]:.2f}", flush=True)
        keep()
    for count, seed in missing(
        [(count, seed) for count in ONE_GO for seed in SEEDS], record["one_go"], "count", "seed"
    ):
        record["one_go"].append({"count": count, "seed": seed, **in_one_go(cells, seed, count)})
        keep()
    judges: dict[str, Judge] = {}
    wanted = [((task,), seed) for seed in SEEDS[:3] for task in TASKS] + [(tasks, 0) for tasks in JOINT]
    for tasks, seed in missing(wanted, record["multires"], "tasks", "seed"):
        judges = judges or {task: Judge(read_table(multires), task) for task in TASKS}
        record["multires"].append(on_nas_bench_mr(multires, tasks, seed, judges))
        print(f"{', '.join(tasks)}, seed {seed}: {record['multires'][-1]['judged']}", flush=True)
        keep()

    for run in record["multires"]:
        if "measured" not in run:
            table = read_table(multires)
            run["measured"] = {name: measured_near(table, code, TASKS) for name, code in run["codes"].items()}
    keep()


def missing(wanted: list[tuple[Any, Any]], done: list[dict[str, Any]], *keys: str) -> Iterator[tuple[Any, Any]]:
    """What is not among the results yet."""
    for one in wanted:
        if not any([run[key] for key in keys] == [list(v) if isinstance(v, tuple) else v for v in one] for run in done):
            yield one


if __name__ == "__main__":
    main()
