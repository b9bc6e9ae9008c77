"""Rows of sends that are about to leave: kept until they are written, and found by others when their process is dead."""

import asyncio
import logging
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from types import MappingProxyType

import orjson
import pytest

from resilient_ai.core.ledger import SendClosed, SendOpened
from resilient_ai.stores import SQLiteLedger
from resilient_ai.stores._intent_file import IntentFile, read
from resilient_ai.stores._ledger_intents import Intents, intents_of, left_behind
from resilient_ai.stores._process import identity

LOG = "resilient_ai.stores"
UNTOLD = "of which no row will tell if the process is killed before they are written"
TAGS = MappingProxyType({"tenant": "acme", "team": "red"})


def line_of(content):
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def row(name="s", **fields):
    return SendOpened(
        **({"send_id": name, "call_id": "c", "at": 1.5, "kind": "chat", "model": "m", "attempt": 1} | fields)
    )


@pytest.fixture
def place(tmp_path):
    return tmp_path / "ledger-intents"


@pytest.fixture
def killed(place, in_child):
    """Let a child keep rows and die, as if it had been killed."""

    def keep(*rows):
        def work():
            intents = Intents(place)
            for one in rows:
                intents.put(one)
            return intents.skipped == 0

        assert in_child(work) == 0

    return keep


def found(place):
    return [one for group in left_behind(place) for _, rows in group for one in rows]


def files(place):
    return [path for path in place.parent.iterdir() if path.name.startswith(place.name)]


class TestRows:
    """What is kept, and how."""

    def test_all_of_a_row(self, killed, place):
        """Comes back as it was."""
        killed(row("a", tags=TAGS, attempt=3), row("b"))
        assert sorted(found(place), key=lambda one: one.send_id) == [
            row("a", tags={"tenant": "acme", "team": "red"}, attempt=3),
            row("b", tags={}),
        ]

    def test_long_tags(self, killed, place):
        """Are kept as far as they fit, and else the row without them."""
        killed(row("a", tags={"tenant": "x" * 5000}), row("b", tags={"tenant": "x" * 50_000}))
        assert {one.send_id: one.tags for one in found(place)} == {"a": {"tenant": "x" * 5000}, "b": {}}

    def test_rows_for_which_no_large_slot_is_left(self, killed, place):
        """Are kept without their tags."""
        tags = {"tenant": "x" * 600}
        killed(
            *(row(f"{number}", tags=tags) for number in range(64)),
            row("a", tags=tags),
            row("b", model="m\ud800", tags=tags),
        )
        assert {one.send_id: one.tags for one in found(place) if one.send_id in {"63", "a", "b"}} == {
            "63": tags,
            "a": {},
            "b": {},
        }

    def test_a_time_without_a_fraction(self, place):
        """Is a time as any other."""
        file = IntentFile(place.with_name(f"{place.name}-1-0"), [1, os.getpid(), "nobody"])
        file.put("s", line_of(["s", "c", 2, "chat", "m", 1, None]))
        (only,) = found(place)
        assert (only, type(only.at)) == (row("s", at=2.0), float)

    def test_text_that_is_no_unicode(self, killed, place):
        """Has question marks, as it has in the ledger."""
        killed(row(model="m\ud800", tags={"user\udfff": "\ud800"}))
        assert found(place) == [row(model="m?", tags={"user?": "?"})]

    def test_a_name_that_is_kept_already(self, place):
        """Takes no second slot."""
        intents = Intents(place)
        intents.put(row())
        intents.put(row(model="another"))
        intents.drop([row()])
        intents.close()
        assert files(place) == []

    def test_what_nothing_can_hold(self, place):
        """Is counted, and nobody fails by it."""
        intents = Intents(place)
        intents.put(row(attempt=object()))
        intents.put(row("long", model="m" * 10_000))
        for number in range(4097):
            intents.put(row(f"{number}"))
        assert intents.skipped == 3
        intents.drop([row("0"), SendClosed(send_id="1", state="settled")])
        intents.put(row("room again"))
        assert intents.skipped == 3

    def test_that_there_was_no_room_is_told_once_a_minute(self, place, caplog):
        """With how many sends that were."""
        intents = Intents(place)
        with caplog.at_level(logging.WARNING, LOG):
            for number in range(4100):
                intents.put(row(f"{number}"))
            assert caplog.messages == [f"{place}: no room for 1 sends so far, {UNTOLD}"]
            intents._tell_at = 0.0
            intents.put(row("more"))
        assert caplog.messages[1:] == [f"{place}: no room for 5 sends so far, {UNTOLD}"]

    def test_what_is_held_is_kept_until_something_is_dropped(self, place):
        """As only then the ledger has it."""
        intents = Intents(place)
        for name in "abc":
            intents.put(row(name))
        intents.hold([row("a"), row("b"), row("never"), SendClosed(send_id="c", state="settled")])
        (path,) = files(place)
        assert sorted(content[0] for content in read(path)) == ["a", "b", "c"]
        intents.drop([])
        assert [content[0] for content in read(path)] == ["c"]


