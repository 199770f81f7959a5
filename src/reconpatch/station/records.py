"""What was decided, so that it can be proven later: every verdict is a row of a database.

SQLite in a file by default (write-ahead log, and every commit on the disk before it counts, for
power goes at a line), or PostgreSQL by URL for several stations. The tables are in
`station/tables.py`, made and brought up to date by the migrations when the database is opened.

A `Records` sees the rows of its own station only. Rows of verdicts are never changed, but for the
feedback of an operator, and never removed.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.dialects import postgresql, sqlite

from reconpatch.errors import (
    ChangedError,
    MissingExtraError,
    NotFoundError,
    RecordsError,
    SettingsError,
)
from reconpatch.photos.listing import GOOD_NAMES, bare_name
from reconpatch.result import NONE_OF_THESE, Box, Region, Result, SimilarKind
from reconpatch.station.audit import Audit
from reconpatch.station.counters import Counters
from reconpatch.station.drawing import Stroke, checked
from reconpatch.station.log import StationLog
from reconpatch.station.outbox import Outbox
from reconpatch.station.search import Search, peak_of
from reconpatch.station.tables import inspected_files, inspections, photos, services, versions

if TYPE_CHECKING:
    from reconpatch.station.people import People

Feedback = Literal["good", "defect"]
FEEDBACK: tuple[Feedback, ...] = ("good", "defect")

# Rows read at once where all of them are asked for.
_PAGE = 1_000
_LONGEST_NAME, _LONGEST_KIND = 255, 64
# Seconds that one waits for another who writes.
_PATIENCE = 30
# Any number; the same for all stations, so that only one of them brings the tables up to date.
_MIGRATION_LOCK = 4_702_113


@dataclass(frozen=True)
class Part:
    """Which part a photo shows, as far as whoever sent it said so.

    Attributes:
        lot: that the part belongs to, 1 to 100 characters.
        serial: the part's serial number, likewise.
    """

    lot: str | None = None
    serial: str | None = None

    @classmethod
    def of(cls, lot: str | None, serial: str | None = None) -> Part:
        """The part of what was given, as it is kept: storable text, without spaces around it."""
        kept = (None if text is None else _storable(text).strip() or None for text in (lot, serial))
        return cls(*kept)


@dataclass(frozen=True)
class Closest:
    """The good patch that the worst patch of a photo was compared with.

    Attributes:
        photo: name of the good photo of the fit.
        box: the good patch, in that photo's pixels.
        distance: between the two.
        patch_box: the worst patch, in pixels of the inspected photo; None in old records.
        thumbnail_box: the good patch, in pixels of the picture that the service gives of it.
        sha256: of the good photo's pixels, which its picture is looked up by; empty in old records.
    """

    photo: str
    box: Box
    distance: float
    patch_box: Box | None = None
    thumbnail_box: Box | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Verdict:
    """What an inspection came to, before it has a number: see `Record`."""

    time: datetime
    product: str
    version: int
    fingerprint: str
    name: str
    photo: str
    width: int
    height: int
    score: float
    threshold: float
    map_threshold: float
    p_value: float
    anomalous: bool
    inspected: Box
    regions: tuple[Region, ...]
    closest: Closest
    kind: SimilarKind | None = field(default=None, kw_only=True)
    whole: bool = field(default=False, kw_only=True)
    lot: str | None = field(default=None, kw_only=True)
    serial: str | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, result: Result, version: Version, photo: str, part: Part | None = None) -> Verdict:
        """The verdict of an inspection that has just ended.

        Args:
            result: what the inspection came to.
            version: which judged.
            photo: SHA-256 of the photo's file.
            part: which part it shows, where whoever sent it said so.
        """
        height, width = result.heatmap.shape
        good = result.closest
        return cls(
            time=datetime.now(UTC),
            product=version.product,
            version=version.number,
            fingerprint=version.fingerprint,
            name=_storable(result.name)[-_LONGEST_NAME:],  # its end tells more
            photo=photo,
            width=width,
            height=height,
            score=result.score,
            threshold=result.threshold,
            map_threshold=result.map_threshold,
            p_value=result.p_value,
            anomalous=result.anomalous,
            inspected=result.inspected,
            regions=result.regions,
            closest=Closest(
                good.photo,
                good.box,
                good.distance,
                good.patch_box,
                good.thumbnail_box,
                good.sha256,
            ),
            kind=result.kind,
            whole=result.whole,
            lot=part.lot if part else None,
            serial=part.serial if part else None,
        )


def _storable(text: str) -> str:
    """Text that every database takes: valid Unicode without NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


