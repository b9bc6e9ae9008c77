"""Waiting for another thread: what is late is told from what is slow."""

import asyncio
import gc
from concurrent.futures import Future

import pytest

from resilient_ai.stores._thread_answer import answer_of

pytestmark = pytest.mark.anyio


class Hurried:
    """A clock whose every wait ends at once, `late` seconds after it should have; `then` happens as one begins."""

    def __init__(self, *, late=0.0, then=()):
        self.now = 1000.0
        self.waits = []
        self._late = late
        self._then = list(then)

    def monotonic(self):
        return self.now

    def timeout(self, seconds):
        self.waits.append(seconds)
        self.now += seconds + self._late
        if self._then:
            self._then.pop(0)()
        return asyncio.timeout(0)


async def test_an_answer_is_returned_when_it_is_there():
    """And so is an error."""
    good, bad = Future(), Future()
    good.set_result(7)
    bad.set_exception(KeyError("k"))
    assert await answer_of(good, within=1.0, clock=Hurried()) == 7
    with pytest.raises(KeyError):
        await answer_of(bad, within=1.0, clock=Hurried())


async def test_an_answer_that_came_with_the_end_of_patience_is_taken():
    """The loop had no turn yet in which it could have handed it over."""
    answer = Future()
    clock = Hurried(late=0.5, then=[lambda: answer.set_result(7)])
    assert await answer_of(answer, within=0.05, clock=clock) == 7
    assert clock.waits == [0.05]


async def test_a_loop_that_was_late_gives_the_thread_its_time_once_more():
    """Once, as it may be late for ever."""
    answer = Future()
    clock = Hurried(late=0.06, then=[lambda: None, lambda: answer.set_result(7)])
    assert await answer_of(answer, within=0.05, clock=clock) == 7
    clock = Hurried(late=0.06)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        await answer_of(Future(), within=0.05, clock=clock)
    assert clock.waits == [0.05, 0.05]


async def test_a_thread_that_is_slow_is_given_up_at_once():
    """The loop was not later than loops are."""
    clock = Hurried(late=0.01)
    with pytest.raises(TimeoutError):
        await answer_of(Future(), within=0.05, clock=clock)
    assert clock.waits == [0.05]


@pytest.mark.parametrize("keep", [False, True])
async def test_what_has_not_begun_is_done_only_where_it_is_to_be_kept(keep):
    """After the end of patience, and after whoever waited was cancelled; the thread cannot begin it from that moment on."""
    late, left = Future(), Future()
    with pytest.raises(TimeoutError):
        await answer_of(late, within=0.05, clock=Hurried(), keep=keep)
    assert late.cancelled() is not keep
    task = asyncio.create_task(answer_of(left, within=1.0, clock=Hurried(), keep=keep))
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left.cancelled() is not keep


@pytest.mark.parametrize("keep", [False, True])
async def test_an_error_that_comes_after_the_end_is_nobodys(keep):
    """Python does not complain that nobody has looked at it."""
    complaints = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    answer = Future()
    answer.set_running_or_notify_cancel()
    with pytest.raises(TimeoutError):
        await answer_of(answer, within=0.05, clock=Hurried(), keep=keep)
    answer.set_exception(KeyError("k"))
    failed = Future()
    failed.set_exception(KeyError("k"))
    with pytest.raises(KeyError):
        await answer_of(failed, within=0.05, clock=Hurried(), keep=keep)
    del answer, failed
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert complaints == []
