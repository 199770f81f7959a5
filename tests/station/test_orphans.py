"""Files that the records do not know: counted, listed, and touched by nobody but a person."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import textured
from reconpatch.cli.main import app
from reconpatch.errors import OutputError
from reconpatch.station import orphans
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.fit_jobs import FitJobs
from reconpatch.station.orphans import Orphans
from reconpatch.station.records import Records
from reconpatch.station.station import Station
from test_station import inspect


@pytest.fixture
def used(tmp_path: Path, small_model_file: Path) -> Path:
    """A station's folder with two photos, a foreign file, a threshold, and photos dropped."""
    model = Path(shutil.copy(small_model_file, tmp_path / "disc.rcp"))
    data = tmp_path / "data"
    with Station(DataFolder(data), [model], threads=1) as station:
        records = [inspect(station, textured(seed)) for seed in (1, 2)]
        station.set_threshold("disc", score=3.0)
        FitJobs(station).drop(station.photos.read(records[0].photo), name="good.png")
    (data / "photos" / records[0].photo[:2] / "notes.txt").write_text("mine")
    (data / "photos" / "holiday.jpg").write_text("mine, too")
    (data / "fits" / "fit-0123abcd.rcp").write_text("a model")
    (data / "fits" / "plan.txt").write_text("mine as well")
    return data


def contents(folder: Path) -> dict[str, bytes]:
    names = ("photos", "fits", "models")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in names
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


def started(data: Path, model: Path | None = None) -> Orphans:
    """What a station counts at start."""
    models = [model] if model is not None else []
    with Station(DataFolder(data), models, threads=1) as station:
        FitJobs(station).close()
        station._tidy(first=True)
        return station.orphans


@pytest.mark.parametrize("lost", ["database", "older", "moved"])
def test_a_station_with_another_database_deletes_nothing(
    used: Path, tmp_path: Path, small_model_file: Path, lost: str
) -> None:
    model = tmp_path / "disc.rcp"
    if lost == "older":  # a backup of before the last photos
        backup = tmp_path / "backup"
        with Station(DataFolder(backup), [model], threads=1):
            pass
        shutil.copy(backup / "records.sqlite", used / "records.sqlite")
        shutil.copy(backup / "station.txt", used / "station.txt")
    elif lost == "database":
        (used / "records.sqlite").unlink()
    else:  # its photos, copied beside another station's records
        (used / "station.txt").write_text("another-name")
    for left in used.glob("records.sqlite-*"):
        left.unlink()
    before = contents(used)
    found = started(used, model)
    after = contents(used)
    assert {name: after[name] for name in before} == before
    assert (found.photos, found.foreign, found.fits) == (2, 2, 1)
    assert found.bytes == sum(len(c) for n, c in before.items() if len(Path(n).name) == 64)
    assert found.sentence is not None
    assert "2 photos" in found.sentence
    assert "right database" in found.sentence


def test_with_its_own_database_nothing_is_said_of_its_photos(used: Path) -> None:
    before = contents(used)
    found = started(used)
    assert contents(used) == before
    assert (found.photos, found.known, found.foreign, found.fits) == (0, 2, 2, 1)
    (used / "fits" / "fit-0123abcd.rcp").unlink()
    for path in (used / "photos").rglob("*"):
        if path.is_file() and len(path.name) != 64:
            path.unlink()
    assert started(used).sentence is None


# --- The command ---------------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["orphans", *map(str, arguments)])


def orphan(data: Path, content: bytes) -> Path:
    """A photo without a record, as a killed process leaves it."""
    name = hashlib.sha256(content).hexdigest()
    path = data / "photos" / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_orphans_are_listed_moved_and_removed(used: Path, tmp_path: Path) -> None:
    lost = [orphan(used, b"x")]
    changed = orphan(used, b"as it was")
    changed.write_bytes(b"as somebody made it")
    before = contents(used)
    listed = run("--data", used, "--json")
    assert listed.exit_code == 0, listed.output
    found = json.loads(listed.stdout)
    assert {Path(path).name for path in found["orphans"]} == {
        *(path.name for path in lost), changed.name, "fit-0123abcd.rcp"
    }  # fmt: skip
    assert {Path(path).name for path in found["foreign"]} == {"notes.txt", "holiday.jpg"}
    assert contents(used) == before
    assert "3 files unknown to the records" in run("--data", used).stdout

    removed = run("--data", used, "--remove")
    assert removed.exit_code == 0, removed.output
    assert "Removed: 2 files" in removed.stderr
    assert f"Left: {changed}" in removed.stderr
    gone = {*lost, used / "fits" / "fit-0123abcd.rcp"}
    assert set(before) - set(contents(used)) == {str(path.relative_to(used)) for path in gone}

    aside = tmp_path / "aside"
    assert run("--data", used, "--move", aside).exit_code == 0
    assert not changed.exists()
    assert (aside / changed.relative_to(used)).read_bytes() == b"as somebody made it"


def test_with_a_database_that_knows_none_nothing_is_removed(used: Path) -> None:
    for path in used.glob("records.sqlite*"):
        path.unlink()
    before = contents(used)
    refused = run("--data", used, "--remove")
    assert refused.exit_code == 2
    assert "may not be its database" in refused.stderr
    assert contents(used) == before
    assert not (used / "records.sqlite").exists()


def test_with_a_database_that_knows_fewer_than_not_nothing_is_removed(used: Path) -> None:
    for i in range(3):
        orphan(used, bytes([i]))
    before = contents(used)
    refused = run("--data", used, "--remove")
    assert refused.exit_code == 2
    assert "know only 2 of the 5 photos in this folder" in refused.stderr
    assert contents(used) == before


def test_what_the_command_refuses(used: Path, tmp_path: Path) -> None:
    both = run("--data", used, "--remove", "--move", tmp_path / "aside")
    assert (both.exit_code, "one of the two" in both.stderr) == (2, True)
    none = run("--data", tmp_path / "missing")
    assert (none.exit_code, "no folder of a station" in none.stderr) == (2, True)
    assert not (tmp_path / "missing").exists()
    with DataFolder(used):
        assert "in use by another program" in run("--data", used).stderr


def test_a_photo_that_cannot_be_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    path = orphan(tmp_path, b"x")
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        orphans.remove([path])


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    with Records(tmp_path / "records.sqlite", "x").log._reading():
        assert orphans.count(tmp_path, None) == Orphans()
        assert Orphans().sentence is None
