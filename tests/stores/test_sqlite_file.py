"""The file behind the thread that writes: faults that pass, paths that cannot be written, and files that are taken away."""

import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from decimal import Decimal

import pytest

from resilient_ai.core.budgets import Charge
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.ledger import CallSpared, SendClosed, SendOpened
from resilient_ai.stores import SQLiteLedger
from resilient_ai.stores._owed import LARGEST
from resilient_ai.stores._sqlite_budgets import Ask, Settlement, charge
from resilient_ai.stores._sqlite_file import LedgerFile, _passes
from resilient_ai.stores._sqlite_schema import MEMORY

pytestmark = pytest.mark.anyio
LOG = "resilient_ai.stores"
ONE = Charge(key="b", slice=0, first=0, amount=60, limit=100, until=2**40)
SPARED = CallSpared(call_id="c", at=1.0, kind="chat", model="m", outcome="hit", hits=1, saved=Decimal(2))


def opened(name="s"):
    return SendOpened(send_id=name, call_id="c", at=1.0, kind="chat", model="m", attempt=1)


def charged(connection, charges):
    ask = Ask(charges, 0.0)
    charge(connection, [ask])
    return ask.answer.result(0)


def names(connection):
    return [name for (name,) in connection.execute("SELECT send_id FROM sends ORDER BY send_id")]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "ledger.db"


@pytest.fixture
def file_at():
    """Make files, and close them."""
    files = []

    def make(path):
        files.append(LedgerFile(str(path), full=False))
        return files[-1]

    yield make
    for file in files:
        file.close()


@pytest.fixture
def blocked(path):
    """Let something else lie where the folder is to be."""
    path.parent.write_text("")
    return path.parent


class TestFaultsThatPass:
    """Nothing is begun anew in memory for their sake."""

    def test_no_descriptors(self, path):
        """A charge is refused while there are none, and sees what was spent once there are."""
        program = f"""
import asyncio, os, resource
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.budgets import Charge
from resilient_ai.stores import SQLiteLedger
one = Charge(key="b", slice=0, first=0, amount=60, limit=100, until=2**40)
async def main():
    first, second = SQLiteLedger({str(path)!r}), SQLiteLedger({str(path)!r})
    print((await first.charge([one])).admitted)
    await first.aclose()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    try:
        await second.charge([one])
    except BookUnavailable as error:
        print(error)
    for descriptor in taken:
        os.close(descriptor)
    found = await second.charge([one])
    print(found.admitted, found.spent, second.in_memory)
    await second.aclose()
asyncio.run(main())
"""
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        assert ran.stdout.splitlines() == [
            "True",
            f"the ledger cannot be asked: [Errno 24] Too many open files: '{path}'",
            "False (60,) False",
        ]

    @pytest.mark.parametrize(
        ("code", "passes"),
        [
            (sqlite3.SQLITE_BUSY, True),
            (sqlite3.SQLITE_FULL, True),
            (sqlite3.SQLITE_IOERR_READ, True),
            (sqlite3.SQLITE_CANTOPEN, True),
            (sqlite3.SQLITE_NOTADB, False),
            (sqlite3.SQLITE_READONLY_DIRECTORY, False),
        ],
    )
    def test_errors_of_the_database(self, code, passes):
        """Those of the disk and of locks pass; a file that is none, or may not be written, stays so."""
        error = sqlite3.OperationalError("whatever")
        error.sqlite_errorcode = code
        assert _passes(error) == passes

    def test_a_folder_without_rights(self, unprivileged):
        """A journal cannot be made there for a file that can be written."""
        folder, as_user = unprivileged
        with as_user():
            file = LedgerFile(str(folder / "l.db"), full=False)
            file.open()
            file.close()
            folder.chmod(0o500)
            file.open()
            assert (file.in_memory, file.refused) == (
                True,
                f"{folder / 'l.db'} cannot be written: attempt to write a readonly database",
            )
            file.close()


