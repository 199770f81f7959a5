"""What a station keeps beside its verdicts, in the same database.

Photos that failed, which products are retired and which is the default, who changed what, alarms of
the drift monitor, and scores of photos that another version inspected once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from reconpatch.errors import NotFoundError
from reconpatch.station.audit import Audit
from reconpatch.station.counters import Counters
from reconpatch.station.outbox import Outbox
from reconpatch.station.tables import changes, drift_alarms, failures, products, rescored

FailureKind = Literal["photo", "upload", "camera", "storage", "other"]
What = Literal[
    "threshold", "rollback", "update", "fit", "start", "default", "retire", "restore",
    "acknowledge",
]  # fmt: skip

Row = TypeVar("Row", "Failure", "Changed", "Alarm")

# Photos asked for in one statement.
_PAGE = 1_000


@dataclass(frozen=True)
class Failure:
    """A photo without a verdict.

    Attributes:
        id: counts up; None while it waits for a database that is away.
        time: when, in UTC.
        product: name of the product.
        name: what the photo was called by whoever sent it.
        kind: "photo": it cannot be read; "upload": it was cut off or is too large; "camera":
            the camera gave none that can be used; "storage": the disk or the database refused it;
            "other": see the service's log.
        error: one sentence.
    """

    id: int | None
    time: datetime
    product: str
    name: str
    kind: FailureKind
    error: str


@dataclass(frozen=True)
class Changed:
    """What somebody changed.

    Attributes:
        id: counts up.
        time: when, in UTC.
        product: name of the product.
        what: the kind of change.
        by: who, as far as they said.
        note: what it came to, in plain words.
        figures: what the change was expected to do, as it was shown; or None.
    """

    id: int
    time: datetime
    product: str
    what: What
    by: str | None
    note: str
    figures: dict[str, Any] | None


@dataclass(frozen=True)
class Alarm:
    """An alarm of the drift monitor, which stands until somebody acknowledges it.

    Attributes:
        id: counts up.
        time: when, in UTC.
        product: name of the product.
        version: number of the version whose scores were watched.
        record: id of the record that raised it.
        photo: how many photos the version had seen.
        direction: what speaks for it most.
        message: the alarm in plain words.
        acknowledged: when, in UTC, or None.
        acknowledged_by: by whom.
        note: what they said of it.
    """

    id: int
    time: datetime
    product: str
    version: int
    record: int
    photo: int
    direction: str
    message: str
    acknowledged: datetime | None
    acknowledged_by: str | None
    note: str | None


@dataclass(frozen=True)
class Products:
    """Which products are retired, and which is asked where none is named.

    Attributes:
        retired: names.
        default: the one that was named, or None.
    """

    retired: frozenset[str]
    default: str | None


Transaction = Callable[[], AbstractContextManager[sa.Connection]]


class StationLog:
    """The log of one station; safe to use from several threads.

    Args:
        station: whose rows these are.
        reading: a connection to read with.
        changing: a connection in a transaction of its own.
        outbox: where messages about photos that failed go.
        audit: where changes go too.
        counters: where photos that failed are counted.
    """

    def __init__(
        self,
        station: str,
        reading: Transaction,
        changing: Transaction,
        outbox: Outbox,
        audit: Audit,
        counters: Counters,
    ) -> None:
        self._station, self._reading, self._changing = station, reading, changing
        self._outbox, self._audit, self._counters = outbox, audit, counters

    # --- Photos that failed --------------------------------------------------------------------

    def add_failures(self, failed: Sequence[Failure]) -> list[Failure]:
        """Keep them; the same with their numbers."""
        if not failed:
            return []
        rows = [self._row(failure) for failure in failed]
        numbered = sa.insert(failures).returning(failures.c.id, sort_by_parameter_order=True)
        with self._changing() as connection:
            ids = connection.execute(numbered, rows).scalars().all()
            kept = [
                Failure(**{**vars(one), "id": int(i)}) for i, one in zip(ids, failed, strict=True)
            ]
            self._counters.add_failures(connection, kept)
            self._outbox.put(connection, "failure", kept)
        self._outbox.tell("failure", kept)
        return kept

    def failure(self, number: int) -> Failure:
        """One failed photo.

        Raises:
            NotFoundError: there is none of this number.
        """
        with self._reading() as connection:
            query = self._of(failures, None).where(failures.c.id == number)
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no failure {number}: give the id of one that is listed")
        return _made(Failure, row)

    def failures(
        self,
        product: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> tuple[list[Failure], int | None]:
        """Failed photos, newest first, and where the next page begins.

        Args:
            product: name of the product; None takes all.
            since: from this time on.
            until: before this time.
            limit: at most so many.
            before: only those with smaller ids.
        """
        column = failures.c
        wanted = [column.time >= since] if since is not None else []
        wanted += [column.time < until] if until is not None else []
        if wanted:
            with self._reading() as connection:
                bounds = self._counters.failure_bounds(connection, product, since, until)
            if bounds is None:
                return [], None
            wanted.append(column.id.between(*bounds))
        return self._page(failures, Failure, product, limit, before, wanted)

    def has_failure(self, product: str, name: str, error: str) -> bool:
        """Whether this very failure is kept already."""
        column = failures.c
        query = self._of(failures, product).where(column.name == name, column.error == error)
        with self._reading() as connection:
            return connection.execute(query.limit(1)).first() is not None

    # --- Products ------------------------------------------------------------------------------

    def products(self) -> Products:
        """Which products are retired, and which is the default."""
        query = sa.select(products).where(products.c.station == self._station)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return Products(
            retired=frozenset(row.product for row in rows if row.retired is not None),
            default=next((row.product for row in rows if row.is_default), None),
        )

    def set_retired(self, product: str, *, retired: bool) -> None:
        """Retire a product, or take it up again."""
        with self._changing() as connection:
            when = datetime.now(UTC) if retired else None
            self._set_product(connection, product, retired=when)

    def set_default(self, product: str) -> None:
        """From now on this product is meant where none is named."""
        own = products.c.station == self._station
        with self._changing() as connection:
            connection.execute(sa.update(products).where(own).values(is_default=False))
            self._set_product(connection, product, is_default=True)

    def _set_product(self, connection: sa.Connection, product: str, **values: Any) -> None:
        this = sa.and_(products.c.station == self._station, products.c.product == product)
        changed = connection.execute(sa.update(products).where(this).values(values))
        if not changed.rowcount:
            row = {"retired": None, "is_default": False, **values}
            row |= {"station": self._station, "product": product}
            connection.execute(sa.insert(products).values(row))

    # --- Who changed what ----------------------------------------------------------------------

    def add_change(
        self,
        product: str,
        what: What,
        note: str,
        *,
        by: str | None = None,
        figures: Mapping[str, Any] | None = None,
        before: Any = None,
        after: Any = None,
    ) -> None:
        """Keep a change, see `Changed`, here and in the audit trail.

        Args:
            product: name of the product.
            what: the kind of change.
            note: what it came to.
            by: who did it.
            figures: what it was expected to do.
            before: how it was, JSON-ready, for the audit trail.
            after: how it is then.
        """
        row = {
            "station": self._station, "time": datetime.now(UTC), "product": product, "what": what,
            "by": by, "note": note, "figures": None if figures is None else dict(figures),
        }  # fmt: skip
        with self._changing() as connection:
            connection.execute(sa.insert(changes).values(row))
            self._audit.add(
                what, product, who=by, before=before, after=after, why=note, within=connection
            )

    def changes(
        self, product: str, *, limit: int = 100, before: int | None = None
    ) -> tuple[list[Changed], int | None]:
        """Changes of a product, newest first, and where the next page begins."""
        return self._page(changes, Changed, product, limit, before)

    # --- Drift ---------------------------------------------------------------------------------

    def add_alarm(self, alarm: Mapping[str, Any]) -> None:
        """Keep an alarm; of one that is kept already nothing changes.

        Args:
            alarm: values of `Alarm`, without its id and without its acknowledgement.
        """
        row = {**alarm, "station": self._station}
        told = sa.select(drift_alarms.c.id).where(
            drift_alarms.c.station == self._station, drift_alarms.c.record == row["record"]
        )
        with self._changing() as connection:
            if connection.execute(told).first() is None:
                connection.execute(sa.insert(drift_alarms).values(row))

    def alarms(
        self, product: str, *, limit: int = 100, before: int | None = None
    ) -> tuple[list[Alarm], int | None]:
        """Alarms of a product, newest first, and where the next page begins."""
        return self._page(drift_alarms, Alarm, product, limit, before)

    def open_alarms(self, product: str | None = None) -> list[Alarm]:
        """Alarms that nobody has acknowledged, newest first; None takes all products."""
        query = self._of(drift_alarms, product).where(drift_alarms.c.acknowledged.is_(None))
        with self._reading() as connection:
            rows = connection.execute(query.order_by(drift_alarms.c.id.desc())).all()
        return [_made(Alarm, row) for row in rows]

    def acknowledge(
        self, product: str, *, by: str, note: str = "", up_to: int | None = None
    ) -> int:
        """Acknowledge the open alarms of a product; how many there were.

        Args:
            product: name of the product.
            by: who does.
            note: what they say of it.
            up_to: the newest alarm that they have seen; None takes all.
        """
        column = drift_alarms.c
        which = [
            column.station == self._station,
            column.product == product,
            column.acknowledged.is_(None),
        ]
        if up_to is not None:
            which.append(column.id <= up_to)
        told = {"acknowledged": datetime.now(UTC), "acknowledged_by": by, "note": note}
        with self._changing() as connection:
            return connection.execute(sa.update(drift_alarms).where(*which).values(told)).rowcount

    # --- Photos that were scored again ---------------------------------------------------------

    def scores(self, product: str, scores_as: int, photos: Sequence[str]) -> dict[str, float]:
        """What is known of photos, each given by its SHA-256, as one version scores them."""
        column, known = rescored.c, {}
        with self._reading() as connection:
            for first in range(0, len(photos), _PAGE):
                query = sa.select(column.photo, column.score).where(
                    column.station == self._station,
                    column.product == product,
                    column.scores_as == scores_as,
                    column.photo.in_(photos[first : first + _PAGE]),
                )
                known.update({row.photo: row.score for row in connection.execute(query)})
        return known

    def add_scores(self, product: str, scores_as: int, scores: Mapping[str, float]) -> None:
        """Keep scores of photos; of one that is kept already the new one counts."""
        if not scores:
            return
        column = rescored.c
        this = sa.and_(
            column.station == self._station,
            column.product == product,
            column.scores_as == scores_as,
            column.photo.in_(list(scores)),
        )
        shared = {"station": self._station, "product": product, "scores_as": scores_as}
        rows = [{**shared, "photo": photo, "score": score} for photo, score in scores.items()]
        with self._changing() as connection:
            connection.execute(sa.delete(rescored).where(this))
            connection.execute(sa.insert(rescored), rows)

    # --- Rows ----------------------------------------------------------------------------------

    def _of(self, table: sa.Table, product: str | None) -> sa.Select[Any]:
        query = sa.select(table).where(table.c.station == self._station)
        return query if product is None else query.where(table.c.product == product)

    def _page(
        self,
        table: sa.Table,
        kind: type[Row],
        product: str | None,
        limit: int,
        before: int | None,
        wanted: Sequence[sa.ColumnElement[bool]] = (),
    ) -> tuple[list[Row], int | None]:
        query = self._of(table, product).where(*wanted).order_by(table.c.id.desc())
        if before is not None:
            query = query.where(table.c.id < before)
        with self._reading() as connection:
            rows = connection.execute(query.limit(limit + 1)).all()
        found = [_made(kind, row) for row in rows[:limit]]
        return found, rows[limit - 1].id if len(rows) > limit else None

    def _row(self, failure: Failure) -> dict[str, Any]:
        row = asdict(failure) | {"station": self._station}
        del row["id"]
        return row


def _made(kind: type[Row], row: sa.Row[Any]) -> Row:
    return kind(**{field.name: getattr(row, field.name) for field in fields(kind)})


def known_product(product: str, products: Iterable[str]) -> None:
    """Raise NotFoundError unless there is a product of this name."""
    names = sorted(products)
    if product not in names:
        raise NotFoundError(f"there is no product {product!r}: give one of {', '.join(names)}")
