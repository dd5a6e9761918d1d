"""Listening: `tenfold serve` until it is stopped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tenfold.errors import UsageError
from tenfold.web.app import make_app
from tenfold.web.security import Keys
from tenfold.web.settings import ServeSettings

_HEAD_SECONDS = 15.0
"""A connection that has sent no whole request for so long is closed."""
_MOST_CONNECTIONS = 128
_HEAD_BYTES = 32 * 1024


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 for a server that strangers may reach: no more connections than it can bear, and none that dawdle."""

    def connection_made(self, transport: Any) -> None:
        """Take a connection, if there is room."""
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()
            return
        self._dawdling = self.loop.call_later(_HEAD_SECONDS, self._hurry)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of a connection."""
        if hasattr(self, "_dawdling"):
            self._dawdling.cancel()
        super().connection_lost(exc)

    def _hurry(self) -> None:
        """Close the connection if it waits for the head of a request."""
        self._dawdling = self.loop.call_later(_HEAD_SECONDS, self._hurry)
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def bound_socket(settings: ServeSettings) -> socket.socket:
    """A socket at the address asked for.

    Raises:
        UsageError: if it cannot be had, such as when the port is in use.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise UsageError(
            f"cannot listen at {settings.host}, port {settings.port}: {error.strerror or error}. Choose another --port "
            "(0 takes a free one)."
        ) from error
    return listening


def serve_until_stopped(settings: ServeSettings, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: see ServeSettings.
        ready: called with the address that lets a browser in.

    Raises:
        UsageError: if the address cannot be had.
        StorageError: if the folder cannot be written.
    """
    with bound_socket(settings) as listening:
        _serve(settings, listening, ready)


def _serve(settings: ServeSettings, listening: socket.socket, ready: Callable[[str], None]) -> None:
    port = listening.getsockname()[1]
    keys = Keys(settings.password)
    config = uvicorn.Config(
        make_app(settings, keys, port),
        http=ImpatientProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=2,
    )
    name = settings.names[0] if settings.names else settings.host
    address = f"http://{f'[{name}]' if ':' in name else name}:{port}/enter?token={keys.token}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(address)

    asyncio.run(Server(config).serve(sockets=[listening]))
