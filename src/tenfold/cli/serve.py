"""`tenfold serve`: the page for the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tenfold.cli.output import to_stderr, to_stdout
from tenfold.errors import UsageError, require


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8451,
    name: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    password_file: Path | None = None,
    folder: Path | None = None,
    runs: Path = Path("runs"),
    upload_mb: int = 2048,
    store_mb: int = 20_480,
    clip_frames: int = 20_000,
    workers: int = 1,
    job_memory_mb: int = 6144,
    job_minutes: int = 240,
) -> None:
    """Erase in the browser: drop a clip, click on a thing, and it is gone.

    tenfold serve

    The page is served to this machine alone, by the address that is printed: it holds a key that changes with each
    start. Clips stay on this machine. Also shown: the reports of trainings, and what networks cost.

    Args:
        host: address to listen at; any but this machine's own needs a password.
        port: to listen at; 0 takes a free one.
        name: a further name or address under which browsers reach it, with --host; may be repeated.
        password_file: a file whose first line is the password.
        folder: where clips and results are kept; default: serve/ in Tenfold's cache.
        runs: folder whose trainings' reports are shown.
        upload_mb: most of one clip.
        store_mb: most of all clips and results.
        clip_frames: most frames of one clip.
        workers: jobs that run at a time.
        job_memory_mb: most memory of one job.
        job_minutes: most time of one job.
    """
    for package in ("fastapi", "uvicorn"):
        require(package, "web")
    from tenfold.data.cache import cache_folder
    from tenfold.web.server import serve_until_stopped
    from tenfold.web.settings import ServeSettings

    settings = ServeSettings(
        folder=folder or cache_folder() / "serve",
        runs=runs,
        host=host,
        port=port,
        names=name,
        password=None if password_file is None else _read_password(password_file),
        upload_mb=upload_mb,
        store_mb=store_mb,
        clip_frames=clip_frames,
        workers=workers,
        job_memory_mb=job_memory_mb,
        job_minutes=job_minutes,
    )

    def ready(address: str) -> None:
        to_stderr("[bold]Tenfold is ready.[/] Open this address; it lets your browser in until the server ends:")
        to_stdout(address)
        to_stderr(f"[dim]Clips and results: {settings.folder}. Ctrl-C ends the server; what is done is kept.[/]")
        if not settings.is_local:
            to_stderr(
                "[yellow]Others in your network can read what is sent; do not use it where you do not trust them.[/]"
            )

    serve_until_stopped(settings, ready)


def _read_password(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--password-file {path} cannot be read ({error}). Give a text file.") from error
    if not lines:
        raise UsageError(f"--password-file {path} is empty; its first line is the password.")
    return lines[0]
