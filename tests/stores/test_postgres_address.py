"""Addresses of a PostgreSQL: what is shown of them, and what is refused, without a word of a password."""

import subprocess
import sys

import pytest

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.stores import PostgresLedger
from resilient_ai.stores._postgres_address import target_of


def target(url, schema="s"):
    return target_of(url, schema=schema, durable=True)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:secret@host:5432/db", "postgresql://host:5432/db"),
        ("postgres://u:secret@host/db?sslmode=require", "postgresql://host/db"),
        ("postgresql://u:se%2Fcr%40et@host", "postgresql://host/"),
        ("postgresql://host/db?password=secret&user=u", "postgresql://host/db"),
        ("postgresql://u:secret@a:1,b:2/db", "postgresql://a:1,b:2/db"),
        ("postgresql://u:secret@a,b:2/db", "postgresql://a,b:2/db"),
        ("postgresql://u:secret@[::1]:7/db", "postgresql://::1:7/db"),
        ("postgresql:///db?host=/run/postgresql", "postgresql:///run/postgresql/db"),
    ],
)
def test_only_the_place_is_shown(url, place):
    """Hosts, ports and the database; never a user's word."""
    assert target(url).place == place
    assert "secret" not in repr(target(url))
    assert repr(PostgresLedger(url)) == f"PostgresLedger({place!r}, durability='durable', schema='resilient_ai')"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://u:hunter2@host/db", "must begin with one of postgresql://, postgres://"),
        ("host=h password=hunter2", "must begin with one of"),
        ("postgresql://u:hun@ter2@host/db", "holds an @ behind the host"),
        ("postgresql://u:hun/ter2@host/db", "holds an @ behind the host"),
        ("postgresql://u:hunter2@host/db?colour=red", "not the address of a PostgreSQL"),
        ("postgresql://u:hunter2@host/%zz", "not the address of a PostgreSQL"),
        ("postgresql://hunter:ter2/db", "the port is no number"),
    ],
)
def test_what_is_no_address_is_refused(url, reason):
    """With the reason, and without quoting it."""
    with pytest.raises(ConfigurationError, match=reason) as caught:
        PostgresLedger(url)
    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("schema", ["", "A", "a-b", "pg_mine", "1a", "a" * 60, 'a"; DROP TABLE x; --', "a\n"])
def test_a_schema_is_a_plain_name(schema):
    """So that it can stand in any statement."""
    with pytest.raises(ValueError, match="schema must be a name of small letters, digits and _"):
        PostgresLedger("postgresql://host/db", schema=schema)


def test_durability_is_checked():
    """There are two."""
    with pytest.raises(ValueError, match="durability must be 'queued' or 'durable', got 'forever'"):
        PostgresLedger("postgresql://host/db", durability="forever")


def test_the_address_may_say_otherwise():
    """What it says of the connection counts, and the rest has limits."""
    options = target("postgresql://host/db?connect_timeout=60").options
    assert (options["connect_timeout"], options["application_name"]) == ("60", "resilient_ai")


def test_a_password_in_an_error_is_not_shown():
    """Whoever put it there."""
    assert target("postgresql://u:hunter2@host/db").without_secrets("no\n  hunter2 here") == "no *** here"
    assert target("postgresql://host/db").without_secrets(TimeoutError()) == "TimeoutError"


PROGRAM = """
import sys
import resilient_ai.stores
heavy = {"psycopg", "alembic", "sqlalchemy"} & sys.modules.keys()
assert not heavy, heavy
sys.modules["psycopg"] = None
try:
    resilient_ai.stores.PostgresLedger("postgresql://host/db")
except resilient_ai.ConfigurationError as error:
    print(error)
"""


def test_a_missing_driver_is_named():
    """The stores can be imported without it, and whoever needs it hears what to install."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    assert done.stdout == (
        "the package psycopg is missing, or libpq is; install them with: pip install 'resilient-ai[postgres]'\n"
    )
