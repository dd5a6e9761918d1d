"""The options that a builder declares in its signature, and the check of values that come from outside."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from tenfold.errors import UnknownNameError, UsageError

# Ranges are wide for any sensible use, and narrow enough that a file from outside cannot ask for an absurd network.
NumClasses = Annotated[int, Field(ge=1, le=1_000_000)]
"""Outputs of the last layer."""
InChannels = Annotated[int, Field(ge=1, le=1_024)]
"""Channels of the input image."""
Dropout = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
"""Share of the features that are dropped before the classifier while training."""
Width = Annotated[float, Field(ge=0.1, le=4.0, allow_inf_nan=False)]
"""Width multiplier: the factor on the channel count of every layer."""


def declared_options(builder: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a builder, by name, with their annotations resolved."""
    parameters = inspect.signature(builder, eval_str=True).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}


def read_options(model: str, builder: Callable[..., object], given: Mapping[str, object]) -> dict[str, Any]:
    """Check options against the signature of a builder, and fill in the defaults of those not given.

    Values must be what JSON can hold, of exactly the declared type (an integer will do for a real number), and
    within the declared range: the same check serves a user's call and the header of a file that anyone may have
    written.

    Args:
        model: name of the model, for messages.
        builder: function whose keyword-only parameters are the options.
        given: option names and values.

    Returns:
        All options of the builder, in the order of its signature.

    Raises:
        UnknownNameError: if the builder does not declare an option of that name.
        UsageError: if a value has the wrong type or lies out of range.
    """
    declared = declared_options(builder)
    for option in given:
        if option not in declared:
            raise UnknownNameError(
                f"option of model {model!r}:", option, declared, hint=f"It takes: {', '.join(declared)}."
            )
    return {
        option: _read_value(model, parameter, given[option]) if option in given else parameter.default
        for option, parameter in declared.items()
    }


def _read_value(model: str, parameter: inspect.Parameter, value: object) -> Any:
    try:
        # Strict JSON: "3" is no number, true is no integer, but a list may become a tuple.
        return TypeAdapter(parameter.annotation).validate_json(json.dumps(value, allow_nan=False), strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].lower()
    except (TypeError, ValueError) as error:
        reason = f"input should be a plain JSON value ({error})"
    raise UsageError(
        f"model {model!r} cannot take option {parameter.name}={value!r}: {reason}. "
        f"Leave it out for the default, {parameter.default!r}."
    )
