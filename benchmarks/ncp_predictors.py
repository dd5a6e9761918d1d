"""How well predictors rank the networks of NAS-Bench-MR: the official split, the published program and 14 peers.

    python benchmarks/ncp_predictors.py --table nas_bench_mr.npz        # forty minutes on one core; resumable

Each learns from 2005 rows and is judged on the other 502 by Kendall's tau, Spearman's rho and the mean absolute error
of the main metric; and by how often the truth lies within one and two of the deviations that it states (68 % and 95 %
if they are honest). Only rows of training standardise. Two tasks of the shared table lack their 502 rows; for these a
fifth of the other rows is set aside, which is another, smaller problem than the published figures beside them tell of.
Recorded in results/ncp_predictors.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from record import machine, write_record

RESULTS = Path(__file__).parent / "results" / "ncp_predictors.json"
SEEDS = (0, 1, 2, 3, 4)
KINDS = ("mlp", "lightgbm", "catboost", "gp", "blend")
# Kendall, Spearman, mean absolute error: measured on the same split with other people's programs, three seeds of each
# perceptron. "With features" is the code, its logarithms and what follows from it: widths, depths and costs.
PUBLISHED: dict[str, dict[str, tuple[float, float, float]]] = {
    name: dict(
        zip(
            ("cls-50-1000", "cls-50-100", "cls-10-1000", "cls-10c", "seg", "seg-4x", "video", "video-p"),
            [tuple(float(number) for number in cell.split("/")) for cell in row.split()],  # type: ignore[misc]
            strict=True,
        )
    )
    for name, row in {
        "official perceptron, best": ".715/.877/.533 .714/.894/1.249 .452/.620/.864 .795/.943/1.123 .763/.915/.755 "
        ".751/.915/.864 .740/.911/1.197 .678/.857/1.477",
        "official perceptron, last": ".714/.876/.548 .712/.892/1.276 .396/.554/.921 .794/.943/1.138 .762/.915/.768 "
        ".748/.912/.876 .734/.907/1.224 .677/.857/1.499",
        "ridge": ".605/.784/1.010 .602/.793/1.654 .427/.591/.911 .677/.862/1.811 .536/.711/1.886 .631/.828/1.424 "
        ".639/.835/1.638 .528/.720/2.421",
        "ridge, degree 2": ".637/.809/.723 .670/.860/1.429 .388/.542/.929 .750/.917/1.415 .714/.879/.969 "
        ".720/.894/.988 .707/.889/1.368 .613/.803/1.968",
        "10 nearest neighbours": ".585/.767/.846 .576/.772/1.942 .308/.442/1.020 .598/.795/2.280 .591/.771/1.370 "
        ".627/.817/1.296 .547/.750/2.104 .496/.692/2.601",
        "SVR": ".689/.859/.657 .679/.867/1.392 .437/.605/.889 .766/.927/1.359 .743/.899/.850 .734/.904/.939 "
        ".711/.892/1.395 .632/.824/2.015",
        "SVR, with features": ".702/.869/.567 .709/.890/1.270 .430/.594/.903 .794/.942/1.176 .760/.911/.733 "
        ".748/.912/.850 .738/.910/1.236 .671/.852/1.645",
        "random forest": ".675/.848/.700 .661/.852/1.509 .413/.575/.908 .717/.892/1.607 .704/.868/1.061 "
        ".676/.860/1.156 .720/.897/1.294 .662/.844/1.595",
        "HistGB": ".684/.855/.619 .704/.885/1.282 .413/.573/.911 .784/.935/1.145 .716/.877/.938 .709/.886/.992 "
        ".736/.908/1.213 .666/.847/1.523",
        "XGBoost": ".693/.860/.605 .716/.895/1.249 .409/.567/.913 .791/.940/1.116 .724/.883/.897 .717/.890/.966 "
        ".738/.909/1.201 .678/.858/1.472",
        "LightGBM": ".695/.863/.600 .712/.892/1.253 .425/.588/.908 .787/.937/1.138 .729/.887/.884 .714/.888/.963 "
        ".738/.909/1.202 .681/.860/1.467",
        "LightGBM, with features": ".717/.881/.541 .723/.898/1.200 .417/.579/.899 .796/.942/1.083 .758/.908/.735 "
        ".735/.903/.883 .743/.913/1.182 .682/.860/1.440",
        "CatBoost": ".697/.863/.570 .717/.895/1.234 .407/.566/.918 .799/.944/1.093 .739/.894/.805 .724/.894/.924 "
        ".740/.911/1.203 .676/.857/1.473",
        "CatBoost, with features": ".716/.879/.532 .723/.899/1.169 .421/.584/.903 .802/.946/1.063 .764/.912/.705 "
        ".746/.911/.852 .742/.913/1.181 .678/.858/1.442",
        "Gaussian process": ".711/.875/.546 .725/.900/1.183 .440/.606/.888 .801/.945/1.072 .763/.910/.704 "
        ".741/.905/.872 .744/.914/1.175 .686/.863/1.433",
        "process and CatBoost": ".721/.883/.514 .732/.905/1.151 .441/.607/.881 .810/.950/1.027 .777/.920/.649 "
        ".753/.913/.822 .749/.917/1.155 .691/.867/1.405",
        "process, CatBoost, SVR, 2 perceptrons": ".724/.884/.510 .731/.905/1.179 .440/.606/.882 .810/.950/1.039 "
        ".778/.922/.661 .756/.916/.811 .748/.916/1.162 .691/.867/1.430",
    }.items()
}


def judge(path: Path, task: str, kind: str, seed: int) -> dict[str, Any]:
    """Fit a predictor on the rows for training and judge it on the others."""
    from scipy.stats import kendalltau, spearmanr

    from tenfold.search import create_predictor, read_table
    from tenfold.search.tables import official_split

    table = read_table(path)
    learned, held = (table.rows(task, rows) for rows in official_split(len(table.codes)))
    withheld = not len(held)
    if withheld:
        among = np.random.default_rng(0).permutation(learned)
        held, learned = np.split(among, [len(among) // 5])
    values = table.column(task)
    others = np.stack([*list(table.metrics[task].values())[1:], *table.costs.values()], 1)
    began = time.process_time()
    predictor = create_predictor(kind, table.space, seed).fit(table.codes[learned], values[learned], others[learned])
    seconds = time.process_time() - began
    said, truth = predictor.predict(table.codes[held]), values[held]
    missed = np.abs(said.mean - truth)
    return {
        "task": task,
        "kind": kind,
        "seed": seed,
        "withheld": withheld,
        "kendall": float(kendalltau(said.mean, truth)[0]),
        "spearman": float(spearmanr(said.mean, truth)[0]),
        "mean_error": float(missed.mean()),
        "within_1": float((missed <= said.std).mean()),
        "within_2": float((missed <= 2 * said.std).mean()),
        "cpu_seconds": seconds,
    }


def main() -> None:
    """Do what is missing in the results, one after another."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True, help="nas_bench_mr.npz")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = json.loads(arguments.results.read_text())["runs"] if arguments.results.exists() else []
    done = {(run["task"], run["kind"], run["seed"]) for run in runs}
    for seed in arguments.seeds:
        for task in next(iter(PUBLISHED.values())):
            for kind in KINDS:
                if (task, kind, seed) in done:
                    continue
                runs.append(judge(arguments.table, task, kind, seed))
                write_record(
                    arguments.results,
                    {"command": "ncp_predictors.py", "machine": machine(), "published": PUBLISHED, "runs": runs},
                )
                print(f"{task} {kind} seed {seed}: tau {runs[-1]['kendall']:.3f}", flush=True)


if __name__ == "__main__":
    main()
