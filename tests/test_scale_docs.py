"""The commands and the example of docs/scale.md, as they stand there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import REPOSITORY, fill
from reconpatch.cli import app

pytest.importorskip("pyarrow", reason="the extra 'score' is not installed")
from reconpatch.score_table import SCHEMA

PAGE = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.usefixtures("ray_cluster")
def test_the_commands(
    tmp_path: Path, small_model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(small_model_file, "part.rcp")
    fill(tmp_path / "new", [0, 1])
    fill(tmp_path / "good", range(4))
    (tmp_path / "photos.csv").write_text("path\nnew/part000.png\n")
    lines = "\n".join(blocks("bash")).splitlines()
    commands = [shlex.split(line)[1:] for line in lines]
    assert [command[0] for command in commands] == ["score", "score", "fit"]
    for command in commands:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    (example,) = blocks("python")
    exec(compile(example, "scale.md", "exec"), {})
    assert "'id': 'part000.png'" in capsys.readouterr().out  # type: ignore[attr-defined]


def test_every_column_is_described() -> None:
    table = PAGE[PAGE.index("| column | |") : PAGE.index("A file is written whole")]
    named = set(
        re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines()[2:] if row))
    )
    assert named == set(SCHEMA.names)


def test_the_models_numbers_are_those_of_the_code() -> None:
    from reconpatch import distributed_fit, score_table, sources

    for number in (
        f"shares of {distributed_fit.SHARE}",
        f"{distributed_fit.SPARE} times the share's part",
        f"{score_table.FILE_ROWS:,} rows or a minute",
        f"up to {sources.PORTION} photos it was at",
    ):
        assert number in PAGE
    assert (distributed_fit.SAMPLE, score_table.FILE_SECONDS) == (2**18, 60)
