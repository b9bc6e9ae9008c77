"""How Alembic reaches the tables of a ledger: over the connection it is handed, in the transaction that is open there."""

from alembic import context
from sqlalchemy import Connection, text

_SCHEMA_IS_THERE = text("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = :schema")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('resilient_ai ledger ' || :schema, 0))")


def run(connection: Connection, schema: str, version_table: str) -> None:
    """Bring the tables up to date; whoever comes second waits for the first, and finds nothing left to do."""
    connection.execute(_LOCK, {"schema": schema})
    # Not IF NOT EXISTS, which asks for the right to make schemas even where it is there.
    if connection.execute(_SCHEMA_IS_THERE, {"schema": schema}).first() is None:
        connection.execute(text(f'CREATE SCHEMA "{schema}"'))
    connection.execute(text(f'SET LOCAL search_path TO "{schema}"'))
    context.configure(connection=connection, version_table=version_table, version_table_schema=schema)
    with context.begin_transaction():
        context.run_migrations()


if hasattr(context, "config"):  # Alembic is at work, and not somebody who looks at all modules
    run(**context.config.attributes)
