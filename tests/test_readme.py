"""The README's own examples, run as they stand, and its links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import REPOSITORY, fill, save, scratched, textured
from reconpatch.cli import app

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """The arguments of each `reconpatch` line of the bash blocks."""
    lines = "\n".join(blocks("bash")).splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in split if words[:1] == ["reconpatch"]]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the photos that the README speaks of."""
    fill(tmp_path / "good", range(6))
    fill(tmp_path / "new", [1000])
    save(scratched(textured(1000)), tmp_path / "new" / "scratched.png")
    save(scratched(textured(1001)), tmp_path / "part.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_example(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert (workplace / "part.rcp").is_file()
    assert names["heatmap"].shape == (96, 96)  # type: ignore[attr-defined]
    assert re.match(r"score [\d.]+ > [\d.]+, p = 0.143\nworst at \(", capsys.readouterr().out)


def test_the_shell_example(workplace: Path) -> None:
    fit, inspect = commands()
    assert (fit[0], inspect[0]) == ("fit", "inspect")
    fitted = CliRunner().invoke(app, fit)
    assert fitted.exit_code == 0, fitted.output
    inspected = CliRunner().invoke(app, inspect)
    assert inspected.exit_code == 1, inspected.output
    assert (workplace / "report" / "report.html").is_file()


def test_the_first_commands_are_there() -> None:
    first = blocks("bash")[0].splitlines()
    scripts = [line.split()[0] for line in first]
    assert scripts == ["scripts/demo", "scripts/test"]
    assert [script for script in scripts if not (REPOSITORY / script).is_file()] == []


COMMANDS = [
    "fit", "fit-all", "inspect", "score", "evaluate", "calibrate", "benchmark", "info", "serve", "watch",
    "update", "diff", "verify", "bench", "export", "demo",
]  # fmt: skip


def test_every_command_has_a_row_in_the_table() -> None:
    rows = re.findall(r"^\| `reconpatch ([\w-]+)", README, flags=re.MULTILINE)
    assert rows == COMMANDS
    assert {
        command.callback.__name__.replace("_", "-") for command in app.registered_commands
    } == set(COMMANDS)


def test_every_option_named_exists() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", README))
    assert named
    helps = [
        CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "300"}, color=False).stdout
        for command in COMMANDS
    ]
    assert {option for option in named if not any(option in text for text in helps)} == set()


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *sorted(p.relative_to(REPOSITORY).as_posix() for p in REPOSITORY.glob("docs/*.md")),
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    folder = (REPOSITORY / page).parent
    assert [target for target in local if target and not (folder / target).exists()] == []
