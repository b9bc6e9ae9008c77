"""The tables of the ledger: how they are made and put right."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from decimal import Decimal

import pytest

from resilient_ai.core.budgets import Charge
from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.ledger import LedgerSend, SendClosed, SendOpened
from resilient_ai.stores import SQLiteLedger
from resilient_ai.stores._sqlite_rows import write
from resilient_ai.stores._sqlite_schema import MEMORY, VERSION, check, connect, tag_of


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
        assert second.execute("PRAGMA user_version").fetchall() == [(VERSION,)]
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


# A file of version 1, as it was made and filled before sends had a list price.
VERSION_1 = """
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pid INTEGER NOT NULL,
    process TEXT NOT NULL
);
CREATE TABLE sends (
    send_id TEXT PRIMARY KEY,
    session INTEGER NOT NULL,
    call_id TEXT NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    tenant TEXT,
    user TEXT,
    feature TEXT,
    environment TEXT,
    tags TEXT,
    state TEXT NOT NULL DEFAULT 'sent',
    cost TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cached_tokens INTEGER,
    reasoning_tokens INTEGER,
    error TEXT,
    elapsed REAL
);
CREATE INDEX sends_at ON sends (at);
CREATE INDEX sends_call ON sends (call_id);
CREATE INDEX sends_in_flight ON sends (session) WHERE state = 'sent';
PRAGMA user_version = 1;
INSERT INTO sessions (pid, process) VALUES (1073741824, 'gone');
INSERT INTO sends (send_id, session, call_id, at, kind, model, attempt, tenant, tags, state, cost, input_tokens, elapsed)
VALUES ('settled', 1, 'c', 1.0, 'chat', 'm', 1, 'x', '{"team": "red"}', 'settled', '0.10', 7, 0.5);
INSERT INTO sends (send_id, session, call_id, at, kind, model, attempt) VALUES ('orphan', 1, 'd', 2.0, 'chat', 'm', 1);
"""


@pytest.fixture
def old_file(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)
    return path


def test_a_file_of_version_1_is_brought_up_to_date(old_file):
    """Nothing is lost, what was in flight is unknown, and whether old sends were used is not known, which wastes nothing."""
    check(old_file)
    ledger = SQLiteLedger(old_file)
    orphan, settled = asyncio.run(ledger.sends())
    assert settled == LedgerSend(
        send_id="settled",
        call_id="c",
        at=1.0,
        kind="chat",
        model="m",
        attempt=1,
        state="settled",
        tags={"tenant": "x", "team": "red"},
        cost=Decimal("0.10"),
        input_tokens=7,
        elapsed=0.5,
    )
    assert (orphan.state, orphan.used) == ("unknown", None)
    end = SendClosed(send_id="orphan", state="settled", cost=Decimal(3), list_cost=Decimal(2), used=False)
    ledger.closed(end)
    total = asyncio.run(ledger.total())
    assert (total.sends, total.cost, total.wasted, total.unknown) == (2, Decimal("3.10"), Decimal(3), 0)
    ledger.close()
    new, _ = connect(old_file, full=False)
    with closing(new):
        assert new.execute("PRAGMA user_version").fetchall() == [(VERSION,)]
        assert new.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_counters_of_version_2_go_on(path):
    """They have the same life, which is no loss."""
    connection, _ = connect(path, full=False)
    with closing(connection):
        connection.execute("ALTER TABLE budget_counters DROP COLUMN life")
        connection.execute("PRAGMA user_version = 2")
        connection.execute("INSERT INTO budget_counters (key, slice, spent, until) VALUES ('a', 0, 7, 100000000000)")
    ledger = SQLiteLedger(path)
    found = asyncio.run(ledger.charge([Charge(key="a", slice=0, first=0, amount=1, limit=9, until=10**11)]))
    assert (found.spent, found.lives) == ((7,), (1,))
    ledger.close()


def test_a_file_that_was_brought_up_to_date_is_like_a_new_one(old_file, tmp_path):
    """It has the same tables, columns and indexes."""

    def form(file):
        with closing(connect(file, full=False)[0]) as connection:
            names = sorted(connection.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall())
            columns = {name: connection.execute(f"PRAGMA table_xinfo({name})").fetchall() for _, name, _ in names}
            return names, columns

    assert form(old_file) == form(str(tmp_path / "new.db"))


def test_a_file_is_brought_up_to_date_whole_or_not_at_all(old_file):
    """Where one step fails, the file is as it was, and can still be used by the version that made it."""
    with closing(sqlite3.connect(old_file)) as connection:
        connection.execute("CREATE TABLE spared (something)")
    with pytest.raises(sqlite3.OperationalError, match="table spared already exists"):
        connect(old_file, full=False)
    with closing(sqlite3.connect(old_file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchall() == [(1,)]
        assert "used" not in {row[1] for row in connection.execute("PRAGMA table_info(sends)")}
        assert connection.execute("SELECT count(*) FROM sends").fetchall() == [(2,)]


def test_several_processes_bring_it_up_to_date_at_once(old_file):
    """One does it, the others find it done."""
    program = "import sys; from resilient_ai.stores._sqlite_schema import connect; connect(sys.argv[1], full=False)"
    crew = [subprocess.Popen([sys.executable, "-c", program, old_file]) for _ in range(4)]
    assert [process.wait(30) for process in crew] == [0] * 4


def test_a_ledger_that_is_just_being_made_is_no_other_database(tmp_path):
    """Whoever looks at it meanwhile finds no tables, or all of them and their version."""
    paths = [str(tmp_path / f"{number}.db") for number in range(150)]
    now, done, looks, errors = [paths[0]], threading.Event(), [0], []

    def look():
        while not done.is_set():
            try:
                check(now[0])
            except ConfigurationError as error:
                errors.append(error)
            looks[0] += 1

    thread = threading.Thread(target=look)
    thread.start()
    for now[0] in paths:
        connect(now[0], full=False)[0].close()
    done.set()
    thread.join()
    assert (errors, looks[0] > 0) == ([], True)
