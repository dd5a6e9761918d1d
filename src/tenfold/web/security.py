"""Who is answered: requests of the page itself, in a browser that came with the start-up address or the password.

A local server is reachable for every page that its user has open. So each request must name the server by an expected
Host (no DNS rebinding), must not come from another page (Origin, Sec-Fetch-Site), and must carry a cookie that browsers
send along with the server's own pages only. Everything that leaves forbids scripts, frames and requests of others.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import deque
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
OPEN_PATHS = frozenset({"/enter", "/login", "/static/style.css", "/static/icon.svg"})
"""Answered without the cookie."""
UPLOAD_PATH = "/api/clips"
BODY_BYTES = 64 * 1024
"""Most of a request that is not an upload."""
IDLE_SECONDS = 30.0
"""A request whose body stands still for so long is given up."""
_TRIES, _TRY_SECONDS = 5, 60.0


class Keys:
    """The secrets of one run of the server.

    Args:
        password: that opens it, too; None: only the start-up address does.
    """

    def __init__(self, password: str | None = None) -> None:
        self.token = secrets.token_urlsafe(32)
        self.session = secrets.token_urlsafe(32)
        self._password = password
        self._failures: deque[float] = deque(maxlen=_TRIES)

    @property
    def has_password(self) -> bool:
        """Whether there is one."""
        return self._password is not None

    def fits_token(self, token: str) -> bool:
        """Whether this is the token of the start-up address."""
        return _equal(token, self.token)

    def fits_password(self, password: str) -> bool:
        """Whether this is the password.

        Raises:
            HTTPException: with 429, after too many wrong ones in a minute.
        """
        now = time.monotonic()
        if len(self._failures) == _TRIES and now - self._failures[0] < _TRY_SECONDS:
            raise HTTPException(429, "Too many wrong passwords. Wait a minute.")
        fits = self._password is not None and _equal(password, self._password)
        if not fits:
            self._failures.append(now)
        return fits


class Guard:
    """Wraps the server's application and answers itself what is not to reach it.

    Args:
        app: the application.
        keys: the secrets.
        hosts: the Host headers that are answered.
        idle_seconds: see IDLE_SECONDS.
    """

    def __init__(self, app: ASGIApp, keys: Keys, hosts: frozenset[str], idle_seconds: float = IDLE_SECONDS) -> None:
        self._app, self._keys, self._hosts, self._idle = app, keys, hosts, idle_seconds
        self._origins = {f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")}
        # Cookies do not know ports: two servers on one machine need two names.
        ports = sorted(host.rpartition(":")[2] for host in hosts if not host.endswith("]") and ":" in host)
        self.cookie = f"tenfold_{ports[0]}" if ports else "tenfold"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        app = self._app if refusal is None else refusal
        await app(scope, self._bounded(scope, receive), _with_headers(send))

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        path, method = scope["path"], scope["method"]
        if not path.startswith("/"):
            return PlainTextResponse("There is no such address.", 404)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return PlainTextResponse("This server does not answer to that name.", 421)
        if not self._origins.issuperset(origins) or (not origins and method not in ("GET", "HEAD")):
            return PlainTextResponse("Requests from other pages are not answered.", 403)
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and path != "/enter":
            return PlainTextResponse("Requests from other pages are not answered.", 403)
        if path in OPEN_PATHS or self._knows(headers):
            return None
        if self._keys.has_password and path == "/" and method == "GET":
            return PlainTextResponse("", 303, {"location": "/login"})
        return PlainTextResponse(
            "Open the address that `tenfold serve` printed when it started; it lets this browser in.", 401
        )

    def _knows(self, headers: Headers) -> bool:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        return self.cookie in cookies and _equal(cookies[self.cookie].value, self._keys.session)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """The request's body, unless it is too long or stands still."""
        most = None if scope["path"] == UPLOAD_PATH else BODY_BYTES
        got, is_whole = 0, False

        async def bounded() -> Message:
            nonlocal got, is_whole
            if is_whole:
                return await receive()  # waits for the client to go away
            try:
                message = await asyncio.wait_for(receive(), self._idle)
            except TimeoutError as error:
                raise HTTPException(408, "The request stood still for too long.") from error
            if message["type"] == "http.request":
                got += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
                if most is not None and got > most:
                    raise HTTPException(413, f"The request is longer than {most} bytes.")
            return message

        return bounded


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


def _equal(got: str, expected: str) -> bool:
    return hmac.compare_digest(got.encode(), expected.encode())
