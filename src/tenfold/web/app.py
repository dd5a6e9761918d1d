"""The addresses of the server: pages, clips, jobs, pictures, events. No part of a request is taken for a path."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as PathPart
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from tenfold.errors import StorageError, TenfoldError, UsageError
from tenfold.web.jobs import Queue, QueueFullError
from tenfold.web.pictures import Pictures
from tenfold.web.reports import Reports
from tenfold.web.security import Guard, Keys
from tenfold.web.settings import ServeSettings
from tenfold.web.store import ID_PATTERN, Job, Store
from tenfold.web.tasks import FRAMES, MASKS, RESULT, SOURCE
from tenfold.web.uploads import display_name, receive_file

_MOST_JOBS = 500
_MOST_UPLOADS, _MOST_LISTENERS = 2, 32
_EVENTS_EVERY = 0.15
_STATIC = {
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "app.js": "text/javascript; charset=utf-8",
    "player.js": "text/javascript; charset=utf-8",
    "pages.js": "text/javascript; charset=utf-8",
}
_REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"

Name = Annotated[str, PathPart(pattern=ID_PATTERN)]
Number = Annotated[int, PathPart(ge=0, le=10_000_000)]


_Part = Annotated[float, Field(ge=0, le=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Mark(_Body):
    """One thing to follow: a point, or a box of two corners, in parts of the frame's width and height."""

    frame: int = Field(ge=0, le=10_000_000)
    point: list[_Part] | None = Field(default=None, min_length=2, max_length=2)
    box: list[_Part] | None = Field(default=None, min_length=4, max_length=4)


class FollowOrder(_Body):
    """What to follow in a clip; no mark: the largest thing that moves."""

    clip: str = Field(pattern=ID_PATTERN)
    marks: list[Mark] = Field(default=[], max_length=16)


class EraseOrder(_Body):
    """What to erase, and how."""

    follow: str = Field(pattern=ID_PATTERN)
    preset: Literal["fast", "good", "best"] = "good"
    dilate: int = Field(default=6, ge=0, le=60)
    feather: int = Field(default=3, ge=0, le=60)
    lossless: bool = False


class ProfileOrder(_Body):
    """A network by its registered name, and what it may cost."""

    model: str = Field(pattern=r"^[A-Za-z0-9_.:+-]{1,100}$")
    shape: list[Annotated[int, Field(ge=1, le=4096)]] = Field(default=[], max_length=4)
    bits: list[Annotated[int, Field(ge=1, le=32)]] = Field(default=[], max_length=2)
    budget: str = Field(default="", max_length=200)


class Service:
    """What all requests share.

    Args:
        settings: see ServeSettings.
        keys: the secrets of this run.
    """

    def __init__(self, settings: ServeSettings, keys: Keys) -> None:
        self.settings, self.keys = settings, keys
        self.store = Store(settings.folder, settings.store_mb)
        self.queue = Queue(self.store, settings)
        self.pictures = Pictures()
        self.reports = Reports(settings.runs)
        self._models: list[str] = []
        self.uploads = 0
        self.listeners = 0

    def job(self, name: str, kind: str | None = None, *, done: bool = False) -> Job:
        """A job by its name.

        Raises:
            HTTPException: with 404 if there is none of this kind; with 409 if it is not done and has to be.
        """
        job = self.store.get(name)
        if job is None or (kind is not None and job.kind != kind):
            raise HTTPException(404, "There is no such thing any more. Load the page again.")
        if done and job.state != "done":
            raise HTTPException(409, "That is not finished yet.")
        return job

    async def make(self, kind: Any, title: str, request: Mapping[str, Any], parent: str = "") -> Job:
        """Put a new job into the queue.

        Raises:
            HTTPException: with 409 if there are too many jobs.
            QueueFullError: if too many wait.
            StorageError: if the disk is full.
        """
        self.check_room()
        name = self.store.new_folder()
        try:
            return await self.queue.add(Job(id=name, kind=kind, parent=parent, title=title, request=request))
        except StorageError:
            self.store.discard(name)
            raise

    async def model_names(self) -> list[str]:
        """The networks that are known by name; asked once, of a process of its own, since they need torch."""
        if not self._models:
            command = (sys.executable, "-m", "tenfold.cli.main", "models", "--json")
            devnull = asyncio.subprocess.DEVNULL
            process = await asyncio.create_subprocess_exec(
                *command, stdin=devnull, stdout=asyncio.subprocess.PIPE, stderr=devnull
            )
            said, _ = await process.communicate()
            self._models = [str(one["name"]) for one in json.loads(said)["models"]]
        return self._models

    def check_room(self) -> None:
        """See that one more job can be taken; errors as for `make`."""
        if len(self.store) >= _MOST_JOBS:
            raise HTTPException(409, f"There are {_MOST_JOBS} clips and results already. Delete some first.")
        self.queue.check_room()


