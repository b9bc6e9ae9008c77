"""What is said of calls: times, outcomes, and the facts that are worth a line."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Literal, TypeAlias

from resilient_ai.cli._trace_model import Call, Found
from resilient_ai.cli.terminal import counted, usd

Tone: TypeAlias = Literal["good", "bad", "faint", "plain"]

_SECOND = 10**9
_CACHED = {"hit": "cache hit", "stale": "stale hit", "joined": "joined"}
_SIGNS: dict[Tone, str] = {"good": "✓", "bad": "✗", "faint": "○", "plain": "·"}
UNUSED = frozenset({"lost", "cancelled", "abandoned"})


# Times


def lasted(nanoseconds: float) -> str:
    """Return how long something took, as people read it.

    >>> lasted(0), lasted(420_000), lasted(250_000_000), lasted(1_254_000_000), lasted(75_000_000_000)
    ('0 ms', '0.42 ms', '250 ms', '1.25 s', '1 min 15 s')
    """
    milliseconds = nanoseconds / 1e6
    if not milliseconds:
        return "0 ms"
    if milliseconds < 9.995:
        return f"{milliseconds:.2g} ms" if milliseconds >= 0.01 else "<0.01 ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = round(milliseconds / 1000)
    if seconds < 60:
        return f"{milliseconds / 1000:.{2 if milliseconds < 9995 else 1}f} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours < 100 else f"{hours / 24:,.0f} d"


def ticks(start: int, end: int, most: int) -> list[tuple[int, str]]:
    """Return round times for an axis, at most so many, each with its name; they count from the start.

    >>> ticks(0, 2_700_000_000, 4)
    [(0, '0'), (1000000000, '1 s'), (2000000000, '2 s')]
    """
    length = max(end - start, 1)
    step = next(step for step in _steps() if length // step < most)
    return [(start + at, _tick(at)) for at in range(0, length + 1, step)]


def _steps() -> Iterator[int]:
    yield from (factor * 10**power for power in range(10) for factor in (1, 2, 5))
    yield from (10 * _SECOND, 20 * _SECOND)
    yield from (minutes * 60 * _SECOND for minutes in (1, 2, 5, 10, 30, 60, 120, 360, 720))
    yield from (factor * 10**power * 86400 * _SECOND for power in count() for factor in (1, 2, 5))


def _tick(at: int) -> str:
    units = (
        (86400 * _SECOND, "d"),
        (3600 * _SECOND, "h"),
        (60 * _SECOND, "min"),
        (_SECOND, "s"),
        (10**6, "ms"),
        (10**3, "µs"),
    )
    return next((f"{at / size:.4g} {unit}" for size, unit in units if at >= size), f"{at} ns" if at else "0")


def date_of(at: int) -> str:
    """Return a time for people, in UTC.

    >>> date_of(1_800_001_000_250_000_000)
    '2027-01-15 08:16:40.250 UTC'
    """
    return f"{datetime.fromtimestamp(at // _SECOND, UTC):%Y-%m-%d %H:%M:%S}.{at % _SECOND // 10**6:03} UTC"


# Calls


def short(model: str | None) -> str:
    """Return the name of a model without that of who made it."""
    return "" if model is None else model.rpartition("/")[2] or model


def tone_of(call: Call) -> Tone:
    """Return whether a call went well."""
    if not call.complete:
        return "plain"
    if call.failed or call.outcome in {"error", "refused"}:
        return "faint" if call.outcome == "cancelled" else "bad"
    return "faint" if call.outcome in UNUSED else "good"


def result_of(call: Call) -> str:
    """Return what came of a call, in a word or two."""
    if not call.complete:
        return "not ended"
    if call.outcome in UNUSED:
        return call.outcome or ""
    if tone_of(call) == "bad":
        return call.error if call.error not in {None, "_OTHER"} and call.error else call.error_class or "error"
    return _CACHED.get(call.cache or "", "ok")


def details_of(call: Call) -> Iterator[str]:
    """Return what else is worth knowing of a call, the most important first."""
    if not call.complete:
        yield "its own span is not in the file: it has not ended, or stands elsewhere"
    if call.details.get("fallback") is not None:
        yield f"served by {call.details['fallback']}"
    if call.error_class and call.failed:
        yield call.error_class + ("" if call.outcome != "refused" else ", refused unsent")
    yield from _of_effort(call)
    yield from _of_answer(call)
    yield from _of_money(call)
    yield from _of_stream(call)
    yield from _of_others(call)


def _of_effort(call: Call) -> Iterator[str]:
    if call.attempts is not None and call.attempts > 1:
        yield counted(call.attempts, "attempt")
    stop = call.details.get("stop_reason")
    if stop is not None:
        yield f"not tried again: {str(stop).replace('_', ' ')}"
    if call.details.get("timeout") is not None:
        yield f"timeout: {str(call.details['timeout']).replace('_', ' ')}"
    if call.details.get("budget") is not None:
        yield f"budget {call.details['budget']}"


def _of_answer(call: Call) -> Iterator[str]:
    tokens = call.tokens
    counts = [f"{count:,}" for count in (tokens.input, tokens.output) if count is not None]
    if counts:
        extra = [
            f"{count:,} {word}" for count, word in ((tokens.cached, "cached"), (tokens.reasoning, "reasoning")) if count
        ]
        yield f"{' + '.join(counts)} tokens" + (f" ({', '.join(extra)})" if extra else "")
    wasted = (tokens.discarded_input or 0) + (tokens.discarded_output or 0)
    if wasted:
        yield f"{counted(wasted, 'token')} of answers that were not used"
    for word, noun in (("texts", "text"), ("images", "image")):
        count = call.details.get(word)
        if isinstance(count, int):
            yield counted(count, noun)


def _of_money(call: Call) -> Iterator[str]:
    money = call.money
    if money.amount is not None:
        yield ("" if money.complete else "at least ") + usd(money.amount)
    elif not money.complete:
        yield "cost not known"
    if money.wasted:
        yield f"{usd(money.wasted)} of it wasted"


def _of_stream(call: Call) -> Iterator[str]:
    if call.cache in {"hit", "stale"} and call.cache_age is not None:
        yield f"cached {lasted(call.cache_age * 1e9)} ago"
    if call.leader is not None:
        yield f"shares the answer of a call in trace {call.leader[0][:8]}"
    stream = call.stream
    if stream is None:
        return
    if stream.first_chunk is not None:
        yield f"first token after {lasted(stream.first_chunk * 1e9)}"
    if stream.first_content is not None and stream.first_content > (stream.first_chunk or 0) * 1.001:
        yield f"first of the answer after {lasted(stream.first_content * 1e9)}"
    speed = speed_of(call)
    if speed is not None:
        yield f"{speed:,.0f} tokens/s"
    if stream.outcome not in {None, "completed"}:
        yield f"stream {stream.outcome}" + (
            "" if stream.chunks is None else f" after {counted(stream.chunks, 'piece')}"
        )


def speed_of(call: Call) -> float | None:
    """Return the tokens a second of a stream that came to its end, None where that is not known or it came at once."""
    stream, tokens = call.stream, call.tokens.output
    if stream is None or stream.outcome != "completed" or stream.first_chunk is None or not tokens:
        return None
    seconds = (call.end - call.start) / 1e9 - stream.first_chunk
    return tokens / seconds if seconds > 0.01 else None


def _of_others(call: Call) -> Iterator[str]:
    reasons = call.details.get("finish_reasons")
    unusual = (
        [reason for reason in reasons if reason not in {"stop", "tool_calls"}] if isinstance(reasons, tuple) else []
    )
    if unusual:
        yield f"finished by {', '.join(sorted(set(unusual)))}"
    if call.details.get("tenant") is not None:
        yield f"tenant {call.details['tenant']}"
    if call.title is not None and short(call.title) != call.title:
        yield call.title


def total(amounts: Sequence[Decimal | None]) -> Decimal | None:
    """Return the sum of what is known, None where nothing is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if known else None


