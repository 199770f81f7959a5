"""Backup of a station at work, what a restored one answers, and what the doctor finds."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from conftest import WAIT, scratched, textured
from reconpatch.cli.main import app
from reconpatch.errors import OutputError, RecordsError
from reconpatch.station.audit import verify
from reconpatch.station.backup import back_up, restore
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.doctor import Finding, examine
from reconpatch.station.photo_store import PhotoStore
from reconpatch.station.records import Records
from reconpatch.station.station import Station
from test_records import VERDICT, database, postgresql, tables  # noqa: F401  (fixtures)
from test_station import inspect, png


@pytest.fixture(scope="module")
def made(small_model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a station that has inspected six photos; not to be changed."""
    folder = tmp_path_factory.mktemp("station")
    model = Path(shutil.copy(small_model_file, folder / "disc.rcp"))
    with Station(DataFolder(folder / "data"), [model], threads=1) as station:
        for seed in range(6):
            inspect(station, scratched(textured(seed)) if seed % 2 else textured(seed))
        station.records.feedback(1, "good", by="Ada")
    return folder / "data"


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A station's folder of one's own."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def everything(data: Path) -> list[Any]:
    """What a station answers of its past."""
    station = (data / "station.txt").read_text().strip()
    with closing(Records(data / "records.sqlite", station)) as records:
        store = PhotoStore(data / "photos", records)
        found = list(records.export())
        return [
            found,
            [store.read(one.photo) for one in found],
            records.versions("disc"),
            records.services("disc"),
            records.log.changes("disc"),
            [path.read_bytes() for path in sorted((data / "models").rglob("*.rcp"))],
        ]


# --- Backup and restore --------------------------------------------------------------------------


def test_a_restored_station_answers_as_before_and_goes_on(data: Path, tmp_path: Path) -> None:
    to, other = tmp_path / "backup", tmp_path / "other"
    made = back_up(data, to)
    assert (made.photos, made.missing, list(made.models)) == (6, 0, ["disc/0001.rcp"])
    restored = restore(to, other)
    assert restored == made
    assert everything(other) == everything(data)
    with Station(DataFolder(other), threads=1) as station:
        assert station.data.station == made.station
        again = inspect(station, textured(0))
        assert again.id == 7
        assert again.score == pytest.approx(station.records.get(1).score, rel=1e-6)
        trail = verify(station.records.audit.export())
    whats = [entry.what for entry in station_audit(other)]
    assert whats[:2] == ["restore", "backup"]
    assert trail.entries == len(whats)


def station_audit(data: Path) -> list[Any]:
    station = (data / "station.txt").read_text().strip()
    with closing(Records(data / "records.sqlite", station)) as records:
        return records.audit.page(limit=1_000)


def test_a_backup_is_made_of_one_moment_while_photos_come(
    small_model_file: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copy(small_model_file, tmp_path / "disc.rcp"))
    begun, stop = threading.Event(), threading.Event()
    with Station(DataFolder(tmp_path / "data"), [model], threads=1) as station:

        def send() -> None:
            for seed in range(100_000):
                if stop.is_set():
                    return
                station.submit(png(textured(seed)), name="part.png").result(WAIT)
                begun.set()

        sender = threading.Thread(target=send)
        sender.start()
        try:
            assert begun.wait(WAIT)
            made = back_up(tmp_path / "data", tmp_path / "backup")
            second = back_up(tmp_path / "data", tmp_path / "backup")
        finally:
            stop.set()
            sender.join()
        assert second.photos >= made.photos > 0
        assert (made.missing, second.missing) == (0, 0)
        now = {one.id: one for one in station.records.export()}
    assert [path.name for path in (tmp_path / "backup").glob("records-*")] == [second.records]
    restore(tmp_path / "backup", tmp_path / "other")
    found, *_ = everything(tmp_path / "other")
    assert [one.id for one in found] == list(range(len(found), 0, -1))
    assert [now[one.id] for one in found] == found


def test_records_of_postgresql_come_back_into_either(
    data: Path,
    tmp_path: Path,
    database: str | Path,  # noqa: F811
    request: pytest.FixtureRequest,
) -> None:
    """From SQLite into the database, of it a backup, and that into SQLite."""
    before = everything(data)
    back_up(data, tmp_path / "first")
    url = database if isinstance(database, str) else f"sqlite:///{database}"
    restored = restore(tmp_path / "first", tmp_path / "second", database=url)
    assert restored.photos == 6
    with closing(Records(url, restored.station)) as records:
        [added] = records.add([replace(VERDICT, product="disc", photo=records.get(1).photo)])
        assert added.id == 7  # counted on behind those that were put there
    with pytest.raises(RecordsError, match="the database has records"):
        restore(tmp_path / "first", tmp_path / "third", database=url)
    back_up(tmp_path / "second", tmp_path / "again", database=url)
    restore(tmp_path / "again", tmp_path / "last")
    records_, *others = everything(tmp_path / "last")
    assert records_[1:] == before[0]
    assert records_[0].id == 7
    assert others[1:] == before[2:]


def test_photos_that_are_gone_are_counted(data: Path, tmp_path: Path) -> None:
    first, second, *_ = sorted((data / "photos").glob("*/*"))
    first.unlink()
    second.write_bytes(b"another photo")
    made = back_up(data, tmp_path / "backup")
    assert (made.photos, made.missing) == (4, 2)
    assert restore(tmp_path / "backup", tmp_path / "other").missing == 2


