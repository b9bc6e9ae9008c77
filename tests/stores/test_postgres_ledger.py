"""A book in a PostgreSQL that goes away, comes back, is not there, or holds what the dead have left."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal

import pytest

from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.ledger import CallSpared, SendClosed, SendOpened
from resilient_ai.stores import PostgresLedger
from resilient_ai.stores._postgres_address import target_of
from resilient_ai.stores._postgres_writer import PostgresWriter

from .postgres_server import shared_postgres
from .redis_server import Proxy

pytestmark = pytest.mark.anyio

LOG = "resilient_ai.stores"


def opened(send_id="s", **fields):
    return SendOpened(
        **({"send_id": send_id, "call_id": "c", "at": 1.0, "kind": "chat", "model": "m", "attempt": 1} | fields)
    )


def settled(send_id="s", cost="0.1", **fields):
    return SendClosed(send_id=send_id, state="settled", cost=Decimal(cost), **fields)


def spared(call_id="c"):
    return CallSpared(
        call_id=call_id, at=1.0, kind="chat", model="m", outcome="hit", hits=1, saved=Decimal("0.5"), tags={}
    )


async def until(condition, patience=20.0):
    """Wait for something that another thread brings about."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@pytest.fixture
def postgres(request):
    server = shared_postgres(request)
    yield server
    if not server.running:
        server.start()


@pytest.fixture
def ledger_at():
    """Make ledgers, and close them."""
    ledgers = []

    def make(url, **options):
        ledgers.append(PostgresLedger(url, **options))
        return ledgers[-1]

    yield make
    for ledger in ledgers:
        ledger.close(1.0)


class TestServersThatGoAway:
    """Nothing that was reported is lost."""

    async def test_a_crash_in_the_middle_of_writing(self, postgres, ledger_at, caplog):
        """Reports go on coming, and when the server is back every one of them is there, once."""
        ledger = ledger_at(postgres.ready_database())
        stop, count = threading.Event(), 0

        def load():
            nonlocal count
            while not stop.is_set():
                ledger.opened(opened(f"s{count}", call_id=f"c{count}"))
                ledger.closed(settled(f"s{count}"))
                ledger.spared(spared(f"c{count}"))
                count += 1
                time.sleep(0.0005)

        reporter = threading.Thread(target=load)
        with caplog.at_level(logging.WARNING, LOG):
            reporter.start()
            try:
                for _ in range(2):
                    before = count
                    await until(lambda before=before: count > before + 200)
                    postgres.kill()
                    await until(lambda: ledger._writer.away is not None)
                    postgres.start()
                    await until(lambda: ledger._writer.away is None)
            finally:
                stop.set()
                reporter.join()
        await ledger.flush()
        total, saved = await ledger.total(), await ledger.saved()
        assert (total.sends, total.cost, total.unknown) == (count, Decimal("0.1") * count, 0)
        assert (saved.calls, saved.saved) == (count, Decimal("0.5") * count)
        assert ledger.lost == 0
        said = [record.getMessage().removeprefix(f"ledger {ledger.place} ") for record in caplog.records]
        assert [words.partition(": ")[0] for words in said] == [
            "cannot be written just now, so reports wait",
            "is written again",
        ] * 2

    async def test_a_start_anew_between_two_questions(self, postgres, ledger_at):
        """Connections that the server has closed are replaced without anybody noticing."""
        ledger = ledger_at(postgres.ready_database())
        ledger.opened(opened())
        assert (await ledger.total()).sends == 1
        postgres.stop()
        postgres.start()
        assert (await ledger.total()).sends == 1

    async def test_a_commit_whose_answer_is_lost(self, postgres, ledger_at):
        """The group is written once, also where the server had committed it already."""
        url = postgres.ready_database()
        async with Proxy(postgres.port) as proxy:
            ledger = ledger_at(url.replace(f":{postgres.port}/", f":{proxy.port}/"))
            ledger.spared(spared("first"))
            await ledger.flush()
            proxy.flowing.clear()
            for number in range(10):
                ledger.spared(spared(f"c{number}"))
            # Answers are let through one by one until the server has committed, so that the last one held is the one to COMMIT.
            await until(lambda: _rows(postgres, url) == 11 or _step(proxy))
            for task in proxy._tasks:
                task.cancel()
            proxy.flowing.set()
            await ledger.flush()
            saved = await ledger.saved()
        assert (saved.calls, saved.hits, ledger.lost) == (11, 11, 0)
        assert proxy.connections >= 2


