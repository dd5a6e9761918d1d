"""Video as a stream: optical flow, copying along it, and inpainting.

The names are resolved on first use; flow copy needs no torch.
"""

from __future__ import annotations

from typing import Any

from tenfold.lazy import resolve

_HOMES = {
    "Account": "provenance",
    "DisFlow": "flow",
    "EraseOptions": "erase",
    "Filled": "filling",
    "FlowEstimator": "flow",
    "FollowOptions": "follow",
    "FollowSession": "follow",
    "Given": "given",
    "GivenSegmenter": "segment",
    "MovingDetector": "moving",
    "NetworkSegmenter": "segment",
    "Seen": "segment",
    "SegmentReport": "segment_files",
    "Target": "erase_follow",
    "TrackWriter": "track_writing",
    "segment_clip": "segment_files",
    "segment_frames": "segment",
    "InpaintOptions": "inpaint",
    "InpaintSession": "inpaint",
    "InpaintedFrame": "inpaint",
    "NetworkFilling": "network_filling",
    "NetworkInputs": "network_filling",
    "PairFlow": "flow",
    "RaftFlow": "flow",
    "SmoothFilling": "filling",
    "Window": "filling",
    "InpaintReport": "inpaint_files",
    "inpaint_clip": "inpaint_files",
    "inpaint_frames": "inpaint",
    "erase_frames": "erase",
    "erase_targets": "erase_stream",
    "fill_as_released": "release_windows",
    "follow_frames": "follow",
    "make_estimator": "flow",
    "over_smooth": "network_filling",
    "pair_flow": "flow",
    "read_provenance": "provenance",
    "run_file": "network_runs",
    "run_module": "network_runs",
    "write_provenance": "provenance",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return resolve(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