def sign(tone: Tone) -> str:
    """Return the one letter for how it went."""
    return _SIGNS[tone]


def summary(found: Found) -> str:
    """Return the sums of what is shown, on a line."""
    sums = list(sums_of(found))
    words = [
        f"{value} {name}" for name, value in sums if name.removesuffix("s") in {"call", "tool", "failed", "attempt"}
    ]
    return ", ".join(words) + "".join(f"; {value}" for name, value in sums if name == "cost")


def sums_of(found: Found) -> Iterator[tuple[str, str]]:
    """Return the sums of what is shown, each with its name."""
    calls = found.shown_calls
    counts = {
        "call": len(calls),
        "tool": len(found.shown) - len(calls),
        "failed": sum(tone_of(call) == "bad" for call in found.shown),
        "attempt": sum(call.attempts or 0 for call in calls),
        "token in": sum(call.tokens.input or 0 for call in calls),
        "token out": sum(call.tokens.output or 0 for call in calls),
    }
    for name, number in counts.items():
        if number:
            noun, space, way = name.partition(" ")
            yield noun + ("" if number == 1 or name == "failed" else "s") + space + way, f"{number:,}"
    cost, wasted = total([call.money.amount for call in calls]), total([call.money.wasted for call in calls])
    if cost is not None:
        yield "cost", ("" if all(call.money.complete for call in calls) else "at least ") + usd(cost)
    if wasted is not None:
        yield "wasted", usd(wasted)
    if len(calls) > 1:
        yield "slowest", lasted(max(call.end - call.start for call in calls))


