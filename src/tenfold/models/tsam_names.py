"""The TSAM authors' names of tensors, so that their checkpoints load."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from tenfold.errors import UsageError
from tenfold.models.weights import load_renamed

_BODY = "coarse_net.downsample_module.base_model"
_HEAD = "coarse_net.upsample_module"
_DECODER = {
    "skip_half": "conv_c2",
    "skip_quarter": "conv_c4",
    "up_quarter": "deconv1",
    "mix_quarter": "conv9",
    "up_half": "deconv2",
    "mix_half": "conv10",
    "up_full": "deconv3",
    "last": "conv11",
}
_BRANCH = {"feature": "featureConv", "gate": "gatingConv"}
_PREFIX = "generator."


def official_tsam_names(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Our name and the authors' of every tensor of `tsam`, in our order.

    Their decoder is wrapped for spectral norm, which has no effect: the wrapper normalises a copy that the forward pass
    does not use. So `weight_orig` is the weight, and the vectors `weight_u` and `weight_v` beside it mean nothing.

    Source: arXiv 2104.03507, released code (`tsam.md` section 4).

    Raises:
        UsageError: if theirs has no such tensor, because the network has other widths.

    Example:
        >>> from tenfold.models import build
        >>> dict(official_tsam_names(build("tsam")))["decoder.mix_half.conv.gate.weight"]
        'coarse_net.upsample_module.conv10.gatingConv.weight_orig'
    """
    return ((name, _official(name)) for name in network.state_dict())


def _official(own: str) -> str:
    if match := re.fullmatch(r"encoder\.stem\.(conv|bn)\.(.+)", own):
        return f"{_BODY}.{match[1]}1.{match[2]}"
    if match := re.fullmatch(r"encoder\.stages\.(\d)\.(\d+)\.(.+)", own):
        stage, block, rest = match.groups()
        rest = re.sub(r"^conv1\.feature", "conv1.net", rest)
        rest = re.sub(r"^conv1\.gate", "conv1.gating_conv", rest)
        rest = re.sub(r"^conv(\d)\.(conv|bn)", r"\2\1", rest)
        rest = rest.replace("shortcut.conv", "downsample.0").replace("shortcut.bn", "downsample.1")
        return f"{_BODY}.layer{int(stage) + 1}.{block}.{rest}"
    match = re.fullmatch(r"decoder\.(\w+)\.conv\.(?:(feature|gate)\.)?(weight|bias)", own)
    if match is None:
        raise UsageError(
            f"the TSAM authors' network has no tensor {own}. Their weights fit the model tsam with its default sizes."
        )
    part, branch, tensor = match.groups()
    within = f".{_BRANCH[branch]}" if branch else ".conv.featureConv"
    is_wrapped = tensor == "weight" and part != "last"
    return f"{_HEAD}.{_DECODER[part]}{within}.{tensor}{'_orig' if is_wrapped else ''}"


def load_official_tsam(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the authors' weights into the same network of ours; build it with mode="compat".

    Args:
        network: `tsam` with its default sizes.
        state: tensors by the authors' names, as `read_checkpoint` reads them; those of their discriminators, their
            aliases and the vectors of spectral norm are left alone.

    Raises:
        UsageError: if a tensor is missing or has another shape, or the network's sizes are not theirs.
    """
    own = {name.removeprefix(_PREFIX): value for name, value in state.items()}
    load_renamed(network, dict(official_tsam_names(network)), own)


def official_tsam_discriminator_name(own: str) -> str:
    """The authors' name of a tensor of `tenfold.layers.temporal_discriminator.TemporalDiscriminator`.

    Their checkpoints put "temporal_discriminator." before it.

    Example:
        >>> official_tsam_discriminator_name("convs.0.weight"), official_tsam_discriminator_name("convs.5.weight")
        ('conv1.featureConv.weight_orig', 'conv6.featureConv.weight')
    """
    _, number, tensor = own.split(".")
    is_wrapped = tensor == "weight" and number != "5"
    return f"conv{int(number) + 1}.featureConv.{tensor}{'_orig' if is_wrapped else ''}"


def is_official_tsam(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of the authors' network."""
    return any(name.removeprefix(_PREFIX).startswith(_BODY) for name in state)
