"""Charges of budgets in a PostgreSQL that is slow, away, or was cut off at the worst moment: no money is lost, and none is made."""

import asyncio
import contextlib
import logging
import time
from decimal import Decimal

import psycopg
import pytest

from resilient_ai.core.budgets import Admission, Charge, units
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.ledger import SendClosed, SendOpened
from resilient_ai.stores import PostgresLedger
from resilient_ai.stores._postgres_counters import _LOCK, _number

from .postgres_server import shared_postgres
from .redis_server import Proxy

pytestmark = pytest.mark.anyio

FOREVER = 2**40


def charge(amount=1, limit=None, **fields):
    return Charge(**({"key": "k", "slice": 0, "first": 0, "amount": amount, "limit": limit, "until": FOREVER} | fields))


async def until(condition, patience=20.0):
    """Wait for something that another thread brings about."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def holds(book, amount, patience=20.0):
    """Whether the counter comes to hold so much, and still does a moment later."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with contextlib.suppress(BookUnavailable):
            if await book.spent([charge()]) == (amount,):
                await book.flush()
                return await book.spent([charge()]) == (amount,)
        await asyncio.sleep(0.02)
    return False


@pytest.fixture
def postgres(request):
    server = shared_postgres(request)
    yield server
    if not server.running:
        server.start()


@pytest.fixture
def url(postgres):
    return postgres.ready_database()


@pytest.fixture
def ledger_at():
    """Make ledgers, and close them."""
    ledgers = []

    def make(url):
        ledgers.append(PostgresLedger(url))
        return ledgers[-1]

    yield make
    for ledger in ledgers:
        ledger.close(1.0)


@pytest.fixture
def ledger(ledger_at, url):
    return ledger_at(url)


class TestOthers:
    """What else goes on in the database."""

    async def test_a_charge_does_not_wait_for_sends(self, ledger, url):
        """Also where these cannot be written at all."""
        assert (await ledger.charge([charge(5)])).admitted
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE resilient_ai.sends IN ACCESS EXCLUSIVE MODE")
            ledger.opened(SendOpened(send_id="s", call_id="c", at=1.0, kind="chat", model="m", attempt=1))
            assert await ledger.charge([charge(5)]) == Admission(admitted=True, spent=(5,))
        await ledger.flush()
        assert (await ledger.total()).sends == 1

    async def test_a_new_counter_waits_for_the_sends_it_begins_with(self, ledger, url):
        """It is not opened without them, as their costs would never count."""
        ledger.opened(SendOpened(send_id="s", call_id="c", at=1.0, kind="chat", model="m", attempt=1))
        ledger.closed(SendClosed(send_id="s", state="settled", cost=Decimal(2)))
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE resilient_ai.sends IN EXCLUSIVE MODE")
            with pytest.raises(BookUnavailable, match="sends of this process are not written yet"):
                await ledger.charge([charge(5)])
        assert (await ledger.charge([charge(5)])).spent == (units(Decimal(2)),)

    async def test_somebody_holds_a_counter_for_long(self, ledger, url):
        """Whoever wants it hears that it cannot be had, and others are served."""
        await ledger.charge([charge(0), charge(0, key="free")])
        with psycopg.connect(url) as other:
            other.execute(_LOCK, ([_number('"resilient_ai"', "k")],))
            with pytest.raises(BookUnavailable, match="lock timeout"):
                await ledger.charge([charge(5)])
            assert (await ledger.charge([charge(5, key="free")])).admitted
        assert await ledger.charge([charge(5)]) == Admission(admitted=True, spent=(0,))

    async def test_counters_are_forgotten(self, ledger, ledger_at, url, postgres):
        """A day after they have counted for the last time."""
        await ledger.charge([charge(1, until=1000), charge(1, key="other", slice=1, until=int(time.time()) - 3600)])
        await ledger_at(url).charge([charge(1, key="new")])
        keys = postgres.command("SELECT key FROM resilient_ai.counters ORDER BY key", url=url)
        assert keys == [("new",), ("other",)]


