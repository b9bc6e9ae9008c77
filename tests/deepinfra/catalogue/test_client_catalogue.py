"""The catalogue of a client, and its refresh in the background, in virtual time."""

import asyncio
import gc
import logging
import os
import threading
import time
import weakref
from decimal import Decimal

import orjson
import pytest

from resilient_ai.core.clock import SystemClock
from resilient_ai.core.errors import ConnectionFailed
from resilient_ai.deepinfra.catalogue import ClientCatalogue, LiveCatalogue, PriceTable, catalogue
from resilient_ai.testing import FakeClock

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
HOUR = 3600.0


class LaterClock(SystemClock):
    """A machine of a later day than that of the fake clock; threads may ask it too."""

    wall = staticmethod(lambda: 1_900_000_000.0)


LATER = LaterClock()
pytestmark = pytest.mark.anyio


class Provider:
    """Serves lists in which the price of one model is what the test says, and counts how often it was asked."""

    def __init__(self, price=0.2):
        self.price = price
        self.error = None
        self.times = []
        self._asked = asyncio.Event()

    async def __call__(self, path):
        if "openai" not in path:
            raise ConnectionFailed("this list is not part of the test", phase="connect")
        self.times.append(asyncio.get_running_loop().time())
        self._asked.set()
        if self.error is not None:
            raise self.error
        return orjson.dumps({"data": [{"id": LLAMA, "metadata": {"pricing": {"input_tokens": self.price}}}]})

    async def asked(self, times, clock):
        """Wait until it was asked so often, and whoever asked waits for the next time.

        There is no timer in here, so that virtual time stands still while a thread puts the lists together.
        """
        while len(self.times) < times:
            self._asked.clear()
            await self._asked.wait()
        await until(lambda: len(clock.slept) > times)


@pytest.fixture
def provider():
    return Provider()


def price_of(models):
    return models.get(LLAMA).pricing.input_per_1m


