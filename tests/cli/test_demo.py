"""The demonstration: which cells it takes, and a small run of it on real photos."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import reconpatch
from reconpatch.cli.demo import DemoPhotos, demo_photos, run_demo
from reconpatch.errors import OutputError, PhotoError

pytest.importorskip("elpv_dataset", reason="the extra 'demo' is not installed")


def labels() -> dict[str, tuple[float, str]]:
    """Probability of a defect and kind of each cell, by file name."""
    folder = demo_photos(train=1, test=1).train[0].parents[1]
    lines = [line.split() for line in (folder / "labels.csv").read_text().splitlines()]
    return {Path(name).name: (float(probability), kind) for name, probability, kind in lines}


def all_of(photos: DemoPhotos) -> list[Path]:
    return [*photos.train, *photos.good, *photos.defective]


@pytest.mark.parametrize("kind", ["mono", "poly"])
def test_cells_are_what_they_are_taken_for(kind: str) -> None:
    photos = demo_photos(kind, train=30, test=10)
    assert [len(part) for part in (photos.train, photos.good, photos.defective)] == [30, 10, 10]
    known = labels()
    assert {known[path.name] for path in (*photos.train, *photos.good)} == {(0.0, kind)}
    assert {known[path.name] for path in photos.defective} == {(1.0, kind)}


def test_no_cell_is_taken_twice() -> None:
    paths = all_of(demo_photos())
    assert len(paths) == 200 + 40 + 40
    assert len(set(paths)) == len(paths)
    assert all(path.is_file() for path in paths)


def test_the_same_cells_are_taken_every_time() -> None:
    photos = demo_photos(train=3, test=2)
    assert photos == demo_photos(train=3, test=2)
    # The first by the SHA-256 of their names; computed once with sha256sum.
    assert [path.name for path in photos.train] == ["cell1215.png", "cell1520.png", "cell2147.png"]
    assert [path.name for path in photos.good] == ["cell1253.png", "cell1274.png"]
    assert [path.name for path in photos.defective] == ["cell0381.png", "cell0497.png"]


def test_more_cells_than_there_are_cannot_be_asked_for() -> None:
    with pytest.raises(PhotoError, match=r"fewer than the 5001 and 1 that were asked for"):
        demo_photos(train=5000, test=1)


def test_a_small_demonstration(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    folder = tmp_path / "made" / "demo"
    outcome = run_demo(folder, train=12, test=3, seed=0, progress=lambda *call: calls.append(call))
    assert outcome.model == folder / "solar-cells.rcp"
    assert outcome.report == folder / "report.html"
    assert 0 <= outcome.auroc <= 1
    assert len(reconpatch.load(outcome.model).photos) == 12
    page = outcome.report.read_text(encoding="utf-8")
    shown = {path.name for path in all_of(demo_photos(train=12, test=3))[12:]}
    assert len(shown) == 6
    assert all(name in page for name in shown)
    assert len(list((folder / "overlays").rglob("*.png"))) == 6
    assert re.match(
        r"Learned from 12 functional cells in \d+ s\.\n"
        r"Of 3 unseen defective cells, [0-3] were found; "
        r"of 3 unseen functional cells, [0-3] were flagged by mistake\.\n"
        r"Image AUROC \d+\.\d %",
        outcome.text,
    )
    assert str(outcome.report) in outcome.text
    assert calls[-1] == ("inspect", 6, 6)


def test_a_place_that_cannot_be_written_is_refused_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconpatch.fit", None)
    taken = tmp_path / "taken"
    taken.write_text("precious")
    with pytest.raises(OutputError):
        run_demo(taken, train=2, test=1, seed=0)
    assert taken.read_text() == "precious"
