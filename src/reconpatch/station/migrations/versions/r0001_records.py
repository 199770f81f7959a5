"""The first tables: inspections, versions and what was in service, photos, files of `watch`.

Written out rather than taken from `station/tables.py`, which moves on.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "inspections",
        _counted_id(),
        sa.Column("station", sa.String(80), nullable=False),
        sa.Column("time", _time(), nullable=False),
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
        sa.Column("inspected", sa.JSON, nullable=False),
        sa.Column("regions", sa.JSON, nullable=False),
        sa.Column("closest", sa.JSON, nullable=False),
        sa.Column("feedback", sa.String(8)),
        sa.Column("feedback_time", _time()),
        sqlite_autoincrement=True,
    )
    op.create_index("inspections_by_product", "inspections", ["station", "product", "id"])
    op.create_index("inspections_by_photo", "inspections", ["station", "photo"])
    op.create_index("inspections_by_feedback", "inspections", ["station", "feedback"])
    op.create_table(
        "versions",
        sa.Column("station", sa.String(80), primary_key=True),
        sa.Column("product", sa.String(80), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("threshold", sa.Double, nullable=False),
        sa.Column("parent", sa.Integer),
        sa.Column("scores_as", sa.Integer, nullable=False),
        sa.Column("created", _time(), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_table(
        "services",
        _counted_id(),
        sa.Column("station", sa.String(80), nullable=False),
        sa.Column("product", sa.String(80), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("since", _time(), nullable=False),
    )
    op.create_index("services_by_product", "services", ["station", "product", "id"])
    op.create_table(
        "photos",
        sa.Column("station", sa.String(80), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("stored", _time(), nullable=False),
        sa.Column("removed", _time()),
    )
    op.create_index("photos_by_age", "photos", ["station", "stored"])
    op.create_table(
        "inspected_files",
        sa.Column("station", sa.String(80), primary_key=True),
        sa.Column("path", sa.Text, primary_key=True),
        sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("mtime_ns", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("record", _big_id(), sa.ForeignKey("inspections.id"), nullable=False),
    )


def _counted_id() -> sa.Column[Any]:
    return sa.Column("id", _big_id(), primary_key=True, autoincrement=True)


def _big_id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _time() -> sa.types.TypeEngine[datetime]:
    return sa.DateTime(timezone=True)
