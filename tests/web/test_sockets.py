"""The server over real sockets: clients that dawdle, hold on, or come in numbers; and starting it."""

import re
import socket
import time
from contextlib import closing

import pytest

from web.conftest import start_server

pytestmark = pytest.mark.slow  # starts a server, and waits for it to lose patience


def connected(server, words=b""):
    client = socket.create_connection(("127.0.0.1", int(server.origin.rpartition(":")[2])), 30)
    client.sendall(words)
    return client


def ended(client, seconds):
    """Whether the server closes the connection by then."""
    client.settimeout(seconds)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_who_sends_no_request_or_half_of_one_is_hung_up_on_and_others_are_served(server):
    silent, half = connected(server), connected(server, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
    began = time.monotonic()
    with closing(server.client()) as client:
        assert client.get("/api/jobs").status_code == 200
    for slow in (silent, half):
        assert ended(slow, 40)
        slow.close()
    assert time.monotonic() - began < 40


def test_more_connections_than_it_bears_are_dropped_and_it_still_answers(server):
    crowd = [connected(server) for _ in range(200)]
    time.sleep(0.5)
    dropped = sum(ended(one, 0.01) for one in crowd)
    assert dropped >= 60
    for one in crowd:
        one.close()
    time.sleep(0.5)
    with closing(server.client()) as client:
        assert client.get("/api/jobs").status_code == 200


IMPROPER = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    b"GET " + b"/a" * 40_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"POST /api/clips HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzz\r\n",
    b"\x00" * 1000,
]


def test_what_is_no_proper_request_is_refused(server):
    for words in IMPROPER:
        with connected(server, words) as client:
            client.settimeout(30)
            answer = client.recv(65536)
        assert answer == b"" or answer.split(b" ")[1].startswith(b"4"), (words, answer)
    with closing(server.client()) as client:
        assert client.get("/api/jobs").status_code == 200


def test_an_upload_that_is_broken_off_leaves_nothing(server):
    with closing(server.client()) as client:
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        head = (
            f"POST /api/clips HTTP/1.1\r\nHost: {server.origin[7:]}\r\nOrigin: {server.origin}\r\nCookie: {cookie}\r\n"
            "Content-Length: 100000\r\n\r\n"
        )
        broken = connected(server, head.encode() + b"x" * 5000)
        time.sleep(0.5)
        broken.close()
        end = time.monotonic() + 20
        while list((server.folder / "jobs").iterdir()) and time.monotonic() < end:
            time.sleep(0.1)
        assert not list((server.folder / "jobs").iterdir())
        assert client.get("/api/jobs").json() == {"jobs": []}


def test_a_server_with_a_password_for_the_network(tmp_path, password_file):
    words = ("--host", "127.0.0.1", "--name", "studio.local", "--password-file", password_file)
    server = start_server(tmp_path / "serve", *words)
    try:
        assert server.address.startswith("http://studio.local:")
        port = server.origin.rpartition(":")[2]
        request = f"GET /login HTTP/1.1\r\nHost: studio.local:{port}\r\nConnection: close\r\n\r\n"
        with connected(server, request.encode()) as client:
            assert b"200 OK" in client.recv(65536)
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--host", "0.0.0.0"), "needs a password"),
        (("--password-file", "none"), "cannot be read"),
        (("--password-file", "empty"), "is empty"),
        (("--clip-frames", "0"), "clip_frames is 0; allowed is 1 to"),
        (("--port", "1"), "cannot listen at 127.0.0.1, port 1|--port"),
        (("--folder", "empty"), "cannot be written"),
    ],
)
def test_a_server_that_cannot_start_says_why(tmp_path, monkeypatch, words, message):
    from tenfold.cli.main import run

    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("")
    said = []
    monkeypatch.setattr("tenfold.cli.failures.to_stderr", lambda panel: said.append(panel.renderable.plain))
    if words == ("--port", "1"):
        taken = socket.create_server(("127.0.0.1", 0))
        words, message = ("--port", str(taken.getsockname()[1])), "cannot listen at 127.0.0.1"
    code = run(["serve", *words])
    if "taken" in locals():
        taken.close()
    assert code in (1, 2)
    assert re.search(message, said[0])
