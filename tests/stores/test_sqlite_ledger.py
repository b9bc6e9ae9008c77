"""The book of sends: what it keeps, that sums are exact, and that nothing acknowledged is lost."""

import asyncio
import logging
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from decimal import Decimal

import pytest

from resilient_ai.core.errors import BookUnavailable, ConfigurationError
from resilient_ai.core.ledger import SendClosed, SendOpened
from resilient_ai.stores import SQLiteLedger, _sqlite_queries, sqlite_ledger
from resilient_ai.stores._ledger_common import Filter, Mark
from resilient_ai.stores._sqlite_schema import VERSION

pytestmark = pytest.mark.anyio

NOON = 1_800_000_000.0  # 2027-01-15 08:00 UTC


def opened(send_id="s", **fields):
    return SendOpened(
        **({"send_id": send_id, "call_id": "c", "at": NOON, "kind": "chat", "model": "m", "attempt": 1} | fields)
    )


def closed(send_id="s", cost=None, state="settled", **fields):
    return SendClosed(send_id=send_id, state=state, cost=Decimal(cost) if isinstance(cost, str) else cost, **fields)


def write(ledger, send_id="s", cost=None, *, state="settled", usage=None, **fields):
    ledger.opened(opened(send_id, **fields))
    ledger.closed(closed(send_id, cost, state, usage=usage))


def ask(ledger, question):
    """The answer to a question, in an event loop of its own."""
    return asyncio.run(question(ledger))


def ended(process):
    """The exit code of a process that has come to its end."""
    process.communicate()
    return process.returncode


def script(body, *arguments):
    """A program in a process of its own that has a ledger on the file that its first argument names."""
    lines = [
        "import asyncio, os, signal, sys",
        "from decimal import Decimal",
        "from resilient_ai.core.ledger import SendClosed, SendOpened",
        "from resilient_ai.stores import SQLiteLedger",
        "ledger = SQLiteLedger(sys.argv[1])",
        "def begin(name): ledger.opened(SendOpened(send_id=name, call_id='c', at=1.0, kind='chat', model='m', attempt=1))",
        "def settle(name): ledger.closed(SendClosed(send_id=name, state='settled', cost=Decimal('0.1')))",
        "def flush(): asyncio.run(ledger.flush())",
        *body,
    ]
    return subprocess.Popen([sys.executable, "-c", "\n".join(lines), *map(str, arguments)], stdout=subprocess.PIPE)