class TestFaults:
    """Charges that can never be written."""

    async def test_a_charge_that_the_server_refuses(self, ledger):
        """Whoever asked hears why; those who asked at the same time are answered."""
        bad = charge(1, slice=2**63, first=2**63)
        found = await asyncio.gather(
            ledger.charge([charge(1)]), ledger.charge([bad]), ledger.charge([charge(1)]), return_exceptions=True
        )
        assert isinstance(found[1], BookUnavailable)
        assert "out of range" in str(found[1])
        assert (found[0].admitted, found[2].admitted) == (True, True)
        assert await holds(ledger, 2)

    async def test_what_cannot_be_settled_is_lost_alone(self, ledger, caplog):
        """With a word in the log, and in the count of losses."""
        with caplog.at_level(logging.ERROR, "resilient_ai.stores"):
            ledger.settle([charge(1), charge(1, slice=2**70), charge(2)])
            assert await holds(ledger, 3)
        assert ledger.lost == 1
        assert "1 settled charges are lost: a charge cannot be written: " in caplog.text

    async def test_a_counter_named_twice_is_charged_twice(self, ledger):
        """Within one charge too."""
        assert not (await ledger.charge([charge(60, 100), charge(60, 100)])).admitted
        assert (await ledger.charge([charge(50, 100), charge(50, 100)])).admitted
        assert await holds(ledger, 100)


class TestAway:
    """The server is not there, or does not answer."""

    async def test_it_is_not_there(self, ledger_at, postgres, url):
        """Whoever asks hears it at once; what was settled is lost only when it is given up."""
        ledger = ledger_at(url.replace(f":{postgres.port}/", ":1/"))
        begun = time.monotonic()
        for _ in range(20):
            with pytest.raises(BookUnavailable, match=r"cannot be asked: connection .*refused"):
                await ledger.charge([charge(5)])
        assert time.monotonic() - begun < 1.5
        ledger.settle([charge(5), charge(6, key="other")])
        ledger.close(0.2)
        assert ledger.lost == 2

    async def test_it_crashes_and_comes_back(self, ledger, postgres):
        """What was settled meanwhile counts, and what was refused does not."""
        await ledger.charge([charge(100)])
        postgres.kill()
        for number in range(1, 12_000):
            ledger.settle([charge(-1, key=f"k{number}"), charge(-1)] if number % 1000 == 0 else [charge(0)])
        with pytest.raises(BookUnavailable):
            await ledger.charge([charge(1000)])
        postgres.start()
        assert await holds(ledger, 89)
        assert ledger.lost == 0

    async def test_a_start_anew_between_two_charges(self, ledger, postgres):
        """Nobody notices."""
        await ledger.charge([charge(1)])
        postgres.stop()
        postgres.start()
        assert await ledger.charge([charge(1)]) == Admission(admitted=True, spent=(1,))

    async def test_it_answers_too_late(self, ledger_at, postgres, url):
        """After 2 s nobody waits any more, and what it admits then is given back."""
        async with _behind(postgres, ledger_at, url) as (proxy, ledger):
            await ledger.charge([charge(7)])
            proxy.flowing.clear()
            begun = time.monotonic()
            with pytest.raises(BookUnavailable, match="gave no answer within 2 s"):
                await ledger.charge([charge(100)])
            assert 1.9 < time.monotonic() - begun < 5.0
            proxy.flowing.set()
            assert await holds(ledger, 7)

    @pytest.mark.parametrize("cut", range(1, 8))
    async def test_it_is_cut_off_at_any_moment(self, ledger_at, postgres, url, cut):
        """After so many answers, the commit's among them: who was admitted is charged once, and nobody else."""
        async with _behind(postgres, ledger_at, url) as (proxy, ledger):
            await ledger.charge([charge(7)])
            proxy.flowing.clear()
            ledger.settle([charge(1000)])
            asked = asyncio.create_task(ledger.charge([charge(100)]))
            for _ in range(cut - 1):
                if await _held(proxy):
                    proxy.flowing.set()
                    proxy.flowing.clear()
            await _held(proxy)
            for task in list(proxy._tasks):
                task.cancel()
            proxy.flowing.set()
            (found,) = await asyncio.gather(asked, return_exceptions=True)
            heard = 100 if isinstance(found, Admission) and found.admitted else 0
            assert await holds(ledger, 1007 + heard)
            assert ledger.lost == 0


@contextlib.asynccontextmanager
async def _behind(postgres, ledger_at, url):
    async with Proxy(postgres.port) as proxy:
        ledger = ledger_at(url.replace(f":{postgres.port}/", f":{proxy.port}/"))
        await ledger.spent([charge()])
        yield proxy, ledger
        await ledger.aclose()


async def _held(proxy):
    """Whether an answer is held back within a moment."""
    try:
        await asyncio.wait_for(proxy.holding.wait(), 2.0)
    except TimeoutError:
        return False
    proxy.holding.clear()
    return True
