"""Logging: one line per call, one per notable fact, and nothing in them that nobody should read."""

import asyncio
import gc
import json
import logging
import subprocess
import sys
from decimal import Decimal

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import CircuitOpen, RateLimited, ServerFailed, StreamInterrupted
from resilient_ai.core.events import (
    CacheLookedUp,
    CacheRefreshed,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    HedgeSent,
    KeyRefused,
    ModelSkipped,
    PermitGranted,
    RetryScheduled,
    RetrySuppressed,
    StreamResumed,
)
from resilient_ai.core.operations import Chat, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware.cache import Cache
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.middleware.logging import Logging
from resilient_ai.middleware.tracing import Tracing
from resilient_ai.testing import PIXEL, FakeClock, ScriptedProvider, ScriptedSource, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
STREAM = Stream(model="m", messages="hi")
USUAL = set(vars(logging.makeLogRecord({}))) | {"message"}


@pytest.fixture
def logger():
    logger = logging.getLogger("tests.middleware.test_logging")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.lines = []
    handler = logging.Handler()
    handler.emit = logger.lines.append
    logger.handlers = [handler]
    return logger


def fields(record):
    """Return what the line says beside what every record has."""
    return {name: value for name, value in vars(record).items() if name not in USUAL}


def streaming(*steps):
    return StreamResult(ScriptedSource(steps), model="m", first=[TextDelta("x")], clock=FakeClock())


class Store(dict):
    async def get_many(self, keys):
        return {key: self[key] for key in keys if key in self}

    async def set_many(self, entries, *, ttl=None):
        self.update(entries)


def test_options_are_checked():
    """A level that the standard library does not name is refused."""
    with pytest.raises(ValueError, match="level must be one of"):
        Logging(level=15)
    assert (Logging().level, Logging().logger) == (logging.INFO, None)


async def test_a_call_is_one_line(logger, clock):
    """The line names the call, how it went, what it took and what it cost."""

    async def paid(call):
        call.record.costs.append((Decimal("0.25"), "provider", True))
        await asyncio.sleep(1.5)
        return chat_result()

    pipe = Pipeline(ScriptedProvider(paid), [Logging(logger)], clock=clock)
    await pipe.send(CHAT, tags={"tenant": "t", "name": "n"})
    (line,) = logger.lines
    assert (line.getMessage(), line.levelno) == ("resilient_ai.call", logging.INFO)
    assert fields(line) == {
        "model": "m",
        "kind": "chat",
        "outcome": "success",
        "attempts": 1,
        "cache": "off",
        "cost": 0.25,
        "input_tokens": 10,
        "output_tokens": 3,
        "duration": 1.5,
        "call_id": pipe.provider.calls[0].id,
        "tags": {"tenant": "t", "name": "n"},
    }


async def test_a_failed_call_is_a_warning_without_its_message(logger):
    """An error shows by kind, class, status and request."""
    error = RateLimited("CANARY", status=429, request_id="r1")
    with pytest.raises(RateLimited):
        await Pipeline(ScriptedProvider(error), [Logging(logger)]).send(CHAT)
    (line,) = logger.lines
    shown = {"outcome": "error", "error_type": "429", "error_class": "RateLimited", "status": 429, "request_id": "r1"}
    assert line.levelno == logging.WARNING
    assert shown.items() <= fields(line).items()


@pytest.mark.parametrize(
    ("error", "level", "outcome"),
    [
        (CircuitOpen(model="m", retry_after=1), logging.WARNING, "refused"),
        (asyncio.CancelledError(), logging.DEBUG, "cancelled"),
        (KeyError("CANARY"), logging.WARNING, "error"),
    ],
)
async def test_levels(error, level, outcome, logger):
    """Failures and refusals are warnings; a caller who left is as quiet as a success."""
    with pytest.raises(type(error)):
        await Pipeline(ScriptedProvider(error), [Logging(logger, level=logging.DEBUG)]).send(CHAT)
    assert [(line.levelno, line.outcome) for line in logger.lines] == [(level, outcome)]


