"""The commands of docs/station.md, as they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from conftest import REPOSITORY, fill, save, textured
from test_cli_station import serving

WAIT = 60
CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost "
    "-keyout key.pem -out cert.pem"
)


def commands(beginning: str) -> list[list[str]]:
    """The words of all commands in the page's examples that begin like this."""
    text = (REPOSITORY / "docs" / "station.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(beginning)]


@pytest.fixture(autouse=True)
def at_the_line(tmp_path: Path, small_model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with what the examples name."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(small_model_file, "part.rcp")
    fill(tmp_path / "good", range(3))
    save(textured(1000), tmp_path / "part.png")


def test_the_first_example() -> None:
    [first, _] = commands("reconpatch serve")
    with serving(*first[2:], "--port", 0) as (_, url):
        fits = httpx.get(f"{url}/api/v1/fit", timeout=WAIT).json()
        assert fits["folders"] == [{"name": "good", "photos": 3}]
        page = httpx.get(url)
        assert "<title>ReConPatch</title>" in page.text
        [curl] = commands("curl")
        if shutil.which("curl"):
            asked = [word.replace("http://127.0.0.1:8000", url) for word in curl]
            done = subprocess.run(asked, capture_output=True, check=True, timeout=WAIT)
            assert b'"anomalous":false' in done.stdout


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_the_example_for_other_machines() -> None:
    [make_token] = commands("openssl")
    assert make_token[-2] == ">"
    made = subprocess.run(make_token[:-2], capture_output=True, check=True, timeout=WAIT)
    Path(make_token[-1]).write_bytes(made.stdout)
    subprocess.run(CERTIFICATE.split(), capture_output=True, check=True, timeout=WAIT)
    [_, second] = commands("reconpatch serve")
    with serving(*second[2:], "--port", 0) as (_, url):
        here = url.replace("0.0.0.0", "127.0.0.1")
        with httpx.Client(base_url=here, verify=False, timeout=WAIT) as client:
            assert client.get("/api/v1/products").status_code == 401
            token = made.stdout.decode().strip()
            assert client.get("/", params={"token": token}).status_code == 303
            page = client.get("/")
            assert "<title>ReConPatch</title>" in page.text
            assert client.get("/api/v1/products").json()["products"][0]["name"] == "part"
