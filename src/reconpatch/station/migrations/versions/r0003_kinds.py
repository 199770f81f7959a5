"""Kinds of defects that verdicts name, and what operators say of one: its kind, and where it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns; what was said before was said once."""
    op.add_column("inspections", sa.Column("kind", sa.JSON))
    op.add_column("inspections", sa.Column("feedback_kind", sa.String(64)))
    op.add_column("inspections", sa.Column("feedback_place", sa.JSON))
    op.add_column(
        "inspections",
        sa.Column("feedback_count", sa.Integer, nullable=False, server_default=sa.text("0")),
    )
    op.execute("UPDATE inspections SET feedback_count = 1 WHERE feedback IS NOT NULL")
