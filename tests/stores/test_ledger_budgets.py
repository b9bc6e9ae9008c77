"""The counters of budgets in the ledger's file: what the conformance suite does not ask."""

import asyncio
import logging
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from decimal import Decimal

import pytest

from resilient_ai.core.budgets import Admission, Charge, units
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.ledger import SendClosed, SendOpened
from resilient_ai.stores._ledger_budgets import charge, spent
from resilient_ai.stores._ledger_rows import write
from resilient_ai.stores._ledger_schema import MEMORY, connect
from resilient_ai.stores._owed import LARGEST

pytestmark = pytest.mark.anyio
HOUR, DAY = 3_600, 86_400
ONE = Charge(key="b", slice=10 * DAY, first=10 * DAY, amount=10, limit=100, until=11 * DAY)


@pytest.fixture
def book():
    connection, _ = connect(MEMORY, full=False)
    with closing(connection):
        yield connection


def send(connection, at, cost, name=None):
    name = name or str(at)
    write(
        connection,
        1,
        [
            SendOpened(send_id=name, call_id="c", at=at, kind="chat", model="m", attempt=1),
            SendClosed(send_id=name, state="settled", cost=Decimal(cost)),
        ],
    )


def counters(connection):
    return connection.execute("SELECT key, slice, spent FROM budget_counters ORDER BY key, slice").fetchall()


def test_what_may_be_forgotten_is_deleted(book):
    """Once a later slice begins; nothing else asks what time it is."""
    charge(book, [ONE, replace(ONE, key="long", until=100 * DAY)], 0.0)
    charge(book, [replace(ONE, slice=ONE.until - 1, first=ONE.until - 1, key="early")], 0.0)
    assert [key for key, *_ in counters(book)] == ["b", "early", "long"]
    charge(book, [replace(ONE, slice=ONE.until, first=ONE.until, key="later", until=12 * DAY)], 0.0)
    assert [key for key, *_ in counters(book)] == ["later", "long"]


def test_slices_of_a_window_that_rolls_are_forgotten(book):
    """Also where it always has a counter in its window; by the clock of the machine they are over as well."""
    for hour in range(5):
        start = ONE.slice + HOUR * hour
        charge(book, [replace(ONE, slice=start, first=start - HOUR, until=start + 2 * HOUR)], 0.0)
    assert [start - ONE.slice for _, start, _ in counters(book)] == [3 * HOUR, 4 * HOUR]
    now = int(time.time()) + DAY
    for hour in range(5):
        start = now + HOUR * hour
        charge(book, [replace(ONE, slice=start, first=start - HOUR, until=start + 2 * HOUR)], 0.0)
    assert len(counters(book)) == 5


def test_a_budget_that_rolls_begins_with_its_whole_window(book):
    """What was spent in it before the budget was there leaves it again, never sooner than after the length of the window."""
    now = 10 * DAY
    asked = replace(ONE, slice=now, first=now - HOUR, limit=None)
    for at, cost in [(now - HOUR - 1, "1"), (now - HOUR, "2"), (now - 30.5, "4"), (now - 1, "8"), (now, "16")]:
        send(book, float(at), cost)
    assert spent(book, [asked]) == (units(Decimal(30)),)
    assert counters(book) == []
    assert charge(book, [asked], 0.0).spent == (units(Decimal(30)),)
    for minutes, left in [(0, 30), (1, 28), (59, 28), (60, 16)]:
        later = replace(asked, slice=now + 60 * minutes, first=now + 60 * minutes - HOUR)
        # A new slice counts the sends in it, and there are none.
        assert spent(book, [later]) == (units(Decimal(left)) + asked.amount,)


def test_a_short_window_that_rolls(book):
    """Its slices are a second at least."""
    send(book, ONE.slice - 5.0, "1")
    send(book, ONE.slice - 4.5, "2")
    assert charge(book, [replace(ONE, first=ONE.slice - 10, limit=None)], 0.0).spent == (units(Decimal(3)),)
    assert [(slot - ONE.slice, amount) for _, slot, amount in counters(book)] == [(-5, units(Decimal(3))), (0, 10)]


