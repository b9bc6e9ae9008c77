"""The gate: one at a time, in order, and nobody who left holds it."""

import asyncio
import threading

import pytest

from resilient_ai.middleware._gate import Gate
from resilient_ai.middleware._machines.turns import Turns

pytestmark = pytest.mark.anyio


async def entered(gate, log, name):
    waited = await gate.enter()
    log.append((name, waited))


async def test_calls_enter_one_at_a_time_in_order():
    """The first one need not wait; each of the others enters when the one before it leaves."""
    gate, log = Gate(Turns()), []
    tasks = [asyncio.ensure_future(entered(gate, log, name)) for name in "abc"]
    await asyncio.sleep(0.1)
    assert log == [("a", False)]
    gate.leave()
    await asyncio.sleep(0.1)
    assert log == [("a", False), ("b", True)]
    gate.leave()
    await asyncio.gather(*tasks)
    gate.leave()
    assert await gate.enter() is False


async def test_who_is_cancelled_gives_up_its_place():
    """The next in line enters instead."""
    gate, log = Gate(Turns()), []
    await gate.enter()
    tasks = [asyncio.ensure_future(entered(gate, log, name)) for name in "ab"]
    await asyncio.sleep(0.1)
    tasks[0].cancel()
    await asyncio.sleep(0.1)
    gate.leave()
    await tasks[1]
    assert log == [("b", True)]


async def test_who_is_cancelled_as_it_enters_lets_the_next_one_in():
    """A call that had got the way in the same moment does not keep it."""
    gate, log = Gate(Turns()), []
    await gate.enter()
    tasks = [asyncio.ensure_future(entered(gate, log, name)) for name in "ab"]
    await asyncio.sleep(0.1)
    gate.leave()
    tasks[0].cancel()
    await tasks[1]
    assert log == [("b", True)]


async def test_who_waits_in_a_loop_that_is_closed_is_passed_over():
    """It will never run again; what is left of it holds nothing."""
    gate, log, left = Gate(Turns()), [], []
    await gate.enter()

    async def leave_a_waiter():
        coroutine = gate.enter()
        coroutine.send(None)
        left.append(coroutine)

    thread = threading.Thread(target=lambda: asyncio.run(leave_a_waiter()))
    thread.start()
    thread.join()
    task = asyncio.ensure_future(entered(gate, log, "next"))
    await asyncio.sleep(0.1)
    gate.leave()
    await task
    left.pop().close()
    assert log == [("next", True)]
    gate.leave()
    assert await gate.enter() is False