class TestFiles:
    """Whose they are, and when they go."""

    def test_one_that_is_empty_is_removed_at_the_end(self, place):
        """And another one is made when there is something again."""
        intents = Intents(place)
        intents.close()
        assert files(place) == []
        for name in "ab":
            intents.put(row(name))
            assert len(files(place)) == 1
            intents.drop([row(name)])
            intents.close()
            assert files(place) == []

    def test_what_was_not_written_is_left_to_the_next(self, place):
        """Also to one of the same process."""
        intents = Intents(place)
        intents.put(row("a"))
        intents.close()
        intents.drop([row("a")])
        assert found(place) == [row("a")]

    def test_those_of_the_living_are_left_alone(self, place):
        """Nobody but their owner knows what becomes of them."""
        intents = Intents(place)
        intents.put(row())
        assert found(place) == []
        assert len(files(place)) == 1

    def test_a_child_has_one_of_its_own(self, place, in_child):
        """That of the parent says nothing of it."""
        intents = Intents(place)
        intents.put(row("parent"))

        def work():
            own = Intents(place)
            own.put(row("child"))
            return len(files(place)) == 2

        assert in_child(work) == 0
        assert found(place) == [row("child")]

    @pytest.mark.parametrize("owner", [None, [1], "?", [1, 2, 3]])
    def test_a_file_that_does_not_say_whose_it_is(self, place, killed, owner):
        """Is told by the number of the process in its name."""
        killed(row())
        (path,) = files(place)
        ours = path.with_name(f"{place.name}-{os.getpid()}-0")
        for each in (path, ours):
            IntentFile(each.with_name("draft"), owner)
            head = each.with_name("draft").read_bytes()[:512]
            each.with_name("draft").unlink()
            each.write_bytes(head + path.read_bytes()[512:])
        assert [path.name for group in left_behind(place) for path, rows in group if rows] == [path.name]

    def test_a_file_that_has_not_said_whose_it_is_for_a_minute(self, place):
        """Is nobody's, even if the number is that of a living process; what is whole is read."""
        file = IntentFile(place.with_name(f"{place.name}-{os.getpid()}-0"), None)
        file.put("s", line_of(["s", "c", 1.5, "chat", "m", 1, None]))
        os.truncate(file.path, 3_000_000)
        assert found(place) == []
        os.utime(file.path, (1.0, 1.0))
        assert found(place) == [row("s")]

    def test_a_file_of_a_newer_version(self, place):
        """Is left to those who can read it."""
        IntentFile(place.with_name(f"{place.name}-1-0"), [2, 0, "nobody"])
        assert list(left_behind(place)) == []

    @pytest.mark.parametrize(
        "content",
        [
            {},
            [],
            ["s"],
            [1, "c", 1.5, "chat", "m", 1, None],
            ["s", "c", 1.5, "chat", "m", 2**40, None],
            ["s", "c", None, "chat", "m", 1, None],
            ["s", "c", 1.5, "chat", "m", 1, ["tenant"]],
            ["s", "c", 1.5, "chat", "m", 1, {"tenant": 5}],
        ],
    )
    def test_a_slot_that_holds_no_row(self, place, content, caplog):
        """Is left out, with a word in the log, and the others are read."""
        file = IntentFile(place.with_name(f"{place.name}-1-0"), [1, os.getpid(), "nobody"])
        file.put("s", line_of(content))
        file.put("t", line_of(["t", "c", 1.5, "chat", "m", 1, None]))
        assert found(place) == [row("t")]
        assert caplog.messages == [f"{file.path} has 1 rows that cannot be understood, which are passed over"]

    def test_one_that_is_deleted_while_it_is_used(self, place):
        """Is begun anew, also where its whole folder is gone."""
        intents = Intents(place.parent / "home" / "l")
        intents.put(row("a"))
        shutil.rmtree(place.parent / "home")
        intents.drop([row("a")])
        intents.put(row("b"))
        (path,) = (place.parent / "home").iterdir()
        assert [content[0] for content in read(path)] == ["b"]

    def test_it_is_looked_for_at_most_once_a_second(self, place):
        """As that takes as long as storing a row."""
        intents = Intents(place)
        intents.put(row("a"))
        intents.drop([])
        files(place)[0].unlink()
        intents.drop([row("a")])
        intents.put(row("b"))
        assert files(place) == []
        intents._look_at = 0.0
        intents.drop([row("b")])
        intents.put(row("c"))
        assert len(files(place)) == 1

    def test_processes_of_another_namespace(self, place, in_child):
        """Of the same boot are dead when their file is not locked any more, as their numbers say nothing here."""
        boot, _, started = identity(os.getpid()).split("/")
        owner = [1, 1, f"{boot}/pid:[1]/{started}"]
        content = line_of(["s", "c", 1.5, "chat", "m", 1, None])
        lives = IntentFile(place.with_name(f"{place.name}-1-0"), owner)
        lives.put("s", content)
        assert found(place) == []
        path = place.with_name(f"{place.name}-1-1")
        assert in_child(lambda: IntentFile(path, owner).put("s", content)) == 0
        assert [[path for path, _ in group] for group in left_behind(place)] == [[path]]

    def test_many_come_in_groups(self, place):
        """Of so many files, and as soon as there are so many rows."""
        for number in range(101):
            IntentFile(place.with_name(f"{place.name}-1-{number:03}"), [1, 1, "nobody"])
        assert [len(group) for group in left_behind(place)] == [100, 1]
        place = place.with_name("many rows")
        for number in range(4):
            file = IntentFile(place.with_name(f"{place.name}-1-{number}"), [1, 1, "nobody"])
            for name in range(4000):
                file.put(f"{name}", line_of([f"{number} {name}", "c", 1.5, "chat", "m", 1, None]))
        assert [sum(len(rows) for _, rows in group) for group in left_behind(place)] == [12_000, 4_000]

    def test_what_is_no_file_of_ours(self, place, tmp_path, killed):
        """Links, folders and pipes of such a name are passed over."""
        killed(row())
        (path,) = files(place)
        elsewhere = path.rename(tmp_path / "elsewhere")
        place.with_name(f"{place.name}-1-a").symlink_to(elsewhere)
        place.with_name(f"{place.name}-1-b").mkdir()
        os.mkfifo(place.with_name(f"{place.name}-1-c"))
        place.with_name(f"{place.name}-notes").write_text("mine")
        assert list(left_behind(place)) == []

    def test_where_there_is_no_folder(self, place):
        """Nobody has left anything."""
        assert list(left_behind(place / "nowhere" / "l")) == []