@pytest.mark.parametrize("how", ["completed", "closed", "failed", "abandoned", "cancelled"])
async def test_a_stream_is_one_line_at_its_end(how, logger):
    """However a stream ends, its line is written then, once."""
    steps = {
        "completed": [[Finished(("stop",), Usage(input_tokens=1, output_tokens=2))]],
        "failed": [ServerFailed("CANARY", status=500)],
    }.get(how, [3600.0])
    pipe = Pipeline(ScriptedProvider(2.0, streaming(*steps)), [Logging(logger)], clock=FakeClock())
    stream = await pipe.send(STREAM)
    assert logger.lines == []
    if how == "completed":
        await stream.result()
    elif how == "closed":
        await stream.aclose()
    elif how == "failed":
        with pytest.raises(StreamInterrupted):
            await stream.result()
    elif how == "cancelled":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await stream.result()
    del stream
    gc.collect()
    (line,) = logger.lines
    outcome = {"completed": "success", "failed": "error", "cancelled": "cancelled"}.get(how, "abandoned")
    assert (line.outcome, line.stream) == (outcome, "closed" if how == "cancelled" else how)
    assert line.duration == (3.0 if how == "cancelled" else 2.0)
    assert fields(line).get("output_tokens") == (2 if how == "completed" else None)


async def test_a_cache_hit_says_so_and_counts_no_tokens(logger):
    """A hit costs nothing; the tokens of the first time are not counted again."""
    pipe = Pipeline(ScriptedProvider(), [Logging(logger), Cache(Store()), CostAccounting()])
    for _ in range(2):
        await pipe.send(Chat(model="m", messages="hi", seed=1))
    first, second = map(fields, logger.lines)
    assert (first["cache"], first["input_tokens"], "cost" in first) == ("miss", 10, False)
    assert (second["cache"], "input_tokens" in second, second["cost"]) == ("hit", False, 0.0)


async def test_notable_facts_have_lines_of_their_own(logger):
    """A retry, a breaker's turns, a skipped model and a failing cache are written when they happen, at fitting levels."""
    told = {"call_id": "c", "model": "m"}
    error = RateLimited("CANARY", status=429)
    facts = [
        RetryScheduled(**told, attempt=1, wait=0.5, error=error, retry_after=2.0),
        RetryScheduled(**told, attempt=2, wait=0.5, error=KeyError("CANARY"), retry_after=None),
        ModelSkipped(**told, next_model="n", error=error),
        CircuitOpened(**told, retry_after=5.0),
        CircuitHalfOpened(**told),
        CircuitClosed(**told),
        RetrySuppressed(**told, reason="budget", error=error),
        HedgeSent(**told, after=1.5),
        StreamResumed(**told, how="restart", number=1, error=error),
        KeyRefused(**told, status=401, retry_after=2.0),
        CacheLookedUp(**told, outcome="error", hits=0, misses=1),
        CacheLookedUp(**told, outcome="hit", hits=1, misses=0),
        CacheRefreshed(**told, error=error),
        CacheRefreshed(**told, error=None),
        PermitGranted(**told, waited=0),
    ]

    async def tell(call, proceed):
        for fact in facts:
            call.emit(fact)
        return await proceed(call.replace(operation=call.operation.on("n")))

    await Pipeline(ScriptedProvider(), [Logging(logger), tell]).send(CHAT)
    *lines, last = logger.lines
    failed = {"error_type": "429", "error_class": "RateLimited", "status": 429}
    assert [(line.getMessage(), line.levelname, fields(line)) for line in lines] == [
        ("resilient_ai.retry", "WARNING", told | failed | {"attempt": 1, "wait": 0.5, "retry_after": 2.0}),
        (
            "resilient_ai.retry",
            "WARNING",
            told | {"attempt": 2, "wait": 0.5, "error_type": "_OTHER", "error_class": "KeyError"},
        ),
        ("resilient_ai.model_skipped", "WARNING", told | failed | {"next_model": "n"}),
        ("resilient_ai.circuit_opened", "ERROR", told | {"retry_after": 5.0}),
        ("resilient_ai.circuit_half_opened", "WARNING", told),
        ("resilient_ai.circuit_closed", "INFO", told),
        ("resilient_ai.retry_suppressed", "WARNING", told | failed | {"reason": "budget"}),
        ("resilient_ai.hedge_sent", "INFO", told | {"after": 1.5}),
        ("resilient_ai.stream_resumed", "WARNING", told | failed | {"how": "restart", "number": 1}),
        ("resilient_ai.key_refused", "ERROR", told | {"status": 401, "retry_after": 2.0}),
        ("resilient_ai.cache_failed", "WARNING", told | {"misses": 1}),
        ("resilient_ai.cache_refresh_failed", "WARNING", told | failed),
    ]
    assert (last.model, last.served_by) == ("m", "n")


async def test_what_is_filtered_out_is_not_gathered(logger):
    """A level that is off costs nothing: at WARNING facts are heard and successes not written; above, nothing is heard."""
    heard = []

    async def look(call, proceed):
        heard.append(len(call.listeners))
        call.emit(CircuitClosed(call_id="c", model="m"))
        return await proceed(call)

    pipe = Pipeline(ScriptedProvider(), [Logging(logger), look])
    for level in (logging.WARNING, logging.CRITICAL):
        logger.setLevel(level)
        await pipe.send(CHAT)
    assert (heard, logger.lines) == ([1, 0], [])