def public(job: Job) -> dict[str, Any]:
    """What the page learns of a job."""
    return {
        "id": job.id,
        "kind": job.kind,
        "parent": job.parent,
        "title": job.title,
        "created": job.created,
        "state": job.state,
        "request": dict(job.request),
        "result": dict(job.result),
        "error": job.error,
        "stage": job.stage,
    }


def make_app(settings: ServeSettings, keys: Keys, port: int) -> Guard:
    """The server as an ASGI application, guarded.

    Args:
        settings: see ServeSettings.
        keys: the secrets of this run.
        port: the one in use, which browsers send in the Host header.
    """
    service = Service(settings, keys)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        service.queue.start()
        yield
        await service.queue.stop()
        service.pictures.close()

    app = FastAPI(lifespan=running, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.add_exception_handler(TenfoldError, _refuse)
    guard = Guard(app, keys, settings.hosts(port))
    _add_entrance(app, service, guard)
    _add_clips(app, service)
    _add_jobs(app, service)
    _add_pictures(app, service)
    _add_pages(app, service)
    return guard


async def _refuse_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    places = sorted({".".join(map(str, one["loc"])) for one in error.errors()})
    return JSONResponse({"detail": f"The request is not of the form that is needed ({', '.join(places)[:200]})."}, 422)


async def _refuse(_: Request, error: Exception) -> Response:
    code = 429 if isinstance(error, QueueFullError) else 413 if isinstance(error, StorageError) else 400
    said = "There is no room left on the disk. Delete some clips first." if code == 413 else str(error)
    return JSONResponse({"detail": said}, code)


def _add_entrance(app: FastAPI, service: Service, guard: Guard) -> None:
    def let_in() -> Response:
        response = RedirectResponse("/", 303)
        response.set_cookie(guard.cookie, service.keys.session, httponly=True, samesite="strict", path="/")
        return response

    @app.get("/enter")
    async def enter(token: str = "") -> Response:
        if not service.keys.fits_token(token):
            raise HTTPException(403, "This address is not the one that `tenfold serve` printed when it started last.")
        return let_in()

    @app.get("/login")
    async def ask() -> Response:
        if not service.keys.has_password:
            raise HTTPException(404, "There is no password; open the address that `tenfold serve` printed.")
        return Response(_static("login.html"), media_type="text/html; charset=utf-8")

    @app.post("/login")
    async def log_in(request: Request) -> Response:
        given = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=4).get("password", [""])[0]
        if not service.keys.fits_password(given):
            raise HTTPException(403, "That is not the password.")
        return let_in()


def _add_clips(app: FastAPI, service: Service) -> None:
    @app.post("/api/clips", status_code=201)
    async def upload(request: Request) -> dict[str, Any]:
        service.check_room()
        if service.uploads >= _MOST_UPLOADS:
            raise HTTPException(429, "Other clips are coming in at the moment. Try again when they are there.")
        service.uploads += 1
        name = ""
        try:
            room = await asyncio.to_thread(service.store.room)
            most = min(room, service.settings.upload_mb * 2**20)
            length = request.headers.get("content-length", "0")
            if most <= 0 or (length.isdecimal() and int(length[:20]) > most):
                raise HTTPException(413, f"There is room for a clip of {max(0, most) // 2**20} MB at most.")
            name = service.store.new_folder()
            await receive_file(request.stream(), service.store.path(name, SOURCE), most)
            title = display_name(request.headers.get("x-clip-name", ""))
            return public(await service.queue.add(Job(id=name, kind="clip", title=title)))
        except ClientDisconnect as error:
            service.store.discard(name)
            raise HTTPException(400, "The upload was broken off.") from error
        except BaseException:
            if name:
                service.store.discard(name)
            raise
        finally:
            service.uploads -= 1

    @app.post("/api/sample", status_code=201)
    async def sample() -> dict[str, Any]:
        return public(await service.make("clip", "Sample: a drifting dahlia", {"sample": True}))


