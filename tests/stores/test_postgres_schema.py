"""How the tables of a `PostgresLedger` come into being: once, in one step, and only where they are missing."""

import asyncio
import logging
import subprocess
import sys

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from resilient_ai.core.budgets import Charge
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.ledger import SendOpened
from resilient_ai.stores import PostgresLedger
from resilient_ai.stores._postgres_schema import _FOLDER, REVISIONS

from .postgres_server import shared_postgres

pytestmark = pytest.mark.anyio

SEND = SendOpened(send_id="s", call_id="c", at=1.0, kind="chat", model="m", attempt=1)
CHARGE = Charge(key="k", slice=0, first=0, amount=1, limit=None, until=2**40)


@pytest.fixture
def postgres(request):
    return shared_postgres(request)


@pytest.fixture
def ledger_at():
    """Make ledgers, and close them."""
    ledgers = []

    def make(url, **options):
        ledgers.append(PostgresLedger(url, **options))
        return ledgers[-1]

    yield make
    for ledger in ledgers:
        ledger.close(1.0)


def test_the_newest_revision_is_known():
    """What the package asks for is what Alembic would make."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    assert [step.revision for step in ScriptDirectory.from_config(config).walk_revisions()] == list(reversed(REVISIONS))


PROGRAM = """
import asyncio, sys
from resilient_ai.core.ledger import SendOpened
from resilient_ai.stores import PostgresLedger
ledger = PostgresLedger(sys.argv[1])
sys.stdin.readline()
ledger.opened(SendOpened(send_id=sys.argv[2], call_id="c", at=1.0, kind="chat", model="m", attempt=1))
asyncio.run(ledger.flush())
ledger.close()
assert not ledger.lost
"""


def others(url):
    """Three processes that begin at the same moment."""
    crew = [subprocess.Popen([sys.executable, "-c", PROGRAM, url, name], stdin=subprocess.PIPE) for name in "abc"]
    for process in crew:
        process.stdin.write(b"\n")
        process.stdin.flush()
    return crew


async def test_two_clients_at_once_on_an_empty_database(postgres, ledger_at):
    """Both of one process begin, and so do three of other processes; the tables are made once, and all rows arrive."""
    url = postgres.database()
    crew = others(url)
    one, two = ledger_at(url), ledger_at(url)
    one.opened(SEND)
    await asyncio.gather(one.flush(), two.flush(), one.total(), two.spent([CHARGE]))
    for process in crew:
        process.communicate()
    assert [process.returncode for process in crew] == [0, 0, 0]
    assert {send.send_id for send in await two.sends()} == {"a", "b", "c", "s"}
    assert postgres.command("SELECT version_num FROM resilient_ai.ledger_version", url=url) == [(REVISIONS[-1],)]


async def test_schemas_are_apart(postgres, ledger_at):
    """A database holds several books."""
    url = postgres.database()
    one, two = ledger_at(url, schema="one"), ledger_at(url, schema="two")
    one.opened(SEND)
    assert ((await one.total()).sends, (await two.total()).sends) == (1, 0)


async def test_whoever_may_not_make_schemas_is_given_one(postgres, ledger_at):
    """The right to use one is enough."""
    url = postgres.database()
    name = url.rpartition("/")[2]
    postgres.command(f"CREATE ROLE {name} LOGIN PASSWORD 'humble'", url=url)
    humble = url.replace("tester:", f"{name}:").replace(url.partition("tester:")[2].partition("@")[0], "humble")
    refused = ledger_at(humble)
    with pytest.raises(BookUnavailable, match="permission denied for database"):
        await refused.spent([CHARGE])
    postgres.command(f"CREATE SCHEMA resilient_ai AUTHORIZATION {name}", url=url)
    ledger = ledger_at(humble)
    ledger.opened(SEND)
    assert (await ledger.total()).sends == 1


async def test_a_newer_version_is_left_alone(postgres, ledger_at, caplog):
    """Reports wait, the log says why once, and whoever asks hears it."""
    url = postgres.ready_database()
    postgres.command("UPDATE resilient_ai.ledger_version SET version_num = '9999'", url=url)
    ledger = ledger_at(url)
    with caplog.at_level(logging.WARNING, "resilient_ai.stores"):
        ledger.opened(SEND)
        with pytest.raises(BookUnavailable, match="is a ledger of version 9999; this package knows up to"):
            await ledger.total()
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "reports wait: the schema resilient_ai is a ledger of version 9999; this package knows up to " + REVISIONS[-1]
    )
    postgres.command("UPDATE resilient_ai.ledger_version SET version_num = %s", REVISIONS[-1], url=url)
    await ledger.flush()
    assert (await ledger.total()).sends == 1


async def test_counters_of_an_older_version_go_on(postgres, ledger_at):
    """They have the same life, which is no loss."""
    url = postgres.database()
    await ledger_at(url).charge([CHARGE])
    for statement in (
        "ALTER TABLE resilient_ai.counters DROP COLUMN life",
        "UPDATE resilient_ai.ledger_version SET version_num = '0001'",
    ):
        postgres.command(statement, url=url)
    found = await ledger_at(url).charge([CHARGE])
    assert (found.spent, found.lives) == ((CHARGE.amount,), (1,))


def test_alembic_is_not_imported_where_the_tables_are_there(postgres):
    """Nor is SQLAlchemy."""
    program = (
        "import asyncio, sys\nfrom resilient_ai.stores import PostgresLedger\n"
        f"ledger = PostgresLedger({postgres.ready_database()!r})\n"
        "asyncio.run(ledger.total())\nledger.close()\nprint(sorted({'alembic', 'sqlalchemy', 'psycopg'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "['psycopg']\n"


async def test_a_missing_alembic_is_named(postgres, ledger_at, monkeypatch):
    """Where the tables must be made."""
    monkeypatch.setitem(sys.modules, "alembic", None)
    ledger = ledger_at(postgres.database())
    with pytest.raises(
        BookUnavailable, match=r"the package alembic is missing.*pip install 'resilient-ai\[postgres\]'"
    ):
        await ledger.spent([CHARGE])
