"""The graphs of a fit: written here or by another process, and f put into them later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import reconpatch
from conftest import SMALL_FIT, fill, textured
from reconpatch.engine import writing as graph_writing
from reconpatch.engine.graph import InspectionGraph
from reconpatch.engine.writing import Graphs, with_f, write, write_here
from reconpatch.errors import WeightsError, WorkersError
from reconpatch.features.extractor import FeatureExtractor
from reconpatch.features.patch_features import load_patch_features
from reconpatch.method.representation import Representation
from reconpatch.method.settings import FitSettings, settings_for


def small(**values: object) -> FitSettings:
    return settings_for(size=(64, 64), bank=0.1, **values)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not imported torch."""
    monkeypatch.setattr(graph_writing, "_stays_here", lambda: False)


def some_f(dim: int | None, channels: int, seed: int) -> Representation:
    rng = np.random.default_rng(seed)
    weight = None if dim is None else rng.normal(size=(dim, channels)).astype(np.float32)
    return Representation(weight, rng.normal(size=dim or channels).astype(np.float32))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("dim", [None, 5, 152])
def test_putting_f_in_gives_the_graph_that_is_written_with_f(dim: int | None, first: bool) -> None:
    settings = small(method="patchcore")
    module, _ = load_patch_features(settings, "random")
    one, other = (
        InspectionGraph(
            module, some_f(dim, 152, seed), settings.scoring, settings.size, 20, f_first=first
        ).to_onnx()
        for seed in (1, 2)
    )
    assert one != other
    assert with_f(one, some_f(dim, 152, 2)) == other


def test_another_process_writes_the_same_graphs(apart: None) -> None:
    settings = small(method="patchcore")
    ours = write_here(settings, "random", 4)
    theirs = write(settings, "random", 4)
    assert theirs.peak > 2**20
    assert ours.peak == 0
    assert (theirs.features, theirs.identity) == (ours.features, ours.identity)
    assert theirs.weights == ours.weights


def test_what_goes_wrong_in_another_process_is_raised_here(apart: None, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.pth"):
        write(small(), tmp_path / "nothing.pth", 4)


def test_a_process_that_dies_is_told(apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_writing, "__name__", "reconpatch.nothing")
    with pytest.raises(WorkersError, match="ended with code 1"):
        write(small(), "random", 4)


@pytest.mark.parametrize(
    ("method", "guard", "learned", "identity"),
    [
        ("reconpatch", True, True, True),
        ("reconpatch", False, True, False),
        ("untrained", True, True, False),
        ("patchcore", True, False, True),
    ],
)
def test_no_graph_is_written_that_cannot_be_wanted(
    method: str, guard: bool, learned: bool, identity: bool
) -> None:
    graphs = write_here(small(method=method, init="kin", guard=guard), "random", 4)
    assert (graphs.learned is not None, graphs.identity is not None) == (learned, identity)
    assert graphs.reduced is None


def test_a_fit_in_a_principal_basis_has_a_graph_that_gives_its_coordinates() -> None:
    settings = small()
    graphs = write_here(settings, "random", 4)
    assert graphs.blocks == ((240, False), (40, True), (672, False), (112, True))
    photos = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    p = FeatureExtractor(graphs.features)(photos)
    onto = some_f(384, p.shape[2], 3)
    coordinates = FeatureExtractor(with_f(graphs.reduced, onto))(photos)
    expected = onto(p)
    assert np.abs(coordinates - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_bank_of_fewer_rows_than_were_expected_has_a_graph_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = fill(tmp_path / "good", range(4))
    (good / "9.png").write_bytes(b"no photo")
    written: list[Graphs] = []

    def watched(*given: object) -> Graphs:
        written.append(write(*given))  # type: ignore[arg-type]
        return written[-1]

    monkeypatch.setattr("reconpatch.fitting.model.write", watched)
    options = {**SMALL_FIT, "bank": 9 / 320, "bank_least": 0, "b": 9, "top": 0.0}
    model = reconpatch.fit(good, skip_unreadable=True, **options)
    assert [graphs.b for graphs in written] == [9, len(model.bank)]
    assert len(model.bank) == 7
    assert np.isfinite(model.inspect(textured(9)).score)


def test_a_fit_whose_f_has_a_closed_form_leaves_torch_to_another_process(tmp_path: Path) -> None:
    good = fill(tmp_path / "good", range(4))
    script = (
        "import sys, reconpatch\n"
        f"model = reconpatch.fit({str(good)!r}, size=64, weights='random', threads=1)\n"
        "assert model.settings.method == 'reconpatch', model.settings\n"
        "sys.exit('torch' in sys.modules or 'timm' in sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
