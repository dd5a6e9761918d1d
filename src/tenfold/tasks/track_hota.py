"""HOTA, identity and CLEAR measures of tracks, by the package TrackEval."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.errors import DataError, require
from tenfold.tasks.track_files import Track, TrackTruth, write_results, write_truth

_KEPT = {
    "HOTA": ("HOTA", "DetA", "AssA", "LocA"),
    "CLEAR": ("MOTA", "MOTP", "IDSW", "CLR_TP", "CLR_FP", "CLR_FN"),
    "Identity": ("IDF1", "IDTP", "IDFP", "IDFN"),
}
_SPLIT = "train"
_OVERALL = {"cls_comb_cls_av": "mean over categories", "cls_comb_det_av": "mean over detections"}


def evaluate_hota(truth: TrackTruth, found: Sequence[Track]) -> dict[str, dict[str, float]]:
    """HOTA with its parts, CLEAR and identity measures.

    Source: HOTA, arXiv 2009.07736, by TrackEval. Means over its 19 thresholds; counts are sums.

    Args:
        truth: what is there.
        found: what was found, one mask at most for each frame of its video.

    Returns:
        Measures by name, for each category by its name, and for "mean over categories" and "mean over detections".

    Raises:
        DataError: if TrackEval cannot judge these tracks.
        MissingExtraError: if it is not installed.
    """
    trackeval: Any = require("trackeval", "hota")
    for track in found:
        if len(track.masks) != truth.videos[track.video_id].length:
            raise DataError(
                f"HOTA needs a mask or null for each frame, but a result of video {track.video_id} has "
                f"{len(track.masks)} for {truth.videos[track.video_id].length} frames. Leave --lenient out to find it."
            )
    quiet = {"PRINT_RESULTS": False, "PRINT_CONFIG": False, "TIME_PROGRESS": False, "PRINT_ONLY_COMBINED": False,
             "OUTPUT_SUMMARY": False, "OUTPUT_DETAILED": False, "PLOT_CURVES": False, "USE_PARALLEL": False,
             "BREAK_ON_ERROR": True, "RETURN_ON_ERROR": False, "LOG_ON_ERROR": None}  # fmt: skip
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        # TrackEval tells videos and categories apart by their names; ids are unique, names of files need not be.
        plain = replace(
            truth,
            videos={id_: replace(video, file_names=()) for id_, video in truth.videos.items()},
            categories={id_: str(id_) for id_ in truth.categories},
        )
        write_truth(plain, folder / "truth" / f"youtube_vis_{_SPLIT}" / "gt.json")
        write_results(found, folder / "found" / f"youtube_vis_{_SPLIT}" / "tracker" / "data" / "results.json")
        try:
            data = trackeval.datasets.YouTubeVIS(
                {
                    "GT_FOLDER": f"{folder / 'truth'}/", "TRACKERS_FOLDER": f"{folder / 'found'}/",
                    "TRACKERS_TO_EVAL": ["tracker"], "PRINT_CONFIG": False, "SPLIT_TO_EVAL": _SPLIT,
                }
            )  # fmt: skip
            metrics = [
                trackeval.metrics.HOTA(),
                trackeval.metrics.CLEAR({"PRINT_CONFIG": False}),
                trackeval.metrics.Identity({"PRINT_CONFIG": False}),
            ]
            results, _ = trackeval.Evaluator(quiet).evaluate([data], metrics)
        except Exception as error:  # TrackEval raises errors of many kinds
            raise DataError(f"TrackEval cannot judge these tracks: {error}.") from error
    combined = results["YouTubeVIS"]["tracker"]["COMBINED_SEQ"]
    names = {str(id_): name for id_, name in truth.categories.items()} | _OVERALL
    return {
        names[category]: {
            measure: float(np.mean(measured[family][measure])) for family, names in _KEPT.items() for measure in names
        }
        for category, measured in combined.items()
        if category in names and set(_KEPT) <= measured.keys()
    }
