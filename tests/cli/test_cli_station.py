"""The command `serve`, by what it refuses, and as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import reconpatch
from conftest import WAIT, scratched, textured
from reconpatch.cli import station as cli_station
from reconpatch.cli.main import app
from reconpatch.photos import images
from reconpatch.station import service, station
from reconpatch.station.data_folder import DataFolder
from test_package import command_line
from test_station import png

TOKEN = "0123456789abcdef"


@pytest.fixture
def model(small_model_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(small_model_file, tmp_path / "disc.rcp"))


def refusal(*arguments: object) -> str:
    """The one line of an error; nothing else may have come of the command."""
    result = CliRunner().invoke(app, ["serve", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    [message] = result.stderr.splitlines()
    assert message.startswith("Error: ")
    return message


@contextlib.contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`reconpatch serve` in a process of its own, and its URL; killed at the end if it is left."""
    # What a shell starts in the background has Ctrl-C switched off, and so would its children.
    program = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('reconpatch.cli', run_name='__main__')"
    )
    command = [sys.executable, "-c", program, "serve", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.fullmatch(r"Listening: (\S+)\n", line):
                yield process, found[1]
                return
        raise AssertionError(process.communicate()[1])
    finally:
        process.kill()
        process.communicate()


def connected(url: str, **options: Any) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=WAIT, **options)


def inspect(client: httpx.Client, content: bytes) -> dict[str, Any]:
    answer = client.post("/api/v1/inspect", content=content)
    assert answer.status_code == 200, answer.text
    record: dict[str, Any] = answer.json()
    return record


# --- Refusals ------------------------------------------------------------------------------------


def test_beyond_this_machine_a_token_is_needed(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert "--token-file" in refusal(model, "--data", data, "--host", "0.0.0.0")
    assert not data.exists()


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 20, b"two lines of\nmany letters"])
def test_tokens_that_are_none(model: Path, tmp_path: Path, content: bytes) -> None:
    token = tmp_path / "token"
    token.write_bytes(content)
    assert "token" in refusal(model, "--data", tmp_path / "data", "--token-file", token)
    assert "cannot be read" in refusal(model, "--token-file", tmp_path / "missing")


def test_certificates_that_cannot_be_used(model: Path, tmp_path: Path) -> None:
    pem = tmp_path / "cert.pem"
    pem.write_text("none")
    data = ("--data", tmp_path / "data")
    assert "--tls-cert and --tls-key" in refusal(model, *data, "--tls-cert", pem)
    assert "--tls-cert and --tls-key" in refusal(model, *data, "--tls-key", pem)
    assert "cannot be used" in refusal(model, *data, "--tls-cert", pem, "--tls-key", pem)
    missing = tmp_path / "missing.pem"
    assert "cannot be used" in refusal(model, *data, "--tls-cert", pem, "--tls-key", missing)