def test_a_counter_is_a_whole_number(book):
    """One that would become too large for the file is not added to, nor made a fraction."""
    most = 2**63 - 1
    huge = replace(ONE, amount=most, limit=None)
    assert charge(book, [huge], 0.0) == Admission(admitted=True, spent=(0,))
    with pytest.raises(sqlite3.IntegrityError):
        charge(book, [replace(ONE, key="first", limit=None), replace(huge, amount=1)], 0.0)
    with pytest.raises(OverflowError):
        charge(book, [replace(huge, key="too large", amount=most + 1)], 0.0)
    assert not book.in_transaction
    assert counters(book) == [("b", ONE.slice, most)]


def test_a_transaction_that_the_database_took_back(book):
    """As it does when the disk is full: the error arrives as it is."""
    book.execute(
        "CREATE TRIGGER full BEFORE INSERT ON budget_counters BEGIN SELECT RAISE(ROLLBACK, 'disk is full'); END"
    )
    with pytest.raises(sqlite3.Error, match="disk is full"):
        charge(book, [ONE], 0.0)


class TestLocks:
    """What happens while somebody else holds the file."""

    @pytest.fixture
    def lock(self, tmp_path):
        """Take and give back the right to write."""
        with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, check_same_thread=False)) as other:
            other.execute("PRAGMA journal_mode = WAL")
            yield other.execute

    async def test_a_charge_does_not_wait_for_ever(self, open_ledger, lock):
        """After two seconds it says that the book cannot be asked; nothing is charged later."""
        ledger = open_ledger()
        await ledger.charge([ONE])
        lock("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(BookUnavailable, match="the ledger cannot be asked: database is locked"):
            await ledger.charge([ONE])
        assert 1.6 < time.monotonic() - began < 4.0
        assert await ledger.spent([ONE]) == (10,)
        lock("ROLLBACK")
        assert await ledger.charge([ONE]) == Admission(admitted=True, spent=(10,))

    async def test_a_charge_behind_reports_does_not_wait_for_ever(self, open_ledger, lock, caplog):
        """Nor does a question; the reports are written once it is possible."""
        ledger = open_ledger()
        await ledger.charge([ONE])
        lock("BEGIN IMMEDIATE")
        ledger.opened(SendOpened(send_id="s", call_id="c", at=1.0, kind="chat", model="m", attempt=1))
        began = time.monotonic()
        with caplog.at_level(logging.CRITICAL, "resilient_ai.stores"):
            found = await asyncio.gather(ledger.charge([ONE]), ledger.spent([ONE]), return_exceptions=True)
        assert 1.9 < time.monotonic() - began < 4.0
        assert [str(error) for error in found] == ["the ledger cannot be asked: database is locked"] * 2
        lock("ROLLBACK")
        assert (await ledger.spent([ONE]), (await ledger.total()).sends) == ((10,), 1)

    async def test_a_charge_waits_for_a_short_lock(self, open_ledger, lock):
        """It is admitted once the file is free."""
        ledger = open_ledger()
        await ledger.charge([ONE])
        lock("BEGIN IMMEDIATE")
        free = threading.Timer(0.3, lock, ["ROLLBACK"])
        free.start()
        assert await ledger.charge([ONE]) == Admission(admitted=True, spent=(10,))
        free.join()


async def test_a_charge_does_not_wait_for_other_work(open_ledger):
    """What waits behind a long seeding gives up after two seconds, and so does who began it; nothing stays reserved."""
    ledger = open_ledger()
    await ledger.charge([ONE])
    arrived, goes_on = threading.Event(), threading.Event()
    ledger._writer.ask(lambda _: arrived.set() or goes_on.wait())
    await asyncio.to_thread(arrived.wait)
    try:
        began = time.monotonic()
        found = await asyncio.gather(ledger.charge([ONE]), ledger.spent([ONE]), return_exceptions=True)
        assert 1.9 < time.monotonic() - began < 4.0
    finally:
        goes_on.set()
    assert [str(error) for error in found] == ["the ledger cannot be asked: no answer within 2 s"] * 2
    assert {type(error) for error in found} == {BookUnavailable}
    assert await ledger.charge([ONE]) == Admission(admitted=True, spent=(10,))


async def test_a_charge_that_takes_long_is_given_back(open_ledger):
    """Who began the long work is told after two seconds, and what is admitted in the end is nobody's."""
    ledger = open_ledger()
    await ledger.charge([ONE])
    goes_on = threading.Event()
    ledger._writer.ask(lambda file: file.create_function("wait", 0, goes_on.wait))
    ledger._writer.ask(
        lambda file: file.execute(
            "CREATE TEMP TRIGGER slow BEFORE INSERT ON budget_counters BEGIN SELECT wait(); END"
        ).fetchall()
    )
    try:
        with pytest.raises(BookUnavailable, match="no answer within 2 s"):
            await ledger.charge([ONE])
    finally:
        goes_on.set()
    await ledger.flush()  # the work is done then, and what is given back has been reported
    assert await ledger.spent([ONE]) == (10,)


async def test_a_charge_that_was_admitted_for_nobody(open_ledger):
    """Who is cancelled while the file is being written has it given back."""
    ledger = open_ledger()
    await ledger.charge([ONE])
    arrived, goes_on = threading.Event(), threading.Event()
    real = ledger._writer._file._connection

    class Slow:
        """A connection that waits once it has been asked to write."""

        OperationalError = sqlite3.OperationalError

        def __getattr__(self, name):
            return getattr(real, name)

        def execute(self, sql, *values):
            if sql == "COMMIT":
                arrived.set()
                goes_on.wait()
            return real.execute(sql, *values)

    ledger._writer._file._connection = Slow()
    asked = asyncio.create_task(ledger.charge([ONE]))
    await asyncio.to_thread(arrived.wait)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    ledger._writer._file._connection = real
    goes_on.set()
    await ledger.flush()
    assert await ledger.spent([ONE]) == (10,)


async def test_a_path_that_cannot_be_written(tmp_path, open_ledger):
    """Nothing is admitted, as nobody knows what others have spent."""
    (tmp_path / "file").write_text("")
    ledger = open_ledger(tmp_path / "file" / "ledger.db")
    for asked in (ledger.charge([ONE]), ledger.spent([ONE])):
        with pytest.raises(BookUnavailable, match=r"the ledger cannot be asked: .* cannot be written: .*File exists"):
            await asked
    assert ledger.in_memory


async def test_a_ledger_that_is_in_memory_on_purpose(open_ledger):
    """Budgets hold within the process."""
    ledger = open_ledger(MEMORY)
    found = await asyncio.gather(*(ledger.charge([replace(ONE, amount=60)]) for _ in range(5)))
    assert sum(each.admitted for each in found) == 1


async def test_what_nobody_can_charge(open_ledger):
    """A counter too large for the file is a book that cannot be asked, and what is settled of it fills the counter up."""
    ledger = open_ledger()
    with pytest.raises(BookUnavailable, match="too large to convert"):
        await ledger.charge([replace(ONE, amount=2**70, limit=None)])
    ledger.settle([replace(ONE, amount=2**70)])
    ledger.settle([replace(ONE, amount=7)])
    assert (await ledger.spent([ONE]), ledger.lost) == ((LARGEST + 7,), 0)


async def test_a_child_shares_the_counters(open_ledger, in_child):
    """After a fork both go on with the same file."""
    ledger = open_ledger()
    await ledger.charge([replace(ONE, amount=60)])

    def child():
        ours = asyncio.run(ledger.charge([replace(ONE, amount=60)]))
        theirs = asyncio.run(ledger.charge([replace(ONE, amount=30)]))
        ledger.close()
        return (ours.admitted, theirs.admitted) == (False, True)

    assert await asyncio.to_thread(in_child, child) == 0
    assert await ledger.spent([ONE]) == (90,)


def test_a_loop_that_ends_while_a_charge_is_under_way(open_ledger):
    """Nothing stays reserved that nobody heard of."""
    ledger = open_ledger()

    async def leave():
        tasks = [asyncio.create_task(ledger.charge([ONE])) for _ in range(5)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)

    asyncio.run(leave())
    asyncio.run(ledger.flush())
    assert asyncio.run(ledger.spent([ONE])) == (0,)