def _step(proxy):
    if proxy.holding.is_set():
        proxy.holding.clear()
        proxy.flowing.set()
        proxy.flowing.clear()


def _rows(postgres, url):
    return postgres.command("SELECT count(*) FROM resilient_ai.spared", url=url)[0][0]


class TestServersThatAreNotThere:
    """The client works, and says once what is wrong."""

    @pytest.mark.parametrize("wrong", ["password", "port", "database"])
    async def test_it_says_so_once(self, postgres, ledger_at, caplog, wrong):
        """Reports wait, questions fail, and no word of the password is in the log or in an error."""
        url = {
            "password": postgres.url("postgres", password="wr0ng-w0rd"),
            "port": postgres.url("postgres").replace(f":{postgres.port}/", ":1/"),
            "database": postgres.url("nowhere"),
        }[wrong]
        with caplog.at_level(logging.DEBUG):
            ledger = ledger_at(url)
            for number in range(100):
                ledger.opened(opened(f"s{number}"))
            await until(lambda: ledger._writer.away is not None)
            ledger.spared(spared())
            with pytest.raises(BookUnavailable, match="cannot be asked: ") as caught:
                await ledger.total()
            ledger.close(0.3)
            await until(lambda: ledger.lost == 101)
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert warnings[0].startswith(f"ledger {ledger.place} cannot be written just now, so reports wait: connection")
        for word in ("wr0ng-w0rd", "s3cret", "with@signs", "with%40signs"):
            assert word not in caplog.text
            assert word not in f"{caught.value!r} {caught.value.__cause__!r} {ledger!r}"
        reason = {"password": "authentication failed", "port": "refused", "database": "does not exist"}[wrong]
        assert reason in warnings[0]

    def test_only_so_many_reports_wait(self, postgres, caplog):
        """Those beyond are counted and complained about."""
        url = postgres.url("postgres").replace(f":{postgres.port}/", ":1/")
        writer = PostgresWriter(target_of(url, schema="s", durable=True), max_waiting=10)
        with caplog.at_level(logging.ERROR, LOG):
            for number in range(5000):
                writer.put(opened(f"s{number}"))
            writer.finish(0.2).result(10)
        assert writer.lost == 5000
        assert "reports so far: " in caplog.records[0].getMessage()
        assert len(caplog.records) <= 2

    async def test_it_comes_later(self, postgres, ledger_at):
        """What was reported before is written then."""
        name = f"later{os.getpid()}"
        ledger = ledger_at(postgres.url(name))
        ledger.opened(opened())
        await until(lambda: ledger._writer.away is not None)
        postgres.command(f"CREATE DATABASE {name}")
        await ledger.flush()
        assert ((await ledger.total()).sends, ledger.lost) == (1, 0)


class TestReports:
    """Those that can never be written."""

    async def test_they_are_lost_alone(self, postgres, ledger_at, caplog):
        """Whatever is wrong with them, the others of their group are kept."""
        ledger = ledger_at(postgres.ready_database())
        with caplog.at_level(logging.ERROR, LOG):
            for number in range(20):
                ledger.opened(opened(f"s{number}"))
            ledger.opened(opened("x" * 100_000 + os.urandom(20_000).hex()))
            ledger.opened(opened("no time", at=float("nan")))
            ledger.opened(opened("too many", attempt=2**40))
            ledger.closed(settled("s1", error=object()))
            for number in range(20):
                ledger.closed(settled(f"s{number}"))
            await ledger.flush()
        total = await ledger.total()
        assert (total.sends, total.cost, ledger.lost) == (20, Decimal(2), 4)
        assert "has lost 1 reports so far: " in caplog.records[0].getMessage()

    async def test_queued_and_durable(self, postgres, ledger_at):
        """Both write; only one waits for the disk."""
        url = postgres.ready_database()
        queued = ledger_at(url, durability="queued")
        queued.opened(opened("a"))
        durable = ledger_at(url)
        durable.opened(opened("b"))
        await queued.flush()
        assert (await durable.total()).sends == 2


