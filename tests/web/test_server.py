"""The server's addresses, in this process: who is let in, what is kept, and what becomes of hostile requests."""

import asyncio
import errno
import json
import os
import re
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from tenfold.errors import StorageError, UsageError
from tenfold.web import app as web_app
from tenfold.web import store as web_store
from tenfold.web.app import make_app
from tenfold.web.jobs import Board
from tenfold.web.security import Keys
from tenfold.web.settings import ServeSettings
from tenfold.web.store import Job, Store
from tenfold.web.tasks import TASKS
from tenfold.web.uploads import display_name
from video_files import moving_square, write_video

ORIGIN = "http://127.0.0.1:8451"
TRAVERSALS = [
    "..",
    "../..",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "....//",
    "/etc/passwd",
    "a" * 26,
    "C:\\x",
    "\x00",
    "~",
]


class Site:
    """A server in this process, with a client that has come in."""

    def __init__(self, folder, **changes):
        self.keys = Keys(changes.get("password"))
        self.settings = ServeSettings(folder=folder, **changes)
        self.guard = make_app(self.settings, self.keys, 8451)
        self.client = TestClient(self.guard, base_url=ORIGIN, headers={"origin": ORIGIN}, raise_server_exceptions=False)
        self.service = self.guard._app.state.service

    def enter(self):
        answer = self.client.get(f"/enter?token={self.keys.token}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        return self.client

    def wait(self, job, seconds=90):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now = next(one for one in self.client.get("/api/jobs").json()["jobs"] if one["id"] == job["id"])
            if now["state"] not in ("waiting", "running"):
                return now
            time.sleep(0.1)
        raise AssertionError(f"{now} is not over")


@pytest.fixture
def site(tmp_path):
    one = Site(tmp_path / "serve")
    with one.client:
        one.enter()
        yield one


@pytest.fixture
def idle(tmp_path, monkeypatch):
    """A server that runs no jobs."""
    monkeypatch.setattr("tenfold.web.jobs.Queue.start", lambda self: None)
    one = Site(tmp_path / "serve", waiting=5)
    with one.client:
        one.enter()
        yield one


def done_clip(site, frames=5):
    """A clip as if it had been read."""
    name = site.service.store.new_folder()
    facts = {"frames": frames, "width": 64, "height": 48, "shown": [64, 48], "rate": 25.0}
    return site.service.store.add(Job(id=name, kind="clip", title="clip.mp4", state="done", result=facts))


def test_only_who_has_the_address_comes_in(tmp_path):
    site = Site(tmp_path / "serve")
    with site.client as client:
        assert client.get("/").status_code == 401
        assert client.get("/api/jobs").status_code == 401
        assert client.post("/api/sample").status_code == 401
        assert client.get("/enter?token=wrong").status_code == 403
        assert client.get("/enter").status_code == 403
        assert client.get("/login").status_code == 404
        assert client.get("/api/jobs", headers={"cookie": f"{site.guard.cookie}=wrong"}).status_code == 401
        assert client.get("/api/jobs", headers={"cookie": "\x7f=;;;"}).status_code == 401
        answer = client.get(f"/enter?token={site.keys.token}", follow_redirects=False)
        said = answer.headers["set-cookie"].lower()
        assert "httponly" in said
        assert "samesite=strict" in said
        assert site.keys.token.lower() not in said
        assert client.get("/api/jobs").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8451"},
        {"host": "127.0.0.1:9999"},
        {"host": "127.0.0.1"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_names_and_other_pages_are_refused_with_the_right_cookie_too(idle, headers):
    for method, path in (("GET", "/api/jobs"), ("GET", "/"), ("POST", "/api/sample")):
        answer = idle.client.request(method, path, headers=headers)
        assert answer.status_code in (403, 421), (method, path)
    assert len(idle.service.store) == 0


def test_what_changes_something_must_say_where_it_comes_from(idle):
    del idle.client.headers["origin"]
    assert idle.client.post("/api/sample").status_code == 403
    assert idle.client.get("/api/jobs").status_code == 200
    for name in ("localhost:8451", "[::1]:8451"):
        assert idle.client.post("/api/sample", headers={"host": name, "origin": f"http://{name}"}).status_code == 201


def test_every_answer_forbids_foreign_scripts_and_frames(idle):
    for path in ("/", "/api/jobs", "/nothing", "/static/app.js", "/api/jobs/%2e%2e/result"):
        headers = idle.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    refused = idle.client.get("/", headers={"host": "evil.example"})
    assert "default-src 'none'" in refused.headers["content-security-policy"]


def test_the_page_asks_nothing_of_other_servers():
    folder = Path(web_app.__file__).parent / "static"
    for path in folder.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z0-9.-]+\.[a-z]{2,}/|@import", text), path.name
        assert not re.search(r"\son[a-z]+=|style=|<script(?! type=\"module\" src=)|innerHTML", text), path.name


def test_a_password_opens_it_and_guessing_is_slow(tmp_path):
    site = Site(tmp_path / "serve", password="correct horse battery", host="192.0.2.1")
    site.client = TestClient(site.guard, base_url="http://192.0.2.1:8451", follow_redirects=False)
    site.client.headers["origin"] = "http://192.0.2.1:8451"
    with site.client as client:
        assert client.get("/").headers["location"] == "/login"
        assert "Password" in client.get("/login").text
        assert client.post("/login", content=b"password=wrong").status_code == 403
        assert client.post("/login", content=b"\xff\xfe&&=").status_code == 403
        assert client.post("/login", content=b"password=correct+horse+battery").status_code == 303
        assert client.get("/api/jobs").status_code == 200
        for _ in range(4):
            client.post("/login", content=b"password=guess")
        assert client.post("/login", content=b"password=correct+horse+battery").status_code == 429


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "0.0.0.0"}, "needs a password"),
        ({"host": "192.168.1.5"}, "needs a password"),
        ({"host": "192.168.1.5", "password": "short"}, "needed are 12 or more"),
        ({"host": "0.0.0.0", "password": "long enough it is"}, "needs the names"),
        ({"host": "example.com"}, "is no address"),
        ({"names": ("a b",)}, "is no host name"),
        ({"port": 70000}, "port is 70000"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_settings_that_are_not_safe_are_refused(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        ServeSettings(folder=tmp_path, **changes)


def test_the_names_that_are_answered():
    here = ServeSettings(folder=Path()).hosts(8451)
    assert here == {"127.0.0.1:8451", "localhost:8451", "[::1]:8451"}
    there = ServeSettings(folder=Path(), host="192.0.2.1", names=("Studio.local",), password="long enough it is")
    assert there.hosts(80) == {"192.0.2.1:80", "192.0.2.1", "studio.local:80", "studio.local"}
    assert "password" not in repr(there)


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_name_leads_out_of_the_folder(idle, name):
    clip = done_clip(idle)
    before = sorted(idle.settings.folder.rglob("*"))
    get, post = idle.client.get, idle.client.post
    plain, name = name, quote(name, safe="%").replace(".", "%2e")  # clients would resolve dots themselves
    answers = [
        get(f"/api/jobs/{name}/frames/0"), get(f"/api/jobs/{name}/masks/0"), get(f"/api/jobs/{name}/result"),
        get(f"/api/jobs/{clip.id}/frames/{name}"), get(f"/static/{name}"), get(f"/api/reports/{name}"),
        post(f"/api/jobs/{name}/cancel"), post(f"/api/jobs/{name}/again"), idle.client.delete(f"/api/jobs/{name}"),
        post("/api/follow", json={"clip": plain, "marks": []}), post("/api/erase", json={"follow": plain}),
        post("/api/follow", json={"clip": clip.id, "marks": [{"frame": plain, "point": [0, 0]}]}),
        post("/api/erase", json={"follow": clip.id, "preset": plain}),
        post("/api/profile", json={"model": f"../{plain}/x.safetensors"}),
        post("/api/profile", json={"model": "resnet18", "path": plain}),
    ]  # fmt: skip
    for answer in answers:
        assert 400 <= answer.status_code < 500, answer.request.url
        assert "root:" not in answer.text
    assert sorted(idle.settings.folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/follow", b"not json"),
        ("/api/follow", b"[" * 20_000),
        ("/api/follow", b"\xff\xfe"),
        ("/api/follow", json.dumps({"clip": "CLIP", "marks": [{"frame": 99, "point": [0.5, 0.5]}]}).encode()),
        ("/api/follow", json.dumps({"clip": "CLIP", "marks": [{"frame": 0, "point": [0.5, 1e9]}]}).encode()),
        ("/api/follow", b'{"clip": "CLIP", "marks": [{"frame": 0, "point": [NaN, 0]}]}'),
        ("/api/follow", json.dumps({"clip": "CLIP", "marks": [{"frame": 0}]}).encode()),
        ("/api/follow", json.dumps({"clip": "CLIP", "marks": [{"frame": 0, "point": [0, 0]}] * 99}).encode()),
        ("/api/erase", json.dumps({"follow": "CLIP", "dilate": -1}).encode()),
        ("/api/erase", json.dumps({"follow": "CLIP", "dilate": 10**30}).encode()),
        ("/api/profile", json.dumps({"model": "resnet18", "shape": [10**9]}).encode()),
        ("/api/profile", json.dumps({"model": ["resnet18"]}).encode()),
    ],
)
def test_orders_of_the_wrong_form_are_refused(idle, path, body):
    clip = done_clip(idle)
    answer = idle.client.post(path, content=body.replace(b"CLIP", clip.id.encode()))
    assert 400 <= answer.status_code < 500, answer.text
    assert len(idle.service.store) == 1


def test_a_long_order_is_cut_off(idle):
    answer = idle.client.post("/api/profile", content=b'{"model": "' + b"a" * 10**6 + b'"}')
    assert answer.status_code == 413


def test_the_queue_is_bounded_and_says_so(idle):
    codes = [idle.client.post("/api/sample").status_code for _ in range(7)]
    assert codes == [201] * 5 + [429] * 2
    assert idle.client.post("/api/clips", content=b"x").status_code == 429
    job = idle.client.get("/api/jobs").json()["jobs"][0]
    assert idle.client.post(f"/api/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert idle.client.post("/api/sample").status_code == 201
    assert idle.client.post(f"/api/jobs/{job['id']}/again").status_code == 429
    assert idle.client.delete(f"/api/jobs/{job['id']}").status_code == 204
    assert idle.client.get(f"/api/jobs/{job['id']}/result").status_code == 404


def test_an_upload_is_counted_while_it_comes_whatever_it_says_of_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("tenfold.web.jobs.Queue.start", lambda self: None)
    site = Site(tmp_path / "serve", upload_mb=1)
    sent = 0

    def endless():
        nonlocal sent
        while sent < 64 * 2**20:
            sent += 2**16
            yield b"\0" * 2**16

    with site.client:
        site.enter()
        assert site.client.post("/api/clips", content=b"", headers={"content-length": "99999999999"}).status_code == 413
        answer = site.client.post("/api/clips", content=endless())
        assert answer.status_code == 413
        assert site.client.post("/api/clips", content=b"").status_code == 400
        assert site.client.post("/api/clips", content=b"x" * 1000).status_code == 201
    assert len(list((tmp_path / "serve/jobs").iterdir())) == 1  # what did not come whole left nothing


def test_a_full_disk_is_said_and_loses_nothing(idle, monkeypatch):
    kept = idle.client.post("/api/clips", content=b"x" * 1000).json()

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as changes:
        changes.setattr("tenfold.files.tempfile.mkstemp", full)
        assert idle.client.post("/api/sample").status_code == 413
        assert idle.client.post("/api/clips", content=b"x" * 1000).status_code == 413
        assert idle.client.post(f"/api/jobs/{kept['id']}/cancel").status_code == 200
    with monkeypatch.context() as changes:
        changes.setattr(web_store, "free_bytes", lambda _: 0)
        assert "room" in idle.client.post("/api/clips", content=b"x").json()["detail"]
    with monkeypatch.context() as changes:
        changes.setattr(Path, "open", full)
        assert idle.client.post("/api/clips", content=b"x").status_code == 413
    assert [path.name for path in (idle.settings.folder / "jobs").iterdir()] == [kept["id"]]
    assert len(idle.client.get("/api/jobs").json()["jobs"]) == 1
    assert idle.client.post("/api/sample").status_code == 201


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("holiday.mp4", "holiday.mp4"),
        ("../../../etc/passwd", "passwd"),
        ("..%2F..%2Fx.mp4", "x.mp4"),
        ("C%3A%5CWindows%5Cclip.avi", "clip.avi"),
        ("%00%0A%0D%1b[31m.mp4", "[31m.mp4"),
        ("%E2%80%AEgpj.exe", "gpj.exe"),
        ("", "clip"),
        ("....", "clip"),
        ("a" * 500 + ".mp4", "a" * 80),
        ("%FF%FE", "��"),
        ("<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"),
    ],
)
def test_file_names_are_for_the_eye_alone(idle, sent, shown):
    assert display_name(sent) == shown
    job = idle.client.post("/api/clips", content=b"x", headers={"x-clip-name": sent.replace("\n", "")}).json()
    assert job["title"] == shown
    assert [path.name for path in (idle.settings.folder / "jobs" / job["id"]).iterdir()] != [shown]