@dataclass(frozen=True)
class Record(Verdict):
    """A verdict in the database.

    Attributes:
        id: counts up; a later record has a larger one.
        time: when it was decided, in UTC.
        product: name of the product.
        version: number of the model's version.
        fingerprint: SHA-256 of what decided (`Inspector.fingerprint`).
        name: what the photo was called by whoever sent it.
        photo: SHA-256 of the photo's file.
        width: of the photo, in pixels.
        height: of the photo, in pixels.
        score: raw image score.
        threshold: the image score above which a photo was anomalous.
        map_threshold: value of the map above which a pixel belonged to a region.
        p_value: see `Result.p_value`.
        anomalous: score > threshold.
        inspected: the part of the photo that was looked at, in its pixels.
        regions: the anomalous areas, the worst first.
        closest: the good patch that the worst one was compared with.
        kind: see `Result.kind`.
        whole: see `Result.whole`.
        lot: see `Part`, as is the serial number.
        serial: see there.
        feedback: what an operator said the part was, or None.
        feedback_time: when, in UTC.
        feedback_kind: the kind of a defect, where the operator named one.
        feedback_place: where the operator drew it, or None.
        feedback_count: how many times something has been said.
    """

    id: int
    feedback: Feedback | None
    feedback_time: datetime | None
    feedback_kind: str | None = field(default=None, kw_only=True)
    feedback_place: tuple[Stroke, ...] | None = field(default=None, kw_only=True)
    feedback_count: int = field(default=0, kw_only=True)

    @property
    def etag(self) -> str:
        """Changes with the feedback, which is all of a record that does."""
        again = f"-{self.feedback_count}" if self.feedback_count > 1 else ""
        return f'"{self.id}-{self.feedback or "none"}{again}"'


@dataclass(frozen=True)
class Told:
    """What of a `Record` it takes to ask how another threshold would judge its part."""

    id: int
    name: str
    photo: str
    version: int
    width: int
    height: int
    score: float
    anomalous: bool
    feedback: Feedback


