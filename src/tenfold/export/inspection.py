"""What is inside an ONNX file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tenfold.errors import ArtifactError, require
from tenfold.export.metadata import read_metadata


@dataclass(frozen=True, kw_only=True)
class OnnxFacts:
    """What is inside an ONNX file.

    Attributes:
        file_bytes: its size.
        opset: version of the ONNX operators.
        operators: how often each operator occurs, the most frequent first.
        weights: how many numbers are stored, by their type, such as {"INT4": 3469760}.
        metadata: what Tenfold noted in it; empty if another program wrote it.
    """

    file_bytes: int
    opset: int
    operators: dict[str, int]
    weights: dict[str, int]
    metadata: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return asdict(self)


def inspect_onnx(path: str | Path) -> OnnxFacts:
    """Look into an ONNX file, ours or not.

    Raises:
        MissingDataError: if there is no such file.
        ArtifactError: if it is damaged, or no ONNX file.
        MissingExtraError: if the package `onnx` is not installed.
    """
    path, metadata = Path(path), read_metadata(path)
    onnx = require("onnx", "export")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises errors of its own
        raise ArtifactError(f"{path} is damaged, or not an ONNX file: {error}. Export it again.") from error
    weights: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        size = 1
        for length in tensor.dims:
            size *= length
        weights[onnx.TensorProto.DataType.Name(tensor.data_type)] += size
    return OnnxFacts(
        file_bytes=path.stat().st_size,
        opset=max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0),
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        weights=dict(weights.most_common()),
        metadata=metadata,
    )
