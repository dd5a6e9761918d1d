"""Compiles the native kernels when the package is built or installed; without a compiler it is pure Python."""

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeKernels(BuildHookInterface):
    """Puts the library beside the kernels' Python files and into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel, also an editable one, is put together."""
        folder = Path(self.root) / "src" / "tenfold" / "kernels"
        library = runpy.run_path(str(folder / "build.py"))["build"](folder)
        if library is not None:
            build_data["artifacts"].append(str(library.relative_to(self.root)))
            build_data["pure_python"] = False
            # Loaded by ctypes: any Python 3 will do, but only this kind of machine.
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
