"""Answers that break: a stream without an end, an error in its middle, a connection lost under a picture."""

from benchmarks.resilience.bench import Bench, Finding, seconds_to_fail
from resilient_ai.core.deltas import TextDelta
from resilient_ai.core.errors import ConnectionFailed, InvalidInput, StreamInterrupted

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


async def broken_stream(bench: Bench) -> Finding:
    """The three policies: raise at once, begin again, go on where it broke."""
    seen = {how: await _read(bench, how) for how in ("raise", "restart", "continue")}
    expected = {
        "raise": (_PARTIAL, "raises", 1),
        "restart": (_WHOLE, "whole", 2),
        "continue": (_WHOLE, "whole", 2),
    }
    text = ", ".join(f"{how}: {end}" for how, (_, end, _) in seen.items())
    return Finding(text, seen == expected)


async def _read(bench: Bench, how: str) -> tuple[str, str, int]:
    """Return the text that a reader has, how the stream ended, and how many requests it took."""
    model, text = f"broken/ours-{how}", ""
    async with bench.client() as ai:
        try:
            async with ai.stream(model, "hi", on_interrupt=how) as events:  # type: ignore[call-arg]
                async for event in events:
                    if isinstance(event, TextDelta):
                        text += event.text
                    elif "Restart" in type(event).__name__:
                        text = ""
                answer = await events.result()
        except StreamInterrupted as error:
            partial = error.partial.text if error.partial else ""
            return text, "raises" if partial == text else f"raises with {partial!r}", bench.requests(model)
        except InvalidInput:
            return text, "refused", bench.requests(model)
    return text, "whole" if answer.text == text else f"returns {answer.text!r}", bench.requests(model)


async def lost_image(bench: Bench) -> Finding:
    async with bench.client() as ai:
        _, error = await seconds_to_fail(lambda: ai.image("lost/ours", "a lighthouse"))
    requests = bench.requests("lost/ours")
    said = isinstance(error, ConnectionFailed) and error.sent
    return Finding(f"{requests} request{'s' * (requests != 1)}", said and requests == 1)
