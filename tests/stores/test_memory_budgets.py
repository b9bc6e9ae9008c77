"""The book of budgets in memory: what only it has; the rest is in test_budget_conformance.py."""

import asyncio
import gc
import threading

import pytest

from resilient_ai.core.budgets import Admission, Charge
from resilient_ai.stores import MemoryBudgets

pytestmark = pytest.mark.anyio

HOUR = 3_600


def charge(amount=1, limit=None, *, key="a", start=0, first=None, life=2 * HOUR):
    return Charge(
        key=key, slice=start, first=start if first is None else first, amount=amount, limit=limit, until=start + life
    )


def counters(book):
    return sum(map(len, book._counters.values()))


async def test_a_counter_is_never_below_zero():
    """What is given back to a counter that was forgotten must not raise its limit."""
    book = MemoryBudgets()
    book.settle([charge(-5)])
    await book.charge([charge(3)])
    book.settle([charge(-5)])
    assert await book.spent([charge()]) == (0,)
    assert await book.charge([charge(11, 10)]) == Admission(admitted=False, spent=(0,))


async def test_windows_that_are_over_are_forgotten():
    """Of a budget that goes on, as soon as its next window begins."""
    book = MemoryBudgets()
    for hour in range(100):
        await book.charge([charge(start=hour * HOUR)])
    assert counters(book) == 2


async def test_budgets_that_nobody_uses_are_forgotten():
    """Ten thousand tenants of an hour each leave no trace but the latest."""
    book = MemoryBudgets()
    for number in range(10_000):
        await book.charge([charge(key=f"tenant {number}", start=number * HOUR)])
    assert counters(book) <= 1_024


async def test_budgets_that_are_in_use_are_kept():
    """However many there are."""
    book = MemoryBudgets()
    for number in range(5_000):
        await book.charge([charge(key=str(number))])
    assert sum(await book.spent([charge(key=str(number)) for number in range(5_000)])) == 5_000


async def test_the_same_counter_twice_in_one_charge():
    """Each part counts for the next one, and if they do not fit together none is added."""
    book = MemoryBudgets()
    assert not (await book.charge([charge(6, 10), charge(6, 10)])).admitted
    assert (await book.charge([charge(5, 10), charge(5, 10)])).admitted
    assert await book.spent([charge()]) == (10,)


async def test_settling_from_the_garbage_collector_never_waits():
    """It may have interrupted whoever holds the lock in this very thread; what it brings counts with the next question."""
    book = MemoryBudgets()
    await book.charge([charge(10, 10)])

    class Left:
        def __del__(self):
            book.settle([charge(-4)])

    left = Left()
    left.itself = left
    with book._lock:
        del left
        gc.collect()
    assert await book.charge([charge(4, 10)]) == Admission(admitted=True, spent=(6,))


def test_threads_lose_nothing():
    """Charges and settlements of eight threads add up."""
    book = MemoryBudgets()

    async def work():
        for _ in range(200):
            await book.charge([charge(3, None)])
            book.settle([charge(-1)])

    threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(book.spent([charge()])) == (8 * 200 * 2,)


def test_a_forked_child_goes_on_with_a_copy(in_child):
    """What was spent before counts in it, also where another thread had the lock in the moment of the fork."""
    book = MemoryBudgets()
    asyncio.run(book.charge([charge(7, 10)]))

    def child():
        return asyncio.run(book.charge([charge(4, 10)])) == Admission(admitted=False, spent=(7,))

    with book._lock:
        assert in_child(child) == 0
    assert asyncio.run(book.spent([charge()])) == (7,)


def test_it_is_something_also_while_it_is_empty():
    """So that `book or another` is the book."""
    assert MemoryBudgets()
    assert repr(MemoryBudgets()) == "MemoryBudgets()"
