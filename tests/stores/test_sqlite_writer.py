"""The thread that writes the ledger: what waits, what is lost, and what it does not stumble over."""

import logging
import sqlite3
import threading
from contextlib import closing

import pytest

from resilient_ai.core.budgets import Charge
from resilient_ai.core.ledger import SendClosed, SendOpened
from resilient_ai.stores._sqlite_schema import MEMORY
from resilient_ai.stores._sqlite_writer import LedgerWriter

LOG = "resilient_ai.stores"


ONE = Charge(key="b", slice=0, first=0, amount=1, limit=300, until=2**40)


def opened(number=0):
    return SendOpened(send_id=f"s{number}", call_id="c", at=1.0, kind="chat", model="m", attempt=1)


def count(connection):
    return connection.execute("SELECT count(*) FROM sends").fetchone()[0]


@pytest.fixture
def writer_on(tmp_path):
    """Make writers, and have them finish in the end."""
    writers = []

    def make(path=None, **options):
        writers.append(LedgerWriter(str(path or tmp_path / "ledger.db"), **({"full": False} | options)))
        return writers[-1]

    yield make
    for writer in writers:
        writer.finish(5.0).result()


@pytest.fixture
def held():
    """Let the thread of a writer wait until it is told to go on."""
    goes_on = threading.Event()

    def hold(writer):
        arrived = threading.Event()
        writer.ask(lambda _: arrived.set() or goes_on.wait())
        arrived.wait()
        return goes_on

    yield hold
    goes_on.set()


def test_reports_gather_in_groups_of_a_thousand(writer_on, held):
    """However many wait, all are written, and a question sees those before it and none after it."""
    writer = writer_on(MEMORY)
    goes_on = held(writer)
    for number in range(2500):
        writer.put(opened(number))
    seen = writer.ask(count)
    writer.put(opened("late"))
    later = writer.ask(count)
    goes_on.set()
    assert (seen.result(), later.result()) == (2500, 2501)


def test_charges_that_wait_share_transactions(writer_on, held):
    """With what was reported before the last of them, each is admitted as if it came alone."""
    writer, done = writer_on(), []
    goes_on = held(writer)
    writer.ask(lambda connection: connection.set_trace_callback(done.append))
    asked = []
    for number in range(400):
        writer.put(opened(number))
        asked.append(writer.charge([ONE], 0.0, None))
    writer.put(opened("late"))
    seen = writer.ask(count)
    goes_on.set()
    assert seen.result() == 401
    assert sum(answer.result(0).admitted for answer in asked) == 300
    writer.ask(lambda connection: connection.set_trace_callback(None)).result()
    assert done.count("COMMIT") == 4  # of reports, twice of charges, and of the report after them


def test_only_so_many_reports_wait(writer_on, held, caplog):
    """Those beyond are counted and complained about, and the others are written."""
    writer = writer_on(MEMORY, max_waiting=10)
    goes_on = held(writer)
    with caplog.at_level(logging.ERROR, LOG):
        for number in range(12):
            writer.put(opened(number))
    goes_on.set()
    assert (writer.ask(count).result(), writer.lost) == (10, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "ledger :memory: has lost 1 reports so far: too many reports wait to be written"
    ]


def test_losses_are_complained_about_now_and_then(writer_on, caplog):
    """At the first, and at every ten thousandth."""
    writer = writer_on(MEMORY, max_waiting=0)
    with caplog.at_level(logging.ERROR, LOG):
        for _ in range(20_001):
            writer.put(opened())
    assert [record.args[1] for record in caplog.records] == [1, 10_000, 20_000]
    assert not writer.running


def test_a_report_that_cannot_be_written_is_lost_alone(writer_on, held, caplog):
    """The others of its group are kept."""
    writer = writer_on(MEMORY)
    goes_on = held(writer)
    for number in range(3):
        writer.put(opened(number))
    writer.put(SendClosed(send_id="s1", state="settled", error=object()))
    writer.put(SendClosed(send_id="s2", state="settled"))
    goes_on.set()
    states = writer.ask(lambda connection: connection.execute("SELECT state FROM sends ORDER BY send_id").fetchall())
    assert (states.result(), writer.lost) == ([("sent",), ("sent",), ("settled",)], 1)
    assert "has lost 1 reports so far: Error binding parameter" in caplog.text


