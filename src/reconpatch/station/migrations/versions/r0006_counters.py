"""Lots and serial numbers of parts, indexes by verdict, and counters by quarter of an hour."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_COUNTS = (
    "inspected", "anomalous", "false_alarms", "defects", "goods", "misses", "failed",
)  # fmt: skip


def upgrade() -> None:
    """Add columns, indexes and the table, and count the records that there are."""
    for column in ("lot", "serial"):
        op.add_column("inspections", sa.Column(column, sa.String(100)))
        op.create_index(f"inspections_by_{column}", "inspections", ["station", column, "id"])
    op.create_index(
        "inspections_by_verdict", "inspections", ["station", "product", "anomalous", "id"]
    )
    op.create_index("inspections_by_anomalous", "inspections", ["station", "anomalous", "id"])
    op.create_table(
        "counters",
        sa.Column("station", sa.String(80), primary_key=True),
        sa.Column("quarter", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("product", sa.String(80), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("lot", sa.String(100), primary_key=True),
        *(sa.Column(name, sa.Integer, nullable=False) for name in _COUNTS),
        sa.Column("passed_sum", sa.Double, nullable=False),
        sa.Column("first", _big_id(), nullable=False),
        sa.Column("last", _big_id(), nullable=False),
    )
    for statement in counting(op.get_bind().dialect.name):
        op.execute(statement)


def counting(dialect: str) -> tuple[str, str]:
    """Statements that count all records and all failures; `dialect` is the database's name."""
    quarter = (
        "CAST(strftime('%s', substr(time, 1, 19)) AS INTEGER) / 900"  # it would round else
        if dialect == "sqlite"
        else "CAST(floor(extract(epoch FROM time) / 900) AS INTEGER)"
    )
    into = (
        "INSERT INTO counters (station, quarter, product, version, lot, inspected, anomalous, "
        "false_alarms, defects, goods, misses, failed, passed_sum, first, last) "
    )
    return (
        f"{into} SELECT station, {quarter}, product, version, '', count(*), "
        "sum(CASE WHEN anomalous THEN 1 ELSE 0 END), "
        "sum(CASE WHEN anomalous AND feedback = 'good' THEN 1 ELSE 0 END), "
        "sum(CASE WHEN anomalous AND feedback = 'defect' THEN 1 ELSE 0 END), "
        "sum(CASE WHEN NOT anomalous AND feedback = 'good' THEN 1 ELSE 0 END), "
        "sum(CASE WHEN NOT anomalous AND feedback = 'defect' THEN 1 ELSE 0 END), "
        "0, sum(CASE WHEN anomalous THEN 0 ELSE score END), min(id), max(id) "
        "FROM inspections GROUP BY 1, 2, 3, 4",
        f"{into} SELECT station, {quarter}, product, 0, '', 0, 0, 0, 0, 0, 0, count(*), 0, "
        "min(id), max(id) FROM failures GROUP BY 1, 2, 3",
    )


def _big_id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")
