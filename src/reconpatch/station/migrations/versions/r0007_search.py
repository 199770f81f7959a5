"""Where the worst region of a photo is, and a narrow index to search by it, name and score."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns and the index, and say of the records that there are where it is."""
    for column in ("peak_x", "peak_y"):
        op.add_column("inspections", sa.Column(column, sa.Double))
    if op.get_bind().dialect.name == "sqlite":
        peak = "json_extract(regions, '$[0].peak[{}]')"
    else:
        peak = "CAST(regions -> 0 -> 'peak' ->> {} AS DOUBLE PRECISION)"
    op.execute(
        f"UPDATE inspections SET peak_x = ({peak.format(0)} + 0.5) / width, "
        f"peak_y = ({peak.format(1)} + 0.5) / height WHERE json_array_length(regions) > 0"
    )
    op.drop_index("inspections_by_station", "inspections")  # the new one begins like it
    op.create_index(
        "inspections_by_search",
        "inspections",
        ["station", "id", "product", "anomalous", "score", "peak_x", "peak_y", "name"],
    )