@dataclass(frozen=True)
class FileKey:
    """A file as `watch` found it; another size or time of change is another file.

    Attributes:
        path: where it was.
        size: in bytes.
        mtime_ns: time of its last change, in nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int

    def columns(self) -> dict[str, Any]:
        """The file as it is kept; a path need not be Unicode."""
        return {**asdict(self), "path": _storable(self.path)}


@dataclass(frozen=True)
class Version:
    """One version of a product's model.

    Attributes:
        product: name of the product.
        number: counts up from 1.
        file: name of the model file.
        sha256: of that file.
        fingerprint: of the model (`Inspector.fingerprint`).
        threshold: of the image score.
        parent: number of the version that it was made from, or None.
        scores_as: number of the first version that gives the same scores; versions that differ
            in the threshold alone share it.
        created: when, in UTC.
        note: how it came about, in plain words.
    """

    product: str
    number: int
    file: str
    sha256: str
    fingerprint: str
    threshold: float
    parent: int | None
    scores_as: int
    created: datetime
    note: str


@dataclass(frozen=True)
class Service:
    """A version was in service from a time on."""

    product: str
    number: int
    since: datetime


@dataclass(frozen=True)
class Filter:
    """Which records are asked for; None does not restrict.

    Attributes:
        product: name of the product.
        version: number of the version that judged.
        anomalous: the verdict.
        feedback: "good", "defect", "any" of the two, or "none".
        since: from this time on.
        until: before this time.
        photo: SHA-256 of the photo's file.
        lot: that the part belongs to.
        serial: the part's serial number.
        search: what else is looked for.
    """

    product: str | None = None
    version: int | None = None
    anomalous: bool | None = None
    feedback: Literal["good", "defect", "any", "none"] | None = None
    since: datetime | None = None
    until: datetime | None = None
    photo: str | None = None
    lot: str | None = None
    serial: str | None = None
    search: Search = field(default_factory=Search)


@dataclass(frozen=True)
class Page:
    """Some records, newest first, and where the next page begins (None: there is none)."""

    records: Sequence[Record]
    cursor: int | None


class Records:
    """The records of one station; safe to use from several threads.

    Args:
        database: an SQLAlchemy URL (`postgresql://...`), or the path of an SQLite file.
        station: whose rows these are.

    Attributes:
        log: what the station keeps beside its verdicts.
        outbox: messages to the line that wait to be sent.
        audit: who did what.
        counters: verdicts by quarter of an hour.

    Raises:
        RecordsError: the database cannot be opened, or is of a newer program.
    """

    def __init__(self, database: str | Path, station: str = "") -> None:
        self.station = station
        self._engine = _open(database)
        self._writing = self._engine.execution_options(reconpatch_writes=True)
        self.outbox = Outbox(station, self._reading, self._changing)
        self.audit = Audit(station, self._reading, self._changing)
        self.counters = Counters(station, self._reading)
        self.log = StationLog(
            station, self._reading, self._changing, self.outbox, self.audit, self.counters
        )
        try:
            _migrate(self._engine)
        except BaseException:
            self.close()
            raise

    def people(self) -> People:
        """The users and tokens of the station."""
        from reconpatch.station.people import People

        return People(self.station, self._reading, self._changing, self.audit)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def check(self) -> None:
        """Raise RecordsError unless the database answers."""
        with self._reading() as connection:
            connection.execute(sa.select(1))

    # --- Verdicts ------------------------------------------------------------------------------

    def add(
        self,
        verdicts: Sequence[Verdict],
        *,
        files: Sequence[FileKey | None] = (),
        photo_bytes: Sequence[int] = (),
    ) -> list[Record]:
        """Keep verdicts: all of them, on the disk, when this returns; none if it raises.

        One transaction for all, so that throughput does not hang on the disk's answer.

        Args:
            verdicts: in the order in which they are to be numbered.
            files: of each verdict, the file it was found in, for `find_files`.
            photo_bytes: of each verdict, the size of its photo where that was stored.
        """
        if not verdicts:
            return []
        rows = [
            {**asdict(verdict), **peak_of(verdict), "station": self.station} for verdict in verdicts
        ]
        numbered = sa.insert(inspections).returning(inspections.c.id, sort_by_parameter_order=True)
        with self._changing() as connection:
            ids = [int(number) for number in connection.execute(numbered, rows).scalars()]
            found = [
                {**file.columns(), "record": number}
                for number, file in zip(ids, files, strict=False)
                if file is not None
            ]
            self._insert_or_update(connection, inspected_files, found)
            stored = [
                {"sha256": v.photo, "bytes": size, "stored": v.time, "removed": None}
                for v, size in zip(verdicts, photo_bytes, strict=False)
            ]
            self._insert_or_update(connection, photos, stored)
            records = [
                Record(**vars(verdict), id=number, feedback=None, feedback_time=None)
                for number, verdict in zip(ids, verdicts, strict=True)
            ]
            self.counters.add(connection, records)
            self.outbox.put(connection, "verdict", records)
        self.outbox.tell("verdict", records)
        return records

    def get(self, record: int) -> Record:
        """One record.

        Raises:
            NotFoundError: there is none of this number.
        """
        with self._reading() as connection:
            return self._get(connection, record)

    def page(
        self, wanted: Filter | None = None, *, limit: int = 100, before: int | None = None
    ) -> Page:
        """Records, newest first.

        Args:
            wanted: which; None takes all.
            limit: at most so many.
            before: a page's `cursor`, for the one that follows.
        """
        wanted = wanted or Filter()
        query = self._matching(wanted)
        if before is not None:
            query = query.where(inspections.c.id < before)
        rows = self._newest(query, wanted, limit + 1)
        records = [_record(row) for row in rows[:limit]]
        return Page(records, records[-1].id if len(rows) > limit and records else None)

    def values(self, wanted: Filter, columns: Sequence[str], *, limit: int) -> list[sa.Row[Any]]:
        """Columns of records as they are kept, newest first; see `page`."""
        query = self._matching(wanted).with_only_columns(*(inspections.c[one] for one in columns))
        return self._newest(query, wanted, limit)

    def _newest(self, query: sa.Select[Any], wanted: Filter, limit: int) -> list[sa.Row[Any]]:
        """The newest rows of what is asked for."""
        with self._reading() as connection:
            if wanted.version or wanted.since or wanted.until:  # there is no index of these
                bounds = self.counters.bounds(connection, **_counted(wanted))
                if bounds is None:
                    return []
                query = query.where(inspections.c.id.between(*bounds))
            query = query.order_by(inspections.c.id.desc()).limit(limit)
            return list(connection.execute(query))

    def export(self, wanted: Filter | None = None) -> Iterator[Record]:
        """All records that are asked for, newest first, without holding them all in memory."""
        before = None
        while True:
            page = self.page(wanted, limit=_PAGE, before=before)
            yield from page.records
            before = page.cursor
            if before is None:
                return

    def count(self, wanted: Filter | None = None) -> int:
        """How many records are asked for."""
        counted = sa.select(sa.func.count()).select_from(
            self._matching(wanted or Filter()).subquery()
        )
        with self._reading() as connection:
            return int(connection.execute(counted).scalar_one())

    def feedback(
        self,
        record: int,
        said: Feedback | None,
        *,
        kind: str | None = None,
        place: Iterable[Stroke] = (),
        expected: str | None = None,
        by: str | None = None,
    ) -> Record:
        """Keep what an operator says a part was, in place of what was said before.

        Args:
            record: number of the record.
            said: what the part was; None takes it back.
            kind: of a defect; None: nobody has named it.
            place: of a defect, where it was drawn.
            expected: the `Record.etag` that this follows from; None takes any.
            by: who says it.

        Raises:
            NotFoundError: there is no record of this number.
            SettingsError: it is neither "good" nor "defect", or kind and place are none of a
                defect.
            ChangedError: something else has been said in the meantime; nothing was changed.
        """
        if said is not None and said not in FEEDBACK:
            raise SettingsError(f"the feedback is {said!r}: give 'good', 'defect' or none")
        kind, place = _kind(kind), tuple(place)
        if said != "defect" and (kind or place):
            raise SettingsError(
                "a kind and a place are of defects: say 'defect', or leave them out"
            )
        when = datetime.now(UTC) if said is not None else None
        with self._changing() as connection:
            now = self._get(connection, record, lock=True)
            if kind is not None:
                self._check_spelling(connection, now, kind)
            drawn = checked(place, now.height, now.width)
            if expected is not None and expected != now.etag:
                was = f"called {now.feedback}" if now.feedback else "taken back"
                raise ChangedError(
                    f"record {record} was {was} by somebody else in the meantime: look at it and "
                    "say it again",
                    etag=now.etag,
                )
            connection.execute(
                sa.update(inspections)
                .where(self._own(inspections), inspections.c.id == record)
                .values(
                    feedback=said,
                    feedback_time=when,
                    feedback_kind=kind,
                    feedback_place=drawn and [asdict(stroke) for stroke in drawn],
                    feedback_count=inspections.c.feedback_count + 1,
                )
            )
            self.audit.add(
                "feedback", f"record {record}", who=by,
                before=_called(now.feedback, now.feedback_kind), after=_called(said, kind),
                within=connection,
            )  # fmt: skip
            told = self._get(connection, record)
            self.counters.change(connection, now, told)
            return told

    def _check_spelling(self, connection: sa.Connection, record: Record, kind: str) -> None:
        """Refuse a kind that others of the product are called by in another spelling."""
        query = sa.select(inspections.c.feedback_kind).distinct()
        named = query.where(
            self._own(inspections),
            inspections.c.product == record.product,
            inspections.c.feedback_kind.is_not(None),
            inspections.c.id != record.id,
        )
        for other in connection.execute(named).scalars():
            if other != kind and bare_name(other) == bare_name(kind):
                raise SettingsError(
                    f"the defect's kind is called {kind!r}, and others of {record.product} are "
                    f"called {other!r}: give it one name"
                )

    def last_told(self, product: str) -> list[Record]:
        """Of each photo with feedback the newest record that has some, newest first."""
        found: dict[str, Record] = {}
        for record in self.export(Filter(product=product, feedback="any")):
            found.setdefault(record.photo, record)
        return list(found.values())

    def defects(self, product: str) -> list[Record]:
        """Those of `last_told` that were called a defect."""
        return [record for record in self.last_told(product) if record.feedback == "defect"]

    def told(self, product: str) -> list[Told]:
        """All parts of a product of which somebody said what they were, newest first."""
        columns = [inspections.c[field.name] for field in fields(Told)]
        query = sa.select(*columns).where(
            self._own(inspections),
            inspections.c.product == product,
            inspections.c.feedback.is_not(None),
        )
        with self._reading() as connection:
            rows = connection.execute(query.order_by(inspections.c.id.desc()))
            return [Told(**_named(row, Told)) for row in rows]

    def recent_scores(self, product: str, scores_as: int, limit: int) -> list[Record]:
        """The last records of a product whose scores can be compared, newest first.

        Args:
            product: name of the product.
            scores_as: see `Version`; a version with another bank scores otherwise.
            limit: at most so many.
        """
        alike = sa.select(versions.c.number).where(
            self._own(versions), versions.c.product == product, versions.c.scores_as == scores_as
        )
        query = self._matching(Filter(product=product)).where(inspections.c.version.in_(alike))
        with self._reading() as connection:
            rows = connection.execute(query.order_by(inspections.c.id.desc()).limit(limit))
            return [_record(row) for row in rows]

    def _get(self, connection: sa.Connection, record: int, *, lock: bool = False) -> Record:
        query = sa.select(inspections).where(self._own(inspections), inspections.c.id == record)
        if lock:  # two who say something at once would both follow from what was said before
            query = query.with_for_update()
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no record {record}: give the id of one that is listed")
        return _record(row)

    def _matching(self, wanted: Filter) -> sa.Select[Any]:
        column = inspections.c
        conditions = [self._own(inspections)]
        told = wanted.feedback in (*FEEDBACK, "any")
        for name in ("product", "version", "anomalous", "photo", "lot", "serial"):
            if (value := getattr(wanted, name)) is not None:
                # Few parts are spoken of, and a search has its own index: not by the one of a
                # product or a verdict.
                other = told or (wanted.search.scans and name in ("product", "anomalous"))
                conditions.append((_no_index(column[name]) if other else column[name]) == value)
        if told:
            said = FEEDBACK if wanted.feedback == "any" else (wanted.feedback,)
            conditions.append(column.feedback.in_(said))
        elif wanted.feedback is not None:
            conditions.append(column.feedback.is_(None))
        if wanted.since is not None:
            conditions.append(column.time >= wanted.since)
        if wanted.until is not None:
            conditions.append(column.time < wanted.until)
        conditions += wanted.search.conditions(self._engine.dialect.name)
        return sa.select(inspections).where(*conditions)

    # --- Files of `watch` ----------------------------------------------------------------------

    def find_file(self, file: FileKey) -> Record | None:
        """The record of a file that was inspected before, or None."""
        query = sa.select(inspected_files.c.record).where(
            self._own(inspected_files),
            *(inspected_files.c[name] == value for name, value in file.columns().items()),
        )
        with self._reading() as connection:
            found = connection.execute(query).scalar_one_or_none()
            return None if found is None else self._get(connection, int(found))

    # --- Versions ------------------------------------------------------------------------------

    def add_version(self, version: Version) -> None:
        """Keep a new version and put it into service, in one step."""
        with self._changing() as connection:
            row = {**asdict(version), "station": self.station}
            connection.execute(sa.insert(versions).values(row))
            self._serve(connection, version.product, version.number)

    def put_in_service(self, product: str, number: int) -> None:
        """From now on this version judges."""
        with self._changing() as connection:
            self._serve(connection, product, number)

    def versions(self, product: str) -> list[Version]:
        """All versions of a product, oldest first."""
        query = sa.select(versions).where(self._own(versions), versions.c.product == product)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(versions.c.number))
            return [Version(**_named(row, Version)) for row in rows]

    def services(self, product: str) -> list[Service]:
        """Which version was in service since when, newest first; the first one is now."""
        query = sa.select(services).where(self._own(services), services.c.product == product)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(services.c.id.desc()))
            return [Service(**_named(row, Service)) for row in rows]

    def products(self) -> list[str]:
        """Names of all products that have a version, the first that there was first."""
        first = sa.func.min(services.c.id)
        query = sa.select(services.c.product).where(self._own(services))
        query = query.group_by(services.c.product).order_by(first)
        with self._reading() as connection:
            return list(connection.execute(query).scalars())

    def _serve(self, connection: sa.Connection, product: str, number: int) -> None:
        row = {"station": self.station, "product": product, "number": number}
        connection.execute(sa.insert(services).values(**row, since=datetime.now(UTC)))

    # --- Photos --------------------------------------------------------------------------------

    def photo_totals(self) -> tuple[int, int]:
        """How many photos are stored, and how many bytes they take."""
        size = sa.func.coalesce(sa.func.sum(photos.c.bytes), 0)
        total = sa.select(sa.func.count(), size).where(self._kept())
        with self._reading() as connection:
            count, taken = connection.execute(total).one()
            return int(count), int(taken)

    def photo_bytes(self) -> int:
        """How many bytes the stored photos take."""
        return self.photo_totals()[1]

    def kept_photos(self, asked: Sequence[str]) -> set[str]:
        """Those of the photos, each given by its SHA-256, that are stored as far as is known."""
        kept: set[str] = set()
        with self._reading() as connection:
            for first in range(0, len(asked), _PAGE):
                some = photos.c.sha256.in_(asked[first : first + _PAGE])
                query = sa.select(photos.c.sha256).where(self._kept(), some)
                kept.update(connection.execute(query).scalars())
        return kept

    def newest_photo(self, until: datetime, *, skip: int = 0) -> datetime | None:
        """When the newest stored photo was last stored, or None.

        Args:
            until: not counting what was stored after this time.
            skip: pass over so many that are newer.
        """
        query = sa.select(photos.c.stored).where(self._kept(), photos.c.stored <= until)
        query = query.order_by(photos.c.stored.desc()).offset(skip).limit(1)
        with self._reading() as connection:
            return connection.execute(query).scalar_one_or_none()

    def give_up_photos(
        self,
        *,
        stored_before: datetime | None = None,
        until_bytes: int | None = None,
        until_photos: int | None = None,
    ) -> list[str]:
        """Mark photos as removed, oldest first; the caller then removes the files.

        Photos of a record with feedback are left alone, however old they are and however many.

        Args:
            stored_before: those that were last stored before this time.
            until_bytes: as many as it takes until the rest is no larger than this.
            until_photos: as many as it takes until no more than this are left.

        Returns:
            SHA-256 of each; at most a thousand, so that no verdict waits long. Call again until
            there is none.
        """
        # Looked at first without keeping others from writing: mostly there is nothing to do.
        count, size = self.photo_totals()
        more = 0 if until_photos is None else count - until_photos
        excess = 0 if until_bytes is None else size - until_bytes
        with self._reading() as connection:
            rows = connection.execute(self._removable()).all()
            if not _too_many(rows, stored_before, excess, more):
                return []
        with self._changing() as connection:
            rows = connection.execute(self._removable()).all()
            chosen = _too_many(rows, stored_before, excess, more)
            gone = sa.update(photos).where(self._kept(), photos.c.sha256.in_(chosen))
            connection.execute(gone.values(removed=datetime.now(UTC)))
        return chosen

    def _removable(self) -> sa.Select[Any]:
        told = sa.select(inspections.c.id).where(
            self._own(inspections),
            inspections.c.photo == photos.c.sha256,
            inspections.c.feedback.is_not(None),
        )
        query = sa.select(photos.c.sha256, photos.c.bytes, photos.c.stored)
        oldest = query.where(self._kept(), ~told.exists()).order_by(photos.c.stored)
        return oldest.limit(_PAGE)

    def _kept(self) -> sa.ColumnElement[bool]:
        return sa.and_(self._own(photos), photos.c.removed.is_(None))

    # --- Transactions --------------------------------------------------------------------------

    def _own(self, table: sa.Table) -> sa.ColumnElement[bool]:
        own: sa.ColumnElement[bool] = table.c.station == self.station
        return own

    def _insert_or_update(
        self, connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]
    ) -> None:
        """Rows of this station; of those with one key, the last."""
        keys = [column.name for column in table.primary_key]
        # PostgreSQL refuses two rows of one key in one statement.
        last = {tuple(row[key] for key in keys if key != "station"): row for row in rows}
        if not last:
            return
        values = [{**row, "station": self.station} for row in last.values()]
        # The same words in both, but SQLAlchemy has no class for them that both share.
        insert = sqlite.insert if self._engine.dialect.name == "sqlite" else postgresql.insert
        statement = insert(table).values(values)
        others = {name: statement.excluded[name] for name in values[0] if name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=others))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with _database_errors(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sa.Connection]:
        """One transaction: committed at the end, rolled back by an error."""
        with _database_errors(), self._writing.begin() as connection:
            yield connection


_NO_KINDS = GOOD_NAMES | {bare_name(NONE_OF_THESE)}


def _kind(given: str | None) -> str | None:
    """The name of a kind of defect, as it is kept.

    Raises:
        SettingsError: it cannot be one.
    """
    if given is None or not (name := " ".join(given.split())):
        return None
    if len(name) > _LONGEST_KIND or not name.isprintable() or not bare_name(name):
        raise SettingsError(
            f"the defect's kind is {name!r}: give a word of up to {_LONGEST_KIND} characters"
        )
    if bare_name(name) in _NO_KINDS:
        raise SettingsError(
            f"the defect's kind is {name!r}, which is what no kind is called: give another name"
        )
    return name


def _called(said: Feedback | None, kind: str | None) -> str | None:
    """Feedback as the audit trail names it."""
    return said if kind is None else f"{said}: {kind}"


def _no_index(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The values of a column, as what no index is of."""
    return sa.func.coalesce(column, column)


