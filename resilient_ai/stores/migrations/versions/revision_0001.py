"""Sends, what was spared, the sessions that write them, and the counters of budgets."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    """
    CREATE TABLE sessions (
        id uuid PRIMARY KEY,
        pid integer NOT NULL,
        machine text NOT NULL,
        process text NOT NULL,
        written bigint NOT NULL,
        seen timestamptz NOT NULL,
        ended boolean NOT NULL DEFAULT false
    )
    """,
    """
    CREATE TABLE sends (
        send_id text PRIMARY KEY,
        number bigint GENERATED ALWAYS AS IDENTITY,
        session uuid NOT NULL,
        call_id text NOT NULL,
        at double precision NOT NULL,
        kind text NOT NULL,
        model text NOT NULL,
        attempt integer NOT NULL,
        tenant text,
        "user" text,
        feature text,
        environment text,
        tags jsonb,
        state text NOT NULL DEFAULT 'sent',
        cost numeric,
        list_cost numeric,
        used boolean,
        input_tokens bigint,
        output_tokens bigint,
        cached_tokens bigint,
        cache_write_tokens bigint,
        reasoning_tokens bigint,
        service_tier text,
        error text,
        elapsed double precision
    )
    """,
    "CREATE INDEX sends_at ON sends (at, number)",
    "CREATE INDEX sends_call ON sends (call_id)",
    "CREATE INDEX sends_in_flight ON sends (session) WHERE state = 'sent'",
    """
    CREATE TABLE spared (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        call_id text NOT NULL,
        at double precision NOT NULL,
        kind text NOT NULL,
        model text NOT NULL,
        outcome text NOT NULL,
        hits bigint NOT NULL,
        saved numeric,
        tenant text,
        "user" text,
        feature text,
        environment text,
        tags jsonb
    )
    """,
    "CREATE INDEX spared_at ON spared (at)",
    """
    CREATE TABLE counters (
        key text NOT NULL,
        slice bigint NOT NULL,
        spent numeric NOT NULL,
        until bigint NOT NULL,
        PRIMARY KEY (key, slice)
    )
    """,
    "CREATE INDEX counters_until ON counters (until)",
)


def upgrade() -> None:
    """Make the tables."""
    for statement in _TABLES:
        op.execute(statement)
