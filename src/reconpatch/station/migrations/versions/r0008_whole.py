"""Whether a photo is anomalous as a whole."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column; earlier models looked at patches alone."""
    op.add_column(
        "inspections",
        sa.Column("whole", sa.Boolean, nullable=False, server_default=sa.false()),
    )
