"""A sample of what `benchmarks/malformed.py` sends: requests that break the description."""

from __future__ import annotations

import importlib.util
import random
import shutil
import sys
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from conftest import REPOSITORY, WAIT
from test_cli_station import serving

pytest.importorskip("schemathesis", reason="schemathesis makes the requests: pip install it")


@pytest.fixture
def malformed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    folder = REPOSITORY / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("malformed", folder / "malformed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "malformed", module)
    spec.loader.exec_module(module)
    return module


def test_no_request_breaks_the_service(
    malformed: ModuleType, small_model_file: Path, tmp_path: Path
) -> None:
    model = shutil.copy(small_model_file, tmp_path / "disc.rcp")
    answers: list[int] = []
    wrong: list[str] = []

    def check(what: str, status: int, text: str) -> None:
        answers.append(status)
        if status >= 500 and status != 503:
            wrong.append(f"{status} {what}: {text}")

    options = ("--data", tmp_path / "data", "--port", 0, "--threads", 1, "--max-bytes", 100_000)
    with serving(model, *options) as (process, url):
        malformed.described(url, 160, 0, check)
        malformed.damaged(url, malformed.mutated(64, 0), check)
        malformed.raw(url, 40, random.Random(0), check)
        health = httpx.get(f"{url}/api/v1/health", timeout=WAIT).json()
        process.terminate()
        log = process.communicate(timeout=WAIT)[1]
    assert wrong == []
    assert len(answers) > 100
    assert {200, 400, 404, 422} <= set(answers)
    assert health["status"] == "ok"
    assert "Traceback" not in log