def test_a_question_that_fails_is_its_askers_matter(writer_on):
    """The next one is answered."""
    writer = writer_on(MEMORY)
    with pytest.raises(sqlite3.OperationalError, match="no such table: birds"):
        writer.ask(lambda connection: connection.execute("SELECT * FROM birds")).result()
    assert writer.ask(count).result() == 0


def test_a_cancelled_question_is_not_asked(writer_on, held):
    """Nobody waits for its answer."""
    writer = writer_on(MEMORY)
    goes_on = held(writer)
    asked = []
    question = writer.ask(asked.append)
    assert question.cancel()
    goes_on.set()
    assert (writer.ask(count).result(), asked) == (0, [])


def test_finishing_ends_the_thread_and_the_session(writer_on, tmp_path):
    """The file knows of no session then, and the writer works again when it is used again."""
    writer = writer_on()
    writer.put(opened())
    writer.finish(5.0).result()
    assert not writer.running
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as other:
        assert other.execute("SELECT count(*) FROM sessions").fetchall() == [(0,)]
    writer.put(opened(1))
    assert writer.ask(count).result() == 2


def test_what_is_reported_while_the_thread_ends_is_not_forgotten(writer_on, held):
    """A new thread takes it up."""
    writer = writer_on()
    goes_on = held(writer)
    finished = writer.finish(5.0)
    writer.put(opened())
    goes_on.set()
    finished.result()
    assert writer.ask(count).result() == 1