@pytest.mark.parametrize("what", ["records-*.sqlite", "models/disc/0001.rcp", "backup.json"])
def test_a_damaged_backup_is_refused(data: Path, tmp_path: Path, what: str) -> None:
    to = tmp_path / "backup"
    back_up(data, to)
    [file] = to.glob(what)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(OutputError, match=r"is not whole|holds no whole backup"):
        restore(to, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_where_something_else_is_nothing_is_written(data: Path, tmp_path: Path) -> None:
    to = tmp_path / "backup"
    back_up(data, to)
    with pytest.raises(OutputError, match="is not empty: give a folder"):
        restore(to, data)
    with pytest.raises(OutputError, match="holds no whole backup"):
        back_up(data, data)
    with pytest.raises(OutputError, match="is no folder of a station"):
        back_up(tmp_path, to)
    (data / "station.txt").write_text("another\n")
    with pytest.raises(OutputError, match="the backup of another station"):
        back_up(data, to)
    manifest = json.loads((to / "backup.json").read_text())
    (to / "backup.json").write_text(json.dumps(manifest | {"format": 2, "program": "9.0"}))
    with pytest.raises(OutputError, match=r"reconpatch 9\.0, which is newer"):
        restore(to, tmp_path / "other")


def test_records_of_an_older_program_are_left_alone(data: Path, tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{data / 'records.sqlite'}")
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0002'"))
    engine.dispose()
    with pytest.raises(RecordsError, match="start the service of this one first"):
        back_up(data, tmp_path / "backup")
    found = findings(data)
    assert [one for one in found["records"] if one.state != "fails"] == []


# --- The doctor ----------------------------------------------------------------------------------


def findings(data: Path, **options: Any) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for one in examine(data, **options):
        found.setdefault(one.check, []).append(one)
    return found


def test_a_station_that_is_well(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "station.toml"
    config.write_text("[outputs.erp]\nkind='webhook'\nurl='http://127.0.0.1:1/'")
    found = findings(data, config=config)
    assert {name for name, all_ in found.items() if any(one.state == "fails" for one in all_)} == {
        "configuration"
    }
    assert "output erp: http://127.0.0.1:1/ is not reached" in found["configuration"][1].sentence
    assert found["records"][0].sentence.startswith("6 records, the last of 20")
    assert found["photos"][0].sentence == "the newest 6 that are to be there are, undamaged"
    assert found["models"][0].sentence.startswith("disc, version 1: ")
    assert found["folder"][0].state == "look"
    assert "unbroken, entries: 2, head" in found["audit"][0].sentence
    with DataFolder(data):
        assert findings(data)["folder"][0].sentence == "in use by a service"


def test_what_is_wrong_is_found_and_stops_no_other_check(data: Path, tmp_path: Path) -> None:
    next((data / "photos").glob("*/*")).write_bytes(b"another")
    (data / "models" / "disc" / "0001.rcp").write_bytes(b"half a model")
    config = tmp_path / "station.toml"
    config.write_text("[outputs.erp]\nkind='fax'")
    engine = sa.create_engine(f"sqlite:///{data / 'records.sqlite'}")
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TRIGGER audit_no_update"))
        connection.execute(sa.text("UPDATE audit SET who = 'Eve' WHERE number = 2"))
    engine.dispose()
    found = findings(data, config=config, reserve=10**18)
    assert "1 are missing or damaged" in found["photos"][0].sentence
    assert found["models"][0].sentence.startswith("disc: ")
    assert "outputs.erp.kind is 'fax'" in found["configuration"][0].sentence
    assert "entry 2 was changed" in found["audit"][0].sentence
    wrong = {name for name, all_ in found.items() if any(one.state == "fails" for one in all_)}
    assert wrong == {"photos", "models", "configuration", "audit"}
    assert found["disk"][0].state == "look"


def test_a_folder_that_is_no_station(tmp_path: Path) -> None:
    found = findings(tmp_path)
    assert found["folder"][0].sentence.endswith("start the service on it once")
    assert "records" not in found
    assert findings(tmp_path / "none")["folder"][0].state == "fails"
    (tmp_path / "station.txt").write_text("line 1")
    assert "start the service once" in findings(tmp_path)["records"][0].sentence


def test_commands_back_up_restore_and_look(data: Path, tmp_path: Path) -> None:
    def run(*arguments: object, code: int = 0) -> str:
        done = CliRunner().invoke(app, [*map(str, arguments)])
        assert done.exit_code == code, done.output
        return done.stdout

    assert "1 models, 6 photos\n" in run("backup", tmp_path / "backup", "--data", data)
    told = json.loads(run("restore", tmp_path / "backup", "--data", tmp_path / "other", "--json"))
    assert (told["photos"], told["missing"]) == (6, 0)
    lines = run("doctor", "--data", tmp_path / "other").splitlines()
    assert [line for line in lines if line.startswith("FAILS")] == []
    (tmp_path / "other" / "records.sqlite").write_bytes(b"no database at all" * 100)
    assert "FAILS  records" in run("doctor", "--data", tmp_path / "other", code=1)
