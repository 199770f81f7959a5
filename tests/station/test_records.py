"""The records, the same tests on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from conftest import REPOSITORY, WAIT
from reconpatch.errors import (
    ChangedError,
    MissingExtraError,
    NotFoundError,
    RecordsError,
    SettingsError,
)
from reconpatch.result import Region, SimilarKind
from reconpatch.station.drawing import Stroke
from reconpatch.station.records import Closest, FileKey, Filter, Records, Verdict, Version, as_rows
from reconpatch.station.tables import UtcTime, metadata

if TYPE_CHECKING:
    from pwd import struct_passwd

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

VERDICT = Verdict(
    time=NOON,
    product="bottle",
    version=1,
    fingerprint="f" * 64,
    name="part001.png",
    photo="a" * 64,
    width=96,
    height=64,
    score=3.25,
    threshold=2.5,
    map_threshold=2.25,
    p_value=0.125,
    anomalous=True,
    inspected=(0, 0, 96, 64),
    regions=(Region(box=(1, 2, 3, 4), area=4, peak=(1, 2), peak_value=3.5),),
    closest=Closest("good/part000.png", box=(0, 0, 8, 8), distance=3.25),
)
GOOD = replace(VERDICT, score=1.0, p_value=0.5, anomalous=False, regions=(), photo="b" * 64)

VERSION = Version(
    product="bottle",
    number=1,
    file="0001.rcp",
    sha256="c" * 64,
    fingerprint="f" * 64,
    threshold=2.5,
    parent=None,
    scores_as=1,
    created=NOON,
    note="given at start",
)


# --- Databases -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server of our own, without the database's name.

    It refuses to run as root, so there it runs as an account that exists and has no rights. All
    that is made or changed is a temporary folder of its own, which goes with the tests.
    """
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server: on Debian, apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="reconpatch-pg-"))
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = unprivileged()
        if nobody is None:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")
        account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    try:
        with running_server(programs, folder, account):
            yield f"postgresql://postgres@/{{}}?host={folder}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def postgresql_programs() -> Path | None:
    """The folder with PostgreSQL's own programs: Debian has them beside PATH, for each version."""
    on_path = shutil.which("initdb")
    places = [Path(on_path).resolve().parent] if on_path else []
    places += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True
    )
    needed = ("initdb", "pg_ctl", "postgres")
    return next((p for p in places if all((p / name).is_file() for name in needed)), None)


def unprivileged() -> struct_passwd | None:
    """An account of the system to run a server as."""
    import pwd

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