@pytest.mark.slow  # each job is a process that imports numpy and PyAV
def test_hostile_files_fail_with_a_sentence_and_write_nothing_elsewhere(site, tmp_path):
    whole = write_video(tmp_path / "whole.mp4", moving_square(6)).read_bytes()
    html = b"<html><script>alert(1)</script>"
    files = {
        "page": html * 50,
        "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "cut": whole[: len(whole) // 3],
        "zip": b"PK\x03\x04" + b"\0" * 500,
        "noise": os.urandom(5000),
    }
    before = {path for path in tmp_path.rglob("*") if "serve" not in path.parts}
    for name, content in files.items():
        job = site.wait(site.client.post("/api/clips", content=content, headers={"x-clip-name": name}).json())
        assert job["state"] == "failed", name
        assert job["error"]
        assert str(tmp_path) not in job["error"]
    polyglot = site.wait(site.client.post("/api/clips", content=whole + html, headers={"x-clip-name": "p.html"}).json())
    assert polyglot["state"] == "done"  # its video is a video; what was sent is never sent back
    picture = site.client.get(f"/api/jobs/{polyglot['id']}/frames/0")
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content[:2] == b"\xff\xd8"
    assert {path for path in tmp_path.rglob("*") if "serve" not in path.parts} == before


@pytest.mark.slow  # runs several jobs, each in a process of its own
def test_a_killed_child_fails_its_job_alone_and_a_restart_begins_again(tmp_path):
    clip = write_video(tmp_path / "clip.mp4", moving_square(6)).read_bytes()
    site = Site(tmp_path / "serve")
    with site.client:
        site.enter()
        ready = site.wait(site.client.post("/api/clips", content=clip).json())
        job = site.client.post("/api/follow", json={"clip": ready["id"]}).json()
        while not (running := site.service.queue._running.get(job["id"])):
            time.sleep(0.02)
        os.killpg(running.pid, 9)
        failed = site.wait(job)
        assert failed["state"] == "failed"
        assert "stopped by the system" in failed["error"]
        again = site.client.post(f"/api/jobs/{job['id']}/again").json()
        assert again["state"] in ("waiting", "running")
    assert not site.service.queue._running
    second = Site(tmp_path / "serve")
    assert second.service.store.get(job["id"]).state in ("waiting", "running")
    with second.client:
        second.enter()
        over = second.wait(again)
        assert over["state"] in ("done", "failed")  # whether something moves in six frames is not the matter here


