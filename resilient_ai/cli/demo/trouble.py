"""The steps in which the provider fails, and is made to."""

import asyncio
import time

from resilient_ai.cli.demo import plan
from resilient_ai.cli.demo.scene import Scene
from resilient_ai.cli.demo.stage import Line, UnexpectedError, expect
from resilient_ai.cli.terminal import seconds
from resilient_ai.core.errors import CircuitOpen, ProviderError
from resilient_ai.simulator import Fault, Simulator

FIRST_CHOICE = "Qwen/Qwen2.5-72B-Instruct"
FALLING_OUT = "moonshotai/Kimi-K2.6"
BUSY = "Qwen/Qwen3-14B"
_BURST = 300
_PATIENCE = 20.0


async def fallback(scene: Scene, simulator: Simulator, line: Line) -> str:
    """The first model of a list is down, and the second one answers."""
    simulator.faults.outage(FIRST_CHOICE)
    line.show(f"{FIRST_CHOICE} is down")
    try:
        answer = await scene.ai.chat([FIRST_CHOICE, plan.CHAT.model], "What is the capital of Japan?", max_tokens=60)
    finally:
        simulator.faults.outage(FIRST_CHOICE, on=False)
    expect(answer.served_by == plan.CHAT.model, f"{answer.served_by} answered")
    return f"{answer.served_by} answered, with request {answer.attempts}"


async def outage(scene: Scene, simulator: Simulator, line: Line) -> str:
    """A provider goes down and comes back: the breaker opens, refuses at once, probes and closes."""
    simulator.faults.outage(FALLING_OUT)
    line.show(f"{FALLING_OUT} is down")
    try:
        failed, refused = await _until_refused(scene)
        started = time.monotonic()
        await asyncio.gather(*(_ask(scene) for _ in range(50)), return_exceptions=True)
        line.note(
            f"{failed} failed requests, then 50 calls refused within {seconds(time.monotonic() - started)}; none was sent"
        )
    finally:
        simulator.faults.outage(FALLING_OUT, on=False)
    line.show(f"{FALLING_OUT} is back, and nobody has told the client")
    await _until_answered(scene, refused.retry_after)
    tally = scene.tally
    expect(tally.opened >= 1 and tally.closed >= 1, "the breaker did not open and close again")
    return f"{FALLING_OUT} went down and came back"


async def _until_refused(scene: Scene) -> tuple[int, CircuitOpen]:
    before = scene.tally.sends
    for _ in range(10):
        try:
            await _ask(scene)
        except CircuitOpen as refused:
            return scene.tally.sends - before, refused
        except ProviderError:
            continue
    raise UnexpectedError("the breaker did not open")


async def _until_answered(scene: Scene, wait: float) -> None:
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        await asyncio.sleep(wait + 0.01)
        try:
            await _ask(scene)
        except CircuitOpen as refused:
            wait = refused.retry_after
        else:
            return
    raise UnexpectedError("the breaker did not close")


async def _ask(scene: Scene) -> None:
    # Who has little time is refused at once; a call with more of it waits for the circuit.
    await scene.ai.with_options(timeout=4).chat(FALLING_OUT, "Are you there?", max_tokens=60)


async def burst(scene: Scene, simulator: Simulator, line: Line) -> str:
    """More calls at once than the provider takes: they queue here instead of being refused there."""
    simulator.faults.rate(Fault.delay(0.25), 1.0, model=BUSY)
    simulator.faults.script(BUSY, Fault.status(500), times=3)
    refused = simulator.stats().by_status.get(429, 0)
    answered: list[int] = []

    async def ask(number: int) -> None:
        await scene.ai.chat(BUSY, f"What is {number} + {number}?", max_tokens=60)
        answered.append(number)
        line.show(f"{len(answered)} of {_BURST} answered")

    await asyncio.gather(*(ask(number) for number in range(_BURST)))
    stats, limit = simulator.stats(), simulator.settings.limit
    refused = stats.by_status.get(429, 0) - refused
    queued, longest = scene.tally.queued, seconds(scene.tally.longest_wait)
    line.note(f"{queued} calls queued here, the longest for {longest}; {refused} were refused there")
    expect(len(answered) == _BURST, f"{_BURST - len(answered)} calls were not answered")
    return f"all answered; the server saw at most {stats.peak_in_flight} at once (its limit: {limit})"
