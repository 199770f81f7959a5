"""Messages to the line that are kept until they are sent, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from reconpatch.errors import NotFoundError, RecordsError
from reconpatch.station.log import Failure
from reconpatch.station.outbox import Backlog
from reconpatch.station.records import Records
from test_records import (  # noqa: F401  (fixtures)
    GOOD,
    NOON,
    VERDICT,
    database,
    postgresql,
    records,
    tables,
)

FAILED = Failure(None, NOON, "bottle", "cut.png", "upload", "the upload broke off")


def everything(_: str, __: Any) -> bool:
    return True


def anomalous(event: str, subject: Any) -> bool:
    return event == "failure" or subject.anomalous


def test_a_message_is_kept_with_each_verdict_and_failure_that_is_wanted(
    records: Records,  # noqa: F811
) -> None:
    heard: list[tuple[str, int]] = []
    box = records.outbox
    box.outputs = {"erp": everything, "lamp": anomalous}
    box.listeners.append(lambda event, some: heard.append((event, len(some))))
    bad, good = records.add([VERDICT, GOOD])
    [failed] = records.log.add_failures([FAILED])
    assert records.log.failure(failed.id or 0) == failed
    erp, lamp = box.waiting("erp", 10), box.waiting("lamp", 10)
    assert [(row.event, row.subject) for row in erp] == [
        ("verdict", bad.id), ("verdict", good.id), ("failure", failed.id),
    ]  # fmt: skip
    assert [row.subject for row in lamp] == [bad.id, failed.id]
    assert [row.id for row in erp] == sorted(row.id for row in erp)
    assert box.waiting("erp", 1) == erp[:1]
    assert box.last("erp") == erp[-1].id
    assert (box.last("none"), box.waiting("none", 10)) == (0, [])
    assert heard == [("verdict", 2), ("failure", 1)]
    with pytest.raises(NotFoundError, match="no failure 99: give the id"):
        records.log.failure(99)


def test_what_was_taken_is_gone_and_what_was_refused_waits_for_somebody(
    records: Records,  # noqa: F811
) -> None:
    box = records.outbox
    box.outputs = {"erp": everything}
    before = datetime.now(UTC)
    records.add([VERDICT, GOOD, replace(GOOD, name="third.png")])
    first, second, third = box.waiting("erp", 10)
    box.sent([first.id])
    box.refuse(second.id, "422")
    assert box.waiting("erp", 10) == [third]
    backlog = box.backlog()["erp"]
    assert backlog.oldest is not None
    assert before <= backlog.oldest <= datetime.now(UTC)
    assert backlog == Backlog(1, backlog.oldest, 1, "422")
    assert box.send_again("erp") == 1
    assert [row.subject for row in box.waiting("erp", 10)] == [third.subject, second.subject]
    assert box.backlog()["erp"].refused == 0
    assert box.discard("erp") == 2
    assert (box.backlog(), box.send_again("erp"), box.discard("erp")) == ({}, 0, 0)


def test_stations_see_their_own_messages(
    records: Records,  # noqa: F811
    database: str | Path,  # noqa: F811
) -> None:
    other = Records(database, "line 2")
    other.outbox.outputs = records.outbox.outputs = {"erp": everything}
    records.add([VERDICT])
    assert (other.outbox.waiting("erp", 10), other.outbox.backlog()) == ([], {})
    assert other.outbox.discard("erp") == 0
    assert len(records.outbox.waiting("erp", 10)) == 1
    other.close()


def test_there_is_no_verdict_without_its_message(
    records: Records,  # noqa: F811
    database: str | Path,  # noqa: F811
) -> None:
    records.outbox.outputs = {"erp": everything}
    engine = tables(database)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE outbox"))
    engine.dispose()
    with pytest.raises(RecordsError):
        records.add([VERDICT])
    assert records.count() == 0
