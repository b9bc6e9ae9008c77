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
from resilient_ai.stores._owed import LARGEST
from resilient_ai.stores._sqlite_budgets import Ask, SeedsMissing, charge, spent
from resilient_ai.stores._sqlite_rows import write
from resilient_ai.stores._sqlite_schema import MEMORY, connect

pytestmark = pytest.mark.anyio
HOUR, DAY = 3_600, 86_400
ONE = Charge(key="b", slice=10 * DAY, first=10 * DAY, amount=10, limit=100, until=11 * DAY)


@pytest.fixture
def book():
    connection, _ = connect(MEMORY, full=False)
    with closing(connection):
        yield connection


def charged(connection, charges):
    """What becomes of charges that come alone."""
    ask = Ask(charges, 0.0)
    charge(connection, [ask])
    return ask.answer.result(0)


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
    charged(book, [ONE, replace(ONE, key="long", until=100 * DAY)])
    charged(book, [replace(ONE, slice=ONE.until - 1, first=ONE.until - 1, key="early")])
    assert [key for key, *_ in counters(book)] == ["b", "early", "long"]
    charged(book, [replace(ONE, slice=ONE.until, first=ONE.until, key="later", until=12 * DAY)])
    assert [key for key, *_ in counters(book)] == ["later", "long"]


def test_slices_of_a_window_that_rolls_are_forgotten(book):
    """Also where it always has a counter in its window; by the clock of the machine they are over as well."""
    for hour in range(5):
        start = ONE.slice + HOUR * hour
        charged(book, [replace(ONE, slice=start, first=start - HOUR, until=start + 2 * HOUR)])
    assert [start - ONE.slice for _, start, _ in counters(book)] == [3 * HOUR, 4 * HOUR]
    now = int(time.time()) + DAY
    for hour in range(5):
        start = now + HOUR * hour
        charged(book, [replace(ONE, slice=start, first=start - HOUR, until=start + 2 * HOUR)])
    assert len(counters(book)) == 5


def test_a_budget_that_rolls_begins_with_its_whole_window(book):
    """What was spent in it before the budget was there leaves it again, never sooner than after the length of the window."""
    now = 10 * DAY
    asked = replace(ONE, slice=now, first=now - HOUR, limit=None)
    for at, cost in [(now - HOUR - 1, "1"), (now - HOUR, "2"), (now - 30.5, "4"), (now - 1, "8"), (now, "16")]:
        send(book, float(at), cost)
    assert spent(book, [asked]) == (units(Decimal(30)),)
    assert counters(book) == []
    assert charged(book, [asked]).spent == (units(Decimal(30)),)
    for minutes, left in [(0, 30), (1, 28), (59, 28), (60, 16)]:
        later = replace(asked, slice=now + 60 * minutes, first=now + 60 * minutes - HOUR)
        # A new slice counts the sends in it, and there are none.
        assert spent(book, [later]) == (units(Decimal(left)) + asked.amount,)


def test_a_short_window_that_rolls(book):
    """Its slices are a second at least."""
    send(book, ONE.slice - 5.0, "1")
    send(book, ONE.slice - 4.5, "2")
    assert charged(book, [replace(ONE, first=ONE.slice - 10, limit=None)]).spent == (units(Decimal(3)),)
    assert [(slot - ONE.slice, amount) for _, slot, amount in counters(book)] == [(-5, units(Decimal(3))), (0, 10)]


def test_a_counter_is_a_whole_number(book):
    """One that would become too large for the file is not added to, nor made a fraction."""
    most = 2**63 - 1
    huge = replace(ONE, amount=most, limit=None)
    assert charged(book, [huge]) == Admission(admitted=True, spent=(0,))
    with pytest.raises(sqlite3.IntegrityError):
        charged(book, [replace(ONE, key="first", limit=None), replace(huge, amount=1)])
    with pytest.raises(OverflowError):
        charged(book, [replace(huge, key="too large", amount=most + 1)])
    assert not book.in_transaction
    assert counters(book) == [("b", ONE.slice, most)]


def test_a_transaction_that_the_database_took_back(book):
    """As it does when the disk is full: the error arrives as it is."""
    book.execute(
        "CREATE TRIGGER full BEFORE INSERT ON budget_counters BEGIN SELECT RAISE(ROLLBACK, 'disk is full'); END"
    )
    with pytest.raises(sqlite3.Error, match="disk is full"):
        charged(book, [ONE])