@pytest.mark.slow  # imports torch in a process of its own
def test_a_job_beyond_its_memory_or_time_is_stopped(tmp_path, monkeypatch):
    code = "import sys; sys.stdin.readline(); print('x'); exec('while True: pass')"
    monkeypatch.setattr("tenfold.web.jobs.WORKER", (os.sys.executable, "-c", code))
    site = Site(tmp_path / "serve")
    object.__setattr__(site.settings, "job_minutes", 0.02)
    with site.client:
        site.enter()
        job = site.wait(site.client.post("/api/sample").json())
    assert job["state"] == "failed"
    assert "minutes" in job["error"]


def test_a_child_that_talks_nonsense_harms_nobody(tmp_path, monkeypatch):
    lines = ["nonsense", "[1]", "null", '{"stage": 1}', '{"stage": "x", "done": "y", "total": []}', "9" * 5000]
    code = f"import sys; sys.stdin.readline(); print({chr(10).join(lines)!r}); print('z' * 3_000_000)"
    monkeypatch.setattr("tenfold.web.jobs.WORKER", (os.sys.executable, "-c", code))
    site = Site(tmp_path / "serve")
    with site.client:
        site.enter()
        job = site.wait(site.client.post("/api/sample").json())
        assert job["state"] == "failed"
        assert site.client.get("/api/jobs").status_code == 200