class TestPathsThatCannotBeWritten:
    """What is kept in memory until they can be."""

    def test_everything_is_written_later(self, path, blocked, file_at, caplog):
        """Sends and what was spared, and what was settled is added to its counters, with a word in the log."""
        file = file_at(path)
        file.write([opened("a"), opened("b"), SPARED, Settlement((ONE,)), Settlement((asked(-70),))])
        assert (file.in_memory, counters(file.open())) == (True, [])
        blocked.unlink()
        other = file_at(path)
        charged(other.open(), [ONE, asked(40, key="c")])
        file.open()
        assert file.in_memory  # it is not tried all the time
        file._again_at = 0.0
        with caplog.at_level(logging.WARNING, LOG):
            connection = file.open()
        assert [record.getMessage() for record in caplog.records][1:] == [
            f"ledger {path} can be written again, and has what was kept in memory"
        ]
        assert (file.in_memory, file.refused, names(connection)) == (False, None, ["a", "b"])
        assert names(other.open()) == ["a", "b"]
        assert connection.execute("SELECT id, saved FROM spared").fetchall() == [(1, "2")]
        assert counters(connection) == [("b", 50), ("c", 40)]
        file.write([SendClosed(send_id="a", state="settled", cost=Decimal(1))])
        assert connection.execute("SELECT state, cost FROM sends").fetchall() == [("settled", "1"), ("sent", None)]

    def test_it_is_tried_once_more_at_the_end(self, path, blocked, file_at):
        """And what was in flight is unknown then."""
        file = file_at(path)
        file.write([opened()])
        blocked.unlink()
        file.close()
        assert file_at(path).open().execute("SELECT state FROM sends").fetchall() == [("unknown",)]

    @pytest.mark.parametrize("kept", [[opened()], [Settlement((ONE,))], []])
    def test_what_is_lost_is_said(self, path, blocked, file_at, caplog, kept):
        """Where there is something."""
        file = file_at(path)
        file.write(kept)
        file._again_at = 0.0
        with caplog.at_level(logging.WARNING, LOG):
            file.open()
            file.close()
        sends = sum(isinstance(one, SendOpened) for one in kept)
        assert [record.getMessage() for record in caplog.records][1:] == (
            [f"ledger {path}: {sends} sends that were kept in memory are lost"] if kept else []
        )

    def test_what_cannot_be_written_stays(self, path, blocked, file_at):
        """The file has nothing of it then; of what no counter can hold it has as much as one can."""
        file = file_at(path)
        file.write([opened(), Settlement((ONE,)), Settlement((asked(2**70, key="c"),))])
        blocked.unlink()
        other = file_at(path)
        other.open().execute("CREATE TRIGGER no BEFORE INSERT ON sends BEGIN SELECT RAISE(ABORT, 'no'); END")
        file._again_at = 0.0
        assert names(file.open()) == ["s"]
        assert (file.in_memory, names(other.open())) == (True, [])
        other.open().execute("DROP TRIGGER no")
        file._again_at = 0.0
        assert counters(file.open()) == [("b", 60), ("c", LARGEST)]

    async def test_charges_are_refused(self, path, blocked):
        """Until it can be written, and then they count what others have spent."""
        ledger = SQLiteLedger(path)
        with pytest.raises(BookUnavailable, match="cannot be written"):
            await ledger.charge([ONE])
        blocked.unlink()
        ledger._writer._file._again_at = 0.0
        assert (await ledger.charge([ONE])).admitted
        await ledger.aclose()


class TestFilesThatAreTakenAway:
    """Somebody deletes, moves or replaces a file that is in use."""

    @pytest.mark.parametrize("suffixes", [("", "-wal", "-shm"), ("",), ("", "-wal")])
    def test_deleted(self, path, file_at, caplog, suffixes):
        """All who have it open go on in one new file, with a warning for each."""
        one, two = file_at(path), file_at(path)
        charged(one.open(), [ONE])
        two.open()
        for suffix in suffixes:
            path.with_name(path.name + suffix).unlink()
        with caplog.at_level(logging.WARNING, LOG):
            found = [charged(file.open(), [ONE]) for file in (two, one, file_at(path))]
            assert [(each.admitted, each.spent) for each in found] == [(True, (0,)), (False, (60,)), (False, (60,))]
        assert [record.getMessage() for record in caplog.records] == [
            f"ledger {path} was deleted, moved or replaced while it was in use, so it is begun anew"
        ] * 2
        assert one.open().execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def test_moved(self, path, file_at, tmp_path):
        """It has all that was written into it, and nothing in flight."""
        file = file_at(path)
        file.write([opened("old")])
        path.rename(tmp_path / "moved.db")
        file.write([opened("new")])
        assert names(file.open()) == ["new"]
        with closing(sqlite3.connect(tmp_path / "moved.db")) as moved:
            assert moved.execute("SELECT send_id, state FROM sends").fetchall() == [("old", "unknown")]

    def test_replaced_by_another_ledger(self, path, file_at, tmp_path):
        """The one that lies there now is used, without the journal of the one before."""
        ready = file_at(tmp_path / "other.db")
        ready.write([opened("theirs")])
        ready.close()
        file = file_at(path)
        file.write([opened("ours")])
        (tmp_path / "other.db").replace(path)
        assert names(file.open()) == ["theirs"]

    def test_replaced_by_another_database(self, path, file_at, tmp_path):
        """It is left as it is."""
        with closing(sqlite3.connect(tmp_path / "birds.db")) as birds:
            birds.execute("CREATE TABLE birds (name)")
        content = (tmp_path / "birds.db").read_bytes()
        file = file_at(path)
        file.open()
        (tmp_path / "birds.db").replace(path)
        file.open()
        assert (
            file.refused
            == f"{path} cannot be written: {path} is a database of something else: it has the tables ['birds']"
        )
        assert path.read_bytes() == content

    def test_what_cannot_be_told(self, path, file_at):
        """A path that cannot be looked at takes nothing away."""
        file = file_at(path)
        file.write([opened()])
        path.rename(path.with_name("moved"))
        path.symlink_to(path)
        assert names(file.open()) == ["s"]

    def test_a_journal_without_its_file(self, path, file_at):
        """It belongs to a file that was deleted, and is not taken for that of the new one."""
        path.parent.mkdir()
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).write_bytes(b"left" * 100)
        assert names(file_at(path).open()) == []

    def test_in_memory(self, file_at):
        """There is nothing to take away."""
        file = file_at(MEMORY)
        file.write([opened()])
        assert (file.in_memory, file.refused, names(file.open())) == (True, None, ["s"])


def asked(amount, **fields):
    return Charge(**({"key": "b", "slice": 0, "first": 0, "amount": amount, "limit": 100, "until": 2**40} | fields))


def counters(connection):
    return connection.execute("SELECT key, spent FROM budget_counters ORDER BY key").fetchall()
