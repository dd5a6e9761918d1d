"""`tenfold doctor`: what this machine and this installation can do, and how to get what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tenfold import __version__
from tenfold.cli.output import to_stdout, write_json
from tenfold.processor import first_processor, has_vnni, memory_bytes, processor_name, usable_cpus

# What the runtimes' integer kernels use, and what it is called in /proc/cpuinfo.
_CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
_INTEGER_FEATURES = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
_RUNTIMES = ("onnxruntime", "openvino")
_ENOUGH_FREE_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Check:
    """One finding: fine ("ok"), worth knowing ("note"), missing but optional ("absent"), or wrong ("problem")."""

    topic: str
    name: str
    state: str
    found: str
    advice: str = ""


def doctor(*, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """Look at this machine: what is installed, how many threads, which runtimes, what is missing and how to get it.

    Args:
        as_json: print one JSON object with all findings.

    Returns:
        0, or 1 if something that Tenfold needs is missing or broken.
    """
    checks = [*_machine(), *_packages(), *_extras(), *_places()]
    failed = any(check.state == "problem" for check in checks)
    if as_json:
        write_json({"healthy": not failed, "checks": [asdict(check) for check in checks]})
    else:
        _show(checks)
    return 1 if failed else 0


def _show(checks: list[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    marks = {"ok": ("✓", "green"), "note": ("·", "yellow"), "absent": ("○", "dim"), "problem": ("✗", "bold red")}
    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ("", "name", "found"):
        table.add_column(column, no_wrap=column != "found")
    topic = ""
    for check in checks:
        if check.topic != topic:
            if topic:
                table.add_row()
            topic = check.topic
            table.add_row("", Text(topic, "bold"))
        text = Text(check.found)
        if check.advice:
            text.append(f"\n{check.advice}", "yellow" if check.state != "absent" else "dim")
        table.add_row(Text(*marks[check.state]), check.name, text)
    to_stdout(table)


def _machine() -> list[Check]:
    info = first_processor()
    topic = "Machine"
    cpus = usable_cpus()
    checks = [
        Check(topic, "system", "ok", platform.platform()),
        Check(topic, "processor", "ok", processor_name()),
        _threads(topic, cpus),
    ]
    flags = set((info.get("flags") or info.get("Features") or "").split())
    if flags:
        have = [name for name in _CPU_FEATURES if name in flags]
        fast = bool(_INTEGER_FEATURES & flags)
        advice = "" if fast else "Without VNNI or dot-product instructions, int8 networks gain little speed here."
        checks.append(Check(topic, "instructions", "ok" if fast else "note", ", ".join(have) or "none of use", advice))
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        busy = load > cpus
        advice = "The machine is busy: timings will be noisy, trainings slow." if busy else ""
        checks.append(Check(topic, "load", "note" if busy else "ok", f"{load:.1f} on {cpus:g} cores", advice))
    memory = memory_bytes()
    if memory:
        checks.append(Check(topic, "memory", "ok" if memory > 4e9 else "note", f"{memory / 1e9:.1f} GB"))
    gpus = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    checks.append(Check(topic, "graphics card", "ok" if gpus else "absent", ", ".join(gpus) or "none; not needed"))
    return checks


def _threads(topic: str, cpus: float) -> Check:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > cpus:
        advice = (
            f"OMP_NUM_THREADS={asked} is more than the cores at hand, which slows everything. Set it to {cpus:.0f}."
        )
        return Check(topic, "threads", "note", f"{cpus:g} cores", advice)
    found = f"{cpus:g} cores" + (f", OMP_NUM_THREADS={asked}" if asked else "")
    return Check(topic, "threads", "ok", found)


def _packages() -> list[Check]:
    topic = "Installed"
    checks = [
        Check(topic, "python", "ok", platform.python_version()),
        Check(topic, "tenfold", "ok", __version__),
        *(_package(topic, name) for name in _requirements().get("", [])),
    ]
    for name in _RUNTIMES:
        version = _version(name)
        if version:
            checks.append(Check(topic, f"{name} (runtime)", "ok", version))
    return [*checks, _kernels(topic), _integer_training(topic)]


def _kernels(topic: str) -> Check:
    from tenfold.kernels.library import state

    in_use, found = state()
    if in_use:
        return Check(topic, "native kernels", "ok", f"in use, for {found}")
    advice = "Quantized training works without, but takes longer; results are the same."
    return Check(topic, "native kernels", "note", found, advice)


def _integer_training(topic: str) -> Check:
    if has_vnni():
        return Check(topic, "integer training", "ok", "quantized layers can multiply integers while they train (VNNI)")
    advice = "Quantized training simulates integers in float numbers here; results are the same, to float rounding."
    return Check(topic, "integer training", "note", "the processor lacks VNNI, or does not say that it has it", advice)


def _package(topic: str, name: str) -> Check:
    version = _version(name)
    if version:
        return Check(topic, name, "ok", version)
    return Check(topic, name, "problem", "missing", "Tenfold needs it. Get it with: pip install --upgrade tenfold")


def _extras() -> list[Check]:
    checks = []
    for extra, names in sorted(_requirements().items()):
        if not extra or extra == "dev":
            continue
        missing = [name for name in names if not _version(name)]
        if missing:
            advice = f"pip install 'tenfold[{extra}]'"
            checks.append(Check("Extras", extra, "absent", f"missing: {', '.join(missing)}", advice))
        else:
            checks.append(Check("Extras", extra, "ok", ", ".join(names)))
    return checks


def _places() -> list[Check]:
    # The module itself, not the room: opening the room would import numpy and more.
    from tenfold.data.cache import cache_folder

    topic = "Places"
    folder = cache_folder()
    advice = "Set TENFOLD_CACHE to a folder that can be written."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        cache = Check(topic, "cache", "ok", f"{folder} (writable)")
    except OSError as error:
        cache = Check(topic, "cache", "problem", f"{folder}: {error.strerror or error}", advice)
    data = os.environ.get("TENFOLD_DATA")
    if not data:
        found = Check(
            topic, "data", "absent", "TENFOLD_DATA is not set", "Give data by path, or set it to their folder."
        )
    elif Path(data).is_dir():
        found = Check(topic, "data", "ok", data)
    else:
        found = Check(
            topic, "data", "problem", f"{data} is no folder", "TENFOLD_DATA must name the folder with the data."
        )
    return [cache, found, _free_space(topic)]


def _free_space(topic: str) -> Check:
    import shutil

    free = shutil.disk_usage(Path.cwd()).free
    scarce = free < _ENOUGH_FREE_BYTES
    advice = "A training keeps three checkpoints; a large network may not fit." if scarce else ""
    return Check(topic, "free space here", "note" if scarce else "ok", f"{free / 1e9:.1f} GB", advice)


def _requirements() -> dict[str, list[str]]:
    """Names of the packages that each extra brings; "" is what Tenfold itself needs. Read from its own metadata."""
    extras: dict[str, list[str]] = {}
    try:
        lines = importlib.metadata.requires("tenfold") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    for line in lines:
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[([^\]]*)\])?", line)
        marker = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if match is None:
            continue
        names = extras.setdefault(marker[1] if marker else "", [])
        # An extra may stand for another one: tenfold[export] inside demo.
        names.extend(
            [match[1]] if match[1].lower() != "tenfold" else [f"[{part.strip()}]" for part in match[2].split(",")]
        )
    return {extra: sorted(_expanded(names, extras)) for extra, names in extras.items()}


def _expanded(names: list[str], extras: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    for name in names:
        found |= _expanded(extras.get(name[1:-1], []), extras) if name.startswith("[") else {name}
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
