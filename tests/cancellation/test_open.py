"""What does not hold yet, as small as it can be; each fails on purpose until it does."""

import asyncio
import os

import pytest

from .harness import cancel_at
from .scenarios import KEEPING, OPEN, SCENARIOS
from .world import World


@pytest.mark.xfail(
    reason="Batching and the race of a hedge await their tasks in a coroutine that is closed", strict=True
)
@pytest.mark.parametrize(("name", "how"), sorted(OPEN))
def test_closing_the_coroutine(name, how):
    """A call that is closed as the garbage collector does it ends without a complaint."""
    assert cancel_at(SCENARIOS[name], 1, how).broken == []


@pytest.mark.xfail(reason="RateLimit gives back on errors that say so, and on no cancellation", strict=True)
@pytest.mark.parametrize("how", ["at", "close"])
@pytest.mark.parametrize("name", sorted(KEEPING))
def test_what_was_reserved_and_never_sent(name, how):
    """A call that is cancelled while it waits for its permit gives back what it had taken from the rate limit."""
    assert cancel_at(SCENARIOS[name], 1, how).kept == []


@pytest.mark.xfail(reason="CostAccounting does not know that it is in a child", strict=True)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_child_closes_no_row_of_its_parent():
    """A call of the parent that is destroyed in a forked child is none of the child's business."""
    world = World(latency=0.0005)

    async def main():
        world.script("m", 500.0)
        task = asyncio.create_task(world.chat())
        await asyncio.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            task.get_coro().close()
            os._exit(len(world.rows.closes))
        task.cancel()
        return pid

    assert os.waitstatus_to_exitcode(os.waitpid(asyncio.run(main()), 0)[1]) == 0