def _counted(wanted: Filter) -> dict[str, Any]:
    """What of a filter the counters know."""
    names = ("product", "version", "lot", "anomalous", "feedback", "since", "until")
    return {name: getattr(wanted, name) for name in names}


def _named(row: sa.Row[Any], kind: type[Any]) -> dict[str, Any]:
    """The columns of a row that a dataclass has."""
    return {field.name: getattr(row, field.name) for field in fields(kind)}


def _too_many(
    rows: Iterable[sa.Row[Any]], before: datetime | None, excess: int, more: int
) -> list[str]:
    """SHA-256 of the photos, oldest first, that are too old, or too many by bytes or number."""
    chosen: list[str] = []
    for row in rows:
        too_old = before is not None and row.stored < before
        if not too_old and excess <= 0 and more <= len(chosen):
            break
        chosen.append(str(row.sha256))
        excess -= row.bytes
    return chosen


_RECORD = TypeAdapter(Record)


def _record(row: sa.Row[Any]) -> Record:
    return _RECORD.validate_python(row._asdict())


# --- Opening -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _database_errors() -> Iterator[None]:
    """Whatever the database refuses becomes a RecordsError."""
    try:
        yield
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
        raise RecordsError(
            f"the records' database refused a step ({_reason(error)}): check that its disk "
            "has room and that it is running and may be written"
        ) from error


