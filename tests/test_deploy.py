"""The examples of deploy/, as far as they can be run or read here."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from conftest import REPOSITORY, WAIT
from reconpatch.cli.main import app
from test_cli_station import serving
from test_docs import CERTIFICATE
from test_line_protocols import free_port
from test_outputs import until
from test_people import PASSWORD, command
from test_service import start  # noqa: F401  (a fixture)

DEPLOY = REPOSITORY / "deploy"
SERVE = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(DEPLOY / "reconpatch.service")
    return found


def test_the_unit_starts_the_service_as_it_can_be_started() -> None:
    service = unit()["Service"]
    program, name, *arguments = shlex.split(service["ExecStart"])
    assert (Path(program).name, name) == ("reconpatch", "serve")
    given = SERVE.make_context(name, arguments).params
    assert given["users"]
    assert given["data"] == Path("/var/lib") / service["StateDirectory"]
    assert service["User"] == "reconpatch"


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("the unit is not verified: there is no systemd-analyze")
    text = (DEPLOY / "reconpatch.service").read_text()
    there = text.replace("/opt/reconpatch/bin/reconpatch", sys.executable)
    (tmp_path / "reconpatch.service").write_text(there)
    verify = [analyze, "verify", "--man=no", tmp_path / "reconpatch.service"]
    done = subprocess.run(verify, capture_output=True, encoding="utf-8", timeout=WAIT, check=False)
    assert "reconpatch.service" not in done.stderr
    offline = [analyze, "security", "--offline=yes", tmp_path / "reconpatch.service"]
    done = subprocess.run(offline, capture_output=True, encoding="utf-8", timeout=WAIT, check=False)
    [level] = re.findall(r"Overall exposure level .*: ([\d.]+)", done.stdout)
    assert float(level) <= 2


def test_the_containers_are_started_as_they_can_be() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra 'torch'")
    whole = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    station, database = whole["services"]["station"], whole["services"]["database"]
    name, *arguments = station["command"]
    given = SERVE.make_context(name, arguments).params
    assert given["token_file"] == Path("/run/secrets/token")
    assert station["environment"]["RECONPATCH_DATABASE"].startswith("postgresql://reconpatch@data")
    mounted = {volume.split(":")[1] for volume in station["volumes"]}
    assert {str(given["data"]), str(given["models"][0].parent)} == mounted
    assert station["ports"] == ["127.0.0.1:8000:8000"]
    used = {
        volume.split(":")[0] for service in (station, database) for volume in service["volumes"]
    }
    assert {name for name in used if not name.startswith(".")} == set(whole["volumes"])
    ignored = (REPOSITORY / ".gitignore").read_text().split()
    assert {"deploy/token", "deploy/database.env"} <= set(ignored)


def test_alerts_ask_for_figures_that_there_are(start: Any) -> None:  # noqa: F811
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra 'torch'")
    [group] = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    asked = {
        name for rule in group["rules"] for name in re.findall(r"reconpatch_\w+", rule["expr"])
    }
    assert len(asked) == 11
    assert asked - figures(start()) == set()


def figures(client: Any) -> set[str]:
    """The names of all figures that a service tells."""
    told = client.get("/api/v1/metrics").text
    return set(re.findall(r"^# TYPE (\w+)", told, re.M))


def queries() -> list[str]:
    """What the dashboard asks of Prometheus."""
    board = json.loads((DEPLOY / "dashboard.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_the_dashboard_shows_figures_that_there_are(start: Any) -> None:  # noqa: F811
    named = {name for query in queries() for name in re.findall(r"reconpatch_\w+", query)}
    asked = {name.removesuffix("_bucket") for name in named}
    assert len(asked) == 16
    assert asked - figures(start()) == set()
    board = json.loads((DEPLOY / "dashboard.json").read_text())
    variables = {one["name"] for one in board["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(board))) == variables
    places = [
        (column, row)
        for at in (panel["gridPos"] for panel in board["panels"])
        for column in range(at["x"], at["x"] + at["w"])
        for row in range(at["y"], at["y"] + at["h"])
    ]
    assert len(places) == len(set(places))  # no panel lies over another
    assert max(column for column, _ in places) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_prometheus_takes_the_alerts_and_the_queries(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("alerts and queries are not parsed: on Debian, apt-get install prometheus")
    rules = [
        {"record": f"query_{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(queries())
    ]
    asked = tmp_path / "queries.yaml"  # JSON is YAML
    asked.write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    for file in (DEPLOY / "alerts.yaml", asked):
        done = subprocess.run(
            [promtool, "check", "rules", file], capture_output=True, encoding="utf-8",
            timeout=WAIT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_people_log_in_through_nginx(small_model_file: Path, tmp_path: Path) -> None:
    nginx, openssl = shutil.which("nginx", path="/usr/sbin:/usr/bin"), shutil.which("openssl")
    if nginx is None or openssl is None:
        pytest.skip("no reverse proxy: on Debian, apt-get install nginx-light openssl")
    subprocess.run(CERTIFICATE.split(), cwd=tmp_path, capture_output=True, check=True)
    (tmp_path / "password").write_text(PASSWORD)
    model = shutil.copy(small_model_file, tmp_path / "part.rcp")
    data = ("--data", tmp_path / "data")
    command("users", "ada", "--role", "admin", "--password-file", tmp_path / "password", *data)
    port = free_port()
    public = f"https://localhost:{port}/station3"
    options = ("--port", 0, "--users", "--public-url", public, "--proxy", "127.0.0.1")
    with serving(model, *data, *options) as (_, url):
        changes = {
            "listen 443": f"listen 127.0.0.1:{port}",
            "line.example;": "localhost;",
            "/etc/ssl/line.example.pem": f"{tmp_path}/cert.pem",
            "/etc/ssl/line.example.key": f"{tmp_path}/key.pem",
            "http://127.0.0.1:8000": url,
            "Host $host": "Host $http_host",  # of another port than 443
        }
        server = (DEPLOY / "nginx.conf").read_text()
        for old, new in changes.items():
            assert old in server
            server = server.replace(old, new)
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error;\nevents {{}}\n"
            f"http {{ access_log off; client_body_temp_path {tmp_path}/body; "
            f"proxy_temp_path {tmp_path}/proxy;\n{server}\n}}\n"
        )
        process = subprocess.Popen([nginx, "-p", tmp_path, "-c", tmp_path / "nginx.conf"])
        try:
            trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
            with httpx.Client(verify=trusted, timeout=WAIT) as client:
                until(lambda: _answers(client, f"{public}/api/v1/health"))
                assert client.get(f"{public}/api/v1/me").status_code == 401
                form = {"name": "ada", "password": PASSWORD, "next": "/"}
                entered = client.post(
                    f"{public}/login", data=form, headers={"Origin": public[: -len("/station3")]}
                )
                assert (entered.status_code, entered.headers["location"]) == (303, "/station3/")
                assert client.get(f"{public}/api/v1/me").json()["name"] == "ada"
        finally:
            process.terminate()
            process.wait(WAIT)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False