@contextlib.contextmanager
def running_server(programs: Path, folder: Path, account: dict[str, Any]) -> Iterator[None]:
    def call(program: str, *arguments: str) -> None:
        command = [programs / program, "-D", folder / "data", *arguments]
        options: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "timeout": WAIT}
        try:
            done = subprocess.run(command, check=False, cwd=folder, **options, **account)
        except OSError as error:  # the account may not reach the programs
            pytest.skip(f"PostgreSQL does not run here: {error}")
        if done.returncode:
            pytest.skip(f"PostgreSQL does not run here: {done.stderr.strip()[-300:]}")

    call("initdb", "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
    local = f"-k {folder} -c listen_addresses= -F"
    call("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", local)
    try:
        yield
    finally:
        call("pg_ctl", "stop", "-m", "immediate")


numbers = count()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return tmp_path / "records.sqlite"
    server: str = request.getfixturevalue("postgresql")
    name = f"test{next(numbers)}"
    import psycopg

    with psycopg.connect(server.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.format(name)


@pytest.fixture
def records(database: str | Path) -> Iterator[Records]:
    opened = Records(database, "line 1")
    yield opened
    opened.close()


def tables(database: str | Path) -> sa.Engine:
    """The database itself, past the records."""
    if isinstance(database, Path):
        return sa.create_engine(f"sqlite:///{database}")
    return sa.create_engine(database.replace("postgresql:", "postgresql+psycopg:"))


# --- Tables --------------------------------------------------------------------------------------


def test_the_migrations_make_the_tables_that_the_program_uses(
    records: Records, database: str | Path
) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def same_type(_: Any, __: Any, ___: Any, found: Any, declared: Any) -> bool | None:
        # A decorated time compares by what it is in this database.
        if isinstance(declared, UtcTime):
            return not isinstance(found, sa.DateTime)
        return None

    engine = tables(database)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": same_type})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_opening_again_keeps_what_is_there(records: Records, database: str | Path) -> None:
    [added] = records.add([VERDICT])
    again = Records(database, "line 1")
    assert again.get(added.id) == added
    again.close()


def test_a_database_of_a_newer_program_is_refused(records: Records, database: str | Path) -> None:
    engine = tables(database)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(RecordsError, match=r"newer version.*9999.*install a newer reconpatch"):
        Records(database, "line 1")


def test_stations_that_start_together_make_the_tables_once(database: str | Path) -> None:
    start, opened, errors = threading.Barrier(4), [], []

    def open_one(name: str) -> None:
        start.wait()
        try:
            opened.append(Records(database, name))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_one, args=(f"line {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for station in opened:
        station.add([VERDICT])
        station.close()


# --- Verdicts ------------------------------------------------------------------------------------


def test_a_verdict_comes_back_as_it_was(records: Records) -> None:
    first, second = records.add([VERDICT, GOOD])
    assert first.id < second.id
    found = records.get(first.id)
    assert found == first
    assert {name: getattr(found, name) for name in vars(VERDICT)} == vars(VERDICT)
    assert (found.feedback, found.feedback_time) == (None, None)
    assert found.time.utcoffset() == timedelta(0)


def test_a_time_of_another_zone_is_kept_as_utc(records: Records) -> None:
    east = timezone(timedelta(hours=5))
    [added] = records.add([replace(VERDICT, time=NOON.astimezone(east))])
    assert records.get(added.id).time == NOON
    with pytest.raises(sa.exc.StatementError, match="has no zone"):
        records.add([replace(VERDICT, time=datetime(2026, 1, 1))])


@pytest.mark.parametrize("name", ["Gußteil 7 – 底.png", "'; DROP TABLE inspections; --", "%s\\"])
def test_any_name_is_kept(records: Records, name: str) -> None:
    [added] = records.add([replace(VERDICT, name=name)])
    assert records.get(added.id).name == name


def test_a_verdict_of_a_result(records: Records, small_model: Any, defective_photo: Any) -> None:
    result = small_model.inspect(defective_photo)
    odd = replace(result, name="bad\0name\udcff" + "x" * 300)
    verdict = Verdict.of(odd, VERSION, photo="a" * 64)
    found = records.get(records.add([verdict])[0].id)
    assert (found.score, found.p_value) == (result.score, result.p_value)
    assert (found.width, found.height) == (96, 96)
    assert found.regions == result.regions
    assert found.closest.photo == result.closest.photo
    assert found.closest.patch_box == result.closest.patch_box
    assert found.closest.thumbnail_box == result.closest.thumbnail_box
    assert found.closest.sha256 == result.closest.sha256 != ""
    assert len(found.name) == 255
    short = Verdict.of(replace(result, name="a\0\udcff"), VERSION, photo="")
    assert short.name == "a\\0\\udcff"


def test_rows_of_before_the_patch_boxes_are_read(records: Records) -> None:
    [added] = records.add([VERDICT])
    old = {"photo": "good/part000.png", "box": [0, 0, 8, 8], "distance": 3.25}
    with records._engine.begin() as connection:
        connection.execute(sa.update(metadata.tables["inspections"]).values(closest=old))
    assert records.get(added.id) == added


def test_verdicts_are_added_all_or_none(records: Records) -> None:
    broken = replace(GOOD, width=None)  # type: ignore[arg-type]
    with pytest.raises(RecordsError, match="refused a step"):
        records.add([VERDICT, broken])
    assert records.count() == 0


def test_a_record_that_is_not_there(records: Records) -> None:
    with pytest.raises(NotFoundError, match="no record 5"):
        records.get(5)
    with pytest.raises(NotFoundError, match="no record 5"):
        records.feedback(5, "good")


def test_stations_see_their_own_rows_only(records: Records, database: str | Path) -> None:
    [added] = records.add([VERDICT], files=[FileKey("/a", 1, 2)], photo_bytes=[10])
    records.add_version(VERSION)
    other = Records(database, "line 2")
    with pytest.raises(NotFoundError):
        other.get(added.id)
    assert other.page().records == []
    assert other.products() == other.versions("bottle") == other.services("bottle") == []
    assert other.find_file(FileKey("/a", 1, 2)) is None
    assert other.photo_bytes() == 0
    other.add_version(VERSION)  # its own version 1 of its own bottle
    other.close()


def test_pages_hold_every_record_once_newest_first(records: Records) -> None:
    added = records.add([replace(VERDICT, score=float(i)) for i in range(7)])
    seen, before = [], None
    while True:
        page = records.page(limit=3, before=before)
        seen.append([record.score for record in page.records])
        before = page.cursor
        if before is None:
            break
    assert seen == [[6, 5, 4], [3, 2, 1], [0]]
    assert records.page(limit=7).cursor is None
    assert records.page(before=added[0].id).records == []


def test_filters_are_as_a_loop_over_all_records_finds(records: Records) -> None:
    for hour, (product, verdict) in enumerate(
        [("bottle", VERDICT), ("bottle", GOOD), ("screw", GOOD), ("screw", VERDICT)] * 3
    ):
        time = NOON + timedelta(hours=hour)
        [added] = records.add([replace(verdict, product=product, time=time, version=hour // 4)])
        if hour % 3:
            records.feedback(added.id, "good" if hour % 3 == 1 else "defect")
    everything = records.page().records
    half = NOON + timedelta(hours=6)
    asked: list[tuple[Filter, Any]] = [
        (Filter(), lambda r: True),
        (Filter(product="bottle"), lambda r: r.product == "bottle"),
        (Filter(product="none"), lambda r: False),
        (Filter(anomalous=False), lambda r: not r.anomalous),
        (Filter(version=2), lambda r: r.version == 2),
        (Filter(photo="b" * 64), lambda r: r.photo == "b" * 64),
        (Filter(feedback="good"), lambda r: r.feedback == "good"),
        (Filter(feedback="any"), lambda r: r.feedback is not None),
        (Filter(feedback="none"), lambda r: r.feedback is None),
        (Filter(since=half), lambda r: r.time >= half),
        (Filter(until=half), lambda r: r.time < half),
        (
            Filter(product="screw", anomalous=True, feedback="defect", until=half),
            lambda r: (
                r.product == "screw" and r.anomalous and r.feedback == "defect" and r.time < half
            ),
        ),
    ]
    for wanted, condition in asked:
        expected = [record for record in everything if condition(record)]
        assert records.page(wanted).records == expected, wanted
        assert list(records.export(wanted)) == expected
        assert records.count(wanted) == len(expected)


def test_the_export_goes_on_past_one_page(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconpatch.station.records._PAGE", 2)
    records.add([replace(VERDICT, score=float(i)) for i in range(5)])
    assert [record.score for record in records.export()] == [4, 3, 2, 1, 0]


def test_rows_of_a_table(records: Records) -> None:
    first, second = records.add([VERDICT, GOOD])
    records.feedback(second.id, "defect")
    newest, oldest = as_rows(records.export())
    assert (newest["verdict"], newest["worst_x"], newest["feedback"]) == ("good", None, "defect")
    assert (oldest["verdict"], oldest["worst_x"], oldest["worst_y"]) == ("anomalous", 1, 2)
    assert oldest["time"] == "2026-03-01T12:00:00.000+00:00"
    assert (oldest["id"], oldest["regions"], newest["regions"]) == (first.id, 1, 0)


def test_feedback_is_kept_changed_and_taken_back(records: Records) -> None:
    [added] = records.add([VERDICT])
    before = datetime.now(UTC)
    told = records.feedback(added.id, "good")
    assert told.feedback == "good"
    assert told.feedback_time is not None
    assert before <= told.feedback_time <= datetime.now(UTC)
    assert records.get(added.id) == told
    assert records.feedback(added.id, "defect").feedback == "defect"
    assert records.feedback(added.id, None) == replace(added, feedback_count=3)
    with pytest.raises(SettingsError, match="'good', 'defect' or none"):
        records.feedback(added.id, "perhaps")  # type: ignore[arg-type]


def test_a_kind_and_a_place_go_with_a_defect(records: Records) -> None:
    first, second = records.add([VERDICT, replace(VERDICT, kind=SimilarKind("dent", 0.5, True))])
    assert (records.get(first.id).kind, second.kind) == (None, SimilarKind("dent", 0.5, True))
    assert records.get(second.id) == second
    dot = Stroke(7.0, ((10.0, 20.25),))
    told = records.feedback(first.id, "defect", kind="long  scratch", place=[dot])
    assert told.feedback_kind == "long scratch"
    assert told.feedback_place == (Stroke(7.0, ((10.0, 20.2),)),)
    assert told.etag == f'"{first.id}-defect"'
    again = records.feedback(first.id, "defect", kind="scratch", expected=told.etag)
    assert (again.feedback_kind, again.feedback_place) == ("scratch", None)
    assert again.etag == f'"{first.id}-defect-2"'  # not the tag of what was said first
    with pytest.raises(ChangedError):
        records.feedback(first.id, "defect", expected=told.etag)
    with pytest.raises(SettingsError, match="'Scratch', and others of bottle are called 'scratch'"):
        records.feedback(second.id, "defect", kind="Scratch")
    assert records.feedback(first.id, "defect", kind="Scratch").feedback_kind == "Scratch"
    assert records.feedback(first.id, "good").feedback_kind is None
    newest, oldest = as_rows(records.export())
    assert (newest["kind"], newest["similarity"], newest["drawn"]) == ("dent", 0.5, False)
    assert (oldest["kind"], oldest["similarity"], oldest["feedback_kind"]) == (None, None, None)


def test_what_is_wrong_as_a_whole_is_kept(records: Records) -> None:
    first, second = records.add([VERDICT, replace(VERDICT, whole=True)])
    assert [records.get(one.id).whole for one in (first, second)] == [False, True]
    assert [row["whole"] for row in as_rows(records.export())] == [True, False]


def test_defects_are_photos_that_were_last_called_one(records: Records) -> None:
    same = [records.add([VERDICT])[0] for _ in range(3)]
    [other] = records.add([GOOD])
    records.feedback(same[0].id, "good")
    records.feedback(same[1].id, "defect", kind="dent")
    records.feedback(other.id, "defect")
    assert [(r.id, r.feedback_kind) for r in records.defects("bottle")] == [
        (other.id, None), (same[1].id, "dent"),
    ]  # fmt: skip
    records.feedback(same[2].id, "good")
    assert [record.id for record in records.defects("bottle")] == [other.id]
    assert records.defects("cable") == []


def test_writers_wait_for_each_other(records: Records) -> None:
    """Eight threads, each verdict a transaction of its own: every one is there at the end."""

    def write(first: int) -> None:
        for i in range(5):
            [added] = records.add([replace(VERDICT, score=float(first + i))])
            records.feedback(added.id, "good")

    threads = [threading.Thread(target=write, args=(100 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sorted(record.score for record in records.export(Filter(feedback="good")))
    assert found == sorted(float(100 * i + j) for i in range(8) for j in range(5))


# --- Versions ------------------------------------------------------------------------------------


def test_versions_and_what_is_in_service(records: Records) -> None:
    second = replace(VERSION, number=2, parent=1, threshold=3.0, note="threshold set by hand")
    records.add_version(VERSION)
    records.add_version(second)
    assert records.products() == ["bottle"]
    assert records.versions("bottle") == [VERSION, second]
    assert [service.number for service in records.services("bottle")] == [2, 1]
    records.put_in_service("bottle", 1)
    services = records.services("bottle")
    assert [service.number for service in services] == [1, 2, 1]
    assert services[0].since >= services[1].since >= services[2].since
    with pytest.raises(RecordsError):
        records.add_version(second)  # numbers are given once
    assert records.versions("cable") == []


def test_recent_scores_are_those_that_can_be_compared(records: Records) -> None:
    for number, scores_as in ((1, 1), (2, 1), (3, 3)):
        version = replace(VERSION, number=number, scores_as=scores_as)
        records.add_version(version)
        for i in range(2):
            score = 10.0 * number + i
            records.add([replace(VERDICT, version=number, score=score)])
            records.add([replace(VERDICT, version=number, score=score, product="screw")])
    scores = [record.score for record in records.recent_scores("bottle", 1, 10)]
    assert scores == [21, 20, 11, 10]
    assert [record.score for record in records.recent_scores("bottle", 1, 3)] == [21, 20, 11]
    assert [record.score for record in records.recent_scores("bottle", 3, 10)] == [31, 30]


# --- Files of watch ------------------------------------------------------------------------------


def test_a_file_is_found_by_path_size_and_time(records: Records) -> None:
    file = FileKey("/inbox/Teil ß.png", 5_000_000_000, 1_800_000_000_123_456_789)
    assert records.find_file(file) is None
    _, second = records.add([GOOD, VERDICT], files=[None, file])
    assert records.find_file(file) == second
    for other in (
        replace(file, path="/inbox/other"),
        replace(file, size=1),
        replace(file, mtime_ns=file.mtime_ns + 1),
    ):
        assert records.find_file(other) is None
    [again] = records.add([VERDICT], files=[file])  # inspected once more: the last one counts
    assert records.find_file(file) == again


# --- Photos --------------------------------------------------------------------------------------


def test_photos_are_given_up_oldest_first_but_never_those_with_feedback(records: Records) -> None:
    stored = [
        replace(VERDICT, photo=letter * 64, time=NOON + timedelta(days=day))
        for day, letter in enumerate("abcde")
    ]
    added = records.add(stored, photo_bytes=[10] * 5)
    records.feedback(added[0].id, "defect")
    assert records.photo_bytes() == 50
    assert records.give_up_photos() == []
    assert records.give_up_photos(stored_before=NOON + timedelta(days=2)) == ["b" * 64]
    assert records.photo_bytes() == 40
    assert records.give_up_photos(until_bytes=25) == ["c" * 64, "d" * 64]
    assert records.kept_photos([letter * 64 for letter in "abcdefg"]) == {"a" * 64, "e" * 64}
    assert records.give_up_photos(until_bytes=0) == ["e" * 64]
    assert records.photo_bytes() == 10  # that of the confirmed defect
    assert records.count() == 5


def test_a_photo_that_comes_again_counts_once_and_as_new(records: Records) -> None:
    records.add([VERDICT, VERDICT], photo_bytes=[10, 10])
    assert records.photo_bytes() == 10
    later = replace(VERDICT, time=NOON + timedelta(days=3))
    records.add([later], photo_bytes=[10])
    assert records.give_up_photos(stored_before=NOON + timedelta(days=2)) == []
    assert records.give_up_photos(until_bytes=0) == ["a" * 64]
    records.add([later], photo_bytes=[10])
    assert records.photo_bytes() == 10


# --- Databases that cannot be used ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://root@localhost/x", "of the kind 'mysql'"),
        ("sqlite://", "of the kind 'sqlite'"),
        ("records.sqlite", "not a URL"),
        ("postgresql://host:port/x", "not a URL"),
    ],
)
def test_other_databases_are_refused(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Records(url)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="refused a step") as caught:
        Records(f"postgresql://postgres:secret@/x?host={tmp_path}")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    path.write_bytes(b"something else entirely, and long enough to be read as a header" * 20)
    with pytest.raises(RecordsError, match="not a database"):
        Records(path)
    assert path.read_bytes().startswith(b"something else")


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"PostgreSQL database.*reconpatch\[postgresql\]"):
        Records("postgresql://postgres@localhost/x")


# --- SQLite alone --------------------------------------------------------------------------------


def test_sqlite_is_durable(tmp_path: Path) -> None:
    records = Records(tmp_path / "new" / "records.sqlite")
    with records._writing.connect() as connection:
        for pragma, expected in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == expected
    records.close()


def test_an_added_verdict_outlives_a_killed_process(tmp_path: Path) -> None:
    """Written, answered, killed without a goodbye: another process finds the row."""
    path = tmp_path / "records.sqlite"
    code = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_records import VERDICT
from reconpatch.station.records import Records
records = Records(Path(sys.argv[1]), "line 1")
print(records.add([VERDICT])[0].id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, path, Path(__file__).parent, REPOSITORY / "tests"],
        check=False, capture_output=True, encoding="utf-8", timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    records = Records(path, "line 1")
    assert records.get(int(done.stdout)).score == VERDICT.score
    records.close()
    with contextlib.closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.sqlite")
    records.add([VERDICT])
    with records._changing() as connection:
        connection.execute(sa.text("UPDATE inspections SET score = 0"))
        assert records.page().records[0].score == VERDICT.score
    assert records.page().records[0].score == 0
    records.close()