def _reason(error: sa.exc.SQLAlchemyError) -> str:
    """What the database says, without the statement."""
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split()) or type(cause).__name__


def _open(database: str | Path) -> sa.Engine:
    if isinstance(database, Path):
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordsError(
                f"the folder {database.parent} cannot be made ({error.strerror}): give another one"
            ) from error
        url = sa.URL.create("sqlite", database=str(database))
    else:
        url = _parsed(database)
    remote = url.get_backend_name() != "sqlite"
    try:
        # As many connections as a service has threads that ask.
        engine = sa.create_engine(url, pool_pre_ping=remote, pool_size=5, max_overflow=45)
    except ModuleNotFoundError as error:
        raise MissingExtraError("a PostgreSQL database", "postgresql") from error
    if engine.dialect.name == "sqlite":
        _make_durable(engine)
    return engine


def _parsed(text: str) -> sa.URL:
    """The URL of a database that is supported, with the driver that this package brings."""
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise SettingsError(
            "the database is not a URL: give postgresql://USER:PASSWORD@HOST/NAME, or leave it out "
            "for SQLite in the data folder"
        ) from None
    backend = url.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and url.database not in (None, "", ":memory:"):
        return url
    raise SettingsError(
        f"the database is of the kind {backend!r}: give postgresql://USER:PASSWORD@HOST/NAME, or "
        "sqlite:///FILE"
    )


