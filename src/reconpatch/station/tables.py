"""The tables of the records, as `station/records.py` reads and writes them.

How a database gets them is said by the migrations; a test compares the two. Every row belongs to a
station, so that several stations can write to one PostgreSQL database.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa


class UtcTime(sa.types.TypeDecorator[datetime]):
    """A time in UTC, aware in Python whatever the database keeps."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """With a zone where the database knows zones; SQLite does not."""
        return dialect.type_descriptor(sa.DateTime(timezone=dialect.name != "sqlite"))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Into the database; a time without a zone is refused, since nobody knows what it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the time {value} has no zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, _: sa.Dialect) -> datetime | None:
        """Out of the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData()

# SQLite counts up only a column that is declared INTEGER.
_BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Json, _OptionalJson = sa.JSON(), sa.JSON(none_as_null=True)

inspections = sa.Table(
    "inspections",
    metadata,
    sa.Column("id", _BigId, primary_key=True, autoincrement=True),
    sa.Column("station", sa.String(80), nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("product", sa.String(80), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("photo", sa.String(64), nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("score", sa.Double, nullable=False),
    sa.Column("threshold", sa.Double, nullable=False),
    sa.Column("map_threshold", sa.Double, nullable=False),
    sa.Column("p_value", sa.Double, nullable=False),
    sa.Column("anomalous", sa.Boolean, nullable=False),
    sa.Column("inspected", _Json, nullable=False),
    sa.Column("regions", _Json, nullable=False),
    sa.Column("closest", _Json, nullable=False),
    sa.Column("feedback", sa.String(8)),
    sa.Column("feedback_time", UtcTime),
    sa.Column("kind", _OptionalJson),
    sa.Column("whole", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("feedback_kind", sa.String(64)),
    sa.Column("feedback_place", _OptionalJson),
    sa.Column("feedback_count", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("lot", sa.String(100)),
    sa.Column("serial", sa.String(100)),
    # Of the worst region, in shares of the photo; see search.py.
    sa.Column("peak_x", sa.Double),
    sa.Column("peak_y", sa.Double),
    # An id is never given twice, also not that of a row which somebody deleted by hand.
    sqlite_autoincrement=True,
)
# Records are listed newest first, of all products as well as of one.
sa.Index("inspections_by_product", inspections.c.station, inspections.c.product, inspections.c.id)
sa.Index("inspections_by_photo", inspections.c.station, inspections.c.photo)
sa.Index("inspections_by_feedback", inspections.c.station, inspections.c.feedback)
sa.Index("inspections_by_lot", inspections.c.station, inspections.c.lot, inspections.c.id)
sa.Index("inspections_by_serial", inspections.c.station, inspections.c.serial, inspections.c.id)

sa.Index(
    "inspections_by_verdict",
    inspections.c.station,
    inspections.c.product,
    inspections.c.anomalous,
    inspections.c.id,
)

sa.Index(
    "inspections_by_anomalous",
    inspections.c.station,
    inspections.c.anomalous,
    inspections.c.id,
)

sa.Index(
    "inspections_by_search",
    *(inspections.c[name] for name in ("station", "id", "product", "anomalous", "score")),
    *(inspections.c[name] for name in ("peak_x", "peak_y", "name")),
)

failures = sa.Table(
    "failures",
    metadata,
    sa.Column("id", _BigId, primary_key=True, autoincrement=True),
    sa.Column("station", sa.String(80), nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("product", sa.String(80), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("failures_by_station", failures.c.station, failures.c.id)
sa.Index("failures_by_product", failures.c.station, failures.c.product, failures.c.id)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("station", sa.String(80), primary_key=True),
    sa.Column("product", sa.String(80), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("threshold", sa.Double, nullable=False),
    sa.Column("parent", sa.Integer),
    sa.Column("scores_as", sa.Integer, nullable=False),
    sa.Column("created", UtcTime, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)

services = sa.Table(
    "services",
    metadata,
    sa.Column("id", _BigId, primary_key=True, autoincrement=True),
    sa.Column("station", sa.String(80), nullable=False),
    sa.Column("product", sa.String(80), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("since", UtcTime, nullable=False),
)
sa.Index("services_by_product", services.c.station, services.c.product, services.c.id)

photos = sa.Table(
    "photos",
    metadata,
    sa.Column("station", sa.String(80), primary_key=True),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("stored", UtcTime, nullable=False),
    sa.Column("removed", UtcTime),
)
sa.Index("photos_by_age", photos.c.station, photos.c.stored)

inspected_files = sa.Table(
    "inspected_files",
    metadata,
    sa.Column("station", sa.String(80), primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("mtime_ns", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("record", _BigId, sa.ForeignKey("inspections.id"), nullable=False),
)

products = sa.Table(
    "products",
    metadata,
    sa.Column("station", sa.String(80), primary_key=True),
    sa.Column("product", sa.String(80), primary_key=True),
    sa.Column("retired", UtcTime),
    sa.Column("is_default", sa.Boolean, nullable=False),
)

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("id", _BigId, primary_key=True, autoincrement=True),
    sa.Column("station", sa.String(80), nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("product", sa.String(80), nullable=False),
    sa.Column("what", sa.String(20), nullable=False),
    sa.Column("by", sa.String(80)),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("figures", _Json),
    sqlite_autoincrement=True,
)
sa.Index("changes_by_product", changes.c.station, changes.c.product, changes.c.id)

rescored = sa.Table(
    "rescored",
    metadata,
    sa.Column("station", sa.String(80), primary_key=True),
    sa.Column("product", sa.String(80), primary_key=True),
    sa.Column("scores_as", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("photo", sa.String(64), primary_key=True),
    sa.Column("score", sa.Double, nullable=False),
)

drift_alarms = sa.Table(
    "drift_alarms",
    metadata,
    sa.Column("id", _BigId, primary_key=True, autoincrement=True),
    sa.Column("station", sa.String(80), nullable=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("product", sa.String(80), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    # Of the photo that raised it: told twice, as after a restart, it is one alarm.
    sa.Column("record", _BigId, nullable=False),
    sa.Column("photo", sa.BigInteger, nullable=False),
    sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("acknowledged", UtcTime),
    sa.Column("acknowledged_by", sa.String(80)),
    sa.Column("note", sa.Text),
    sqlite_autoincrement=True,
)
sa.Index("drift_alarms_by_record", drift_alarms.c.station, drift_alarms.c.record, unique=True)
sa.Index(
    "drift_alarms_by_product",
    drift_alarms.c.station,
    drift_alarms.c.product,
    drift_alarms.c.id,
)

# Verdicts and failures of a quarter of an hour; see `station/counters.py`.
counters = sa.Table(
    "counters",
    metadata,
    sa.Column("station", sa.String(80), primary_key=True),
    # Since 1970, in UTC.
    sa.Column("quarter", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("product", sa.String(80), primary_key=True),
    # 0: of photos without a verdict; and "": of no lot.
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("lot", sa.String(100), primary_key=True),
    sa.Column("inspected", sa.Integer, nullable=False),
    sa.Column("anomalous", sa.Integer, nullable=False),
    # Of the anomalous ones, those called good and called a defect; the same of the others.
    sa.Column("false_alarms", sa.Integer, nullable=False),
    sa.Column("defects", sa.Integer, nullable=False),
    sa.Column("goods", sa.Integer, nullable=False),
    sa.Column("misses", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    # Of the scores of photos that are not anomalous.
    sa.Column("passed_sum", sa.Double, nullable=False),
    # The lowest and the highest id of these records, or failures.
    sa.Column("first", _BigId, nullable=False),
    sa.Column("last", _BigId, nullable=False),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", _BigId, primary_key=True, autoincrement=True),
    sa.Column("station", sa.String(80), nullable=False),
    sa.Column("output", sa.String(40), nullable=False),
    sa.Column("event", sa.String(10), nullable=False),
    # Of the record or the failure that the message is about; neither ever goes.
    sa.Column("subject", _BigId, nullable=False),
    sa.Column("created", UtcTime, nullable=False),
    # Why the receiver refused this very message; it waits for somebody to look after it.
    sa.Column("refused", sa.Text),
    sqlite_autoincrement=True,
)
sa.Index("outbox_by_output", outbox.c.station, outbox.c.output, outbox.c.id)

users = sa.Table(
    "users",
    metadata,
    sa.Column("station", sa.String(80), primary_key=True),
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("role", sa.String(10), nullable=False),
    sa.Column("password", sa.Text, nullable=False),
    sa.Column("created", UtcTime, nullable=False),
    sa.Column("disabled", UtcTime),
)

sessions = sa.Table(
    "sessions",
    metadata,
    # SHA-256 of what the browser's cookie holds.
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("station", sa.String(80), nullable=False),
    sa.Column("user", sa.String(80), nullable=False),
    sa.Column("created", UtcTime, nullable=False),
    sa.Column("seen", UtcTime, nullable=False),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", _BigId, primary_key=True, autoincrement=True),
    sa.Column("station", sa.String(80), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("scopes", _Json, nullable=False),
    sa.Column("created", UtcTime, nullable=False),
    sa.Column("expires", UtcTime),
    sa.Column("revoked", UtcTime),
    sqlite_autoincrement=True,
)

# The database itself refuses to change or remove a row: see the migration.
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("station", sa.String(80), primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("time", UtcTime, nullable=False),
    sa.Column("who", sa.String(80)),
    sa.Column("what", sa.String(20), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    # JSON as text: to SQLite a column of JSON is one of numbers, and makes 0 of 0.0.
    sa.Column("before", sa.Text),
    sa.Column("after", sa.Text),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
