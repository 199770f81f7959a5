"""The audit trail: it only grows, and an export of it is proven unbroken or found out."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from reconpatch.errors import AuditError
from reconpatch.station.audit import BEGINNING, verify
from reconpatch.station.records import Records
from test_records import VERDICT, database, postgresql, records, tables  # noqa: F401  (fixtures)


def test_an_entry_says_who_did_what_from_what_to_what_and_why(
    records: Records,  # noqa: F811
) -> None:
    trail = records.audit
    assert (trail.head(), list(trail.export())) == (None, [])
    trail.add("threshold", "disc", who="Ada", before={"threshold": 2.5}, after=(1,), why="too many")
    trail.add("login", "Bob")
    second, first = trail.page()
    assert (first.number, first.who, first.what, first.subject) == (1, "Ada", "threshold", "disc")
    assert (first.before, first.after, first.why) == ({"threshold": 2.5}, [1], "too many")
    assert (second.number, second.who, second.before, second.why) == (2, None, None, "")
    assert (first.previous, second.previous) == (BEGINNING, first.hash)
    assert trail.head() == second
    assert trail.page(limit=1) == [second]
    assert trail.page(before=2) == [first]


def test_the_hash_is_that_of_the_line_without_it(records: Records) -> None:  # noqa: F811
    records.audit.add("login", "Zoë", who="Zoë")
    [line] = records.audit.export()
    values = json.loads(line)
    told = values.pop("hash")
    plain = json.dumps(values, sort_keys=True, separators=(",", ":"))
    assert told == hashlib.sha256(plain.encode()).hexdigest()
    assert list(values) == sorted(values)
    assert values["time"].endswith("+00:00")


def test_changes_and_feedback_leave_an_entry_in_the_same_transaction(
    records: Records,  # noqa: F811
    database: str | Path,  # noqa: F811
) -> None:
    [added] = records.add([VERDICT])
    records.feedback(added.id, "defect", by="Ada")
    records.feedback(added.id, None, by="Bob")
    records.log.add_change("disc", "retire", "taken out", by="Ada", before=1, after=2)
    third, second, first = records.audit.page()
    assert (first.what, first.subject, first.before, first.after, first.who) == (
        "feedback", f"record {added.id}", None, "defect", "Ada",
    )  # fmt: skip
    assert (second.before, second.after, second.who) == ("defect", None, "Bob")
    assert (third.what, third.subject, third.why, third.before) == (
        "retire",
        "disc",
        "taken out",
        1,
    )
    assert verify(records.audit.export()).entries == 3


def test_the_database_refuses_to_change_or_remove_an_entry(
    records: Records,  # noqa: F811
    database: str | Path,  # noqa: F811
) -> None:
    records.audit.add("login", "Ada")
    engine = tables(database)
    for statement in ("UPDATE audit SET who = 'Eve'", "DELETE FROM audit"):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(sa.text(statement))
    engine.dispose()
    assert verify(records.audit.export()).entries == 1


def test_stations_have_trails_of_their_own(
    records: Records,  # noqa: F811
    database: str | Path,  # noqa: F811
) -> None:
    other = Records(database, "line 2")
    for _ in range(2):
        records.audit.add("login", "Ada")
        other.audit.add("login", "Bob")
    assert [entry.number for entry in other.audit.page()] == [2, 1]
    assert {entry.subject for entry in records.audit.page()} == {"Ada"}
    assert verify(other.audit.export()).entries == 2
    other.close()


def test_many_who_write_at_once_make_one_chain(
    records: Records,  # noqa: F811
    database: str | Path,  # noqa: F811
) -> None:
    other = Records(database, "line 1")

    def write(to: Records) -> None:
        for _ in range(10):
            to.audit.add("login", "Ada")

    threads = [threading.Thread(target=write, args=(to,)) for to in (records, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert verify(records.audit.export()).entries == 40


# --- An export -----------------------------------------------------------------------------------


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    """An export of five entries."""
    opened = Records(tmp_path / "records.sqlite", "line 1")
    for i in range(5):
        opened.audit.add("threshold", "disc", who="Ada", after=i / 10)
    found = list(opened.audit.export())
    opened.close()
    return found


def test_an_unbroken_export_has_a_head(lines: list[str]) -> None:
    whole = verify(lines)
    assert (whole.entries, whole.head) == (5, json.loads(lines[-1])["hash"])
    assert verify(lines, head=json.loads(lines[2])["hash"]) == whole
    assert (verify([]).entries, verify([]).head) == (0, BEGINNING)


def test_whatever_is_done_to_an_export_is_found_out(lines: list[str]) -> None:
    def broken(changed: list[str], said: str) -> None:
        with pytest.raises(AuditError, match=said):
            verify(changed)

    broken([*lines[:2], lines[2].replace("Ada", "Eve"), *lines[3:]], "line 3: entry 3 was changed")
    broken([*lines[:2], *lines[3:]], "broken at line 3: entry 4 does not follow")
    broken(lines[1:], "broken at line 1: entry 2 does not follow")
    broken([lines[0], lines[2], lines[1], *lines[3:]], "broken at line 2")
    broken([lines[0], *lines], "broken at line 2: entry 1 does not follow")
    broken([*lines, "no JSON"], "line 6 is no entry")
    broken(["[]"], "line 1 is no entry")
    # Who changes an entry and its hash breaks the chain behind it.
    values = json.loads(lines[2]) | {"who": "Eve"}
    del values["hash"]
    plain = json.dumps(values, sort_keys=True, separators=(",", ":"))
    values["hash"] = hashlib.sha256(plain.encode()).hexdigest()
    broken([*lines[:2], json.dumps(values), *lines[3:]], "broken at line 4")
    # Only a head that was noted before tells that entries are missing at the end.
    assert verify(lines[:3]).entries == 3
    with pytest.raises(AuditError, match="entries at the end were taken away"):
        verify(lines[:3], head=json.loads(lines[4])["hash"])
