"""The AtomNAS authors' names of tensors, so that their released checkpoints load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from tenfold.layers.atomic import AtomicBlock, FusedAtomicBlock
from tenfold.models.atomic_classifier import AtomicClassifier
from tenfold.models.weights import load_renamed


def official_atomnas_names(network: AtomicClassifier) -> Iterator[tuple[str, str]]:
    """Our name and the authors' of every tensor of a network of atomic blocks.

    Both layouts of the authors' code (`atomnas.md` section 2); they number only the kernel sizes that have atoms.

    Example:
        >>> from tenfold.models import build
        >>> dict(official_atomnas_names(build("atomnas_a")))["stage0.0.branches.k3.project.weight"]
        'features.1.ops.0.1.weight'
    """
    blocks = [name for name, module in network.named_modules() if isinstance(module, AtomicBlock | FusedAtomicBlock)]
    numbers = {f"{block}.": index for index, block in enumerate(["stem", *_blocks(network), "tail"])}
    for name in network.state_dict():
        prefix = next((prefix for prefix in numbers if name.startswith(prefix)), None)
        if prefix is None:
            yield name, name.replace("classifier.", "classifier.1.")
            continue
        rest = name.removeprefix(prefix)
        block = prefix.removesuffix(".")
        rest = _official_part(network.get_submodule(block), rest) if block in blocks else _numbered(rest)
        yield name, f"features.{numbers[prefix]}.{rest}"


def _blocks(network: AtomicClassifier) -> list[str]:
    return ["stage0.0", *(name for name, *_ in network.blocks)]


def _numbered(rest: str) -> str:
    return rest.replace("conv.", "0.", 1) if rest.startswith("conv.") else rest.replace("bn.", "1.", 1)


def _official_part(block: nn.Module, rest: str) -> str:
    head, _, tail = rest.partition(".")
    if head == "norm":
        return f"pw_bn.{tail}"
    if head == "branches":
        kernel, part, last = tail.split(".", 2)
        branch = list(block.branches).index(kernel)  # type: ignore[arg-type]
        position = [name for name, _ in block.branches[kernel].named_children()].index(part)  # type: ignore
        return f"ops.{branch}.{position}.{last if part == 'project' else _numbered(last)}"
    if head == "depthwise":
        kernel, last = tail.split(".", 1)
        group = list(block.depthwise).index(kernel)  # type: ignore[arg-type]
        return f"depth_ops.{group}.{int(not isinstance(block.expand, nn.Identity))}.{_numbered(last)}"
    if head == "squeeze_excite":
        return f"se_op.se_{tail}"
    return f"{head}_conv.{_numbered(tail)}"


def load_official_atomnas(network: AtomicClassifier, state: Mapping[str, Tensor]) -> None:
    """Load a checkpoint that the authors released into the same network of ours.

    Args:
        network: `atomnas_a` and the like, with the checkpoint's number of classes.
        state: tensors by the authors' names, as `read_checkpoint` reads them.

    Raises:
        UsageError: if a tensor is missing or has another shape.
    """
    load_renamed(network, dict(official_atomnas_names(network)), state)