async def test_the_span_of_the_call_is_named_also_at_the_end_of_a_stream(logger):
    """A line carries the trace and the span it belongs to."""
    pipe = Pipeline(
        ScriptedProvider(chat_result(), streaming([Finished(("stop",))])),
        [Tracing(TracerProvider()), Logging(logger)],
    )
    await pipe.send(CHAT)
    await (await pipe.send(STREAM)).result()
    assert [(len(line.trace_id), len(line.span_id)) for line in logger.lines] == [(32, 16), (32, 16)]


async def test_the_applications_log_context_is_kept_without_secrets(logger):
    """Bound context variables are on the line, reserved names renamed, secret ones dropped."""
    with structlog.contextvars.bound_contextvars(request="r", name="n", message="m", api_key="CANARY", Prompt="CANARY"):
        await Pipeline(ScriptedProvider(), [Logging(logger)]).send(CHAT)
    (line,) = logger.lines
    shown = fields(line)
    assert (shown["request"], shown["name_"], shown["message_"]) == ("r", "n", "m")
    assert "CANARY" not in str(shown)


async def test_the_library_logger_is_the_default(caplog):
    """Without a logger of its own the lines go to "resilient_ai", whatever structlog is configured to."""
    with caplog.at_level(logging.INFO, "resilient_ai"):
        await Pipeline(ScriptedProvider(), [Logging()]).send(CHAT)
    assert [(record.name, record.message) for record in caplog.records] == [("resilient_ai", "resilient_ai.call")]
    assert not structlog.is_configured()


@pytest.mark.parametrize("answer", [chat_result().model_copy(update={"usage": 3}), "something else"])
async def test_logging_never_fails_a_call(answer, logger):
    """A result that cannot be described, and a handler that raises, change nothing about the call."""

    def burst(record):
        raise KeyError("CANARY")

    logger.handlers[0].emit = burst
    assert await Pipeline(ScriptedProvider(answer), [Logging(logger)]).send(CHAT) is not None


async def test_a_result_of_somebody_elses_has_a_line(logger):
    """What is no result of ours is logged with what all have in common."""
    await Pipeline(ScriptedProvider("something else"), [Logging(logger)]).send(CHAT)
    assert [line.outcome for line in logger.lines] == ["success"]


async def test_no_content_reaches_a_line(logger):
    """Prompt, answer, key and exception text are in none of the lines."""
    prompt, answer, key, message = canaries = ["CANARY-PROMPT", "CANARY-ANSWER", "CANARY-KEY", "CANARY-ERROR"]
    provider = ScriptedProvider(
        chat_result(answer),
        streaming([TextDelta(answer)], KeyError(message)),
        ServerFailed(message, status=500, body=message),
    )
    pipe = Pipeline(provider, [Logging(logger, level=logging.DEBUG)], clock=FakeClock())
    extra = {"key": key}
    await pipe.send(Chat(model="m", messages=prompt, user=key, extra=extra))
    with pytest.raises(KeyError):
        await (await pipe.send(Stream(model="m", messages=prompt, extra=extra))).result()
    with pytest.raises(ServerFailed):
        await pipe.send(Embed(model="m", texts=prompt, extra=extra))
    await pipe.send(Image(model="m", prompt=prompt, images=PIXEL, extra=extra))
    written = json.dumps([vars(line) for line in logger.lines], default=repr)
    assert len(logger.lines) == 4
    assert not [canary for canary in canaries if canary in written]


def test_nothing_is_imported_or_printed_before_it_is_wanted():
    """Importing the middleware imports neither structlog nor OpenTelemetry, and without configuration nothing is printed."""
    program = """
import sys
from resilient_ai.core.errors import ServerFailed
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware.logging import Logging
from resilient_ai.testing import ScriptedProvider, run
pipeline = Pipeline(ScriptedProvider(), [Logging()])
chat = Chat(model="m", messages="hi")
run(pipeline.send(chat))
assert not [name for name in sys.modules if name.startswith(("structlog", "opentelemetry"))]
pipeline.provider.script.append(ServerFailed("CANARY", status=500))
try:
    run(pipeline.send(chat))
except ServerFailed:
    pass
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


async def test_without_opentelemetry_lines_have_no_span(monkeypatch, logger):
    """While nobody has imported the API no line names a span."""
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    await Pipeline(ScriptedProvider(), [Logging(logger)]).send(CHAT)
    assert "trace_id" not in fields(logger.lines[0])