def test_a_port_that_is_taken(model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(model, "--data", tmp_path / "data", "--port", port)
    assert f"cannot listen on 127.0.0.1, port {port}" in said


def test_what_is_given_is_looked_at_before_anything_starts(model: Path, tmp_path: Path) -> None:
    data = ("--data", tmp_path / "data", "--port", 0)
    assert "no model file" in refusal(tmp_path / "missing.rcp", *data)
    assert "no product yet" in refusal(*data)
    assert "several model files are called disc" in refusal(model, model, *data)
    assert "of the kind 'mysql'" in refusal(model, *data, "--database", "mysql://root@localhost/x")


def test_a_folder_that_another_program_uses(model: Path, tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data"):
        said = refusal(model, "--data", tmp_path / "data", "--port", 0)
    assert "in use by another program" in said


@pytest.mark.parametrize(
    "missing", ["fastapi", "uvicorn", "sqlalchemy", "alembic", "prometheus_client"]
)
def test_a_missing_extra_is_named(model: Path, tmp_path: Path, missing: str) -> None:
    done = command_line("serve", model, "--data", tmp_path / "data", missing=(missing,))
    assert done.returncode == 2
    assert "pip install 'reconpatch[serve]'" in done.stderr
    assert not (tmp_path / "data").exists()


def test_the_help_waits_for_nothing_and_tells_the_same_limits() -> None:
    done = command_line(
        "serve", "--help", missing=("fastapi", "uvicorn", "sqlalchemy", "numpy", "PIL")
    )
    assert done.returncode == 0
    assert cli_station.MAX_PIXELS == images.MAX_PIXELS
    assert cli_station.MAX_BYTES == service.MAX_BYTES
    assert station.Limits().queue == cli_station.QUEUE


# --- A process -----------------------------------------------------------------------------------


def test_a_service_inspects_stops_and_goes_on(model: Path, tmp_path: Path) -> None:
    arguments = ("--data", tmp_path / "data", "--port", 0, "--threads", 1)
    with serving(model, *arguments) as (process, url), connected(url) as client:
        record = inspect(client, png(scratched(textured(1))))
        assert record["anomalous"]
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=WAIT)
    assert re.search(r"INFO reconpatch.access: 127\.0\.0\.1 POST /api/v1/inspect 200 \d+ ms", log)
    assert "Traceback" not in log
    with serving(*arguments) as (process, url), connected(url) as client:
        assert client.get(f"/api/v1/records/{record['id']}").json() == record
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert "Traceback" not in log


def test_what_was_answered_outlives_a_killed_service(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = (model, "--data", data, "--port", 0, "--threads", 1)
    answered = []
    for round_ in range(2):
        with serving(*arguments) as (process, url), connected(url) as client:
            for i in range(3):
                answered.append(inspect(client, png(textured(10 * round_ + i))))
            threshold = {"score": float(round_ + 1)}
            client.put("/api/v1/products/disc/threshold", json=threshold).raise_for_status()
            os.kill(process.pid, signal.SIGKILL)
            process.wait(WAIT)
    with contextlib.closing(sqlite3.connect(data / "records.sqlite")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with serving(*arguments) as (_, url), connected(url) as client:
        for record in answered:
            assert client.get(f"/api/v1/records/{record['id']}").json() == record
            assert client.get(f"/api/v1/records/{record['id']}/photo").status_code == 200
        [product] = client.get("/api/v1/products").json()["products"]
        assert (product["version"], product["threshold"]) == (3, 2.0)
    for file in (data / "models" / "disc").iterdir():
        reconpatch.load(file)


def test_a_service_with_tls_and_a_token(model: Path, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    cert, key, token = (tmp_path / name for name in ("cert.pem", "key.pem", "token"))
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    token.write_text(f"{TOKEN}\n")
    options = ("--tls-cert", cert, "--tls-key", key, "--token-file", token, "--host", "0.0.0.0")
    with serving(model, "--data", tmp_path / "data", "--port", 0, *options) as (_, url):
        assert url.startswith("https://0.0.0.0:")
        here = url.replace("0.0.0.0", "127.0.0.1")
        import ssl

        context = ssl.create_default_context(cafile=cert)
        with connected(here, verify=context) as client:
            assert client.get("/api/v1/products").status_code == 401
            given = {"Authorization": f"Bearer {TOKEN}"}
            products = json.loads(client.get("/api/v1/products", headers=given).text)["products"]
            assert [product["name"] for product in products] == ["disc"]
            assert "; Secure" in client.get("/", params={"token": TOKEN}).headers["set-cookie"]


# --- A process that is tried ---------------------------------------------------------------------


def test_what_a_proxy_is_told_and_what_is_refused(model: Path, tmp_path: Path) -> None:
    data = ("--data", tmp_path / "data", "--port", 0)
    token = tmp_path / "token"
    token.write_text(TOKEN)
    url = "https://line.example/station3"
    assert "give --token-file" in refusal(model, *data, "--public-url", url)
    for wrong in ("line.example", "ftp://line.example", "https://", "https://x/?a=b", "http://[x"):
        said = refusal(model, *data, "--token-file", token, "--public-url", wrong)
        assert "--public-url is" in said
    for wrong in ("localhost", "1.2.3", "http://127.0.0.1"):
        assert "--proxy is" in refusal(model, *data, "--proxy", wrong)
    access = cli_station._access("127.0.0.1", token, "https://Line.example:444/a/", secure=False)
    assert (access.origin, access.prefix, access.secure) == ("https://line.example:444", "/a", True)


def test_a_proxy_that_is_named_is_believed_and_no_other(model: Path, tmp_path: Path) -> None:
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    arguments = (model, "--data", tmp_path / "data", "--port", 0, "--threads", 1)
    for proxy, expected in ((["--proxy", "127.0.0.1"], "192.0.2.7"), ([], r"127\.0\.0\.1")):
        with serving(*arguments, *proxy) as (process, url):
            httpx.get(f"{url}/api/v1/state", headers=forwarded).raise_for_status()
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=60)
        assert re.search(rf"reconpatch.access: {expected} GET /api/v1/state 200", log), log


def test_a_service_ends_at_once_with_half_open_requests(model: Path, tmp_path: Path) -> None:
    """More of them than the process may have files open; and an upload that stands still."""
    arguments = (model, "--data", tmp_path / "data", "--port", 0, "--threads", 1)
    with serving(*arguments) as (process, url):
        host, port = url.removeprefix("http://").split(":")
        half = b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
        upload = b"POST /api/v1/inspect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\nx"
        with contextlib.ExitStack() as opened:
            for said in [half] * 1_100 + [upload]:
                connection = socket.create_connection((host, int(port)), timeout=60)
                opened.callback(connection.close)
                connection.sendall(said)
            assert httpx.get(f"{url}/api/v1/health", timeout=60).status_code == 200
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=60)
    assert "Traceback" not in log
    assert len(re.findall("ended early", log)) <= 2
    assert "POST /api/v1/inspect 400" in log


def test_one_damaged_model_of_two_is_out_of_service(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "ring.rcp"
    other.write_bytes(model.read_bytes()[:1_000])
    arguments = (model, other, "--data", tmp_path / "data", "--port", 0, "--threads", 1)
    with serving(*arguments) as (process, url), httpx.Client(base_url=url) as client:
        assert not inspect(client, png(textured(1)))["anomalous"]
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert "ring is out of service: " in log


def test_the_database_can_be_named_out_of_sight(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONPATCH_DATABASE", "mysql://root:secret@localhost/x")
    said = refusal(model, "--data", tmp_path / "data", "--port", 0)
    assert "of the kind 'mysql'" in said
    assert "secret" not in said


@pytest.mark.parametrize("kind", ["pipe", "sparse"])
def test_what_is_no_model_is_one_sentence(model: Path, tmp_path: Path, kind: str) -> None:
    wrong = tmp_path / "wrong.rcp"
    if kind == "pipe":
        os.mkfifo(wrong)
    else:
        with wrong.open("wb") as file:
            file.truncate(10**12)
    said = refusal(wrong, "--data", tmp_path / "data", "--port", 0)
    assert "give the model file that `fit` wrote" in said
