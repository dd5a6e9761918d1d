"""What a server may do, and for whom."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from tenfold.errors import UsageError

LEAST_PASSWORD = 12
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How `tenfold serve` listens, and its limits.

    Args:
        folder: where clips and jobs are kept.
        runs: folder whose trainings' reports are shown; None shows none.
        host: address to listen at.
        port: to listen at; 0 takes a free one.
        names: further host names under which browsers may ask, such as a name in the local network.
        password: asked of browsers that do not come with the start-up address; needed for every address but loopback.
        upload_mb: most of one clip.
        store_mb: most of all that is kept.
        clip_frames: most frames of a clip.
        workers: jobs that run at a time.
        waiting: jobs that may wait.
        job_memory_mb: of the process of one job.
        job_minutes: of one job.

    Raises:
        UsageError: if a value is not allowed.
    """

    folder: Path
    runs: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8451
    names: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False)
    upload_mb: int = 2048
    store_mb: int = 20_480
    clip_frames: int = 20_000
    workers: int = 1
    waiting: int = 16
    job_memory_mb: int = 6144
    job_minutes: int = 240

    def __post_init__(self) -> None:
        limits = {"port": (0, 65_535), "upload_mb": (1, 1 << 20), "store_mb": (1, 1 << 24), "workers": (1, 64)}
        limits |= {"waiting": (1, 1000), "job_memory_mb": (512, 1 << 20), "job_minutes": (1, 100_000)}
        limits |= {"clip_frames": (1, 10_000_000)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is {low} to {high}.")
        address = _address(self.host)
        if self.password is not None and len(self.password) < LEAST_PASSWORD:
            raise UsageError(f"the password has {len(self.password)} characters; needed are {LEAST_PASSWORD} or more.")
        if not address.is_loopback and self.password is None:
            raise UsageError(
                f"listening at {self.host}, where other machines reach it, needs a password: put one of at least "
                f"{LEAST_PASSWORD} characters into a file and name it by --password-file. Without --host only this "
                "machine is served."
            )
        if address.is_unspecified and not self.names:
            raise UsageError(
                f"listening at {self.host} needs the names under which browsers will ask: --name ADDRESS, for each one."
            )
        for name in self.names:
            if not _NAME.fullmatch(name.lower()) and not _is_address(name):
                raise UsageError(f"--name {name!r} is no host name or address, such as studio.local or 192.168.1.20.")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return _address(self.host).is_loopback

    def hosts(self, port: int) -> frozenset[str]:
        """The values of a request's Host header that are answered, at the port in use."""
        names = [*self.names, self.host]
        if self.is_local:
            names += ["localhost", "127.0.0.1", "::1"]
        written = {f"[{name}]" if ":" in name else name.lower() for name in names}
        return frozenset({f"{name}:{port}" for name in written} | (written if port == 80 else set()))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        raise UsageError(
            f"--host {host!r} is no address; give one of this machine, such as 127.0.0.1 or 192.168.1.20."
        ) from error


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
