"""Where the tests find what lies outside the repository."""

import os
import socket
from pathlib import Path

import pytest


def shared_folder() -> Path | None:
    """The folder with reference tensors and real data: TENFOLD_SHARED, else ../shared beside the checkout."""
    folder = Path(os.environ.get("TENFOLD_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if folder is None:
        pytest.skip("needs the shared reference data (set TENFOLD_SHARED to its folder)")
    return folder


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """No test reaches another machine; loopback stays open for process groups and local servers."""
    connect = socket.socket.connect

    def guarded(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in {"localhost", "127.0.0.1", "::1"}:
            raise RuntimeError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
