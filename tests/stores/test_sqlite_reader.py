"""Questions over a connection of their own."""

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest

from resilient_ai.core.budgets import Charge
from resilient_ai.core.ledger import SendOpened
from resilient_ai.stores import SQLiteLedger
from resilient_ai.stores._sqlite_reader import Reading, read

pytestmark = pytest.mark.anyio
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


def opened(name):
    return SendOpened(send_id=name, call_id="c", at=1.0, kind="chat", model="m", attempt=1)


def count(connection):
    return connection.execute("SELECT count(*) FROM sends").fetchone()[0]


@pytest.fixture
async def ledger(open_ledger):
    ledger = open_ledger()
    ledger.opened(opened("a"))
    await ledger.flush()
    return ledger


async def test_a_long_question_holds_nobody_up(ledger):
    """While it is answered, reports are written, budgets charged and other questions answered."""
    asked, goes_on = threading.Event(), threading.Event()

    def slow(connection):
        before = count(connection)
        asked.set()
        goes_on.wait()
        return before

    task = asyncio.create_task(ledger._read(slow))
    await asyncio.to_thread(asked.wait)
    ledger.opened(opened("b"))
    assert (await ledger.total()).sends == 2
    assert (await ledger.charge([Charge(key="b", slice=0, first=0, amount=1, limit=1, until=1)])).admitted
    goes_on.set()
    assert await task == 1


async def test_a_cancelled_question_is_interrupted(ledger):
    """Its thread is free again."""
    running, ended = threading.Event(), threading.Event()

    def endless(connection):
        connection.set_progress_handler(running.set, 1000)
        try:
            connection.execute(ENDLESS).fetchall()
        except sqlite3.OperationalError as error:
            assert str(error) == "interrupted"
            ended.set()
            raise

    task = asyncio.create_task(read(ledger.path, endless))
    await asyncio.to_thread(running.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 20)


async def test_a_question_changes_nothing(ledger):
    """It may only read."""
    with pytest.raises(sqlite3.OperationalError, match="attempt to write a readonly database"):
        await read(ledger.path, lambda connection: connection.execute("DELETE FROM sends"))
    assert await read(ledger.path, count) == 1


async def test_a_file_that_was_moved_away(ledger, tmp_path):
    """It is begun anew, and what was moved has all that was written."""
    (tmp_path / "ledger.db").rename(tmp_path / "moved.db")
    assert (await ledger.total()).sends == 0
    with closing(sqlite3.connect(tmp_path / "moved.db")) as moved:
        assert count(moved) == 1


async def test_a_file_in_its_place(ledger, tmp_path):
    """Another file is not taken for the book."""
    (tmp_path / "ledger.db").rename(tmp_path / "moved.db")
    (tmp_path / "ledger.db").write_text("Dear diary, " * 100)
    assert ((await ledger.total()).sends, ledger.in_memory) == (0, True)
    assert (tmp_path / "ledger.db").read_text() == "Dear diary, " * 100


async def test_stopping_at_any_time(ledger):
    """A question that was stopped before it began is not asked, and afterwards there is nothing to stop."""
    asked = []
    early, late = Reading(ledger.path, asked.append), Reading(ledger.path, count)
    early.stop()
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        early.answer()
    assert (late.answer(), asked) == (1, [])
    late.stop()


def test_in_memory_there_is_no_other_connection():
    """The writer answers."""
    ledger = SQLiteLedger(":memory:")
    ledger.opened(opened("a"))
    assert asyncio.run(ledger.total()).sends == 1
    ledger.close()
