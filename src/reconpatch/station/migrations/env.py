"""Runs the steps on the connection that `station/records.py` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from reconpatch.station.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the transaction is the caller's
    render_as_batch=True,
)
context.run_migrations()
