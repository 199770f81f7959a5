"""Runs the steps on the connection that `records.py` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from reconpatch.record_tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the transaction is the caller's
    render_as_batch=True,
)
context.run_migrations()
