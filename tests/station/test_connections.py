"""Connections that say nothing leave room for those that do."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from reconpatch.station import connections
from reconpatch.station.connections import BoundedListener, most_connections, protocol_for

WAIT = 60


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body."""
    if scope["type"] != "http":
        return
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


@contextlib.contextmanager
def serving(most: int, head_seconds: float, **tls: str) -> Iterator[tuple[str, BoundedListener]]:
    listening = BoundedListener.of(socket.create_server(("127.0.0.1", 0), backlog=512), most)
    listening.head_seconds = head_seconds
    options: dict[str, Any] = {"log_config": None, "ws": "none", "lifespan": "off", **tls}
    config = uvicorn.Config(app, http=protocol_for(listening), **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", listening
    finally:
        server.should_exit = True
        thread.join(WAIT)
        listening.close()


def opened(url: str, said: bytes = b"") -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=WAIT)
    connection.sendall(said)
    return connection


def test_many_half_heads_do_not_keep_others_out(caplog: pytest.LogCaptureFixture) -> None:
    half = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "
    with serving(20, head_seconds=WAIT) as (url, listening):
        waiting = [opened(url, half) for _ in range(60)]
        for _ in range(3):
            assert httpx.post(url, content=b"abc", timeout=WAIT).text == "3"
        alive = sum(one.fileno() >= 0 for one in listening._accepted.values())
        assert alive <= 20
        for one in waiting:
            one.close()
    lines = [r for r in caplog.records if "ended early" in r.getMessage()]
    assert len(lines) == 1


def test_a_request_at_work_is_not_ended_for_others() -> None:
    with serving(4, head_seconds=WAIT) as (url, _):
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 6\r\n\r\n"
        working = opened(url, head + b"abc")
        assert httpx.get(url, timeout=WAIT).text == "0"  # the first one is at work by now
        others = [opened(url, b"GET") for _ in range(12)]
        assert httpx.get(url, timeout=WAIT).text == "0"
        working.sendall(b"def")
        answer = b""
        while part := working.recv(4096):
            answer += part
        assert b"\r\n6\r\n" in answer
        for one in (working, *others):
            one.close()


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"]
)
def test_a_head_that_does_not_get_whole_is_given_up(said: bytes) -> None:
    with serving(20, head_seconds=0.2) as (url, _):
        connection = opened(url, said)
        with contextlib.suppress(ConnectionError):
            while connection.recv(4096):  # the answer to a first request, then the end
                pass
        connection.close()


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    made = {"ssl_certfile": str(tmp_path / "cert.pem"), "ssl_keyfile": str(tmp_path / "key.pem")}
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-out", made["ssl_certfile"],
         "-keyout", made["ssl_keyfile"]], check=True, capture_output=True,
    )  # fmt: skip
    return made


# The first bytes of a TLS record that announces 512 bytes, and nothing more.
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_tls_handshake_that_does_not_get_whole_is_given_up(
    said: bytes, certificate: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with serving(20, 0.5, **certificate) as (url, listening):
        connection = opened(url, said)
        connection.settimeout(WAIT / 2)  # asyncio would end it after a minute
        with contextlib.suppress(ConnectionError):
            assert connection.recv(4096) == b""
        connection.close()
        listening.head_seconds = WAIT
        trusted = ssl.create_default_context(cafile=certificate["ssl_certfile"])
        answer = httpx.get(url.replace("http", "https"), verify=trusted, timeout=WAIT)
        assert answer.text == "0"
    assert "no whole TLS handshake came in time" in caplog.text


def test_there_are_fewer_than_the_process_may_have_open(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for soft, most in ((1024, 512), (400, 144), (10, 16), (resource.RLIM_INFINITY, 512)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert most_connections() == most
    assert connections.MOST < 1024
