"""Lots and serial numbers of parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns and their indexes; of parts before nobody knows them."""
    for column in ("lot", "serial"):
        op.add_column("inspections", sa.Column(column, sa.String(100)))
        op.create_index(f"inspections_by_{column}", "inspections", ["station", column, "id"])
