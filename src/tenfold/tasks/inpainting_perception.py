"""How filled video looks to networks that users bring: LPIPS of frames, and VFID of windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

from tenfold.errors import DataError, MissingDataError, ShapeError
from tenfold.export.session import open_session
from tenfold.tasks.inpainting_batches import WindowTargets
from tenfold.tasks.inpainting_metrics import frechet_distance, rounded

_LEAST_SIDE = 35
"""Pixels; of less, AlexNet's last map is empty."""


class FrameDistance(LearnedPerceptualImagePatchSimilarity):
    """`lpips`: the mean LPIPS (AlexNet, version 0.1) of frames with something to fill, composited and rounded.

    Source: arXiv 1801.03924, as torchmetrics computes it.

    Raises:
        MissingDataError: if torchvision has no weights of AlexNet in its cache and cannot download them.
    """

    def __init__(self) -> None:
        try:
            super().__init__("alex", normalize=True)
        except OSError as error:  # such as urllib's URLError
            raise MissingDataError(
                f"LPIPS needs torchvision's weights of AlexNet, which could not be downloaded ({error}). Put "
                f"alexnet-owt-7be5be79.pth into {torch.hub.get_dir()}/checkpoints, or leave LPIPS out."
            ) from error

    def update(self, answer: Tensor, targets: WindowTargets) -> None:
        """Count a batch.

        Args:
            answer: what the network gave, (B, T, 3, H, W).
            targets: of the batch.

        Raises:
            ShapeError: if frames are too small for AlexNet.
        """
        if min(answer.shape[-2:]) < _LEAST_SIDE:
            raise ShapeError(
                f"frames are {answer.shape[-2]}x{answer.shape[-1]} pixels; LPIPS needs {_LEAST_SIDE} on each side."
            )
        shown = targets.rest.flatten(2).any(-1)  # (B, T)
        if shown.any():
            super().update(rounded(targets.composited(answer))[shown], targets.truth[shown])

    def compute(self) -> dict[str, Tensor]:
        """The mean by name; NaN where nothing was to be filled."""
        return {"lpips": super().compute() if self.all_scores else torch.tensor(torch.nan)}


class WindowDistance(Metric):
    """`vfid`: the Frechet distance of the features of filled and of true windows.

    Source: TSAM, arXiv 2104.03507 (features of I3D's Mixed_5c, averaged); numbers of different networks, lengths or
    sizes of windows, and of few windows, cannot be compared.

    Args:
        network: an ONNX file that turns windows, float32 (B, 3, T, H, W) in 0..1, into features (B, D, ...).

    Raises:
        MissingDataError: if there is no such file.
        DataError: if it is no network of one input.
        MissingExtraError: if ONNX Runtime is not installed.
    """

    full_state_update = False
    higher_is_better = False

    def __init__(self, network: str | Path) -> None:
        super().__init__()
        self._path = Path(network)
        if not self._path.is_file():
            raise MissingDataError(f"there is no file {network}. VFID needs an I3D network as ONNX.")
        try:
            self._session = open_session(self._path, {})
        except Exception as error:  # the runtime's errors share no base class
            raise DataError(f"{network} is no ONNX network that can be run: {error}") from error
        if len(self._session.get_inputs()) != 1:
            names = ", ".join(one.name for one in self._session.get_inputs())
            raise DataError(f"{network} has the inputs {names}; needed is one, windows (B, 3, T, H, W) in 0..1.")
        self.add_state("true", [], dist_reduce_fx="cat")
        self.add_state("made", [], dist_reduce_fx="cat")

    def update(self, answer: Tensor, targets: WindowTargets) -> None:
        """Count a batch.

        Args:
            answer: what the network gave, (B, T, 3, H, W).
            targets: of the batch.

        Raises:
            ShapeError: if the network does not take such windows.
        """
        self.true.append(self._features(targets.truth))
        self.made.append(self._features(rounded(targets.composited(answer))))

    def compute(self) -> dict[str, Tensor]:
        """The distance by name; NaN of fewer than two windows."""
        true, made = (_joined(one) for one in (self.true, self.made))
        distance = frechet_distance(true, made) if len(true) > 1 else np.nan
        return {"vfid": torch.tensor(distance, dtype=torch.float64)}

    def _features(self, windows: Tensor) -> Tensor:
        given = np.ascontiguousarray(windows.transpose(1, 2).cpu().numpy())
        try:
            found = torch.from_numpy(self._session.run(None, {self._session.get_inputs()[0].name: given})[0])
        except Exception as error:  # as above
            raise ShapeError(
                f"{self._path} takes no windows of shape {given.shape}, (B, 3, T, H, W): {error}"
            ) from error
        if found.dim() < 2 or len(found) != len(windows):
            raise ShapeError(
                f"{self._path} gives {tuple(found.shape)} for {len(windows)} windows; needed are features (B, D, ...)."
            )
        return found.flatten(2).mean(2) if found.dim() > 2 else found


def _joined(parts: Any) -> NDArray[np.float64]:
    """Features of all batches; a list of them, or one tensor after they were gathered from processes."""
    whole = parts if isinstance(parts, Tensor) else torch.cat(parts)
    joined: NDArray[np.float64] = whole.double().cpu().numpy()
    return joined