class TestQuestions:
    """What `test_ledger_conformance.py` does not ask."""

    async def test_a_book_that_cannot_be_asked(self, open_ledger):
        """Every question says so, with the words of the database."""
        ledger = open_ledger()
        await ledger.flush()
        with closing(sqlite3.connect(ledger.path)) as other:
            other.executescript("DROP TABLE sends; DROP TABLE spared")
        for question in (ledger.total(), ledger.by("model"), ledger.sends(), ledger.calls(), anext(ledger.scan())):
            with pytest.raises(BookUnavailable, match="the ledger cannot be asked: no such table: sends") as caught:
                await question
            assert isinstance(caught.value.__cause__, sqlite3.Error)
        with pytest.raises(BookUnavailable, match="no such table: spared"):
            await ledger.saved()

    @pytest.mark.parametrize("ask", ["total", "by", "sends", "calls", "saved", "scan"])
    async def test_times_are_found_through_an_index(self, open_ledger, ask):
        """No question about a time reads the whole book."""
        ledger = open_ledger()
        which = Filter(NOON, NOON + 1, {"tenant": "x", "team": "red"})
        plans = []

        class Planning:
            """A connection that asks how each statement will be run."""

            def __init__(self, connection):
                self._connection = connection

            def execute(self, sql, values=()):
                plans.extend(row[3] for row in self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", values))
                return self._connection.execute(sql, values)

        questions = {
            "total": lambda book: _sqlite_queries.total(book, which),
            "by": lambda book: _sqlite_queries.by(book, ["tenant"], which),
            "sends": lambda book: _sqlite_queries.sends(book, 5, None, which),
            "calls": lambda book: _sqlite_queries.calls(book, 5, which),
            "saved": lambda book: _sqlite_queries.saved(book, which),
            "scan": lambda book: _sqlite_queries.piece(book, which, Mark(0.0, 0, 100)),
        }
        await ledger._ask(lambda connection: questions[ask](Planning(connection)))
        reads = [plan for plan in plans if re.match(r"(SCAN|SEARCH) (sends|spared|first|earlier)\b", plan)]
        assert reads
        assert all(
            "INDEX sends_at (at>" in read or "INDEX spared_at (at>" in read or "sends_call" in read
            for read in reads
            if read != "SCAN first"
        )

    async def test_a_long_scan_lets_others_through(self, open_ledger):
        """Between two pieces, a charge, a report and a question are served."""
        ledger = open_ledger()
        for number in range(3000):
            write(ledger, f"s{number}")
        seen = []
        async for sends in ledger.scan():
            write(ledger, f"meanwhile {len(seen)}", "1", model="n")
            assert (await ledger.total(tags={"model": "n"})).sends == len(seen) + 1
            seen.append(len(sends))
        assert seen == [1000, 1000, 1000]

    async def test_a_rare_tag_is_looked_for_piece_by_piece(self, open_ledger):
        """Each piece is of a thousand rows, whether they have the tag or not."""
        ledger = open_ledger()
        for number in range(2500):
            write(ledger, f"s{number:04}", tags={"team": "red"} if number in {7, 2400} else {})
        assert [[send.send_id for send in sends] async for sends in ledger.scan(tags={"team": "red"})] == [
            ["s0007"],
            ["s2400"],
        ]


class TestLife:
    """Opening, flushing, closing and opening again."""

    def test_options_show_and_are_checked(self, tmp_path):
        """An unknown durability is refused at construction."""
        assert repr(SQLiteLedger(tmp_path / "l.db")) == f"SQLiteLedger('{tmp_path}/l.db', durability='durable')"
        with pytest.raises(ValueError, match="durability must be 'queued' or 'durable', got 'maybe'"):
            SQLiteLedger(tmp_path / "l.db", durability="maybe")

    def test_the_home_directory_is_found(self, monkeypatch, tmp_path):
        """A tilde at the start of the path is the user's home."""
        monkeypatch.setenv("HOME", str(tmp_path))
        assert SQLiteLedger("~/l.db").path == str(tmp_path / "l.db")

    def test_an_unused_ledger_makes_no_file(self, tmp_path):
        """Nor does closing it."""
        SQLiteLedger(tmp_path / "l.db").close()
        ask(SQLiteLedger(tmp_path / "l.db"), SQLiteLedger.aclose)
        assert list(tmp_path.iterdir()) == []

    async def test_the_file_is_for_its_owner_alone(self, open_ledger, tmp_path):
        """Its folders are made, with mode 0700, and it has mode 0600."""
        path = tmp_path / "deep" / "ledger.db"
        await open_ledger(path).flush()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    @pytest.mark.parametrize(("durability", "level"), [("queued", 1), ("durable", 2)])
    async def test_durability_is_the_database_s(self, open_ledger, durability, level):
        """A durable ledger waits for the disk at every commit."""
        ledger = open_ledger(durability=durability)
        assert await ledger._in_writer(lambda connection: connection.execute("PRAGMA synchronous").fetchone()) == (
            level,
        )

    async def test_flush_writes_rows_to_the_file(self, open_ledger):
        """Another connection sees them."""
        ledger = open_ledger()
        write(ledger, cost="0.5")
        await ledger.flush()
        with closing(sqlite3.connect(ledger.path)) as other:
            assert other.execute("SELECT send_id, state, cost FROM sends").fetchall() == [("s", "settled", "0.5")]

    async def test_rows_outlive_the_ledger(self, open_ledger):
        """A ledger that opens the file again has them; so has the same one, used again after it was closed."""
        ledger = open_ledger()
        write(ledger, cost="0.1")
        await ledger.aclose()
        assert (await open_ledger().total()).cost == Decimal("0.1")
        write(ledger, "t", "0.2")
        assert (await ledger.total()).cost == Decimal("0.3")

    @pytest.mark.parametrize("twice", [SQLiteLedger.aclose, lambda ledger: asyncio.to_thread(ledger.close)])
    async def test_closing_twice(self, open_ledger, twice):
        """The second time does nothing."""
        ledger = open_ledger()
        write(ledger, cost="1")
        await twice(ledger)
        await twice(ledger)
        assert not ledger._writer.running
        assert ledger.lost == 0

    async def test_closing_at_the_same_time(self, open_ledger):
        """Both return, and everything is written."""
        ledger = open_ledger()
        write(ledger, cost="1")
        await asyncio.gather(ledger.aclose(), ledger.aclose())
        assert (await open_ledger().total()).cost == 1

    async def test_closing_ends_what_is_in_flight(self, open_ledger):
        """Nobody else would; an end that is reported later still counts."""
        ledger = open_ledger()
        ledger.opened(opened())
        await ledger.aclose()
        assert (await ledger.sends())[0].state == "unknown"
        ledger.closed(closed(cost="3"))
        assert (await ledger.sends())[0].cost == 3

    async def test_a_ledger_in_memory(self):
        """It keeps a book until it is closed, and no file."""
        ledger = SQLiteLedger(":memory:")
        write(ledger, cost="0.1")
        assert ledger.in_memory
        assert (await ledger.total()).cost == Decimal("0.1")
        await ledger.aclose()
        assert (await ledger.total()).sends == 0
        await ledger.aclose()

    def test_two_loops_in_a_row(self, open_ledger):
        """The ledger belongs to none of them."""
        ledger = open_ledger()
        for number in range(2):
            write(ledger, f"s{number}", "0.5")
            assert ask(ledger, SQLiteLedger.total).cost == Decimal("0.5") * (number + 1)

    def test_many_threads(self, open_ledger):
        """64 of them report at once and nothing is lost."""
        ledger = open_ledger()
        start = threading.Barrier(64)

        def work(thread):
            start.wait()
            for number in range(50):
                write(ledger, f"{thread}-{number}", "0.001")

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        total = ask(ledger, SQLiteLedger.total)
        assert (total.sends, total.cost, total.unknown, ledger.lost) == (3200, Decimal("3.2"), 0, 0)

    async def test_a_cancelled_question_harms_nobody(self, open_ledger):
        """The ledger answers the next one."""
        ledger = open_ledger()
        question = asyncio.ensure_future(ledger.total())
        await asyncio.sleep(0)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        write(ledger, cost="1")
        assert (await ledger.total()).cost == 1


class TestOtherProcesses:
    """Death, forks and company."""

    @pytest.mark.parametrize("death", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)"])
    def test_a_sudden_death(self, open_ledger, tmp_path, death):
        """What was flushed is there, and what was in flight is unknown rather than forgotten."""
        body = ["for n in range(10): begin(f's{n}')", "for n in range(5): settle(f's{n}')", "flush()", death]
        assert ended(script(body, tmp_path / "ledger.db")) in {3, -signal.SIGKILL}
        ledger = open_ledger()
        assert {row.key: row.sends for row in ask(ledger, lambda book: book.by("state"))} == {
            ("settled",): 5,
            ("unknown",): 5,
        }
        total = ask(ledger, SQLiteLedger.total)
        assert (total.cost, total.unknown) == (Decimal("0.5"), 5)

    def test_an_ordinary_end_writes_what_waits(self, open_ledger, tmp_path):
        """Also without a flush, and what is in flight then is unknown."""
        assert ended(script(["begin('a')", "settle('a')", "begin('b')"], tmp_path / "ledger.db")) == 0
        states = {send.send_id: send.state for send in ask(open_ledger(), SQLiteLedger.sends)}
        assert states == {"a": "settled", "b": "unknown"}

    def test_a_neighbour_s_sends_stay_in_flight(self, open_ledger, tmp_path):
        """Opening and closing a file does not end the sends of a process that lives."""
        body = ["begin('theirs')", "flush()", "print('ready', flush=True)", "signal.pause()"]
        process = script(body, tmp_path / "ledger.db")
        try:
            assert process.stdout.readline() == b"ready\n"
            ledger = open_ledger()
            ask(ledger, SQLiteLedger.flush)
            ledger.close()
            assert ask(ledger, SQLiteLedger.sends)[0].state == "sent"
        finally:
            process.kill()
            ended(process)
        assert ask(open_ledger(), SQLiteLedger.sends)[0].state == "unknown"

    def test_several_processes_share_a_file(self, open_ledger, tmp_path):
        """All of their rows arrive."""
        body = ["for n in range(300):", "    name = f'{sys.argv[2]}-{n}'", "    begin(name); settle(name)", "flush()"]
        processes = [script(body, tmp_path / "ledger.db", number) for number in range(3)]
        assert [ended(process) for process in processes] == [0, 0, 0]
        total = ask(open_ledger(), SQLiteLedger.total)
        assert (total.sends, total.cost, total.unknown) == (900, Decimal(90), 0)

    def test_a_child_writes_rows_of_its_own(self, open_ledger, in_child):
        """Parent and child go on with the same ledger, and neither ends the other's sends."""
        ledger = open_ledger()
        ledger.opened(opened("parent"))
        ask(ledger, SQLiteLedger.flush)

        def child():
            write(ledger, "child", "0.2")
            ledger.opened(opened("orphan"))
            ledger.close()
            return ledger.lost == 0

        assert in_child(child) == 0
        assert {send.send_id: send.state for send in ask(ledger, SQLiteLedger.sends)} == {
            "parent": "sent",
            "child": "settled",
            "orphan": "unknown",
        }
        ledger.closed(closed("parent", "0.1"))
        assert ask(ledger, SQLiteLedger.total).cost == Decimal("0.3")

    def test_a_child_leaves_unwritten_reports_to_the_parent(self, open_ledger, in_child):
        """They are written once, by the parent."""
        ledger = open_ledger()
        arrived, goes_on = threading.Event(), threading.Event()
        ledger._writer.ask(lambda _: arrived.set() or goes_on.wait())
        arrived.wait()
        write(ledger, cost="0.1")
        assert in_child(lambda: ask(ledger, SQLiteLedger.total).sends == 0) == 0
        goes_on.set()
        assert ask(ledger, SQLiteLedger.total).cost == Decimal("0.1")

    def test_a_child_that_dies_at_once(self, open_ledger, in_child):
        """What it had written is found, what was in flight is unknown, once somebody opens the file."""
        ledger = open_ledger()

        def child():
            ledger.opened(opened("child"))
            ask(ledger, SQLiteLedger.flush)
            return True

        assert in_child(child) == 0
        assert ask(ledger, SQLiteLedger.sends)[0].state == "unknown"


class TestFiles:
    """Paths and files that are not as they should be."""

    async def test_a_path_that_cannot_be_written(self, open_ledger, tmp_path, caplog):
        """The book is kept in memory, and one warning says so."""
        (tmp_path / "file").write_text("")
        ledger = open_ledger(tmp_path / "file" / "ledger.db")
        with caplog.at_level(logging.WARNING, "resilient_ai.stores"):
            write(ledger, "a", "0.1")
            await ledger.flush()
            write(ledger, "b", "0.2")
            assert (await ledger.total()).cost == Decimal("0.3")
        assert ledger.in_memory
        assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
            f"ledger {ledger.path} cannot be written, so it is kept in memory"
        ]

    def test_a_folder_without_rights(self, unprivileged):
        """An ordinary user without the right to write gets a book in memory."""
        folder, as_user = unprivileged
        with as_user():
            folder.chmod(0o500)
            ledger = SQLiteLedger(folder / "ledger.db")
            write(ledger, cost="1")
            assert ask(ledger, SQLiteLedger.total).cost == 1
            ledger.close()
        assert ledger.in_memory
        assert list(folder.iterdir()) == []

    def test_a_link_is_not_followed(self, open_ledger, tmp_path):
        """The file it leads to is left alone."""
        (tmp_path / "target").touch()
        (tmp_path / "ledger.db").symlink_to(tmp_path / "target")
        ledger = open_ledger()
        write(ledger, cost="1")
        assert ask(ledger, SQLiteLedger.total).cost == 1
        assert (ledger.in_memory, (tmp_path / "target").read_bytes()) == (True, b"")

    def test_a_newer_version_is_refused(self, tmp_path):
        """At construction, and the file is left as it is."""
        with closing(sqlite3.connect(tmp_path / "l.db")) as connection:
            connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        before = (tmp_path / "l.db").read_bytes()
        words = f"is a ledger of version {VERSION + 1}; this package knows version {VERSION}"
        with pytest.raises(ConfigurationError, match=words):
            SQLiteLedger(tmp_path / "l.db")
        assert (tmp_path / "l.db").read_bytes() == before

    @pytest.mark.parametrize("version", [0, 1, 2])
    def test_another_database_is_refused(self, tmp_path, version):
        """One with tables of something else is not written to."""
        with closing(sqlite3.connect(tmp_path / "l.db")) as connection:
            connection.execute("CREATE TABLE birds (name)")
            connection.execute(f"PRAGMA user_version = {version}")
        with pytest.raises(ConfigurationError, match=r"is a database of something else: it has the tables \['birds'\]"):
            SQLiteLedger(tmp_path / "l.db")

    def test_a_file_that_is_no_database_is_refused(self, tmp_path):
        """At construction."""
        (tmp_path / "l.db").write_text("Dear diary, " * 100)
        with pytest.raises(ConfigurationError, match="is not a ledger: file is not a database"):
            SQLiteLedger(tmp_path / "l.db")

    async def test_an_empty_file_becomes_a_ledger(self, open_ledger, tmp_path):
        """Such as a temporary file that was made for it; its rights are taken back."""
        (tmp_path / "ledger.db").touch(mode=0o644)
        ledger = open_ledger()
        write(ledger, cost="1")
        assert (await ledger.total()).cost == 1
        assert not ledger.in_memory
        assert stat.S_IMODE((tmp_path / "ledger.db").stat().st_mode) == 0o600

    async def test_a_file_that_is_locked_when_it_is_opened(self, open_ledger, caplog):
        """Reports wait for it, with one warning, and then are written."""
        with closing(sqlite3.connect(open_ledger().path, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("PRAGMA journal_mode = WAL")
            other.execute("BEGIN EXCLUSIVE")
            ledger = open_ledger()
            warned = threading.Event()
            with (
                caplog.at_level(logging.WARNING, "resilient_ai.stores"),
                caplog.filtering(lambda _: warned.set() or True),
            ):
                write(ledger, cost="1")
                total = asyncio.ensure_future(ledger.total())
                await asyncio.to_thread(warned.wait)
            other.execute("ROLLBACK")
        assert (await total).cost == 1
        assert (ledger.in_memory, ledger.lost) == (False, 0)
        assert "cannot be written just now, so reports wait: database is locked" in caplog.records[0].getMessage()


async def test_two_books_of_one_process_in_one_file(open_ledger, tmp_path):
    """A second book, and a process that opens and closes the file meanwhile, hide no row of the first from others."""
    path = tmp_path / "ledger.db"
    first, second = open_ledger(path), open_ledger(path)
    first.opened(opened("a"))
    await first.flush()
    second.opened(opened("b"))
    await second.flush()
    program = f"""
import asyncio
from resilient_ai.stores import SQLiteLedger
async def main():
    ledger = SQLiteLedger({str(path)!r})
    print((await ledger.total()).sends)
    await ledger.aclose()
asyncio.run(main())
"""

    def elsewhere():
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
        return int(ran.stdout)

    assert await asyncio.to_thread(elsewhere) == 2
    for number in range(10):
        (first if number % 2 else second).opened(opened(f"c{number}"))
    await first.flush()
    await second.flush()
    assert await asyncio.to_thread(elsewhere) == 12
    assert (await first.total()).sends == 12


async def test_a_question_while_nothing_can_be_written(open_ledger, tmp_path, monkeypatch):
    """Is refused after a while, with the reason; a flush waits on, and all is well once it can be written."""
    monkeypatch.setattr(sqlite_ledger, "_WITHIN_STUCK", 0.3)
    ledger = open_ledger()
    await ledger.flush()
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ledger.opened(opened())
        flushed = asyncio.ensure_future(ledger.flush())
        for ask in (ledger.total, ledger.calls, ledger.saved):
            with pytest.raises(BookUnavailable, match="the ledger cannot be asked: database is locked"):
                await ask()
        assert not flushed.done()
        other.execute("ROLLBACK")
    await flushed
    assert (await ledger.total()).sends == 1


async def test_the_first_question_to_a_file_that_cannot_be_opened(open_ledger, tmp_path, monkeypatch):
    """Is refused as well, and the end comes at once."""
    monkeypatch.setattr(sqlite_ledger, "_WITHIN_STUCK", 0.3)
    await open_ledger().aclose()
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ledger = open_ledger()
        with pytest.raises(BookUnavailable, match="database is locked"):
            await ledger.total()
        (finished,) = ledger.finish(60.0)
        await asyncio.wait_for(asyncio.wrap_future(finished), 10)
        other.execute("ROLLBACK")