def _make_durable(engine: sa.Engine) -> None:
    """SQLite as a line needs it: commits on the disk, readers that do not wait for the writer."""

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions begin where `_begun` says
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={1_000 * _PATIENCE}")
        _begin_write_ahead_log(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        # A writer that began as a reader would be refused, not made to wait, by another writer.
        writes = connection.get_execution_options().get("reconpatch_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_write_ahead_log(cursor: Any) -> None:
    """SQLite itself does not wait here: of two that make this step at once it refuses one."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _migrate(engine: sa.Engine) -> None:
    """Bring the tables to what this version of the program expects."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "reconpatch.station:migrations")
    config.set_main_option("path_separator", "os")
    try:
        with _database_errors(), engine.execution_options(reconpatch_writes=True).begin() as db:
            if engine.dialect.name == "postgresql":
                db.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config.attributes["connection"] = db
            command.upgrade(config, "head")
    except CommandError as error:
        raise RecordsError(
            f"the records' database is of a newer version of this program ({error}): install a "
            "newer reconpatch"
        ) from error


def check_current(database: str | Path) -> None:
    """Refuse to open records whose tables are of an older program, which may be using them now.

    Raises:
        RecordsError: they are, or the database cannot be opened.
    """
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    if isinstance(database, Path) and not database.exists():
        return
    engine = _open(database)
    try:
        with _database_errors(), engine.connect() as connection:
            found = set(MigrationContext.configure(connection).get_current_heads())
    finally:
        engine.dispose()
    newest = ScriptDirectory(str(Path(__file__).parent / "migrations")).get_heads()
    if found and found != set(newest):
        raise RecordsError(
            "the records' tables are of another version of this program: use that, or start the "
            "service of this one first, which brings them up to date"
        )


COLUMNS = (
    "id", "time", "product", "version", "name", "verdict", "score", "threshold", "p_value",
    "regions", "worst_x", "worst_y", "feedback", "feedback_time", "width", "height", "photo",
    "fingerprint", "kind", "similarity", "feedback_kind", "drawn", "lot", "serial", "whole",
)  # fmt: skip
"""Columns of `as_rows`."""


def as_rows(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """Records as flat rows for a table, such as a CSV file; the worst region stands for all."""
    for record in records:
        worst = record.regions[0].peak if record.regions else (None, None)
        told = {
            "time": record.time.isoformat(timespec="milliseconds"),
            "verdict": "anomalous" if record.anomalous else "good",
            "regions": len(record.regions),
            "worst_x": worst[0],
            "worst_y": worst[1],
            "feedback_time": record.feedback_time and record.feedback_time.isoformat(),
            "kind": record.kind and record.kind.label,
            "similarity": record.kind and record.kind.similarity,
            "drawn": bool(record.feedback_place),
        }
        yield {name: told[name] if name in told else getattr(record, name) for name in COLUMNS}
