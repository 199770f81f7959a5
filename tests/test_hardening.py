"""A small, seeded sample of what `scripts/soak` does with large counts; see docs/hardening.md."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import reconpatch
from conftest import REPOSITORY, SMALL_FIT, WAIT, save, scratched, textured
from reconpatch.errors import ModelFileError
from reconpatch.graph_contents import check_graph
from reconpatch.model import Model

pytest.importorskip("onnx", reason="onnx makes the hostile graphs: pip install it")


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the soak."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module(name)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("soak_models", monkeypatch)


@pytest.fixture
def damaged_photos(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script("soak_photos", monkeypatch)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """A good part and a defective one."""
    good = textured(1000)
    return [save(good, tmp_path / "a.png"), save(scratched(good), tmp_path / "b.png")]


# --- Model files ---------------------------------------------------------------------------------


def test_damaged_model_files_are_refused_or_harmless(
    models: ModuleType, small_model_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    content, rng = small_model_file.read_bytes(), np.random.default_rng(0)
    expected = models.verdict(reconpatch.load(small_model_file, threads=1), pictures[0])
    count = models.Count()
    for name, damaged in (*models.flips(content, 30, rng), *models.truncations(content, 0, rng)):
        path = tmp_path / "part.rcp"
        count.add(name, models.damaged_file(damaged, pictures[0], expected, path))
    assert count.wrong == []
    assert count.refused > 0.95 * count.tried > 200


def test_an_undamaged_file_is_not_taken_for_a_damaged_one(
    models: ModuleType, small_model_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    content = small_model_file.read_bytes()
    expected = models.verdict(reconpatch.load(small_model_file, threads=1), pictures[0])
    other = models.rewritten(
        content, models._record("members", 0, "calibration", "rate", value=0.4)
    )
    path = tmp_path / "part.rcp"
    assert models.damaged_file(content, pictures[0], expected, path) == "harmless"
    assert models.damaged_file(other, pictures[0], expected, path) == "another verdict"
    assert models.made_up_file(models.rewritten(content, lambda *_: None), pictures, tmp_path) == (
        "harmless"
    )


def test_made_up_model_files_are_refused_or_harmless(
    models: ModuleType, small_model_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    count = models.Count()
    files = dict(models.hostile(small_model_file.read_bytes()))
    graphs = [name for name in files if "graph" in name]
    others = sorted(files.keys() - set(graphs))
    for name in graphs + others[::15]:
        count.add(name, models.made_up_file(files[name](), pictures, tmp_path))
    assert count.wrong == []
    assert count.refused > 20


@pytest.mark.parametrize(
    "name", ["../../../escaped.png", "/escaped.png", "<script>alert(1)</script>"]
)
def test_no_name_in_a_model_reaches_a_file_or_a_page(
    name: str, models: ModuleType, small_model_file: Path, pictures: list[Path], tmp_path: Path
) -> None:
    content = models.rewritten(
        small_model_file.read_bytes(),
        lambda record, _: [photo.update(name=name) for photo in record["photos"]],
    )
    assert models.made_up_file(content, pictures, tmp_path) == "harmless"


def test_what_a_graph_must_not_hold_is_named(models: ModuleType, small_model: Model) -> None:
    check_graph(small_model.engine.graph)
    graphs = dict(models._graphs(small_model.engine.graph))
    for name, said in (
        ("graph with an endless loop", "holds control flow"),
        ("graph with functions", "holds functions"),
        ("graph with data in /etc/passwd", "holds data in another file"),
        ("a graph of noise", "cannot be read"),
    ):
        with pytest.raises(ModelFileError, match=said):
            check_graph(graphs[name])


# --- Photos --------------------------------------------------------------------------------------


def test_damaged_photos_are_inspected_or_refused(
    damaged_photos: ModuleType, models: ModuleType, small_model: Model, tmp_path: Path
) -> None:
    count = models.Count()
    many = 6 * len(damaged_photos.seeds())
    damaged_photos.inspected(small_model, damaged_photos.mutated(many, 0), tmp_path, count)
    assert count.wrong == []
    assert count.tried == many
    assert min(count.refused, count.harmless) > 0.1 * many


def test_every_seed_is_a_photo_and_mutations_follow_their_seed(
    damaged_photos: ModuleType, models: ModuleType, small_model: Model, tmp_path: Path
) -> None:
    count = models.Count()
    damaged_photos.inspected(small_model, iter(damaged_photos.seeds()), tmp_path, count)
    assert (count.wrong, count.harmless) == ([], len(damaged_photos.seeds()))
    first, again, other = (list(damaged_photos.mutated(40, seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_damaged_photos_on_the_command_line(
    damaged_photos: ModuleType, models: ModuleType, small_model_file: Path, tmp_path: Path
) -> None:
    count = models.Count()
    mutated = damaged_photos.mutated(64, 1)
    damaged_photos.through_command_line(small_model_file, mutated, tmp_path / "in", count)
    assert count.wrong == []
    assert count.tried == 64


# --- A fit that is killed ------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_fit_killed_while_it_writes_leaves_what_was_there(
    good_folder: Path, small_model_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "models" / "part.rcp"
    output.parent.mkdir()
    output.write_bytes(small_model_file.read_bytes())
    code = """
import os, signal, sys
import reconpatch, reconpatch.files
reconpatch.files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
reconpatch.fit(sys.argv[1], **eval(sys.argv[3])).save(sys.argv[2], overwrite=True)
"""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, good_folder, output, repr(SMALL_FIT)],
        env={**os.environ, "TMPDIR": str(temporary)}, check=False, timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert output.read_bytes() == small_model_file.read_bytes()
    assert len(list(output.parent.glob(".part.rcp.*.part"))) == 1
    # ONNX Runtime writes a file of its own when it is imported.
    assert {path.name for path in temporary.iterdir()} <= {".ses"}
    for path in output.parent.iterdir():
        os.utime(path, (0, 0))  # long ago
    reconpatch.load(output).save(output, overwrite=True)
    assert list(output.parent.iterdir()) == [output]
