"""Where Alembic runs the migrations: on the connection that `archsearch.storage.schema` hands over."""

from __future__ import annotations

from alembic import context

from archsearch.storage.tables import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
