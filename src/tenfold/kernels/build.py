"""Compiling the native kernels: when the package is built or installed, or by `python -m tenfold.kernels.build`.

Needs a C compiler (`CC`, else cc, gcc or clang) and nothing else; without one the package works with PyTorch's own
operators, and `tenfold doctor` says so. This module imports nothing of tenfold, because it runs before it is installed.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
LIBRARY = "_native.so"
"""Beside this file; loaded by ctypes, so it has no tag of a Python version."""

LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
"""Instruction sets that each kernel is compiled for on x86: SSE4.2, AVX2, AVX-512. Elsewhere there is one level."""

_FLAGS = ("-std=c11", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_CONTRACTED = ("depthwise",)
"""Sources that may round a product and a sum at once. In all others both are rounded, as PyTorch's operators do it."""


def find_compiler() -> list[str] | None:
    """The command of the C compiler, or None."""
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    return None if found is None else [found]


def build(folder: Path, extra: tuple[str, ...] = ()) -> Path | None:
    """Compile the library into a folder.

    Args:
        folder: where `LIBRARY` is put; an older one is replaced at once.
        extra: further flags, such as "-fsanitize=address".

    Returns:
        The library, or None where there is no compiler or it fails; the reason goes to standard error.
    """
    compiler = find_compiler()
    if compiler is None or os.name == "nt":
        print("tenfold: no C compiler found, so the native kernels are left out.", file=sys.stderr)
        return None
    levels = LEVELS if platform.machine().lower() in ("x86_64", "amd64") else ("",)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        objects = []
        for source in sorted(SOURCES.glob("*.c")):
            for number, level in enumerate(levels if source.name != "dispatch.c" else ("",)):
                target = Path(work) / f"{source.stem}{number}.o"
                flags = [f"-march={level}", "-mprefer-vector-width=512"] if level else []
                flags += [] if len(levels) > 1 else ["-DTENFOLD_ONE_LEVEL"]
                flags.append("-ffp-contract=" + ("fast" if source.stem in _CONTRACTED else "off"))
                names = f"-DLEVEL(name)=tenfold_##name##_{number}"
                if not _run([*compiler, *_FLAGS, *extra, *flags, names, "-c", str(source), "-o", str(target)]):
                    return None
                objects.append(str(target))
        made = Path(work) / LIBRARY
        if not _run([*compiler, "-shared", *extra, *objects, "-lm", "-o", str(made)]):
            return None
        return made.replace(folder / LIBRARY)


def _run(command: list[str]) -> bool:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the user's own compiler
    if done.returncode:
        print(
            f"tenfold: the native kernels are left out, {shlex.join(command)} failed:\n{done.stderr}", file=sys.stderr
        )
    return done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(build(Path(__file__).parent, tuple(sys.argv[1:])) is None)