async def until(condition):
    """Let threads and tasks work while virtual time stands still."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0)


async def test_it_reads_like_the_live_catalogue(provider, clock):
    """Also after a refresh, and as the source of prices."""
    models = ClientCatalogue(LiveCatalogue(), provider, clock=clock)
    assert models.models == catalogue.models
    assert (models.as_of, models.fetched_at, len(models)) == (catalogue.as_of, None, len(catalogue))

    changes = await models.refresh()

    assert [change.new for change in changes.prices] == [Decimal("0.2")]
    assert price_of(models) == price_of(models.live) == Decimal("0.2")
    assert PriceTable(models).chat_cost(LLAMA, input_tokens=1_000_000, output_tokens=0) == Decimal("0.2")
    assert models.changes().prices == changes.prices
    assert models.fetched_at == models.live.fetched_at
    assert repr(models) == "ClientCatalogue(LiveCatalogue(Catalogue(), path=None), every=None)"


async def test_nothing_is_fetched_that_was_not_asked_for(provider, clock):
    """Without `every` nothing happens in the background; making and reading a catalogue never asks."""
    models = ClientCatalogue(LiveCatalogue(), provider, clock=clock)
    models.keep_fresh()
    ClientCatalogue(LiveCatalogue(), provider, every=HOUR, clock=clock).find("chat")

    await asyncio.sleep(10 * HOUR)
    await models.aclose()

    assert provider.times == []


async def test_it_is_refreshed_again_and_again(provider):
    """First within seconds, then a random part before the hour is over; one task does it, however often it is begun."""
    clock = FakeClock(chances=[0.5])
    models = ClientCatalogue(LiveCatalogue(), provider, every=HOUR, clock=clock)
    began = clock.monotonic()
    for _ in range(3):
        models.keep_fresh()

    await provider.asked(1, clock)
    provider.price = 0.3
    await provider.asked(2, clock)
    await provider.asked(3, clock)
    await models.aclose()
    await asyncio.sleep(10 * HOUR)

    first, second, third = (moment - began for moment in provider.times)
    assert first == pytest.approx(5)
    assert (second - first, third - second) == pytest.approx((0.9 * HOUR, 0.9 * HOUR))
    assert price_of(models) == Decimal("0.3")


async def test_what_is_fresh_already_is_not_fetched_at_once(provider, tmp_path):
    """A process that finds the file of another waits for its time."""
    clock = FakeClock(chances=[0.0])
    path = tmp_path / "catalogue.json"
    await LiveCatalogue(path=path, clock=LATER).refresh(provider, clock=clock)
    provider.times.clear()
    began = clock.monotonic()
    models = ClientCatalogue(LiveCatalogue(path=path, clock=LATER), provider, every=HOUR, clock=clock)

    models.keep_fresh()
    await provider.asked(1, clock)
    await models.aclose()

    assert provider.times[0] - began == pytest.approx(HOUR)


async def test_what_another_process_has_fetched_is_taken_over(provider, tmp_path):
    """It is read from the file when the time has come, and nobody is asked again."""
    clock = FakeClock(chances=[0.0])
    path = tmp_path / "catalogue.json"
    mine, other = LiveCatalogue(path=path, clock=LATER), LiveCatalogue(path=path, clock=LATER)
    await mine.refresh(provider, clock=clock)
    await asyncio.sleep(HOUR / 2)
    provider.price = 0.3
    await other.refresh(provider, clock=clock)
    models = ClientCatalogue(mine, provider, every=HOUR, clock=clock)

    models.keep_fresh()
    await asyncio.sleep(HOUR / 2)
    await until(lambda: len(clock.slept) == 2)
    await models.aclose()

    assert price_of(models) == Decimal("0.3")
    assert len(provider.times) == 2


async def test_a_failure_is_logged_once_and_tried_again_sooner(provider, caplog):
    """After one minute, two, four, up to the usual time; what is known stays."""
    clock = FakeClock(chances=[0.0])
    provider.error = ConnectionFailed("refused", phase="connect")
    models = ClientCatalogue(LiveCatalogue(), provider, every=600, clock=clock)

    with caplog.at_level(logging.INFO):
        models.keep_fresh()
        await provider.asked(6, clock)
        failures = [record.message for record in caplog.records]
        provider.error = None
        await provider.asked(7, clock)
    await models.aclose()

    waits = [later - earlier for earlier, later in zip(provider.times, provider.times[1:], strict=False)]
    assert waits[:6] == pytest.approx([60, 120, 240, 480, 600, 600])
    assert failures == ["the catalogue could not be refreshed: ConnectionFailed: refused"]
    assert (
        "the catalogue was refreshed: 0 new, 1 prices, 0 retired, 0 not believed, 1 of 2 lists not read" in caplog.text
    )


async def test_no_error_of_any_kind_ends_it(provider):
    """Not even one that is a mistake in the function that fetches."""
    clock = FakeClock(chances=[0.0])
    provider.error = RuntimeError("mine")
    models = ClientCatalogue(LiveCatalogue(), provider, every=600, clock=clock)
    models.keep_fresh()

    await provider.asked(3, clock)
    await models.aclose()

    assert len(provider.times) == 3


async def test_a_client_that_nobody_closed_is_let_go(provider):
    """The task ends at its next turn, as it does not keep the client alive."""
    clock = FakeClock(chances=[0.5])
    models = ClientCatalogue(LiveCatalogue(), provider, every=HOUR, clock=clock)
    models.keep_fresh()
    await provider.asked(1, clock)
    task, gone = models._task, weakref.ref(models)

    del models
    gc.collect()
    assert gone() is None
    await asyncio.sleep(2 * HOUR)

    assert task.done()
    assert len(provider.times) == 1


async def test_after_a_fork_a_child_has_a_task_of_its_own(provider):
    """The parent's is left alone; it is not the child's to cancel either."""
    models = ClientCatalogue(LiveCatalogue(), provider, every=HOUR, clock=FakeClock())
    models.keep_fresh()
    parents = models._task
    models._process = os.getpid() + 1  # as in a child

    models.keep_fresh()
    own = models._task
    assert own is not parents
    models._process += 1
    await models.aclose()
    assert not own.cancelled()

    for task in (parents, own):
        task.cancel()
    await asyncio.wait([parents, own])


def test_a_task_that_ended_with_its_loop_begins_anew(provider):
    """The next loop has one of its own, and closing ends it from there."""
    models = ClientCatalogue(LiveCatalogue(), provider, every=HOUR)

    async def begin():
        models.keep_fresh()
        return models._task

    first, second = asyncio.run(begin()), asyncio.run(begin())
    asyncio.run(models.aclose())

    assert first is not second
    assert first.cancelled()
    assert second.cancelled()


def test_closing_from_another_loop_ends_it(provider):
    """The loop that runs it is told, whichever thread it is in."""
    models = ClientCatalogue(LiveCatalogue(), provider, every=HOUR)
    begun, ended = threading.Event(), []

    async def live():
        models.keep_fresh()
        task = models._task
        begun.set()
        done, _ = await asyncio.wait([task], timeout=10)
        ended.extend(one.cancelled() for one in done)

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    begun.wait(10)
    asyncio.run(models.aclose())
    thread.join(10)

    assert ended == [True]


def test_every_must_be_a_time(provider):
    """At construction."""
    with pytest.raises(ValueError, match="every must be a positive number of seconds, got 0"):
        ClientCatalogue(LiveCatalogue(), provider, every=0)
