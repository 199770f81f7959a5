"""What a station keeps beside its verdicts."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from reconpatch.errors import ChangedError, NotFoundError
from reconpatch.station.log import Failure, known_product
from reconpatch.station.records import Filter, Records
from test_records import NOON, VERDICT, VERSION


@pytest.fixture
def records(tmp_path: Path) -> Any:
    opened = Records(tmp_path / "records.sqlite", "line 1")
    yield opened
    opened.close()


def failure(name: str, product: str = "disc") -> Failure:
    return Failure(None, NOON, product, name, "photo", f"{name} is cut off")


def test_failures_come_back_newest_first_in_pages(records: Records, tmp_path: Path) -> None:
    log = records.log
    assert log.add_failures([]) == []
    kept = log.add_failures([failure(str(i)) for i in range(5)])
    log.add_failures([failure("other", "ring")])
    newest, cursor = log.failures("disc", limit=3)
    rest, end = log.failures("disc", limit=3, before=cursor)
    assert [*newest, *rest] == kept[::-1]
    assert end is None
    assert len(log.failures()[0]) == 6
    assert log.has_failure("disc", "2", "2 is cut off")
    assert not log.has_failure("ring", "2", "2 is cut off")
    other = Records(tmp_path / "records.sqlite", "line 2")
    assert other.log.failures() == ([], None)
    other.close()


def test_products_are_retired_and_one_is_the_default(records: Records) -> None:
    log = records.log
    assert (log.products().retired, log.products().default) == (frozenset(), None)
    log.set_default("disc")
    log.set_default("ring")
    log.set_retired("disc", retired=True)
    assert (log.products().retired, log.products().default) == ({"disc"}, "ring")
    log.set_retired("disc", retired=False)
    assert log.products().retired == frozenset()
    with pytest.raises(NotFoundError, match="give one of disc, ring"):
        known_product("bolt", ["ring", "disc"])


def test_products_are_listed_in_the_order_in_which_they_came(records: Records) -> None:
    for product in ("ring", "disc", "ring"):
        number = len(records.versions(product)) + 1
        values = {**vars(VERSION), "product": product, "number": number}
        records.add_version(type(VERSION)(**values))
    assert records.products() == ["ring", "disc"]


def test_who_changed_what_is_kept(records: Records) -> None:
    figures = {"threshold": 1000.0, "confirmed": {"missed_then": 6}}
    records.log.add_change("disc", "threshold", "version 2", by="Ada", figures=figures)
    records.log.add_change("disc", "rollback", "version 1")
    newest, oldest = records.log.changes("disc")[0]
    assert (newest.what, newest.by, newest.figures) == ("rollback", None, None)
    assert (oldest.by, oldest.figures) == ("Ada", figures)
    assert records.log.changes("ring") == ([], None)


def alarm(record: int, **values: Any) -> dict[str, Any]:
    return {
        "time": NOON, "product": "disc", "version": 1, "record": record, "photo": 40,
        "direction": "higher", "message": "Photos score higher.", **values,
    }  # fmt: skip


def test_an_alarm_stands_until_somebody_acknowledges_it(records: Records) -> None:
    log = records.log
    for number in (3, 7, 3):  # told again, as after a restart
        log.add_alarm(alarm(number))
    log.add_alarm(alarm(9, product="ring"))
    newest, oldest = log.open_alarms("disc")
    assert (newest.record, oldest.record) == (7, 3)
    assert len(log.open_alarms()) == 3
    assert log.acknowledge("disc", by="Ada", note="new lamp", up_to=oldest.id) == 1
    assert [one.record for one in log.open_alarms("disc")] == [7]
    assert log.acknowledge("disc", by="Bob") == 1
    assert log.open_alarms("disc") == []
    second, first = log.alarms("disc")[0]
    assert (first.acknowledged_by, first.note, second.acknowledged_by) == ("Ada", "new lamp", "Bob")
    assert first.acknowledged is not None
    assert first.acknowledged > datetime(2026, 1, 1, tzinfo=UTC)
    log.add_alarm(alarm(3))
    assert log.open_alarms("disc") == []


def test_scores_of_photos_that_were_inspected_once_more(records: Records) -> None:
    log = records.log
    log.add_scores("disc", 2, {})
    log.add_scores("disc", 2, {"a": 1.0, "b": 2.0})
    log.add_scores("disc", 2, {"b": 3.0})
    log.add_scores("disc", 3, {"a": 9.0})
    assert log.scores("disc", 2, ["a", "b", "c"]) == {"a": 1.0, "b": 3.0}
    assert log.scores("disc", 2, []) == {}


def test_feedback_follows_from_what_was_seen(records: Records) -> None:
    [record] = records.add([VERDICT])
    assert record.etag == f'"{record.id}-none"'
    told = records.feedback(record.id, "good", expected=record.etag)
    assert told.etag == f'"{record.id}-good"'
    with pytest.raises(ChangedError, match="called good by somebody else") as caught:
        records.feedback(record.id, "defect", expected=record.etag)
    assert caught.value.etag == told.etag
    assert records.get(record.id).feedback == "good"
    assert records.feedback(record.id, "defect").feedback == "defect"


# --- Older databases -----------------------------------------------------------------------------


def older(path: Path, revision: str) -> None:
    """A database as an older program made it, with one verdict and one version."""
    engine = sa.create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", "reconpatch.station:migrations")
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    older(path, "0001")
    with sqlite3.connect(path) as database:
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
        assert "failures" not in names
        columns = [row[1] for row in database.execute("PRAGMA table_info(inspections)")]
        values: dict[str, Any] = dict.fromkeys(columns, 1.0)
        values |= {"id": 5, "station": "line 1", "time": "2026-03-01 12:00:00.000000",
                   "product": "disc", "version": 1, "fingerprint": "f", "name": "old.png",
                   "photo": "a", "width": 9, "height": 9, "anomalous": 0,
                   "inspected": "[0, 0, 9, 9]", "regions": "[]",
                   "closest": '{"photo": "g", "box": [0, 0, 1, 1], "distance": 1.0}',
                   "feedback": "defect", "feedback_time": "2026-03-01 12:00:00.000000"}  # fmt: skip
        marks = ", ".join("?" * len(columns))
        database.execute(
            f"INSERT INTO inspections ({', '.join(columns)}) VALUES ({marks})",
            [values[name] for name in columns],
        )
    database.close()
    for _ in range(2):  # the second time there is nothing to do
        with_records = Records(path, "line 1")
        assert with_records.get(5).name == "old.png"
        assert with_records.get(5).kind is None
        assert with_records.get(5).feedback_count == 1  # what was said before was said once
        assert [part.id for part in with_records.told("disc")] == [5]
        with_records.log.add_failures([failure("new")])
        with_records.close()


def test_pages_of_all_products_use_an_index(records: Records) -> None:
    records.add([VERDICT] * 3)
    query = records._matching(Filter())
    with records._reading() as connection:
        text = str(
            query.order_by(sa.text("id DESC"))
            .limit(2)
            .compile(connection.engine, compile_kwargs={"literal_binds": True})
        )
        plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
    assert any("inspections_by_search" in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan
