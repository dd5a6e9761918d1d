"""Models by name: ours are registered with their facts, those of timm and torchvision are found through them.

Registering records a plain function. The function itself stays what it was, and may be called directly.
"""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Callable
from typing import TypeVar

from torch import nn

from tenfold.errors import UnknownNameError, UsageError
from tenfold.models.entry import Entry, ModelFacts, Takes
from tenfold.models.libraries import LIBRARIES
from tenfold.models.options import declared_options

_HINT = "`tenfold models` lists all."
_ENTRIES: dict[str, Entry] = {}

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])


def register(
    *,
    source: str,
    input_shape: tuple[int, int, int],
    params: int,
    macs: int,
    tags: tuple[str, ...] = (),
    licence: str = "Apache-2.0",
    takes: Takes = "image",
) -> Callable[[Builder], Builder]:
    """Record a builder function under its own name, with the facts about what it builds by default.

    The keyword-only parameters of the function are the model's options; each needs an annotation that JSON values can
    be checked against, and a default. Where the network takes images, `num_classes` and `in_channels` must be among
    them. The first line of the docstring is the summary that lists show. The contract tests check every fact.

    Args:
        source: where the network was published, with the arXiv id.
        input_shape: channels, height, width of the image or frame that it was designed for.
        params: trainable numbers, exactly.
        macs: multiply-adds of one image or frame of `input_shape`, exactly.
        tags: words to search for.
        licence: SPDX identifier.
        takes: what the network takes, see `Takes`.

    Returns:
        The decorator, which returns the function unchanged.

    Raises:
        UsageError: if the name is taken, not lower-case, or the function's signature is not as above.

    Example:
        >>> facts("resnet18").params
        11689512
    """

    def record(builder: Builder) -> Builder:
        name = builder.__name__
        if name in _ENTRIES:
            raise UsageError(f"a model named {name!r} is already registered. Choose another name.")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise UsageError(f"model name {name!r} may only hold a-z, 0-9 and _, and must start with a letter.")
        options = declared_options(builder)
        parameters = inspect.signature(builder).parameters
        if takes == "image" and (missing := {"num_classes", "in_channels"} - options.keys()):
            raise UsageError(f"builder {name!r} lacks the keyword-only option {' and '.join(sorted(missing))}.")
        if len(options) < len(parameters) or any(option.default is option.empty for option in options.values()):
            raise UsageError(f"builder {name!r} may only have keyword-only options that all have defaults.")
        summary = (inspect.getdoc(builder) or "").partition("\n")[0]
        _ENTRIES[name] = Entry(
            ModelFacts(
                name=name,
                summary=summary,
                source=source,
                licence=licence,
                input_shape=input_shape,
                num_classes=options["num_classes"].default if "num_classes" in options else None,
                params=params,
                macs=macs,
                tags=tags,
                takes=takes,
            ),
            builder,
        )
        return builder

    return record


def lookup(name: str) -> Entry:
    """The entry of a name, ours or `timm:NAME` or `torchvision:NAME`.

    Raises:
        UnknownNameError: if there is no such model; offers the nearest names.
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    prefix, colon, rest = name.partition(":")
    if not colon:
        elsewhere = [f"{prefix}:{name}" for prefix, library in LIBRARIES.items() if library.entry(name)]
        raise UnknownNameError("model", name, [*_ENTRIES, *elsewhere], hint=_HINT)
    if prefix not in LIBRARIES:
        raise UnknownNameError("model library", prefix, LIBRARIES, hint="Write timm:NAME or torchvision:NAME.")
    entry = LIBRARIES[prefix].entry(rest)
    if entry is None:
        known = [f"{prefix}:{other}" for other in LIBRARIES[prefix].names(rest)]
        raise UnknownNameError("model", name, known, hint=f"`tenfold models '{prefix}:*'` lists all.")
    return entry


def facts(name: str) -> ModelFacts:
    """What is known about a model, without building it.

    Raises:
        UnknownNameError: if there is no such model; offers the nearest names.
    """
    return lookup(name).facts


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a pattern, in natural order (`net_2` before `net_10`).

    Args:
        pattern: shell wildcards. "timm:..." and "torchvision:..." search in these libraries; any other pattern searches
            among our own. A dot in a pattern for timm also searches the names with a tag, one for each set of weights.

    Example:
        >>> list_models("resnet*_cifar")
        ['resnet18_cifar', 'resnet20_cifar', 'resnet56_cifar']
    """
    prefix, colon, rest = pattern.partition(":")
    if not colon:
        return sorted(fnmatch.filter(_ENTRIES, pattern), key=_natural_key)
    if prefix not in LIBRARIES:
        raise UnknownNameError("model library", prefix, LIBRARIES, hint="Write timm:PATTERN or torchvision:PATTERN.")
    return [
        f"{prefix}:{name}" for name in sorted(fnmatch.filter(LIBRARIES[prefix].names(rest), rest), key=_natural_key)
    ]


def _natural_key(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
