"""The machine's clock."""

import asyncio
import time

import pytest

from resilient_ai.core.clock import SystemClock, within

pytestmark = pytest.mark.anyio


async def test_the_machine_s_clock_tells_time_and_chance():
    """The monotonic and the wall clock are the machine's, and chance lies in [0, 1)."""
    clock = SystemClock()
    assert time.monotonic() <= clock.monotonic() <= time.monotonic()
    assert time.time() <= clock.wall() <= time.time()
    assert all(0 <= clock.random() < 1 for _ in range(100))
    assert repr(clock) == "SystemClock()"


async def test_waiting_and_timeouts_are_the_loop_s():
    """`sleep` waits for its seconds, `timeout` cuts a body that takes longer, and None never does."""
    clock, loop = SystemClock(), asyncio.get_running_loop()
    started = loop.time()
    await clock.sleep(5)
    with pytest.raises(TimeoutError):
        async with clock.timeout(2):
            await clock.sleep(9)
    async with clock.timeout(None):
        await clock.sleep(3)
    assert loop.time() - started == pytest.approx(10)


async def test_within_tells_its_own_timeout_from_another(clock):
    """A body in time gives its result, one that is late the error, and a `TimeoutError` of the body is its own."""

    async def slow():
        await clock.sleep(5)
        return "done"

    async def broken():
        raise TimeoutError("its own")

    assert await within(clock, 9, slow, LookupError) == "done"
    with pytest.raises(LookupError) as caught:
        await within(clock, 2, slow, LookupError)
    assert isinstance(caught.value.__cause__, TimeoutError)
    with pytest.raises(TimeoutError, match="its own"):
        await within(clock, 2, broken, LookupError)
