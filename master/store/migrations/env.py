"""How Alembic runs a migration: on the connection, and in the transaction, that ``master.store.schema`` gives it."""

from alembic import context

from fleetpulse.master.store.indexes import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
