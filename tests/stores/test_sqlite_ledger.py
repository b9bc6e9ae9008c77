"""The book of sends: what it keeps, that sums are exact, and that nothing acknowledged is lost."""

import asyncio
import logging
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from decimal import Decimal

import pytest

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.protocols import SendClosed, SendOpened
from resilient_ai.core.results import Usage
from resilient_ai.stores import LedgerRow, LedgerSend, LedgerTotal, SQLiteLedger

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
        "from resilient_ai.core.protocols import SendClosed, SendOpened",
        "from resilient_ai.stores import SQLiteLedger",
        "ledger = SQLiteLedger(sys.argv[1])",
        "def begin(name): ledger.opened(SendOpened(send_id=name, call_id='c', at=1.0, kind='chat', model='m', attempt=1))",
        "def settle(name): ledger.closed(SendClosed(send_id=name, state='settled', cost=Decimal('0.1')))",
        "def flush(): asyncio.run(ledger.flush())",
        *body,
    ]
    return subprocess.Popen([sys.executable, "-c", "\n".join(lines), *map(str, arguments)], stdout=subprocess.PIPE)


class TestWhatIsKept:
    """Rows, and the questions about them."""

    async def test_a_send_from_begin_to_end(self, open_ledger):
        """Every field of both reports comes back."""
        ledger = open_ledger()
        tags = {"tenant": "a", "user": "b", "feature": "f", "environment": "e", "team": "t"}
        usage = Usage(input_tokens=10, output_tokens=5, cached_tokens=3, reasoning_tokens=2)
        ledger.opened(opened(tags=tags, attempt=2))
        ledger.closed(closed(cost="0.25", usage=usage, error="ServerFailed", elapsed=1.5))
        assert await ledger.sends() == [
            LedgerSend(
                send_id="s",
                call_id="c",
                at=NOON,
                kind="chat",
                model="m",
                attempt=2,
                state="settled",
                tags=tags,
                cost=Decimal("0.25"),
                input_tokens=10,
                output_tokens=5,
                cached_tokens=3,
                reasoning_tokens=2,
                error="ServerFailed",
                elapsed=1.5,
            )
        ]

    async def test_a_send_in_flight(self, open_ledger):
        """It is there before its end is known, and its cost is not known."""
        ledger = open_ledger()
        ledger.opened(opened())
        (send,) = await ledger.sends()
        assert (send.state, send.cost, send.elapsed, send.tags) == ("sent", None, None, {})
        assert await ledger.total() == LedgerTotal(sends=1, cost=Decimal(0), unknown=1, input_tokens=0, output_tokens=0)

    async def test_an_empty_book(self, open_ledger):
        """Sums of nothing are zero, and there are no groups."""
        ledger = open_ledger()
        assert await ledger.total() == LedgerTotal(sends=0, cost=Decimal(0), unknown=0, input_tokens=0, output_tokens=0)
        assert await ledger.by("model") == []
        assert await ledger.sends() == []

    @pytest.mark.parametrize(
        ("amounts", "total"),
        [
            (["0.1", "0.2"], "0.3"),
            (["0.0000000000000000001"] * 3, "0.0000000000000000003"),
            (["123456789012345678", "0.0000000000000000001"], "123456789012345678.0000000000000000001"),
            (["1E-7", "2E+3"], "2000.0000001"),
            (["0.0000097"] * 1000, "0.0097"),
        ],
    )
    async def test_amounts_add_up_exactly(self, open_ledger, amounts, total):
        """No amount passes through a binary fraction, and none is rounded."""
        ledger = open_ledger()
        for number, amount in enumerate(amounts):
            write(ledger, f"s{number}", amount)
        assert (await ledger.total()).cost == Decimal(total)

    async def test_an_amount_keeps_its_digits(self, open_ledger):
        """What was reported as 0.10 is 0.10."""
        ledger = open_ledger()
        write(ledger, cost="0.10")
        assert str((await ledger.sends())[0].cost) == "0.10"

    @pytest.mark.parametrize("cost", [None, "NaN", "sNaN", "Infinity"])
    async def test_unknown_is_not_zero(self, open_ledger, cost):
        """A send without a price is counted as unknown, one that cost nothing is not."""
        ledger = open_ledger()
        write(ledger, "free", "0")
        write(ledger, "priceless", cost)
        total = await ledger.total()
        assert (total.sends, total.cost, total.unknown) == (2, 0, 1)
        assert {send.send_id: send.cost for send in await ledger.sends()} == {"free": 0, "priceless": None}

    async def test_what_was_never_sent_owes_nothing(self, open_ledger):
        """Its cost is not unknown."""
        ledger = open_ledger()
        write(ledger, state="never_sent")
        total = await ledger.total()
        assert (total.sends, total.unknown) == (1, 0)

    async def test_tokens_that_are_not_known_add_nothing(self, open_ledger):
        """The others are added up."""
        ledger = open_ledger()
        write(ledger, "a", usage=Usage(input_tokens=7))
        write(ledger, "b", usage=Usage(input_tokens=5, output_tokens=2))
        total = await ledger.total()
        assert (total.input_tokens, total.output_tokens) == (12, 2)

    async def test_the_first_end_counts(self, open_ledger):
        """A second one changes nothing, unless the first was unknown."""
        ledger = open_ledger()
        write(ledger, "a", "1")
        ledger.closed(closed("a", "2"))
        write(ledger, "b", state="unknown")
        ledger.closed(closed("b", "4", "estimated"))
        found = {send.send_id: (send.cost, send.state) for send in await ledger.sends()}
        assert found == {"a": (1, "settled"), "b": (4, "estimated")}

    async def test_a_send_is_written_once(self, open_ledger):
        """The same begin again, and the end of a send that never began, change nothing."""
        ledger = open_ledger()
        write(ledger, cost="1")
        ledger.opened(opened())
        ledger.closed(closed("stranger", "5"))
        total = await ledger.total()
        assert (total.sends, total.cost) == (1, 1)

    async def test_text_that_is_no_unicode(self, open_ledger):
        """Half of a surrogate pair becomes a question mark instead of a lost report."""
        ledger = open_ledger()
        write(ledger, "s\ud800", "1", tags={"team\udfff": "x", "tenant": "ü\ud800"})
        (send,) = await ledger.sends()
        assert (send.send_id, send.tags, send.cost) == ("s?", {"team?": "x", "tenant": "ü?"}, 1)
        assert ledger.lost == 0


