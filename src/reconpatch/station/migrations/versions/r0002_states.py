"""Failed photos, states of products, the audit trail, drift alarms, photos scored again.

Also an index for records of all products, which were sorted anew for each page.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables and the indexes."""
    op.create_index("inspections_by_station", "inspections", ["station", "id"])
    op.create_table(
        "failures",
        _counted_id(),
        sa.Column("station", sa.String(80), nullable=False),
        sa.Column("time", _time(), nullable=False),
        sa.Column("product", sa.String(80), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("failures_by_station", "failures", ["station", "id"])
    op.create_index("failures_by_product", "failures", ["station", "product", "id"])
    op.create_table(
        "products",
        sa.Column("station", sa.String(80), primary_key=True),
        sa.Column("product", sa.String(80), primary_key=True),
        sa.Column("retired", _time()),
        sa.Column("is_default", sa.Boolean, nullable=False),
    )
    op.create_table(
        "changes",
        _counted_id(),
        sa.Column("station", sa.String(80), nullable=False),
        sa.Column("time", _time(), nullable=False),
        sa.Column("product", sa.String(80), nullable=False),
        sa.Column("what", sa.String(20), nullable=False),
        sa.Column("by", sa.String(80)),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("figures", sa.JSON),
        sqlite_autoincrement=True,
    )
    op.create_index("changes_by_product", "changes", ["station", "product", "id"])
    op.create_table(
        "rescored",
        sa.Column("station", sa.String(80), primary_key=True),
        sa.Column("product", sa.String(80), primary_key=True),
        sa.Column("scores_as", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("photo", sa.String(64), primary_key=True),
        sa.Column("score", sa.Double, nullable=False),
    )
    op.create_table(
        "drift_alarms",
        _counted_id(),
        sa.Column("station", sa.String(80), nullable=False),
        sa.Column("time", _time(), nullable=False),
        sa.Column("product", sa.String(80), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("record", _big_id(), nullable=False),
        sa.Column("photo", sa.BigInteger, nullable=False),
        sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("acknowledged", _time()),
        sa.Column("acknowledged_by", sa.String(80)),
        sa.Column("note", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("drift_alarms_by_record", "drift_alarms", ["station", "record"], unique=True)
    op.create_index("drift_alarms_by_product", "drift_alarms", ["station", "product", "id"])


def _counted_id() -> sa.Column[Any]:
    return sa.Column("id", _big_id(), primary_key=True, autoincrement=True)


def _big_id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _time() -> sa.types.TypeEngine[datetime]:
    return sa.DateTime(timezone=True)
