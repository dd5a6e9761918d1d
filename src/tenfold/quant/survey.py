"""What one forward pass tells of the layers of any network: their order, the sign of their inputs, who follows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.batches import Inputs, call
from tenfold.errors import UsageError
from tenfold.quant.swap import quantizable_layers

_NORMS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class LayerFacts:
    """What is known of a quantizable layer after one forward pass.

    Attributes:
        is_first: it ran before all others, so it sees the image.
        is_last: it ran after all others.
        signed_input: its input has negative values, so that its quantizer must be two-sided.
        feeds_batch_norm: a batch norm reads its output directly.
        is_linear: a linear layer rather than a convolution.
        is_zero: all its weights are zero, as those of a branch that shall change nothing at first.
    """

    is_first: bool
    is_last: bool
    signed_input: bool
    feeds_batch_norm: bool
    is_linear: bool
    is_zero: bool

    @property
    def is_edge(self) -> bool:
        """Whether it reads the image or gives the answer: the layers that low bits hurt most.

        A layer gives the answer if it is the last and nothing normalizes it: the linear layer of a classifier, the
        convolution that gives each pixel its scores.
        """
        return self.is_first or (self.is_last and (self.is_linear or not self.feeds_batch_norm))


def survey(network: nn.Module, example: Inputs, *, head_mixing: bool = False) -> dict[str, LayerFacts]:
    """Run the network once on real images and report the facts of each quantizable layer, in the order of execution.

    The sign is measured, not derived from the module before: so it holds for any network, functional code included.

    Args:
        network: any float module; left as it was.
        example: a batch of real inputs, such as images (B, C, H, W).
        head_mixing: see `quantizable_layers`.

    Returns:
        The facts by layer name. Layers that did not run are missing.

    Raises:
        UsageError: if there is nothing to quantize.
    """
    order: list[str] = []
    signed: set[str] = set()
    outputs: list[tuple[str, Tensor]] = []  # kept alive, so that identity of tensors means what it says
    before_norm: set[str] = set()

    def before(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if name not in order:
                order.append(name)
            if inputs[0].numel() and bool(inputs[0].min() < 0):
                signed.add(name)

        return hook

    def after(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            outputs.append((name, output))

        return hook

    def norm(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        before_norm.update(name for name, output in outputs if output is inputs[0])

    layers = quantizable_layers(network, head_mixing=head_mixing)
    hooks = [
        handle
        for name, module in layers.items()
        for handle in (module.register_forward_pre_hook(before(name)), module.register_forward_hook(after(name)))
    ]
    hooks += [m.register_forward_pre_hook(norm) for m in network.modules() if isinstance(m, _NORMS)]
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        with torch.no_grad():
            call(network, example)
    finally:
        for handle in hooks:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    if not order:
        raise UsageError(f"{type(network).__name__} has no convolution or linear layer that can be quantized.")
    return {
        name: LayerFacts(
            is_first=index == 0,
            is_last=index == len(order) - 1,
            signed_input=name in signed,
            feeds_batch_norm=name in before_norm,
            is_linear=isinstance(layers[name], nn.Linear),
            is_zero=not bool(layers[name].weight.any()),  # type: ignore[operator]
        )
        for index, name in enumerate(order)
    }
