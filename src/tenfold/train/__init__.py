"""Training: `fit(network, task, methods, budget)` gives an artifact; `load` brings one back.

The public names are resolved on first use, so that a command line can read `TrainConfig` without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenfold.lazy import resolve

if TYPE_CHECKING:
    from tenfold.train.config import TrainConfig
    from tenfold.train.evaluation import evaluate
    from tenfold.train.fitting import FitResult, fit
    from tenfold.train.interrupts import Interrupted
    from tenfold.train.loading import load
    from tenfold.train.recipe import Recipe, load_recipe, write_recipe

__all__ = [
    "FitResult",
    "Interrupted",
    "Recipe",
    "TrainConfig",
    "evaluate",
    "fit",
    "load",
    "load_recipe",
    "write_recipe",
]

_HOMES = {
    "FitResult": "fitting",
    "Interrupted": "interrupts",
    "Recipe": "recipe",
    "TrainConfig": "config",
    "evaluate": "evaluation",
    "fit": "fitting",
    "load": "loading",
    "load_recipe": "recipe",
    "write_recipe": "recipe",
}


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