def test_events_tell_the_newest_state_and_pile_nothing_up():
    async def listen():
        board = Board()
        heard = board.changes(0.0)
        waiting = asyncio.ensure_future(anext(heard))
        await asyncio.sleep(0)
        for _ in range(1000):
            board.tell("one")
        first = await waiting
        board.tell("two")
        return first, await anext(heard)

    assert asyncio.run(listen()) == (["one"], ["two"])


def test_a_store_forgets_half_uploads_and_damaged_states(tmp_path):
    store = Store(tmp_path, 100)
    job = store.add(Job(id=store.new_folder(), kind="clip", title="kept"))
    half, damaged = store.new_folder(), store.new_folder()
    store.path(half, "source").write_bytes(b"x")
    store.path(damaged, "job.json").write_text("{")
    (tmp_path / "jobs" / "mine").mkdir()
    again = Store(tmp_path, 100)
    assert [one.id for one in again] == [job.id]
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == sorted([job.id, "mine"])
    assert 0 < again.room() <= 100 * 2**20
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Choose another one"):
        Store(tmp_path / "file", 100)


def test_an_input_that_a_network_does_not_take_is_answered_with_a_sentence():
    request = {"model": "resnet18", "shape": [224], "bits": [], "budget": ""}
    with pytest.raises(UsageError, match="resnet18 takes channels, height and width, such as 3x224x224; got 224"):
        TASKS["profile"](request, {}, {}, lambda stage, done, total: None)


def test_reports_of_trainings_are_listed_and_shown_without_scripts(tmp_path):
    for name in ("first", "deep/second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "report.html").write_text("<p>hello</p>")
    (tmp_path / "runs/first/report.json").write_text('{"metrics": {"top1": 0.5}}')
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/report.html").write_text("secret")
    (tmp_path / "runs/link").symlink_to(tmp_path / "elsewhere")
    site = Site(tmp_path / "serve", runs=tmp_path / "runs")
    with site.client:
        site.enter()
        reports = site.client.get("/api/reports").json()["reports"]
        assert sorted(one["title"] for one in reports) == ["deep/second", "first"]
        assert {"top1": 0.5} in [one.get("metrics") for one in reports]
        page = site.client.get(f"/api/reports/{reports[0]['id']}")
        assert page.text == "<p>hello</p>"
        assert page.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert site.client.get("/api/reports/" + "0" * 32).status_code == 404
