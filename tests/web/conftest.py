"""A server in a process of its own, and small clips for it."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi", reason="needs the extra web")


@dataclass
class Server:
    """A running `tenfold serve`."""

    process: subprocess.Popen
    address: str
    folder: Path
    reader: threading.Thread

    @property
    def origin(self):
        return self.address.partition("/enter")[0]

    def client(self):
        """One that has come in by the start-up address."""
        client = httpx.Client(base_url=self.origin, headers={"origin": self.origin}, timeout=60)
        assert client.get(self.address).status_code == 303
        return client

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.process.stdout.close()
        self.reader.join(10)
        self.process.stderr.close()


def start_server(folder, *words, env=None):
    """Start `tenfold serve` and wait for its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tenfold.cli.main", "serve", "--port", "0", "--folder", str(folder), *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    address = process.stdout.readline().strip()
    if not address:
        raise RuntimeError(process.communicate(timeout=30)[1])
    reader = threading.Thread(target=process.stderr.read, daemon=True)
    reader.start()
    return Server(process, address, folder, reader)


@pytest.fixture
def server(tmp_path):
    running = start_server(tmp_path / "serve")
    yield running
    running.stop()


@pytest.fixture
def password_file(tmp_path):
    path = tmp_path / "password"
    path.write_text("correct horse battery\n")
    return path