class TestWhereNoneCanBeMade:
    """Rows are not kept then, and nothing else happens."""

    def test_no_rights(self, unprivileged, caplog):
        """It is said once."""
        folder, as_user = unprivileged
        folder.chmod(0o500)
        with as_user(), caplog.at_level(logging.WARNING, LOG):
            intents = Intents(folder / "l")
            for name in "ab":
                intents.put(row(name))
                intents.drop([row(name)])
                intents.complain("l.db")
            intents.close()
        assert intents.skipped == 2
        (said,) = (record.getMessage() for record in caplog.records)
        assert said.startswith(
            "ledger l.db does not know of sends that leave in the last moment before a kill: [Errno 13]"
        )

    def test_no_room(self, place, in_child):
        """Nothing is left of the attempt, and it is tried again later."""

        def work():
            most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most[1]))
            intents = Intents(place)
            intents.put(row("a"))
            nothing = files(place) == []
            resource.setrlimit(resource.RLIMIT_FSIZE, most)
            intents.put(row("b"))
            nothing = nothing and files(place) == []
            intents._again_at = 0.0
            intents.put(row("c"))
            return nothing and intents.skipped == 2 and len(files(place)) == 1

        assert in_child(work) == 0


class TestLedger:
    """What becomes of them in a ledger."""

    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "home" / "ledger.db"

    def kill(self, path, *lines):
        """Let a process die by SIGKILL right behind these lines."""
        program = "\n".join(
            [
                "import asyncio, os, signal",
                "from resilient_ai.core.ledger import SendClosed, SendOpened",
                "from resilient_ai.stores import SQLiteLedger",
                f"ledger = SQLiteLedger({str(path)!r})",
                "def opened(name):",
                "    row = dict(send_id=name, call_id='c', at=1.0, kind='chat', model='m', attempt=1, tags={'tenant': 'acme'})",
                "    ledger.opened(SendOpened(**row))",
                *lines,
                "os.kill(os.getpid(), signal.SIGKILL)",
            ]
        )
        ran = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
        assert ran.returncode == -signal.SIGKILL

    async def states(self, ledger):
        return {send.send_id: (send.state, send.cost, send.tags) for send in await ledger.sends()}

    @pytest.mark.anyio
    async def test_a_send_before_a_kill_has_a_row(self, path, open_ledger):
        """It is unknown, with its tags, and the file that told of it is gone."""
        self.kill(path, "opened('a')", "opened('b')")
        assert len(files(intents_of(str(path)))) == 1
        ledger = open_ledger(path)
        unknown = ("unknown", None, {"tenant": "acme"})
        assert await self.states(ledger) == {"a": unknown, "b": unknown}
        assert files(intents_of(str(path))) == []

    @pytest.mark.anyio
    async def test_what_was_written_counts(self, path, open_ledger):
        """An end that is in the book is not touched by what was left behind."""
        lines = [
            "ledger._writer._intents.drop = lambda reports: None",  # as if it were killed between the two
            "opened('a')",
            "ledger.closed(SendClosed(send_id='a', state='never_sent'))",
            "asyncio.run(ledger.flush())",
            "opened('b')",
        ]
        self.kill(path, *lines)
        states = await self.states(open_ledger(path))
        assert {name: state for name, (state, *_) in states.items()} == {"a": "never_sent", "b": "unknown"}

    @pytest.mark.anyio
    async def test_two_who_come_at_once(self, path, open_ledger):
        """Write it once."""
        self.kill(path, *(f"opened('{number}')" for number in range(50)))
        one, two = open_ledger(path), open_ledger(path)
        assert [total.sends for total in await asyncio.gather(one.total(), two.total())] == [50, 50]

    @pytest.mark.anyio
    async def test_a_living_process_reports_on(self, path, open_ledger):
        """Another one that opens the file takes nothing of it."""
        ledger = open_ledger(path)
        ledger.opened(row("a"))
        (kept,) = files(intents_of(str(path)))
        other = SQLiteLedger(path)
        assert (await other.total()).unknown <= 1
        await other.aclose()
        assert kept.exists()
        ledger.closed(SendClosed(send_id="a", state="never_sent"))
        assert [send.state for send in await ledger.sends()] == ["never_sent"]
        await ledger.aclose()
        assert files(intents_of(str(path))) == []

    def test_a_child_reports_into_a_file_of_its_own(self, path, open_ledger, in_child):
        """And the parent's is as it was."""
        ledger = open_ledger(path)
        ledger.opened(row("parent"))
        asyncio.run(ledger.flush())

        def work():
            ledger.opened(row("child"))
            return len(files(intents_of(str(path)))) == 2

        assert in_child(work) == 0
        with closing(SQLiteLedger(path)) as next_one:
            states = {send.send_id: send.state for send in asyncio.run(next_one.sends())}
        assert states == {"parent": "sent", "child": "unknown"}

    @pytest.mark.anyio
    async def test_what_was_given_up_at_the_end_comes_back(self, path, open_ledger):
        """As unknown, as soon as somebody opens a file that can be written."""
        first = open_ledger(path)
        await first.flush()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            first.opened(row("late"))
            for done in first.finish(0.3):
                done.result()
            other.execute("ROLLBACK")
        assert first.lost == 1
        assert [send.state for send in await open_ledger(path).sends()] == ["unknown"]

    @pytest.mark.anyio
    async def test_what_cannot_be_brought_in(self, path, open_ledger, caplog):
        """Stays where it is, with a word in the log, and the ledger works."""
        first = open_ledger(path)
        await first.flush()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("CREATE TRIGGER no BEFORE INSERT ON sends BEGIN SELECT RAISE(ABORT, 'birds'); END")
            self.kill(path, "opened('a')")
            second = open_ledger(path)
            with caplog.at_level(logging.WARNING, LOG):
                assert (await second.total()).sends == 0
            other.execute("DROP TRIGGER no")
        (kept,) = files(intents_of(str(path)))
        assert f"{kept} has sends of a process that died, which cannot be written: birds" in caplog.text
        assert not second.in_memory
        assert [send.send_id for send in await open_ledger(path).sends()] == ["a"]

    @pytest.mark.anyio
    async def test_what_cannot_be_brought_in_keeps_nothing_else_out(self, path, open_ledger):
        """The files beside it come in, and are gone."""
        first = open_ledger(path)
        await first.flush()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute(
                "CREATE TRIGGER no BEFORE INSERT ON sends WHEN NEW.send_id = 'b' BEGIN SELECT RAISE(ABORT, 'birds'); END"
            )
        for number, name in enumerate("abc"):
            file = IntentFile(path.with_name(f"{path.name}-intents-1-{number}"), [1, 1, "nobody"])
            file.put(name, line_of([name, "c", 1.5, "chat", "m", 1, None]))
        assert sorted([send.send_id for send in await open_ledger(path).sends()]) == ["a", "c"]
        assert [kept.name for kept in files(intents_of(str(path)))] == [f"{path.name}-intents-1-1"]

    @pytest.mark.anyio
    async def test_rows_that_are_only_in_memory_are_kept(self, path, open_ledger):
        """Until they are in a file."""
        path.parent.mkdir(mode=0o700)
        path.mkdir()
        ledger = open_ledger(path)
        ledger.opened(row("a"))
        await ledger.flush()
        assert ledger.in_memory
        (kept,) = files(intents_of(str(path)))
        assert [content[0] for content in read(kept)] == ["a"]
        path.rmdir()
        await ledger.aclose()
        assert files(intents_of(str(path))) == []
        assert [send.send_id for send in await open_ledger(path).sends()] == ["a"]

    @pytest.mark.anyio
    async def test_a_file_that_is_locked_is_waited_for(self, path, open_ledger, caplog):
        """What was left behind is brought in once it can be."""
        self.kill(path, "asyncio.run(ledger.flush())", "opened('a')")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            asked = asyncio.ensure_future(open_ledger(path).total())
            while "reports wait" not in caplog.text:  # noqa: ASYNC110  # it is another thread that says so
                await asyncio.sleep(0.01)
            other.execute("ROLLBACK")
        assert (await asked).unknown == 1

    @pytest.mark.anyio
    async def test_in_memory_there_are_none(self, tmp_path, monkeypatch):
        """Nobody would come to read them."""
        monkeypatch.chdir(tmp_path)
        ledger = SQLiteLedger(":memory:")
        ledger.opened(row())
        await ledger.aclose()
        assert list(tmp_path.iterdir()) == []