class TestLocks:
    """What happens while somebody else holds the file."""

    @pytest.fixture
    def lock(self, tmp_path):
        """Take and give back the right to write."""
        with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, check_same_thread=False)) as other:
            other.execute("PRAGMA journal_mode = WAL")
            yield other.execute

    def test_reports_wait_for_the_lock(self, writer_on, lock, caplog):
        """They are tried again until they are written, with one warning."""
        writer = writer_on()
        writer.ask(count).result()
        lock("BEGIN IMMEDIATE")
        warned = threading.Event()
        with caplog.at_level(logging.WARNING, LOG), caplog.filtering(lambda _: warned.set() or True):
            writer.put(opened())
            warned.wait()
            lock("ROLLBACK")
            assert writer.ask(count).result() == 1
        assert [record.getMessage().partition(", so")[2] for record in caplog.records] == [
            " reports wait: database is locked"
        ]
        assert writer.lost == 0

    def test_a_question_waits_for_the_lock(self, writer_on, lock, caplog):
        """Also one that is the first thing a ledger is used for."""
        lock("BEGIN IMMEDIATE")
        warned = threading.Event()
        with caplog.at_level(logging.WARNING, LOG), caplog.filtering(lambda _: warned.set() or True):
            answer = writer_on().ask(count)
            warned.wait()
            lock("ROLLBACK")
        assert answer.result() == 0

    def test_what_cannot_be_written_in_time_is_lost(self, writer_on, lock, caplog):
        """Finishing gives up after so many seconds, and counts."""
        writer = writer_on()
        writer.ask(count).result()
        lock("BEGIN IMMEDIATE")
        writer.put(opened(0))
        writer.put(opened(1))
        writer.finish(0.3).result()
        lock("ROLLBACK")
        assert writer.lost == 2
        assert "has lost 2 reports so far: database is locked" in caplog.text
        assert writer.ask(count).result() == 0

    def test_a_file_that_never_opened_is_given_up_as_well(self, writer_on, lock):
        """Finishing returns though there is nothing to close."""
        writer = writer_on()
        lock("BEGIN IMMEDIATE")
        writer.put(opened())
        writer.finish(0.0).result()
        lock("ROLLBACK")
        assert (writer.lost, writer.in_memory) == (1, False)
        assert writer.ask(count).result() == 0

    def test_it_tells_what_the_trouble_is(self, writer_on, lock, caplog):
        """As long as there is one."""
        writer = writer_on()
        writer.ask(count).result()
        assert writer.trouble is None
        lock("BEGIN IMMEDIATE")
        warned = threading.Event()
        with caplog.at_level(logging.WARNING, LOG), caplog.filtering(lambda _: warned.set() or True):
            writer.put(opened())
            answer = writer.ask(count)
            warned.wait()
        told = writer.ask(lambda _: writer.trouble)
        while writer.trouble is None:  # between the warning and the note are two lines
            pass
        assert writer.trouble == "database is locked"
        lock("ROLLBACK")
        assert (answer.result(), told.result()) == (1, None)

    def test_what_is_asked_of_a_file_that_never_opened(self, writer_on, lock, caplog):
        """It fails once the writer has given up."""
        writer = writer_on()
        lock("BEGIN IMMEDIATE")
        answer = writer.ask(count)
        with caplog.at_level(logging.CRITICAL, LOG):
            writer.finish(0.0).result()
        with pytest.raises(sqlite3.OperationalError, match="the file cannot be opened"):
            answer.result()
        lock("ROLLBACK")

    def test_a_charge_to_a_file_that_never_opened(self, writer_on, lock, caplog):
        """It fails as well, unless nobody waits for it."""
        writer = writer_on()
        lock("BEGIN IMMEDIATE")
        answers = [writer.charge([ONE], 0.0, None) for _ in range(2)]
        assert answers[0].cancel()
        with caplog.at_level(logging.CRITICAL, LOG):
            writer.finish(0.0).result()
        with pytest.raises(sqlite3.OperationalError, match="the file cannot be opened"):
            answers[1].result(0)
        lock("ROLLBACK")

    def test_charges_that_nobody_waits_for_are_given_up(self, writer_on, lock):
        """They do not keep a thread busy that cannot open its file."""
        writer = writer_on()
        lock("BEGIN IMMEDIATE")
        answers = [writer.charge([ONE], 0.0, None) for _ in range(2)]
        while writer.trouble is None:
            pass
        assert all(answer.cancel() for answer in answers)
        writer.finish(60.0).result(10)
        lock("ROLLBACK")

    def test_a_session_that_cannot_be_ended_is_left_to_others(self, writer_on, lock):
        """What had been written is there, and finishing fails nobody."""
        writer = writer_on()
        writer.put(opened())
        writer.ask(count).result()
        lock("BEGIN IMMEDIATE")
        writer.finish(5.0).result()
        lock("ROLLBACK")
        assert lock("SELECT state FROM sends").fetchall() == [("sent",)]

    def test_the_last_word_on_losses_is_the_whole_number(self, writer_on, lock, caplog):
        """Groups that are given up one after the other are not told one by one."""
        writer = writer_on()
        writer.ask(count).result()
        lock("BEGIN IMMEDIATE")
        for number in range(1500):
            writer.put(opened(number))
        writer.finish(0.3).result()
        lock("ROLLBACK")
        said = [record.args[1] for record in caplog.records if "has lost" in record.getMessage()]
        assert (writer.lost, said[-1]) == (1500, 1500)
        writer.finish(0.3).result()
        assert [record.args[1] for record in caplog.records if "has lost" in record.getMessage()] == said

    def test_a_question_that_nobody_waits_for_is_given_up(self, writer_on, lock):
        """So that who has only asked can end at once though the file cannot be opened."""
        writer = writer_on()
        lock("BEGIN IMMEDIATE")
        asked = writer.ask(count)
        while writer.trouble is None:
            pass
        assert writer.stuck_for >= 0.0
        asked.cancel()
        finished = writer.finish(60.0)
        finished.result(10)
        lock("ROLLBACK")
        assert (writer.stuck_for, writer.lost) == (0.0, 0)
