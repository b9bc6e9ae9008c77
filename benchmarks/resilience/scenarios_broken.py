"""Answers that break: a stream without an end, an error in its middle, a connection lost under a picture."""

import asyncio
from dataclasses import dataclass

from benchmarks.resilience.bench import Bench, Finding, seconds_to_fail
from resilient_ai.core.deltas import Restarted, TextDelta
from resilient_ai.core.errors import ConnectionFailed, StreamInterrupted
from resilient_ai.core.operations import OnInterrupt

_WHOLE = "one two three four five"
_PARTIAL = "one two "


async def cut_stream(bench: Bench) -> Finding:
    async with bench.client() as ai:
        try:
            async with ai.stream("cut/ours", "hi") as events:
                answer = await events.result()
        except StreamInterrupted as error:
            partial = error.partial.text if error.partial else ""
            return Finding(f"raises, partial {partial.strip()!r}", partial == _PARTIAL)
    return Finding(f"returns {answer.text!r}", False)


@dataclass(frozen=True)
class Seen:
    """What the reader of a stream was given.

    Args:
        text: All deltas since the last restart, joined.
        end: "whole" if that is the answer, "raises" if the error holds it as its partial, else what was wrong.
        restarts: How often the reader was told to forget what came before.
        requests: How many requests it took.
    """

    text: str
    end: str
    restarts: int
    requests: int


_EXPECTED: dict[OnInterrupt, Seen] = {
    "raise": Seen(_PARTIAL, "raises", restarts=0, requests=1),
    "restart": Seen(_WHOLE, "whole", restarts=1, requests=2),
    "continue": Seen(_WHOLE, "whole", restarts=0, requests=2),
}


async def broken_stream(bench: Bench) -> Finding:
    """The three policies: raise at once, begin again, go on where it broke."""
    found = {how: await _read(bench, how) for how in _EXPECTED}
    wrong = [f"{how}: {seen}" for how, seen in found.items() if seen != _EXPECTED[how]]
    return Finding("; ".join(wrong) or "raises, restarts, continues, as asked", not wrong)


async def _read(bench: Bench, how: OnInterrupt) -> Seen:
    model, text, restarts, end = f"broken/ours-{how}", "", 0, ""
    async with bench.client() as ai:
        try:
            async with ai.stream(model, "hi", on_interrupt=how) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        text += event.text
                    elif isinstance(event, Restarted):
                        text, restarts = "", restarts + 1
                answer = (await events.result()).text
            end = "whole" if answer == text else f"returns {answer!r}"
        except StreamInterrupted as error:
            partial = error.partial.text if error.partial else ""
            end = "raises" if partial == text else f"raises with {partial!r}"
    return Seen(text, end, restarts, await asyncio.to_thread(bench.requests, model))


async def lost_image(bench: Bench) -> Finding:
    async with bench.client() as ai:
        _, error = await seconds_to_fail(lambda: ai.image("lost/ours", "a lighthouse"))
    requests = bench.requests("lost/ours")
    said = isinstance(error, ConnectionFailed) and error.sent
    return Finding(f"{requests} request{'s' * (requests != 1)}", said and requests == 1)
