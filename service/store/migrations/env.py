"""Alembic's entry: runs migrations on the connection that the store hands over."""

from alembic import context

from service.store.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
    # Partitions are made by months, not by migrations: autogenerate would drop them.
    include_name=lambda name, kind, _: kind != "table" or not str(name).startswith("decisions_"),
)
with context.begin_transaction():
    context.run_migrations()
