"""Messages to the line, kept until they are sent.

A row is written in the same transaction as the verdict that it is about, so that no verdict is
without its message and no message without its verdict. It is removed once the receiver has taken
it: whatever happens in between, the message is sent once more, under the same record's id. Rows are
small and name what they are about; how many may wait is bound by the disk alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import sqlalchemy as sa

from reconpatch.station.tables import outbox

Event = Literal["verdict", "failure"]


class Subject(Protocol):
    """What a message is about: a record, or a failure."""

    @property
    def id(self) -> int | None:
        """Its number."""

    @property
    def product(self) -> str:
        """Name of its product."""


Wanted = Callable[[Event, Any], bool]
Heard = Callable[[Event, Sequence[Any]], None]


@dataclass(frozen=True)
class Waiting:
    """A message that waits to be sent.

    Attributes:
        id: counts up; messages are sent in this order.
        event: what happened.
        subject: id of the record or the failure.
        created: when, in UTC.
    """

    id: int
    event: Event
    subject: int
    created: datetime


@dataclass(frozen=True)
class Backlog:
    """What an output has not sent.

    Attributes:
        waiting: messages that wait.
        oldest: since when the first of them does, in UTC, or None.
        refused: messages that their receiver refused, which wait for somebody.
        reason: why it refused one of them, or None.
    """

    waiting: int = 0
    oldest: datetime | None = None
    refused: int = 0
    reason: str | None = None


Transaction = Callable[[], AbstractContextManager[sa.Connection]]


class Outbox:
    """The messages of one station; safe to use from several threads.

    Args:
        station: whose rows these are.
        reading: a connection to read with.
        changing: a connection in a transaction of its own.

    Attributes:
        outputs: by the names of outputs whose messages are kept, whether one wants a message.
        listeners: told of what has been committed, at once.
    """

    def __init__(self, station: str, reading: Transaction, changing: Transaction) -> None:
        self._station, self._reading, self._changing = station, reading, changing
        self.outputs: Mapping[str, Wanted] = {}
        self.listeners: list[Heard] = []

    def put(self, connection: sa.Connection, event: Event, subjects: Sequence[Subject]) -> None:
        """Keep messages for all outputs, within the transaction of what they are about."""
        now = datetime.now(UTC)
        rows = [
            {"station": self._station, "output": name, "event": event, "subject": one.id,
             "created": now, "refused": None}
            for one in subjects
            for name, wants in self.outputs.items()
            if wants(event, one)
        ]  # fmt: skip
        if rows:
            connection.execute(sa.insert(outbox), rows)

    def tell(self, event: Event, subjects: Sequence[Subject]) -> None:
        """Say that what the messages are about is on the disk."""
        for listener in self.listeners:
            listener(event, subjects)

    def waiting(self, output: str, limit: int) -> list[Waiting]:
        """The first messages of an output that wait, in order."""
        query = self._of(output).where(outbox.c.refused.is_(None))
        with self._reading() as connection:
            rows = connection.execute(query.order_by(outbox.c.id).limit(limit)).all()
        return [Waiting(row.id, row.event, row.subject, row.created) for row in rows]

    def last(self, output: str) -> int:
        """The largest id of an output's messages that wait, 0 where there is none."""
        query = sa.select(sa.func.coalesce(sa.func.max(outbox.c.id), 0)).where(self._own(output))
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    def sent(self, numbers: Sequence[int]) -> None:
        """Forget messages that were taken by their receiver."""
        if numbers:
            with self._changing() as connection:
                connection.execute(sa.delete(outbox).where(outbox.c.id.in_(numbers)))

    def refuse(self, number: int, reason: str) -> None:
        """Put a message aside that its receiver refused, so that it holds up no other."""
        with self._changing() as connection:
            this = sa.update(outbox).where(outbox.c.id == number)
            connection.execute(this.values(refused=reason))

    def send_again(self, output: str) -> int:
        """Let refused messages of an output wait again, behind all others; how many."""
        with self._changing() as connection:
            query = self._of(output).where(outbox.c.refused.is_not(None)).order_by(outbox.c.id)
            rows = [row._asdict() for row in connection.execute(query)]
            old = [row.pop("id") for row in rows]
            if rows:
                connection.execute(sa.delete(outbox).where(outbox.c.id.in_(old)))
                connection.execute(sa.insert(outbox), [{**row, "refused": None} for row in rows])
        return len(rows)

    def discard(self, output: str) -> int:
        """Forget all messages of an output that were not sent; how many."""
        with self._changing() as connection:
            return connection.execute(sa.delete(outbox).where(self._own(output))).rowcount

    def backlog(self) -> dict[str, Backlog]:
        """What is unsent, by the names of outputs; also of outputs that there are no more."""
        column = outbox.c
        query = sa.select(
            column.output,
            sa.func.count().filter(column.refused.is_(None)).label("waiting"),
            sa.func.min(column.created).filter(column.refused.is_(None)).label("oldest"),
            sa.func.count(column.refused).label("refused"),
            sa.func.max(column.refused).label("reason"),
        )
        query = query.where(column.station == self._station).group_by(column.output)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return {row.output: Backlog(row.waiting, row.oldest, row.refused, row.reason)
                for row in rows}  # fmt: skip

    def _own(self, output: str) -> sa.ColumnElement[bool]:
        return sa.and_(outbox.c.station == self._station, outbox.c.output == output)

    def _of(self, output: str) -> sa.Select[Any]:
        return sa.select(outbox).where(self._own(output))
