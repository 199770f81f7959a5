"""The audit trail: who changed what, when, from what, to what, and why; it only grows.

Each entry holds the hash of the one before, and its own hash is over all that it says. An export
can thus be proven unbroken by anybody: no entry was changed, taken out or put in. What a chain
cannot show is that entries at its end are missing; for that, keep the hash of the last one, the
head, somewhere else now and then. The database refuses to change or remove an entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from reconpatch.errors import AuditError
from reconpatch.station.tables import audit

BEGINNING = "0" * 64
"""What the first entry holds for the hash of the one before."""

_PAGE = 1_000
_JSON = ("before", "after")
# Any number; of one station only one transaction at a time adds to the chain.
_LOCK = 4_702_114


@dataclass(frozen=True)
class Entry:
    """What somebody did.

    Attributes:
        station: where.
        number: counts up from 1, without gaps.
        time: when, in UTC.
        who: the user or the token, or who they said they were; None where nobody said.
        what: the kind of act.
        subject: what it was done to: a product, "record 812", a user, an output.
        before: how it was, or None.
        after: how it is then, or None.
        why: what it came to or what for, in plain words.
        previous: hash of the entry before.
        hash: SHA-256 of all of the above.
    """

    station: str
    number: int
    time: datetime
    who: str | None
    what: str
    subject: str
    before: Any
    after: Any
    why: str
    previous: str
    hash: str

    def to_json(self) -> str:
        """The entry as a line of an export."""
        return _canonical({**vars(self), "time": self.time.isoformat(timespec="microseconds")})


def _canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def hash_of(values: dict[str, Any]) -> str:
    """The hash of an entry.

    Args:
        values: as its line in an export has them; a hash among them is left out.
    """
    said = _canonical({name: value for name, value in values.items() if name != "hash"})
    return hashlib.sha256(said.encode()).hexdigest()


Transaction = Callable[[], AbstractContextManager[sa.Connection]]


class Audit:
    """The trail of one station; safe to use from several threads and processes.

    Args:
        station: whose it is.
        reading: a connection to read with.
        changing: a connection in a transaction of its own.
    """

    def __init__(self, station: str, reading: Transaction, changing: Transaction) -> None:
        self._station, self._reading, self._changing = station, reading, changing

    def add(
        self,
        what: str,
        subject: str,
        *,
        who: str | None = None,
        before: Any = None,
        after: Any = None,
        why: str = "",
        within: sa.Connection | None = None,
    ) -> None:
        """Add an entry; see `Entry`.

        Args:
            what: see `Entry`, as are the others.
            subject: see there.
            who: see there.
            before: JSON-ready.
            after: JSON-ready.
            why: see there.
            within: the transaction of the act itself; None: one of its own.
        """
        if within is None:
            with self._changing() as connection:
                self.add(
                    what, subject, who=who, before=before, after=after, why=why, within=connection
                )
            return
        if within.dialect.name == "postgresql":
            lock = sa.func.pg_advisory_xact_lock(_LOCK, sa.func.hashtext(self._station))
            within.execute(sa.select(lock))
        last = sa.select(audit.c.number, audit.c.hash).where(audit.c.station == self._station)
        found = within.execute(last.order_by(audit.c.number.desc()).limit(1)).one_or_none()
        number, previous = (0, BEGINNING) if found is None else found
        now = datetime.now(UTC)
        said = {
            "station": self._station, "number": number + 1,
            "time": now.isoformat(timespec="microseconds"), "who": who, "what": what,
            "subject": subject, "before": before, "after": after, "why": why, "previous": previous,
        }  # fmt: skip
        # As it will be read back: JSON knows no tuples, and no names that are no text.
        said = json.loads(json.dumps(said))
        row = {**said, "time": now, "hash": hash_of(said)}
        row |= {name: None if said[name] is None else json.dumps(said[name]) for name in _JSON}
        within.execute(sa.insert(audit).values(row))

    def head(self) -> Entry | None:
        """The newest entry, or None."""
        return next(iter(self.page(limit=1)), None)

    def last(self, subject: str, whats: Sequence[str]) -> Entry | None:
        """The newest entry about a subject of one of these kinds, or None."""
        query = self._own().where(audit.c.subject == subject, audit.c.what.in_(whats))
        with self._reading() as connection:
            row = connection.execute(query.order_by(audit.c.number.desc()).limit(1)).one_or_none()
        return None if row is None else _made(row)

    def page(self, *, limit: int = 100, before: int | None = None) -> list[Entry]:
        """Entries, newest first.

        Args:
            limit: at most so many.
            before: only those with smaller numbers.
        """
        query = self._own()
        if before is not None:
            query = query.where(audit.c.number < before)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(audit.c.number.desc()).limit(limit)).all()
        return [_made(row) for row in rows]

    def export(self) -> Iterator[str]:
        """All entries as lines of JSON, oldest first."""
        after = 0
        while True:
            query = self._own().where(audit.c.number > after).order_by(audit.c.number)
            with self._reading() as connection:
                rows = connection.execute(query.limit(_PAGE)).all()
            if not rows:
                return
            yield from (_made(row).to_json() for row in rows)
            after = rows[-1].number

    def _own(self) -> sa.Select[Any]:
        return sa.select(audit).where(audit.c.station == self._station)


def _made(row: sa.Row[Any]) -> Entry:
    values = {field.name: getattr(row, field.name) for field in fields(Entry)}
    values |= {name: values[name] and json.loads(values[name]) for name in _JSON}
    return Entry(**values)


@dataclass(frozen=True)
class Verified:
    """What an unbroken export comes to.

    Attributes:
        entries: how many.
        head: hash of the last one.
    """

    entries: int
    head: str


def verify(lines: Iterable[str], *, head: str | None = None) -> Verified:
    """Prove that an export is unbroken.

    Args:
        lines: of the export, oldest first.
        head: the hash of an entry that was noted before; it has to be among them.

    Raises:
        AuditError: it is broken; the message says where.
    """
    number, previous, station = 0, BEGINNING, None
    found = head is None or head == BEGINNING
    for line in lines:
        number += 1
        try:
            values = json.loads(line)
            told = (values["number"], values["previous"], values["hash"], values["station"])
        except (ValueError, TypeError, KeyError) as error:
            raise AuditError(
                f"line {number} is no entry of an audit trail: give a file that `audit` wrote"
            ) from error
        if told[0] != number or told[1] != previous:
            raise AuditError(
                f"the trail is broken at line {number}: entry {told[0]} does not follow the one "
                "before; entries were taken out or put in. Compare it with an older export"
            )
        if told[2] != hash_of(values) or told[3] != (station or told[3]):
            raise AuditError(
                f"the trail is broken at line {number}: entry {told[0]} was changed. Compare it "
                "with an older export"
            )
        previous, station = told[2], told[3]
        found = found or previous == head
    if not found:
        raise AuditError(
            f"no entry has the hash {head}: entries at the end were taken away, or the hash is of "
            "another station. Compare it with an older export"
        )
    return Verified(number, previous)
