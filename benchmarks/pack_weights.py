"""Put the network of a training into the package: its artifact with weights in half precision.

    python benchmarks/pack_weights.py RUN/artifact.safetensors TAG   # writes src/tenfold/weights/MODEL.TAG.safetensors

Kernels are halved, what has one axis (biases, statistics) stays as it is. Judge the packed network, not the artifact.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tenfold.export.artifact import read_artifact, write_artifact

FOLDER = Path(__file__).parents[1] / "src" / "tenfold" / "weights"


def main() -> None:
    """Pack one artifact."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("tag", help="what it learned, such as simulated")
    options = parser.parse_args()
    header, tensors = read_artifact(options.artifact)
    path = FOLDER / f"{header['architecture']['name']}.{options.tag}.safetensors"
    path.parent.mkdir(exist_ok=True)
    packed = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}
    write_artifact(path, packed, header)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
