"""Counters of verdicts by quarter of an hour, kept in the transaction of each record.

What a shift comes to, and where in the records an answer lies, is read from some thousand rows of
them instead of a million records. A quarter of an hour is the grain because the clock of every time
zone differs from UTC by whole quarters, so that shifts and days of any zone are sums of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from reconpatch.station.tables import counters

SECONDS = 900
"""Of a quarter of an hour."""

Transaction = Callable[[], AbstractContextManager[sa.Connection]]
Row = dict[str, Any]

_KEY = ("station", "quarter", "product", "version", "lot")
COUNTS = ("inspected", "anomalous", "false_alarms", "defects", "goods", "misses", "failed")
"""What is counted, see `tables.counters`."""
_COUNTED = (*COUNTS, "passed_sum")
_C = counters.c
# How many records of a row are of a verdict, and of what was said of them.
_CELLS: dict[tuple[bool, str], sa.ColumnElement[int]] = {
    (True, "good"): _C.false_alarms,
    (True, "defect"): _C.defects,
    (True, "none"): _C.anomalous - _C.false_alarms - _C.defects,
    (False, "good"): _C.goods,
    (False, "defect"): _C.misses,
    (False, "none"): _C.inspected - _C.anomalous - _C.goods - _C.misses,
}
_SAID = {"any": ("good", "defect"), None: ("good", "defect", "none")}


def quarter_of(when: datetime) -> int:
    """The quarter of an hour that a time lies in, counted from 1970 in UTC."""
    return int(when.timestamp() // SECONDS)


def time_of(quarter: int) -> datetime:
    """When a quarter of an hour begins."""
    return datetime.fromtimestamp(quarter * SECONDS, UTC)


def between(since: datetime | None, until: datetime | None) -> list[sa.ColumnElement[bool]]:
    """Rows of quarters that have a part in the time from `since` to before `until`."""
    found: list[sa.ColumnElement[bool]] = []
    if since is not None:
        found.append(counters.c.quarter >= quarter_of(since))
    if until is not None:
        found.append(counters.c.quarter <= -(-until.timestamp() // SECONDS) - 1)
    return found


class Counters:
    """The counters of one station; safe to use from several threads.

    Args:
        station: whose they are.
        reading: a connection to read with.
    """

    def __init__(self, station: str, reading: Transaction) -> None:
        self._station, self.reading = station, reading

    # --- Counting ------------------------------------------------------------------------------

    def add(self, connection: sa.Connection, records: Iterable[Any]) -> None:
        """Count new records, in their transaction.

        Args:
            connection: of the transaction.
            records: each a `Record` without feedback.
        """
        self._add(connection, [self._row(record) for record in records])

    def add_failures(self, connection: sa.Connection, failures: Iterable[Any]) -> None:
        """Count new photos without a verdict, in their transaction; each a `Failure`."""
        rows = [
            self._of(failure, 0, "") | {"failed": 1, "first": failure.id, "last": failure.id}
            for failure in failures
        ]
        self._add(connection, rows)

    def change(self, connection: sa.Connection, before: Any, after: Any) -> None:
        """Count a record, whose row is locked, by other feedback than before."""
        old, new = self._row(before), self._row(after)
        column = counters.c
        deltas = {name: column[name] + (new[name] - old[name]) for name in COUNTS[2:6]}
        this = [column[name] == old[name] for name in _KEY]
        connection.execute(sa.update(counters).where(*this).values(deltas))

    def _row(self, record: Any) -> Row:
        flagged, said = record.anomalous, record.feedback
        return self._of(record, record.version, record.lot or "") | {
            "inspected": 1,
            "anomalous": int(flagged),
            "false_alarms": int(flagged and said == "good"),
            "defects": int(flagged and said == "defect"),
            "goods": int(not flagged and said == "good"),
            "misses": int(not flagged and said == "defect"),
            "passed_sum": 0.0 if flagged else record.score,
            "first": record.id,
            "last": record.id,
        }

    def _of(self, item: Any, version: int, lot: str) -> Row:
        key = (self._station, quarter_of(item.time), item.product, version, lot)
        return dict.fromkeys(_COUNTED, 0) | dict(zip(_KEY, key, strict=True))

    def _add(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        sums: dict[tuple[Any, ...], Row] = {}
        for row in rows:
            total = sums.setdefault(tuple(row[name] for name in _KEY), row)
            if total is not row:
                total.update({name: total[name] + row[name] for name in _COUNTED})
                total["first"] = min(total["first"], row["first"])
                total["last"] = max(total["last"], row["last"])
        if not sums:
            return
        # The same words in both, but SQLAlchemy has no class for them that both share.
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        # In one order, so that two who count at once do not wait for one another.
        statement = insert(counters).values([sums[key] for key in sorted(sums)])
        old, new = counters.c, statement.excluded
        changed: dict[str, Any] = {name: old[name] + new[name] for name in _COUNTED}
        changed["first"] = sa.case((new.first < old.first, new.first), else_=old.first)
        changed["last"] = sa.case((new.last > old.last, new.last), else_=old.last)
        connection.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=changed))

    # --- Asking --------------------------------------------------------------------------------

    def own(self) -> sa.ColumnElement[bool]:
        """The rows of this station."""
        own: sa.ColumnElement[bool] = counters.c.station == self._station
        return own

    def bounds(
        self,
        connection: sa.Connection,
        *,
        anomalous: bool | None = None,
        feedback: Literal["good", "defect", "any", "none"] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        **same: Any,
    ) -> tuple[int, int] | None:
        """The lowest and the highest number of records that may be asked for; None: there is none.

        Records in between need not be. Between the two they are found by their numbers, where
        times, which have no order of their own, would have to be looked at one by one.

        Args:
            connection: to read with.
            anomalous: see `Filter`, as are the others.
            feedback: see there.
            since: see there.
            until: see there.
            same: the product, version and lot; None does not restrict.
        """
        said = _SAID.get(feedback, (feedback,))
        cells = [
            cell
            for (flagged, told), cell in _CELLS.items()
            if told in said and anomalous in (None, flagged)
        ]
        kept = {name: value for name, value in same.items() if value is not None}
        return self._bounds(
            connection,
            *(counters.c[name] == value for name, value in kept.items()),
            *between(since, until),
            sum(cells[1:], cells[0]) > 0,
        )

    def failure_bounds(
        self,
        connection: sa.Connection,
        product: str | None,
        since: datetime | None,
        until: datetime | None,
    ) -> tuple[int, int] | None:
        """The same of photos without a verdict."""
        column = counters.c
        wanted = [column.product == product] if product is not None else []
        return self._bounds(connection, *wanted, *between(since, until), column.failed > 0)

    def _bounds(
        self, connection: sa.Connection, *wanted: sa.ColumnElement[bool]
    ) -> tuple[int, int] | None:
        column = counters.c
        query = sa.select(sa.func.min(column.first), sa.func.max(column.last))
        first, last = connection.execute(query.where(self.own(), *wanted)).one()
        return None if first is None else (int(first), int(last))
