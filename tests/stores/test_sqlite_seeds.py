"""What new counters begin with is looked up beside everything else."""

import asyncio
import sqlite3
import threading
from dataclasses import replace
from decimal import Decimal

import pytest

from resilient_ai.core.budgets import Admission, Charge
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.ledger import SendClosed, SendOpened
from resilient_ai.stores._sqlite_seeds import LedgerSeeds

pytestmark = pytest.mark.anyio
ONE = Charge(key="b", slice=0, first=0, amount=10, limit=100, until=2**40)


class Slow(dict):
    """A scope that keeps whoever looks something up waiting."""

    def __init__(self):
        super().__init__(tenant="a")
        self.arrived, self.goes_on = threading.Event(), threading.Event()

    def get(self, *args):
        self.arrived.set()
        self.goes_on.wait()
        return super().get(*args)


@pytest.fixture
def scope():
    scope = Slow()
    yield scope
    scope.goes_on.set()


@pytest.fixture
async def ledger(open_ledger):
    ledger = open_ledger()
    ledger.opened(SendOpened(send_id="s", call_id="c", at=1.0, kind="chat", model="m", attempt=1, tags={"tenant": "a"}))
    ledger.closed(SendClosed(send_id="s", state="settled", cost=Decimal("0.000000000005")))
    await ledger.charge([ONE])
    return ledger


async def test_a_long_look_up_holds_nobody_up(ledger, scope):
    """A counter that is there is charged at once."""
    task = asyncio.create_task(ledger.charge([replace(ONE, key="new", scope=scope)]))
    await asyncio.to_thread(scope.arrived.wait)
    assert await ledger.charge([ONE]) == Admission(admitted=True, spent=(15,))
    assert not task.done()
    scope.goes_on.set()
    assert await task == Admission(admitted=True, spent=(5,))
    assert ledger._seeds._known == {}


async def test_a_look_up_goes_on_when_nobody_waits(ledger, scope):
    """Who lost patience finds it done the next time; nothing was charged meanwhile."""
    new = replace(ONE, key="new", scope=scope)
    for _ in range(2):
        with pytest.raises(BookUnavailable, match="no answer within 2 s"):
            await ledger.charge([new])
    assert len(ledger._seeds._known) == 1
    scope.goes_on.set()
    assert await ledger.charge([new]) == Admission(admitted=True, spent=(5,))


async def test_many_are_looked_up_together(ledger, scope):
    """What comes while a look-up is under way shares the next one."""
    first = asyncio.create_task(ledger.charge([replace(ONE, key="first", scope=scope)]))
    await asyncio.to_thread(scope.arrived.wait)
    others = [
        asyncio.create_task(ledger.charge([replace(ONE, key=f"of {place}", scope={"tenant": place})]))
        for place in "abcdefgh"
    ]
    while ledger._seeds._worker.waiting < len(others):  # noqa: ASYNC110  # a queue has no event that says so
        await asyncio.sleep(0.001)
    begun = []
    work = ledger._seeds._worker._work
    ledger._seeds._worker._work = lambda items: [begun.append(len(items)), work(items)]
    scope.goes_on.set()
    found = await asyncio.gather(first, *others)
    assert [each.spent for each in found] == [(5,), (5,), *[(0,)] * 7]
    assert begun == [8]


async def test_a_look_up_that_fails_fails_alone(ledger, scope):
    """A scope that no database can be asked for keeps nobody else waiting, and no thread from going on."""
    task = asyncio.create_task(ledger.charge([replace(ONE, key="first", scope=scope)]))
    await asyncio.to_thread(scope.arrived.wait)
    tenants = ["a", "b", "a\ud800", "c", "d"]
    tasks = [
        asyncio.create_task(ledger.charge([replace(ONE, key=f"k{place}", scope={"tenant": tenant})]))
        for place, tenant in enumerate(tenants)
    ]
    while ledger._seeds._worker.waiting < len(tenants):  # noqa: ASYNC110  # a queue has no event that says so
        await asyncio.sleep(0.001)
    scope.goes_on.set()
    found = await asyncio.gather(task, *tasks, return_exceptions=True)
    assert [isinstance(each, Admission) for each in found] == [True, True, True, False, True, True]
    assert isinstance(found[3], BookUnavailable)
    assert (await ledger.charge([replace(ONE, key="later")])).admitted


async def test_counters_that_are_deleted_meanwhile(ledger, scope):
    """Nothing is charged; the next one begins with what was sent."""
    charges = [ONE, replace(ONE, key="new", scope=scope)]
    task = asyncio.create_task(ledger.charge(charges))
    await asyncio.to_thread(scope.arrived.wait)
    await ledger._in_writer(lambda connection: connection.execute("DELETE FROM budget_counters"))
    scope.goes_on.set()
    with pytest.raises(BookUnavailable, match="counters were deleted meanwhile"):
        await task
    assert await ledger.charge(charges) == Admission(admitted=True, spent=(5, 5))


async def test_the_end_does_not_wait_for_look_ups(ledger, scope):
    """Those under way and those that wait are given up."""
    asked = [ledger._seeds.look_up(replace(ONE, key="x", scope=scope))]
    await asyncio.to_thread(scope.arrived.wait)
    asked.append(ledger._seeds.look_up(replace(ONE, key="y", scope=scope)))
    finishing = ledger._seeds.finish(5.0)
    scope.goes_on.set()
    await asyncio.wrap_future(finishing)
    assert isinstance(asked[1].exception(), sqlite3.OperationalError)
    assert not ledger._seeds.running
    assert await ledger.charge([replace(ONE, key="y")]) == Admission(admitted=True, spent=(5,))


def test_a_file_that_cannot_be_read(tmp_path):
    """Whoever asks hears of it, and the next one has it tried again."""
    seeds = LedgerSeeds(str(tmp_path / "none.db"))
    first = seeds.look_up(ONE)
    assert isinstance(first.exception(), sqlite3.OperationalError)
    assert seeds.look_up(ONE) is not first
    seeds.finish(5.0).result()
    seeds.finish(5.0).result()  # once more does no harm


async def test_a_kept_look_up_grows_old(ledger):
    """It is made anew after a minute."""
    first = ledger._seeds.look_up(ONE)
    assert await asyncio.wrap_future(first) == [(0, 5)]
    assert ledger._seeds.look_up(ONE) is first
    await ledger.flush()
    ledger._seeds._known[ONE.key, ONE.first, ONE.slice].done_at = -1e9
    again = ledger._seeds.look_up(ONE)
    assert again is not first
    assert await asyncio.wrap_future(again) == [(0, 5)]