SLEEPER = """
import asyncio, sys
from resilient_ai.core.ledger import SendOpened
from resilient_ai.stores import PostgresLedger
ledger = PostgresLedger(sys.argv[1])
ledger.opened(SendOpened(send_id="theirs", call_id="c", at=1.0, kind="chat", model="m", attempt=1))
asyncio.run(ledger.flush())
print("ready", flush=True)
sys.stdin.read()
"""


def sleeper(url):
    """A process with a send in flight."""
    return subprocess.Popen([sys.executable, "-c", SLEEPER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


class TestTheDead:
    """What they had in flight becomes unknown."""

    async def test_a_process_that_was_killed(self, postgres, ledger_at):
        """Another one of its machine sees it when it looks."""
        url = postgres.ready_database()
        process = sleeper(url)
        assert process.stdout.readline() == b"ready\n"
        ledger = ledger_at(url)
        assert [send.state for send in await ledger.sends()] == ["sent"]
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert [send.state for send in await ledger_at(url).sends()] == ["unknown"]

    @pytest.mark.parametrize(("silent", "state"), [(50, "sent"), (70, "unknown")])
    async def test_a_process_elsewhere(self, postgres, ledger_at, silent, state):
        """It is dead after a minute of silence; if it lives after all, its end counts."""
        url = postgres.ready_database()
        far = ledger_at(url)
        far.opened(opened())
        await far.flush()
        postgres.command(
            "UPDATE resilient_ai.sessions SET machine = 'elsewhere', seen = now() - make_interval(secs => %s)",
            silent,
            url=url,
        )
        await _server_runs_for_a_minute(postgres, url)
        near = ledger_at(url)
        assert [send.state for send in await near.sends()] == [state]
        far.closed(settled())
        await far.flush()
        assert [send.state for send in await near.sends()] == ["settled"]

    async def test_a_server_that_was_away(self, postgres, ledger_at):
        """Nobody could be seen meanwhile, so nobody is dead for that."""
        url = postgres.ready_database()
        far = ledger_at(url)
        far.opened(opened())
        await far.flush()
        postgres.stop()
        postgres.start()
        postgres.command(
            "UPDATE resilient_ai.sessions SET machine = 'elsewhere', seen = now() - interval '1 hour'", url=url
        )
        assert [send.state for send in await ledger_at(url).sends()] == ["sent"]

    async def test_sessions_are_forgotten(self, postgres, ledger_at):
        """A day after their end."""
        url = postgres.ready_database()
        for hours in (25, 23):
            postgres.command(
                "INSERT INTO resilient_ai.sessions"
                " VALUES (gen_random_uuid(), 1, 'm', 'p', 1, now() - make_interval(hours => %s), true)",
                hours,
                url=url,
            )
        await ledger_at(url).total()
        rows = postgres.command("SELECT count(*) FROM resilient_ai.sessions WHERE machine = 'm'", url=url)
        assert rows == [(1,)]


async def _server_runs_for_a_minute(postgres, url):
    # The server's start counts as a sign of life; that function is replaced by one of the schema that says it was long ago.
    postgres.command(
        "CREATE OR REPLACE FUNCTION pg_catalog.pg_postmaster_start_time() RETURNS timestamptz LANGUAGE sql STABLE"
        " AS $$ SELECT now() - interval '1 day' $$",
        url=url,
    )


class TestForks:
    """A child begins afresh."""

    async def test_parent_and_child_both_write(self, postgres, ledger_at, in_child):
        """Neither disturbs the other's connection."""
        ledger = ledger_at(postgres.ready_database())
        ledger.opened(opened("before"))
        await ledger.flush()

        def child():
            ledger.opened(opened("child"))
            ledger.closed(settled("child"))
            mark = ledger._writer.written()
            mark.result(10)
            ledger.close()
            return ledger.lost == 0

        assert in_child(child) == 0
        ledger.closed(settled("before"))
        assert {send.send_id: send.state for send in await ledger.sends()} == {"before": "settled", "child": "settled"}
