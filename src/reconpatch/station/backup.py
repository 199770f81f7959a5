"""A station's backup: a folder beside it that holds all that is needed to go on elsewhere.

    BACKUP/backup.json              what there is, written last: a backup without it is not whole
    BACKUP/records-TIME.sqlite      the records at one moment, of this station alone
    BACKUP/models/, photos/, ...    as in the station's folder

It is made while the service runs. The records are read first, in one transaction; what they name is
then copied, unless it is there from the backup before. Photos that the station removes meanwhile
are missing, and counted. Records of a PostgreSQL database become an SQLite file, and a restored
station may put them into either.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import reconpatch
from reconpatch.errors import OutputError, RecordsError
from reconpatch.files import atomic_write, cannot_write, make_folder, sha256_of, temporary_name
from reconpatch.station.photo_store import PhotoStore
from reconpatch.station.records import Records, check_current
from reconpatch.station.tables import metadata, photos, sessions

FORMAT = 1
_MANIFEST = "backup.json"
_NAME = "station.txt"
# What is small and changes is copied each time; of models and photos only what is new.
_SMALL = ("drift",)
_ROWS = 1_000

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Backup:
    """What a backup holds.

    Attributes:
        format: of the folder.
        program: version of this package.
        station: name of the station.
        time: of the records, ISO 8601 in UTC.
        records: name of the records' file.
        sha256: of that file.
        models: SHA-256 of each model's file, by its path in `models`.
        photos: photos that the records know to be stored, and that are here.
        missing: those that are not: removed or damaged at the station.
    """

    format: int
    program: str
    station: str
    time: str
    records: str
    sha256: str
    models: dict[str, str]
    photos: int
    missing: int


def _nothing(_: str, __: int, ___: int) -> None:
    pass


def back_up(
    data: Path, to: Path, *, database: str | None = None, progress: Progress = _nothing
) -> Backup:
    """Back up a station, whose service may be running.

    Args:
        data: the station's folder.
        to: the backup's folder; one of the same station is brought up to date.
        database: as of `Records`; None takes SQLite in the folder.
        progress: told the step, how much is done, and of how much.

    Raises:
        OutputError: `data` is no station, or `to` cannot be written or holds something else.
        RecordsError: the records cannot be read.
    """
    station = _station_of(data)
    check_current(database or data / "records.sqlite")
    before = _manifest_of(to) if to.exists() and any(to.iterdir()) else None
    if before is not None and before.station != station:
        raise OutputError(f"{to} is the backup of another station: give another folder")
    make_folder(to)
    now = datetime.now(UTC)
    records = to / f"records-{now:%Y%m%dT%H%M%S.%fZ}.sqlite"
    with closing(Records(database or data / "records.sqlite", station)) as source:
        source.audit.add("backup", station)
        with _whole(records) as temporary:
            _copy_records(source, temporary, station, progress)
    models = _copied_models(data, to, progress)
    for folder in _SMALL:
        for path in sorted((data / folder).glob("*.json")):
            _copy(path, to / folder / path.name)
    _copy(data / _NAME, to / _NAME)
    with closing(Records(records, station)) as copied:
        kept, missing = _copied_photos(copied, data, to, progress)
    made = Backup(
        FORMAT, reconpatch.__version__, station, now.isoformat(), records.name, sha256_of(records),
        models, kept, missing,
    )  # fmt: skip
    with atomic_write(to / _MANIFEST) as file:
        file.write(json.dumps(asdict(made), indent=1).encode())
    for old in to.glob("records-*.sqlite*"):
        if old.name != records.name:
            old.unlink()
    return made


def restore(
    backup: Path, data: Path, *, database: str | None = None, progress: Progress = _nothing
) -> Backup:
    """Make a station's folder of a backup.

    Everybody has to log in again. Messages that waited to be sent are sent, as ones that may have
    been sent before.

    Args:
        backup: the backup's folder.
        data: the station's folder, which is empty or not there.
        database: where the records are to go, a PostgreSQL database without any; None: SQLite in
            the folder.
        progress: as of `back_up`.

    Raises:
        OutputError: the backup is not whole, or `data` is not empty or cannot be written.
        RecordsError: the database cannot be used, or has records.
    """
    found = _manifest_of(backup)
    source = backup / found.records
    if not source.is_file() or sha256_of(source) != found.sha256:
        raise OutputError(
            f"{backup} is not whole: {found.records} is missing or damaged. Make the backup again, "
            "or give another one"
        )
    for name, sha256 in found.models.items():
        path = backup / "models" / name
        if not path.is_file() or sha256_of(path) != sha256:
            raise OutputError(
                f"{backup} is not whole: models/{name} is missing or damaged. Make the backup "
                "again, or give another one"
            )
    if data.exists() and any(data.iterdir()):
        raise OutputError(f"{data} is not empty: give a folder for the station that is")
    make_folder(data)
    for number, name in enumerate(found.models, 1):
        _copy(backup / "models" / name, data / "models" / name)
        progress("models", number, len(found.models))
    for folder in _SMALL:
        for path in sorted((backup / folder).glob("*.json")):
            _copy(path, data / folder / path.name)
    if database is None:
        _copy(source, data / "records.sqlite")
    else:
        _into_database(source, found.station, database, progress)
    with closing(Records(database or data / "records.sqlite", found.station)) as records:
        kept, missing = _copied_photos(records, backup, data, progress)
        with records._changing() as connection:
            own = sessions.c.station == found.station
            connection.execute(sa.delete(sessions).where(own))
        records.audit.add("restore", found.station, why=f"the backup of {found.time}")
    _copy(backup / _NAME, data / _NAME)  # last: without it the folder is no station
    return Backup(**{**vars(found), "photos": kept, "missing": missing})


def _station_of(data: Path) -> str:
    path = data / _NAME
    if not path.is_file():
        raise OutputError(f"{data} is no folder of a station: give it with --data")
    return path.read_text(encoding="utf-8").strip()


def _manifest_of(folder: Path) -> Backup:
    try:
        values = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        found = Backup(**values)
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(
            f"{folder} holds no whole backup ({_MANIFEST} is missing or damaged): give an empty "
            "folder, or that of a backup"
        ) from error
    if found.format > FORMAT:
        raise OutputError(
            f"{folder} was written by reconpatch {found.program}, which is newer: install that"
        )
    return found


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary name beside a file that others write; it takes the file's place at the end."""
    temporary = temporary_name(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _copy(path: Path, to: Path) -> None:
    make_folder(to.parent)
    try:
        with path.open("rb") as source, atomic_write(to) as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except OSError as error:
        raise cannot_write(to, error) from error


def _copied_models(data: Path, to: Path, progress: Progress) -> dict[str, str]:
    """Copy the files of models that are not there yet; SHA-256 of all, by their paths."""
    found = sorted((data / "models").glob("*/*.rcp"))
    sums = {}
    for number, path in enumerate(found, 1):
        name = f"{path.parent.name}/{path.name}"
        sums[name] = sha256_of(path)
        target = to / "models" / name
        if not target.is_file() or sha256_of(target) != sums[name]:
            _copy(path, target)
        progress("models", number, len(found))
    return sums


def _copied_photos(records: Records, source: Path, to: Path, progress: Progress) -> tuple[int, int]:
    """Copy the photos that the records name; how many are there then, and how many are not."""
    theirs = PhotoStore(source / "photos", records)
    ours = PhotoStore(to / "photos", records)
    kept = missing = 0
    names = _kept_photos(records)
    for number, sha256 in enumerate(names, 1):
        if not ours.path(sha256).is_file():
            try:
                content = theirs.path(sha256).read_bytes()
            except OSError:
                content = b""
            if hashlib.sha256(content).hexdigest() != sha256:
                missing += 1
                continue
            ours.add(content)
        kept += 1
        progress("photos", number, len(names))
    return kept, missing


def _kept_photos(records: Records) -> list[str]:
    query = sa.select(photos.c.sha256).where(
        photos.c.station == records.station, photos.c.removed.is_(None)
    )
    with records._reading() as connection:
        return list(connection.execute(query).scalars())


# --- Records -------------------------------------------------------------------------------------


def _copy_records(source: Records, to: Path, station: str, progress: Progress) -> None:
    """The records of one station at one moment, as an SQLite file."""
    if source._engine.dialect.name == "sqlite":
        assert source._engine.url.database is not None
        with (
            closing(sqlite3.connect(source._engine.url.database)) as theirs,
            closing(sqlite3.connect(to)) as ours,
        ):
            try:
                theirs.backup(ours)
                ours.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            except sqlite3.Error as error:
                raise RecordsError(
                    f"the records cannot be copied ({error}): check both disks"
                ) from error
        return
    with closing(Records(to, station)) as copied:
        with (
            source._engine.connect().execution_options(
                isolation_level="REPEATABLE READ"
            ) as theirs_,
            copied._changing() as ours_,
        ):
            _copy_rows(theirs_, ours_, station, progress)
        with copied._engine.connect() as connection:
            connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("PRAGMA journal_mode=DELETE")


def _into_database(source: Path, station: str, database: str, progress: Progress) -> None:
    """Put the records of a backup into a database that has none."""
    with closing(Records(database, station)) as target:
        for table in metadata.sorted_tables:
            with target._reading() as connection:
                if connection.execute(sa.select(table).limit(1)).first() is not None:
                    raise RecordsError(
                        "the database has records, and numbers of two stations could be the same: "
                        "give an empty one"
                    )
        with (
            closing(Records(source, station)) as copied,
            copied._reading() as theirs,
            target._changing() as ours,
        ):
            _copy_rows(theirs, ours, station, progress)
            if ours.dialect.name == "postgresql":
                _count_on(ours)


def _copy_rows(
    source: sa.Connection, target: sa.Connection, station: str, progress: Progress
) -> None:
    """All rows of a station, table after table."""
    for number, table in enumerate(metadata.sorted_tables, 1):
        rows: list[dict[str, Any]] = []
        query = sa.select(table).where(table.c.station == station)
        query = query.order_by(*table.primary_key.columns)
        streamed = source.execution_options(yield_per=_ROWS).execute(query)
        for part in streamed.partitions(_ROWS):
            rows = [row._asdict() for row in part]
            target.execute(sa.insert(table), rows)
        progress("tables", number, len(metadata.sorted_tables))


def _count_on(connection: sa.Connection) -> None:
    """Let PostgreSQL number new rows behind those that were put there with their numbers."""
    for table in metadata.sorted_tables:
        counted = table.autoincrement_column
        if counted is None:
            continue
        sequence = sa.func.pg_get_serial_sequence(table.name, counted.name)
        last = sa.select(sa.func.coalesce(sa.func.max(counted), 0) + 1).scalar_subquery()
        connection.execute(sa.select(sa.func.setval(sequence, last, False)))