class TestQuestions:
    """Sums by groups, times and tags."""

    @pytest.fixture
    def book(self, open_ledger):
        ledger = open_ledger()
        day = 86_400.0
        write(ledger, "1", "0.1", at=NOON, model="a", tags={"tenant": "x", "team": "red"}, call_id="one")
        write(ledger, "2", "0.2", at=NOON + 1, model="b", kind="embed", tags={"tenant": "y"}, call_id="one")
        write(ledger, "3", "0.4", at=NOON + day, model="a", tags={"tenant": "x", "user": "u", "team": "blue"})
        ledger.opened(opened("4", at=NOON + 2 * day, model="a", tags={"feature": "f", "environment": "e"}))
        return ledger

    @pytest.mark.parametrize(
        ("columns", "groups"),
        [
            (["model"], {("a",): (3, "0.5"), ("b",): (1, "0.2")}),
            (["kind"], {("chat",): (3, "0.5"), ("embed",): (1, "0.2")}),
            (["day"], {("2027-01-15",): (2, "0.3"), ("2027-01-16",): (1, "0.4"), ("2027-01-17",): (1, "0")}),
            (["tenant"], {(None,): (1, "0"), ("x",): (2, "0.5"), ("y",): (1, "0.2")}),
            (["user"], {(None,): (3, "0.3"), ("u",): (1, "0.4")}),
            (["feature"], {(None,): (3, "0.7"), ("f",): (1, "0")}),
            (["environment"], {(None,): (3, "0.7"), ("e",): (1, "0")}),
            (["state"], {("sent",): (1, "0"), ("settled",): (3, "0.7")}),
            (
                ["tenant", "model"],
                {(None, "a"): (1, "0"), ("x", "a"): (2, "0.5"), ("y", "b"): (1, "0.2")},
            ),
        ],
    )
    async def test_groups(self, book, columns, groups):
        """Each group has its own sums, sorted by the keys; a missing tag is None."""
        rows = await book.by(*columns)
        assert [row.key for row in rows] == list(groups)
        assert {row.key: (row.sends, row.cost) for row in rows} == {
            key: (sends, Decimal(cost)) for key, (sends, cost) in groups.items()
        }

    async def test_a_group_has_all_sums(self, book):
        """Unknown costs and tokens are those of the group."""
        write(book, "5", model="z", usage=Usage(input_tokens=3, output_tokens=4))
        assert (await book.by("model"))[-1] == LedgerRow(
            key=("z",), sends=1, cost=Decimal(0), unknown=1, input_tokens=3, output_tokens=4
        )

    @pytest.mark.parametrize("columns", [[], ["colour"], ["model", "at; DROP TABLE sends"]])
    async def test_columns_are_checked(self, book, columns):
        """None, and one that is not known, are refused by name."""
        with pytest.raises(ValueError, match=r"columns must be some of model, kind, day.*, got (none|\[')"):
            await book.by(*columns)

    async def test_a_period_has_its_begin_and_not_its_end(self, book):
        """`since` belongs to it, `until` does not, in sums and in groups."""
        assert (await book.total(since=NOON + 1)).sends == 3
        assert (await book.total(until=NOON + 1)).sends == 1
        assert (await book.total(since=NOON + 1, until=NOON + 2)).cost == Decimal("0.2")
        assert [row.sends for row in await book.by("model", since=NOON + 1, until=NOON + 86_401)] == [1, 1]

    @pytest.mark.parametrize(
        ("tags", "sends"),
        [
            ({"tenant": "x"}, 2),
            ({"team": "red"}, 1),
            ({"tenant": "x", "team": "blue"}, 1),
            ({"tenant": "y", "team": "blue"}, 0),
            ({"city": "Rome"}, 0),
            ({"environment": "e", "feature": "f"}, 1),
        ],
    )
    async def test_sums_of_some_tags(self, book, tags, sends):
        """Tags with and without a column of their own narrow alike."""
        assert (await book.total(**tags)).sends == sends

    async def test_the_latest_sends(self, book):
        """The newest first, at most `limit`, of one call if asked for."""
        assert [send.send_id for send in await book.sends()] == ["4", "3", "2", "1"]
        assert [send.send_id for send in await book.sends(limit=2)] == ["4", "3"]
        assert [send.send_id for send in await book.sends(call_id="one")] == ["2", "1"]
        assert await book.sends(call_id="none") == []

    async def test_the_limit_is_checked(self, book):
        """It is at least 1."""
        with pytest.raises(ValueError, match="limit must be >= 1, got 0"):
            await book.sends(limit=0)


class TestLife:
    """Opening, flushing, closing and opening again."""

    def test_options_show_and_are_checked(self, tmp_path):
        """An unknown durability is refused at construction."""
        assert repr(SQLiteLedger(tmp_path / "l.db")) == f"SQLiteLedger('{tmp_path}/l.db', durability='queued')"
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
        assert await ledger._ask(lambda connection: connection.execute("PRAGMA synchronous").fetchone()) == (level,)

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
            connection.execute("PRAGMA user_version = 2")
        before = (tmp_path / "l.db").read_bytes()
        with pytest.raises(ConfigurationError, match="is a ledger of version 2; this package knows version 1"):
            SQLiteLedger(tmp_path / "l.db")
        assert (tmp_path / "l.db").read_bytes() == before

    @pytest.mark.parametrize("version", [0, 1])
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
