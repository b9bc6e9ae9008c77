"""Runs a scenario that is cancelled at one chosen moment, and says what was left behind.

A scenario is an asynchronous function of a `World` that prepares what it needs and returns a coroutine, the victim. Moments
are the victim's suspensions, counted from 1, and for "tick" the turns of the loop while it runs, in which other tasks
of the call come forward as well.
"""

import asyncio
import random
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field

from resilient_ai.testing import VirtualLoop

from .world import World

# How the victim is ended at its k-th suspension:
#   at       cancelled there, so that what it waits for is cancelled
#   late     cancelled in the turn in which what it waited for has come, so that it holds what it waited for
#   twice    cancelled there, and again while it cleans up
#   slow     cancelled there, and letting go of a connection takes a while; nothing of it goes on when it has ended
#   close    its coroutine is closed from outside of its task, as the garbage collector does it
#   timeout  the caller's own timeout ends it at the time of this suspension
#   tick     cancelled at the beginning of the k-th turn of the loop
WAYS = ("at", "late", "twice", "slow", "close", "timeout", "tick")
FAREWELL = 0.05


class Driven(Coroutine):
    """A coroutine that tells its end to `ended()` and its suspensions to `suspended(number, yielded)`, which returns what to yield."""

    def __init__(self, inner, suspended, ended):
        self.inner = inner
        self.suspended = suspended
        self.ended = ended
        self.points = 0
        self.closed = False

    def send(self, value):
        return self._step(self.inner.send, value)

    def throw(self, kind, value=None, traceback=None):
        return self._step(self.inner.throw, kind if value is None else value)

    def close(self):
        self.closed = True
        self.inner.close()

    def __await__(self):
        raise NotImplementedError("a task drives it")

    def _step(self, advance, value):
        if self.closed:
            raise StopIteration(None)
        try:
            yielded = advance(value)
        except BaseException:
            self.ended()
            raise
        self.points += 1
        return self.suspended(self.points, yielded)


class TickingLoop(VirtualLoop):
    """A virtual loop that counts its turns from when `watch` is called, and does something at the beginning of one."""

    def __init__(self):
        super().__init__()
        self.turn = 0
        self._at = 0
        self._action = None

    def watch(self, turn=0, action=None):
        self.turn, self._at, self._action = 0, turn, action

    def _run_once(self):
        self.turn += 1
        if self.turn == self._at:
            self._action()
        super()._run_once()


class ShuffledLoop(VirtualLoop):
    """A virtual loop that runs what is ready in an order drawn by seed.

    Breaks asyncio's promise that callbacks run first in, first out, on purpose: whatever holds only by that order shows. Futures,
    tasks, timeouts and `gather` do not need it; transports do, so that nothing with sockets runs in here.
    """

    def __init__(self, seed):
        super().__init__()
        self._ready = Shuffled(random.Random(seed))


class Shuffled(deque):
    """A queue that gives out any of its entries."""

    def __init__(self, chance):
        super().__init__()
        self._chance = chance

    def popleft(self):
        self.rotate(self._chance.randrange(len(self)))
        return super().popleft()


@dataclass
class Trial:
    """What came of one run.

    Args:
        points: Suspensions of the victim.
        ticks: Turns of the loop while it ran.
        times: When each suspension was, in seconds from the start.
        outcome: "returned", or the name of what was raised.
        late: Seconds from the cancellation to the end of the victim.
        reached: Whether the moment came.
        broken: What was left behind, in words.
        kept: What a rate limit took and did not give back although nothing was sent, in words.
    """

    points: int = 0
    ticks: int = 0
    times: list[float] = field(default_factory=list)
    outcome: str = ""
    late: float = 0.0
    reached: bool = False
    broken: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def count_points(scenario):
    """Run a scenario to its end, and return the trial with the numbers of its points and ticks."""
    return _run(scenario, 0, "none")


def cancel_at(scenario, k, how="at", *, moment=None):
    """Run a scenario that is ended in one of the `WAYS` at moment `k`; for "timeout", `moment` is the time in seconds."""
    return _run(scenario, k, how, moment)


def _run(scenario, k, how, moment=None):
    with asyncio.Runner(loop_factory=TickingLoop) as runner:
        return runner.run(_trial(scenario, k, how, moment))


async def _trial(scenario, k, how, moment):
    loop = asyncio.get_running_loop()
    options = {**getattr(scenario, "options", {}), "farewell": FAREWELL if how in {"twice", "slow"} else 0.0}
    world, trial = World(**options), Trial()
    loop.set_exception_handler(lambda _, context: world.complaints.append(f"the loop was told {context['message']!r}"))
    victim = await scenario(world)
    began, cancelled_at = loop.time(), None

    def cancel(*_):
        nonlocal cancelled_at
        if cancelled_at is None:
            cancelled_at = loop.time()
        trial.reached = True
        task.cancel()

    def close():
        trial.reached = True
        try:
            driven.close()
        except RuntimeError as error:  # a coroutine that waits in its clean-up cannot be closed in an orderly way
            trial.outcome = str(error)

    def suspended(number, yielded):
        trial.times.append(loop.time() - began)
        if how == "late" and number == k and yielded is not None:
            yielded.add_done_callback(cancel)
        elif (number == k and how in {"at", "late", "twice", "slow"}) or (number == k + 1 and how == "twice"):
            cancel()
        elif how == "close" and number == k:
            yielded = loop.create_future()
            yielded._asyncio_future_blocking = True
            loop.call_soon(close)
            loop.call_soon(yielded.set_result, None)
        return yielded

    def ended():
        trial.ticks = loop.turn

    driven = Driven(victim, suspended, ended)
    before, available, others = asyncio.all_tasks(), world.available(), (len(world.server.asked), len(world.bystanders))
    loop.watch(k if how == "tick" else 0, cancel)
    task = loop.create_task(_within(moment, victim) if how == "timeout" else driven)
    await asyncio.wait({task}, timeout=10_000)
    trial.points = driven.points
    if (len(world.server.asked), len(world.bystanders)) == others:
        trial.kept += world.not_given_back(available)
    loop.watch()
    if how == "slow" and not world.may_leave_tasks:
        trial.broken += [
            f"the victim has ended before a task of its own: {task!r}"
            for task in asyncio.all_tasks() - world.bystanders - before
        ]
    if not task.done():
        trial.broken.append("the victim never ends")
        task.cancel()
        await asyncio.wait({task})
    trial.outcome = trial.outcome or _outcome(task)
    trial.late = 0.0 if cancelled_at is None else loop.time() - cancelled_at
    trial.broken += _wrong_end(trial, how)
    # Nothing of the victim may be kept alive by who watched it.
    task = before = victim = driven = None
    trial.broken += await world.settle()
    return trial


async def _within(seconds, victim):
    async with asyncio.timeout(seconds):
        return await victim


def _outcome(task):
    if task.cancelled():
        return "CancelledError"
    error = task.exception()
    if error is None:
        return "returned"
    return type(error).__name__ if not isinstance(error, AssertionError) else f"AssertionError: {error}"


def _wrong_end(trial, how):
    """A cancellation is neither swallowed nor changed, and it is quick; a caller's timeout is the caller's."""
    expected = {"none": "returned", "close": "returned", "timeout": "TimeoutError"}.get(how, "CancelledError")
    if how == "timeout" and trial.outcome == "returned":
        return  # it was quicker
    if (trial.reached or how in {"none", "timeout"}) and trial.outcome != expected:
        yield f"the victim ended with {trial.outcome!r} in place of {expected!r}"
    if trial.late > 2 * FAREWELL:
        yield f"the victim took {trial.late:g} s to end"