class TestTogether:
    """Charges of several who ask, in one transaction."""

    def test_each_is_as_if_it_came_alone(self, book):
        """In order: one that is refused, or has no seeds, adds nothing, and the next one finds what those before have added."""
        new = replace(ONE, key="new")
        charged(book, [ONE])
        asks = [
            Ask([replace(ONE, amount=80)], 0.0),
            Ask([replace(ONE, key="other"), replace(ONE, amount=11)], 0.0),
            Ask([ONE, new], 0.0, {}),
            Ask([ONE], 0.0, {}),
            Ask([ONE], 0.0),
        ]
        charge(book, asks)
        assert [
            (found.admitted, found.spent) for found in (asks[place].answer.result(0) for place in (0, 1, 3, 4))
        ] == [
            (True, (10,)),
            (False, (0, 90)),
            (True, (90,)),
            (False, (100,)),
        ]
        with pytest.raises(SeedsMissing) as missing:
            asks[2].answer.result(0)
        assert missing.value.charges == [new]
        assert counters(book) == [("b", ONE.slice, 100), ("other", ONE.slice, 0)]

    def test_one_that_fails_fails_alone(self, book):
        """What it had added is taken back, also where it is found before the transaction that nobody can ask for it."""
        much = replace(ONE, key="much", amount=2**63 - 1, limit=None)
        asks = [
            Ask([ONE], 0.0),
            Ask([much], 0.0),
            Ask([ONE, replace(much, amount=1)], 0.0),
            Ask([replace(ONE, slice=2**63)], 0.0, {}),
            Ask([ONE], 0.0, {}),
            Ask([ONE], 0.0),
        ]
        charge(book, asks[:3] + asks[5:])
        charge(book, asks[3:5])
        errors = [ask.answer.exception(0) for ask in asks]
        assert list(map(type, errors)) == [
            type(None),
            type(None),
            sqlite3.IntegrityError,
            OverflowError,
            type(None),
            type(None),
        ]
        assert counters(book) == [("b", ONE.slice, 30), ("much", ONE.slice, 2**63 - 1)]

    def test_nobody_is_told_before_the_commit(self, tmp_path):
        """Whoever hears of an admission finds it in the file."""
        connection, _ = connect(str(tmp_path / "ledger.db"), full=False)
        asks, seen = [Ask([ONE], 0.0), Ask([ONE], 0.0)], []
        with closing(connection), closing(sqlite3.connect(tmp_path / "ledger.db")) as other:
            asks[0].answer.add_done_callback(lambda _: seen.extend(counters(other)))
            charge(connection, asks)
        assert seen == [("b", ONE.slice, 20)]

    @pytest.mark.parametrize("when", ["commit", "full"])
    def test_a_transaction_that_fails(self, book, when):
        """All of them hear it, each with an error of its own, and nothing was added."""
        book.execute("PRAGMA foreign_keys = ON")
        book.execute("CREATE TABLE here (id INTEGER PRIMARY KEY)")
        book.execute("CREATE TABLE there (id REFERENCES here DEFERRABLE INITIALLY DEFERRED)")
        fault = {"commit": "INSERT INTO there VALUES (1)", "full": "SELECT RAISE(ROLLBACK, 'disk is full')"}[when]
        book.execute(f"CREATE TRIGGER fault BEFORE INSERT ON budget_counters WHEN new.key = 'last' BEGIN {fault}; END")
        asks = [Ask([ONE], 0.0), Ask([replace(ONE, key="last")], 0.0), Ask([ONE], 0.0)]
        charge(book, asks)
        errors = [ask.answer.exception(0) for ask in asks]
        assert {str(error) for error in errors} == {
            {"commit": "FOREIGN KEY constraint failed", "full": "disk is full"}[when]
        }
        assert len(set(map(id, errors))) == 3
        assert (book.in_transaction, counters(book)) == (False, [])
        book.execute("DROP TRIGGER fault")
        assert charged(book, [ONE]) == Admission(admitted=True, spent=(0,))

    def test_a_transaction_that_cannot_begin(self, book):
        """All of them hear why, but for those that needed none."""
        book.execute("BEGIN")
        asks = [Ask([ONE], 0.0), Ask([ONE], 0.0, {})]
        charge(book, asks)
        book.execute("ROLLBACK")
        assert list(map(type, (ask.answer.exception(0) for ask in asks))) == [sqlite3.OperationalError, SeedsMissing]

    def test_whoever_is_cancelled_adds_nothing(self, book):
        """As nobody hears of it."""
        asks = [Ask([ONE], 0.0), Ask([ONE], 0.0)]
        assert asks[0].answer.cancel()
        charge(book, asks)
        assert asks[1].answer.result(0) == Admission(admitted=True, spent=(0,))

    def test_nobody_waits_longer_for_the_others(self, tmp_path):
        """Of a file that is locked each hears it when its own time is over."""
        connection, _ = connect(str(tmp_path / "ledger.db"), full=False)
        now = time.monotonic()
        asks, at = [Ask([ONE], now + 60.0), Ask([ONE], now)], []
        with closing(connection), closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            asks[1].answer.add_done_callback(lambda _: at.append(asks[0].answer.done()) or other.execute("ROLLBACK"))
            charge(connection, asks)
            assert asks[0].answer.result(0) == Admission(admitted=True, spent=(0,))
        assert (str(asks[1].answer.exception(0)), at) == ("database is locked", [False])


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
