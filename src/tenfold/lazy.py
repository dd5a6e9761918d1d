"""Public names that are imported on first use, so that a package can be named without importing torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def resolve(package: str, homes: Mapping[str, str], name: str) -> Any:
    """A public name of a package; what the package's `__getattr__` returns.

    No submodule may bear the name of a public function in it: importing it would hide the function behind the module.

    Args:
        package: its full name.
        homes: the submodule that defines each public name, relative to the package; "" where the name is a submodule.
        name: the name that was asked for.

    Raises:
        AttributeError: if it is not public.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    if not homes[name]:
        return importlib.import_module(f"{package}.{name}")
    return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
