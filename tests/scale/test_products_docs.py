"""The examples of docs/products.md, run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conftest import REPOSITORY, fill, save, scratch_mask, scratched, textured
from reconpatch.cli.main import app

PAGE = (REPOSITORY / "docs" / "products.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the manifest and the photos that the page speaks of."""
    (manifest,) = blocks("toml")
    (tmp_path / "products.toml").write_text(manifest, encoding="utf-8")
    fill(tmp_path / "bottle" / "good", range(6))
    fill(tmp_path / "bottle" / "test" / "good", [20])
    save(scratched(textured(21)), tmp_path / "bottle" / "test" / "scratch" / "a.png")
    fill(tmp_path / "cap", range(30, 35))
    fill(tmp_path / "DATA" / "pin" / "train" / "good", range(40, 45))
    fill(tmp_path / "DATA" / "pin" / "test" / "good", range(50, 52))
    save(scratched(textured(53)), tmp_path / "DATA" / "pin" / "test" / "scratch" / "a.png")
    mask = scratch_mask().astype(np.uint8) * 255
    save(mask, tmp_path / "DATA" / "pin" / "ground_truth" / "scratch" / "a_mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("ray_cluster")
def test_the_commands(workplace: Path) -> None:
    lines = "".join(blocks("bash")).splitlines()
    here, workers, benchmark = (shlex.split(line, comments=True)[1:] for line in lines)
    done = CliRunner().invoke(app, here)
    assert done.exit_code == 0, done.output
    assert {file.name for file in (workplace / "models").iterdir()} == {
        "bottle.rcp", "cap.rcp", "summary.html", "summary.json",
    }  # fmt: skip
    done = CliRunner().invoke(app, workers)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("2 of 2 products have a model, 2 of them kept\n")
    # Smaller than it stands there, so that it takes seconds.
    small = ["--weights", "random", "--set", "size=64", "--methods", "patchcore,untrained"]
    done = CliRunner().invoke(app, [*benchmark, *small])
    assert done.exit_code == 0, done.output
    assert (workplace / "results" / "results.html").is_file()


def test_every_key_that_the_page_names_is_known() -> None:
    from reconpatch.scale.products import _known

    keys = PAGE.partition("- **Keys** are")[2].partition("**A failure")[0]
    named = set(re.findall(r"`([a-z_]+)`", keys))
    assert named - {"good", "test"} <= set(_known())
    assert set(_known()) >= {"alpha", "seed", "bank", *named} - {"good", "test"}