def _add_jobs(app: FastAPI, service: Service) -> None:
    @app.post("/api/follow", status_code=201)
    async def follow(order: FollowOrder) -> dict[str, Any]:
        clip = service.job(order.clip, "clip", done=True)
        for mark in order.marks:
            if (mark.point is None) == (mark.box is None) or mark.frame >= clip.result["frames"]:
                raise UsageError("A mark has a point or a box, and lies in a frame of the clip.")
        marks = [mark.model_dump() for mark in order.marks]
        return public(await service.make("follow", clip.title, {"marks": marks}, clip.id))

    @app.post("/api/erase", status_code=201)
    async def erase(order: EraseOrder) -> dict[str, Any]:
        masks = service.job(order.follow, "follow", done=True)
        return public(await service.make("erase", masks.title, order.model_dump(exclude={"follow"}), masks.id))

    @app.post("/api/profile", status_code=201)
    async def profile(order: ProfileOrder) -> dict[str, Any]:
        return public(await service.make("profile", order.model, order.model_dump()))

    @app.get("/api/jobs")
    async def jobs() -> dict[str, Any]:
        return {"jobs": [public(job) for job in service.store]}

    @app.post("/api/jobs/{name}/cancel")
    async def cancel(name: Name) -> dict[str, Any]:
        return public(await service.queue.cancel(service.job(name)))

    @app.post("/api/jobs/{name}/again")
    async def again(name: Name) -> dict[str, Any]:
        return public(await service.queue.again(service.job(name)))

    @app.delete("/api/jobs/{name}", status_code=204)
    async def remove(name: Name) -> Response:
        job = service.job(name)
        for one in (job, *service.store.children(job)):
            service.pictures.forget(service.store.path(one))
        await service.queue.remove(job)
        return Response(status_code=204)

    @app.get("/api/events")
    async def events() -> Response:
        if service.listeners >= _MOST_LISTENERS:
            raise HTTPException(429, "Too many pages are open at once. Close some.")
        return StreamingResponse(_events(service), media_type="text/event-stream")


async def _events(service: Service) -> AsyncIterator[str]:
    service.listeners += 1
    try:
        yield "retry: 1000\n\n" + _event("all", {"jobs": [public(job) for job in service.store]})
        async for names in service.queue.board.changes(_EVENTS_EVERY):
            text = ""
            for name in names:
                job = service.store.get(name)
                text += _event("job", public(job)) if job is not None else _event("gone", {"id": name})
            yield text or ": still here\n\n"
    finally:
        service.listeners -= 1


def _event(kind: str, content: Mapping[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(content)}\n\n"


def _add_pictures(app: FastAPI, service: Service) -> None:
    lasting = {"cache-control": "private, max-age=86400, immutable"}

    async def picture(name: str, file: str, number: int) -> bytes | None:
        return await asyncio.to_thread(service.pictures.read, service.store.path(name, file), number)

    @app.get("/api/jobs/{name}/frames/{number}")
    async def frame(name: Name, number: Number) -> Response:
        job = service.job(name)
        content = await picture(job.id, FRAMES, number) if job.kind in ("clip", "erase") else None
        if content is None:
            raise HTTPException(404, "There is no such frame.")
        return Response(content, media_type="image/jpeg", headers=lasting if job.state == "done" else None)

    @app.get("/api/jobs/{name}/masks/{number}")
    async def mask(name: Name, number: Number) -> Response:
        job = service.job(name)
        content = await picture(job.id, MASKS, number) if job.kind == "follow" else None
        if content is None:
            raise HTTPException(404, "There is no such mask.")
        if not content:
            return Response(status_code=204)
        return Response(content, media_type="image/png", headers=lasting if job.state == "done" else None)

    @app.get("/api/jobs/{name}/result")
    async def result(name: Name) -> Response:
        job = service.job(name, "erase", done=True)
        stem = Path(job.title).stem or "clip"
        path = service.store.path(job, RESULT)
        if not path.is_file():
            raise HTTPException(404, "The result is gone.")
        return FileResponse(path, media_type="video/mp4", filename=f"{stem} (clean).mp4")


def _add_pages(app: FastAPI, service: Service) -> None:
    @app.get("/")
    async def index() -> Response:
        return Response(_static("index.html"), media_type="text/html; charset=utf-8")

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in _STATIC:
            raise HTTPException(404, "There is no such file.")
        return Response(_static(name), media_type=_STATIC[name])

    @app.get("/api/reports")
    async def reports() -> dict[str, Any]:
        return {"reports": await asyncio.to_thread(service.reports.found)}

    @app.get("/api/reports/{name}")
    async def report(name: Annotated[str, PathPart(pattern=r"^[0-9a-f]{32}$")]) -> Response:
        content = await asyncio.to_thread(service.reports.read, name)
        if content is None:
            raise HTTPException(404, "There is no such report any more.")
        headers = {"content-security-policy": _REPORT_POLICY}
        return Response(content, media_type="text/html; charset=utf-8", headers=headers)

    @app.get("/api/models")
    async def models() -> dict[str, Any]:
        return {"models": await service.model_names()}


def _static(name: str) -> bytes:
    return resources.files("tenfold.web").joinpath("static", name).read_bytes()
