"""The examples of docs/teach.md and docs/drift.md, run as they stand."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import REPOSITORY, fill, save, scratched, textured
from reconpatch.cli import app
from reconpatch.images import list_photos, read_photo
from reconpatch.model import Model


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(tmp_path: Path, small_model_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the model and photos that the pages speak of."""
    (tmp_path / "part.rcp").write_bytes(small_model_file.read_bytes())
    fill(tmp_path / "new-good", [800, 801])
    smudged = textured(802)
    smudged[60:80, 60:80] = 255 - smudged[60:80, 60:80]
    save(smudged, tmp_path / "false-alarms" / "a.png")
    save(scratched(textured(803)), tmp_path / "defects" / "b.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_teaching(workplace: Path) -> None:
    lines = "\n".join(blocks("teach.md", "bash")).splitlines()
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    assert [command[0] for command in commands] == ["update", "update", "diff"]
    for command in commands:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output


def test_teaching_from_python(
    workplace: Path, small_model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ("new-good", "false-alarms", "defects")
    photos = [[read_photo(path) for path in list_photos(Path(folder))] for folder in folders]
    names = dict(zip(("good_photos", "false_alarms", "defects"), photos, strict=True))
    (example,) = blocks("teach.md", "python")
    exec(compile(example, "teach.md", "exec"), {**names, "model": small_model})
    assert "Good photos: 8 -> 11" in capsys.readouterr().out


def test_the_monitor_from_python(small_model: Model) -> None:
    (example,) = blocks("drift.md", "python")
    names = {"model": small_model, "result": small_model.inspect(textured(1000))}
    exec(compile(example, "drift.md", "exec"), names)
    assert json.loads(json.dumps(names["saved"]))["photos"] == 1