def shown(found: Found) -> str:
    """Return how many calls are shown, and functions beside them."""
    calls = len(found.shown_calls)
    tools = len(found.shown) - calls
    return counted(calls, "call") + (f", {counted(tools, 'tool')}" if tools else "")


def uncounted(found: Found) -> str | None:
    """Return how many streams were paid for and have no tokens here, as they did not come to their end; None for none."""
    left = [
        call
        for call in found.shown_calls
        if call.stream is not None and call.money.amount and call.tokens.input is call.tokens.output is None
    ]
    if not left:
        return None
    return (
        f"Without the tokens of {counted(len(left), 'stream')} that did not come to an end, which the service has not told;"
        " `resilient-ai costs` counts what they are estimated at"
    )


def title_of(call: Call) -> str:
    """Return what a call is called in a list."""
    word = "tool" if call.is_tool else call.operation
    return f"{word} {call.title or ''}".rstrip()


def facts_of(call: Call) -> Iterator[tuple[str, str]]:
    """Return everything that is known of a call, each fact with its name."""
    yield "trace", call.trace
    yield "span", call.span
    yield "began", date_of(call.start)
    known: dict[str, str | int | float | tuple[str, ...] | None] = {
        "call id": call.id,
        "service": call.service,
        "served by": call.served_by,
        "outcome": call.outcome,
        "error": call.error,
        "error class": call.error_class,
        "cache": call.cache,
        "tokens in": call.tokens.input,
        "tokens out": call.tokens.output,
        "cached tokens": call.tokens.cached,
        "reasoning tokens": call.tokens.reasoning,
        "cost": None if call.money.amount is None else f"{call.money.amount:f} USD",
        "told by": call.money.source,
        "stream": None if call.stream is None else call.stream.outcome,
        "pieces": None if call.stream is None else call.stream.chunks,
        **{name.replace("_", " "): value for name, value in call.details.items()},
    }
    for name, value in known.items():
        if value is not None:
            yield name, _as_text(value)


def _as_text(value: str | float | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
