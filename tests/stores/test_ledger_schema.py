"""The tables of the ledger: how they are made and put right."""

import os
import sqlite3
from contextlib import closing

import pytest

from resilient_ai.core.protocols import SendOpened
from resilient_ai.stores._ledger_rows import write
from resilient_ai.stores._ledger_schema import MEMORY, check, connect, tag_of


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "ledger.db")


def begin(send_id):
    return SendOpened(send_id=send_id, call_id="c", at=1.0, kind="chat", model="m", attempt=1)


def states(connection):
    return dict(connection.execute("SELECT send_id, state FROM sends").fetchall())


@pytest.mark.parametrize("process", ["another/boot/17", ""])
def test_sends_of_the_dead_become_unknown(path, process):
    """A session whose process is not what bears its number now has ended; this process's own has not."""
    mine, session = connect(path, full=False)
    with closing(mine):
        write(mine, session, [begin("mine")])
        theirs = mine.execute("INSERT INTO sessions (pid, process) VALUES (?, ?)", (os.getpid(), process)).lastrowid
        write(mine, theirs, [begin("theirs")])
        other, _ = connect(path, full=False)
        with closing(other):
            assert states(other) == {"mine": "sent", "theirs": "unknown"}
            assert (theirs,) not in other.execute("SELECT id FROM sessions").fetchall()


def test_sends_without_a_session_become_unknown_at_the_next_clean_up(path):
    """Such as those whose end could not be written when their ledger was closed."""
    mine, session = connect(path, full=False)
    with closing(mine):
        write(mine, session, [begin("lost")])
        mine.execute("UPDATE sessions SET pid = ?", (2**30,))
    other, _ = connect(path, full=False)
    with closing(other):
        assert states(other) == {"lost": "unknown"}


def test_tables_are_made_once(path):
    """A second connection finds them, in a file that names its version, with a journal that readers share."""
    first, one = connect(path, full=True)
    second, two = connect(path, full=True)
    with closing(first), closing(second):
        assert one != two
        assert second.execute("PRAGMA user_version").fetchall() == [(1,)]
        assert second.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


def test_a_file_that_is_no_database_cannot_be_opened(path):
    """Should one take the ledger's place after it was checked."""
    with open(path, "w") as file:  # noqa: PTH123
        file.write("Dear diary, " * 100)
    with pytest.raises(sqlite3.DatabaseError, match="file is not a database"):
        connect(path, full=False)


@pytest.mark.parametrize("name", [MEMORY, "/nowhere/at/all", "/"])
def test_what_is_not_there_is_fine(name):
    """Nothing to complain of, and nothing is made."""
    assert check(name) is None


def test_a_name_with_signs_of_an_address(tmp_path):
    """It is checked as a path all the same."""
    path = str(tmp_path / "a?mode=rw#b%20c.db")
    connect(path, full=False)[0].close()
    assert check(path) is None


def test_a_file_that_cannot_be_read_now_is_left_to_the_writer(path):
    """A lock of somebody else's is no reason to refuse it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("CREATE TABLE birds (name)")
        other.execute("BEGIN EXCLUSIVE")
        assert check(path) is None


@pytest.mark.parametrize(
    ("tags", "value"), [(None, None), ("{}", None), ('{"team": "red"}', "red"), ('{"team": 7}', "7"), ("", None)]
)
def test_a_tag_without_a_column(tags, value):
    """It is looked up in the JSON."""
    assert tag_of(tags, "team") == value
