"""Logging: one line per call, one per notable fact, and nothing in them that nobody should read."""

import asyncio
import contextlib
import contextvars
import gc
import json
import logging
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path, PurePosixPath

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, get_current_span

from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import CircuitOpen, InvalidResponse, RateLimited, ServerFailed, StreamInterrupted
from resilient_ai.core.events import (
    BudgetRefused,
    BudgetThresholdReached,
    CacheLookedUp,
    CacheRefreshed,
    CallJoined,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    HedgeSent,
    HedgeSettled,
    KeyRefused,
    LimitChanged,
    ModelSkipped,
    PermitGranted,
    PriceDrifted,
    RetryScheduled,
    RetrySuppressed,
    SendSettled,
    SendStarted,
    StreamResumed,
)
from resilient_ai.core.operations import Chat, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.deepinfra.catalogue import catalogue
from resilient_ai.middleware._log_fields import presentable
from resilient_ai.middleware._telemetry_faults import fault_counts
from resilient_ai.middleware.cache import Cache
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.middleware.logging import COMMON_FIELDS, ERROR_FIELDS, LOG_EVENTS, Logging
from resilient_ai.middleware.retry import Retry
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


class Odd:
    def __str__(self):
        return "odd thing"

    def __repr__(self):
        return "<Odd CANARY>"


class Burst:
    def __str__(self):
        raise KeyError("CANARY")


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


@pytest.mark.parametrize(("level", "heard", "lines"), [("INFO", False, ["call"]), ("DEBUG", True, ["attempt", "call"])])
async def test_what_every_request_has_is_told_at_debug_alone(level, heard, lines, logger):
    """At other levels nobody makes a fact of it."""
    logger.setLevel(level)
    asked = []

    async def look(call, proceed):
        asked.append((call.is_heard(SendSettled), call.is_heard(RetryScheduled)))
        return await proceed(call)

    await Pipeline(ScriptedProvider(), [Logging(logger), look, CostAccounting()]).send(CHAT)
    assert asked == [(heard, True)]
    assert [line.getMessage() for line in logger.lines] == [f"resilient_ai.{name}" for name in lines]


@pytest.mark.parametrize("outcome", [InvalidResponse("broken"), chat_result(usage=None)], ids=["failed", "no usage"])
async def test_a_cost_that_nobody_knows_is_told(outcome, logger):
    """It may be something."""
    with contextlib.suppress(InvalidResponse):
        await Pipeline(ScriptedProvider(outcome), [Logging(logger), CostAccounting()]).send(CHAT)
    assert "cost" not in fields(logger.lines[-1])
    assert fields(logger.lines[-1])["cost_complete"] is False


async def test_a_failed_call_is_a_warning_without_its_message(logger):
    """An error shows by kind, class, status and request."""
    error = RateLimited("CANARY", status=429, request_id="r1")
    with pytest.raises(RateLimited):
        await Pipeline(ScriptedProvider(error), [Logging(logger)]).send(CHAT)
    (line,) = logger.lines
    shown = {"outcome": "error", "error_type": "429", "error_class": "RateLimited", "status": 429, "request_id": "r1"}
    assert line.levelno == logging.WARNING
    assert shown.items() <= fields(line).items()


async def test_a_request_id_that_is_none_has_no_field(logger):
    """A server may write anything there, also what it was told."""
    error = RateLimited("x", status=429, request_id="you said CANARY")
    with pytest.raises(RateLimited):
        await Pipeline(ScriptedProvider(error), [Logging(logger)]).send(CHAT)
    assert "request_id" not in fields(logger.lines[0])


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
    await asyncio.sleep(0)  # what the collector finds is written in the next turn of the loop
    (line,) = logger.lines
    outcome = {"completed": "success", "failed": "error", "cancelled": "cancelled"}.get(how, "abandoned")
    assert (line.outcome, line.stream) == (outcome, {"failed": "interrupted", "closed": "abandoned"}.get(how, how))
    assert fields(line).get("leaked") == (True if how == "abandoned" else None)
    assert line.levelno == (logging.WARNING if how == "failed" else logging.INFO)
    assert line.duration == (3.0 if how == "cancelled" else 2.0)
    assert fields(line).get("output_tokens") == (2 if how == "completed" else None)


async def test_a_cache_hit_says_so_and_counts_no_tokens(logger):
    """A hit costs nothing; the tokens of the first time are not counted again."""
    logger.setLevel(logging.INFO)
    pipe = Pipeline(ScriptedProvider(), [Logging(logger), Cache(Store()), CostAccounting()])
    for _ in range(2):
        await pipe.send(Chat(model="m", messages="hi", seed=1))
    first, second = map(fields, logger.lines)
    assert (first["cache"], first["input_tokens"], "cost" in first) == ("miss", 10, False)
    assert (second["cache"], "input_tokens" in second, second["cost"]) == ("hit", False, 0.0)


TOLD = {"call_id": "c", "model": "m"}
ERROR = RateLimited("CANARY", status=429, request_id="r")
FAILED = {"error_type": "429", "error_class": "RateLimited", "status": 429, "request_id": "r"}
MONEY = {"cost": Decimal("0.25"), "list_cost": Decimal("0.2")}
SETTLED = {"send_id": "s", "state": "settled", "cost": Decimal("0.25"), "usage": None, "elapsed": 1.5}
REFUSED = {"budget": "b tenant=a", "spent": 0.75, "reserved": 0.25, "limit": 1.0, "retry_after": 4.5}
REACHED = {"budget": "team", "threshold": 0.8, "spent": Decimal(8), "limit": Decimal(10)}
FACTS = [
    (RetryScheduled(**TOLD, attempt=1, wait=0.5, error=ERROR, retry_after=2.0), "retry", "WARNING", FAILED | {"attempt": 1, "wait": 0.5, "retry_after": 2.0}),
    (
        RetryScheduled(**TOLD, attempt=2, wait=0.5, error=KeyError("CANARY"), retry_after=None),
        "retry",
        "WARNING",
        {"attempt": 2, "wait": 0.5, "error_type": "_OTHER", "error_class": "KeyError"},
    ),
    (RetrySuppressed(**TOLD, reason="budget", error=ERROR), "retry_suppressed", "WARNING", FAILED | {"reason": "budget"}),
    (ModelSkipped(**TOLD, next_model="n", error=ERROR), "model_skipped", "WARNING", FAILED | {"next_model": "n"}),
    (HedgeSent(**TOLD, after=1.5), "hedge_sent", "INFO", {"after": 1.5}),
    (HedgeSettled(**TOLD, outcome="won"), "hedge_settled", "DEBUG", {"outcome": "won"}),
    (StreamResumed(**TOLD, how="restart", number=1, error=ERROR), "stream_resumed", "WARNING", FAILED | {"how": "restart", "number": 1}),
    (KeyRefused(**TOLD, status=401, retry_after=2.0), "key_refused", "ERROR", {"status": 401, "retry_after": 2.0}),
    (CircuitOpened(**TOLD, retry_after=5.0), "circuit_opened", "ERROR", {"retry_after": 5.0}),
    (CircuitHalfOpened(**TOLD), "circuit_half_opened", "WARNING", {}),
    (CircuitClosed(**TOLD), "circuit_closed", "INFO", {}),
    (LimitChanged(**TOLD, limit=17), "limit_changed", "DEBUG", {"limit": 17}),
    (BudgetRefused(**TOLD, **REFUSED, until=None), "budget_refused", "ERROR", REFUSED),
    (BudgetRefused(**TOLD, **REFUSED, until=17.0), "budget_refused", "ERROR", REFUSED | {"until": 17.0}),
    (BudgetThresholdReached(**TOLD, **REACHED, until=None), "budget_threshold", "WARNING", REACHED),
    (BudgetThresholdReached(**TOLD, **REACHED, until=17.0), "budget_threshold", "WARNING", REACHED | {"until": 17.0}),
    (PriceDrifted(**TOLD, send_id="s", **MONEY), "price_drifted", "WARNING", {"send_id": "s", "cost": 0.25, "list_cost": 0.2}),
    (SendSettled(**TOLD, **SETTLED, error=None), "attempt", "DEBUG", {"state": "settled", "cost": 0.25, "elapsed": 1.5, "used": True}),
    (
        SendSettled(**TOLD, **SETTLED | {"cost": None}, error="ServerFailed", used=False),
        "attempt",
        "DEBUG",
        {"state": "settled", "elapsed": 1.5, "used": False, "error_class": "ServerFailed"},
    ),
    (CacheLookedUp(**TOLD, outcome="hit", hits=1, misses=0, age=2.0), "cache_looked_up", "DEBUG", {"outcome": "hit", "hits": 1, "misses": 0, "age": 2.0}),
    (CacheLookedUp(**TOLD, outcome="error", hits=0, misses=1), "cache_failed", "WARNING", {"misses": 1}),
    (CacheRefreshed(**TOLD, error=ERROR), "cache_refresh_failed", "WARNING", FAILED),
    (CallJoined(**TOLD, leader="l"), "call_joined", "DEBUG", {"leader": "l"}),
]  # fmt: skip


def telling(*facts):
    async def tell(call, proceed):
        for fact in facts:
            call.emit(fact)
        return await proceed(call)

    return tell


@pytest.mark.parametrize(("fact", "name", "level", "shown"), FACTS)
async def test_notable_facts_have_lines_of_their_own(fact, name, level, shown, logger):
    """A fact is written when it happens, at a fitting level, with what is known of it."""
    await Pipeline(ScriptedProvider(), [Logging(logger), telling(fact)]).send(CHAT)
    line = logger.lines[0]
    assert (line.getMessage(), line.levelname, fields(line)) == (f"resilient_ai.{name}", level, TOLD | shown)
    json.dumps(fields(line))


async def test_facts_that_are_no_news_have_no_line(logger):
    """Every wait for a permit, every start of a send, a refresh that worked, and a price each time would only be noise."""
    facts = [PermitGranted(**TOLD, waited=0), SendStarted(**TOLD, number=1), CacheRefreshed(**TOLD, error=None)]
    facts.append(PriceDrifted(**TOLD, send_id="s", **MONEY, repeated=True))
    await Pipeline(ScriptedProvider(), [Logging(logger), telling(*facts)]).send(CHAT)
    assert [line.getMessage() for line in logger.lines] == ["resilient_ai.call"]


async def test_the_vocabulary_is_closed():
    """Whatever is written is in the table, and whatever is in the table is written."""
    told = {
        name: {field for _, other, _, shown in FACTS if other == name for field in shown} for _, name, _, _ in FACTS
    }
    for _, name, level, shown in FACTS:
        event = LOG_EVENTS[f"resilient_ai.{name}"]
        assert (logging.getLevelName(event.level), shown.keys() - {*event.fields}) == (level, set())
    assert {f"resilient_ai.{name}" for name in told} | {"resilient_ai.call"} == LOG_EVENTS.keys()
    assert {name: {*LOG_EVENTS[f"resilient_ai.{name}"].fields} - shown for name, shown in told.items()} == {
        name: {"saved"} if name == "cache_looked_up" else set() for name in told
    }


def test_the_table_of_the_docs_is_the_vocabulary():
    """Names, levels and fields are those of the documentation."""
    text = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    rows = re.findall(r"^\| `(resilient_ai\.\w+)` \| ([A-Z]+)([^|]*)\|([^|]*)\|$", text, re.MULTILINE)
    found = {}
    for name, level, _, fields in rows:
        named = re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", fields))
        found[name] = (level, {*named, *(ERROR_FIELDS if "those of an error" in fields else ())})
    assert found == {name: (logging.getLevelName(line.level), {*line.fields}) for name, line in LOG_EVENTS.items()}
    for field in (*ERROR_FIELDS, *COMMON_FIELDS):
        assert f"`{field}`" in text


async def test_the_model_that_served_is_named(logger):
    """It has a field where it is not the one that was asked."""

    async def other(call, proceed):
        return await proceed(call.replace(operation=call.operation.on("n")))

    await Pipeline(ScriptedProvider(), [Logging(logger), other]).send(CHAT)
    assert (logger.lines[0].model, logger.lines[0].served_by) == ("m", "n")


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


@pytest.mark.parametrize("how", ["completed", "closed", "failed", "abandoned"])
async def test_every_line_names_the_span_of_its_call(how, logger):
    """Retries, facts and the end of a stream, wherever it is read, have the ids that the span of the call has."""
    spans = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    steps = {"completed": [[Finished(("stop",))]], "failed": [KeyError("CANARY")]}.get(how, [3600.0])
    current = []
    logger.handlers[0].emit = lambda line: (logger.lines.append(line), current.append(get_current_span()))
    pipe = Pipeline(
        ScriptedProvider(ServerFailed("CANARY", status=500), streaming(*steps)),
        [Tracing(tracers), Logging(logger), Retry(attempts=2)],
        clock=FakeClock(),
    )
    stream = await pipe.send(STREAM)
    if how == "closed":
        await asyncio.create_task(stream.aclose(), context=contextvars.Context())
    elif how != "abandoned":
        with contextlib.suppress(KeyError):
            await stream.result()
    del stream
    gc.collect()
    await asyncio.sleep(0)
    (call,) = [span for span in spans.get_finished_spans() if span.kind is SpanKind.CLIENT]
    ids = f"{call.context.trace_id:032x}", f"{call.context.span_id:016x}"
    assert [line.getMessage() for line in logger.lines] == ["resilient_ai.retry", "resilient_ai.call"]
    assert [(line.trace_id, line.span_id) for line in logger.lines] == [ids, ids]
    # So handlers that ask OpenTelemetry find the same.
    assert [span.get_span_context() for span in current] == [call.context] * 2
    assert not get_current_span().get_span_context().is_valid


async def test_the_applications_span_is_named_where_ours_is_not(logger):
    """Without `Tracing` in the stack lines belong to what is current."""
    with TracerProvider().get_tracer("app").start_as_current_span("request") as span:
        await Pipeline(ScriptedProvider(), [Logging(logger)]).send(CHAT)
    assert logger.lines[0].span_id == f"{span.get_span_context().span_id:016x}"


async def test_the_applications_log_context_is_kept_without_secrets(logger):
    """Bound context variables are on the line, reserved names renamed; what is named like a secret or content is dropped."""
    secrets = {"api_key": "CANARY", "Prompt": "CANARY", "refresh_token": "CANARY", "Set-Cookie": "CANARY"}
    with structlog.contextvars.bound_contextvars(request="r", name="n", message="m", **secrets):
        await Pipeline(ScriptedProvider(), [Logging(logger)]).send(CHAT)
    (line,) = logger.lines
    shown = fields(line)
    assert (shown["request"], shown["name_"], shown["message_"]) == ("r", "n", "m")
    assert "CANARY" not in str(shown)


async def test_what_looks_like_a_key_is_masked_wherever_it_hides(logger):
    """Tags, bound variables, what they hold, and a request id of the server are masked by form and by name, and cut to size."""
    key = "sk-CANARY0123456789"
    bound = {
        "who": f"curl -H 'Authorization: Bearer {key}'",
        "nested": {"password": "CANARY", "list": [key, 3, None], "a": {"b": {"c": {"d": key}}}},
        "path": PurePosixPath("/srv") / key,
        "long": "x" * 3000,
        "odd": Odd(),
    }
    tags = {"tenant": "acme", "session": f"s?token={key}", "api_key": "CANARY"}
    error = RateLimited("CANARY", status=429, request_id=key)
    with structlog.contextvars.bound_contextvars(**bound), pytest.raises(RateLimited):
        await Pipeline(ScriptedProvider(error), [Logging(logger)]).send(CHAT, tags=tags)
    shown = fields(logger.lines[0])
    assert "CANARY" not in repr(shown)
    assert shown["who"] == "curl -H 'Authorization: Bearer [key]'"
    assert shown["nested"] == {"list": ["[key]", 3, None], "a": {"b": {"c": "[nested too deep]"}}}
    assert (shown["path"], shown["odd"], shown["request_id"]) == ("/srv/[key]", "odd thing", "[key]")
    assert shown["long"] == "x" * 2048 + "…[truncated 952 chars]"
    assert shown["tags"] == {"tenant": "acme", "session": "s?token=[key]"}


@pytest.mark.parametrize(
    ("given", "shown"), [("sk-CANARY0123456789", "[key]"), ("x" * 3000, "x" * 2048 + "…[truncated 952 chars]")]
)
async def test_names_of_models_are_masked_and_cut(given, shown, logger):
    """The one that was asked for, the one that served, and the next one: callers and servers fill them."""

    async def other(call, proceed):
        call.emit(ModelSkipped(call_id="c", model=given, next_model=given, error=ERROR))
        return await proceed(call.replace(operation=call.operation.on(given)))

    await Pipeline(ScriptedProvider(), [Logging(logger), other]).send(CHAT)
    await Pipeline(ScriptedProvider(), [Logging(logger)]).send(Chat(model=given, messages="hi"))
    skipped, served, asked = map(fields, logger.lines)
    assert (skipped["model"], skipped["next_model"], served["served_by"], asked["model"]) == (shown,) * 4


def test_names_of_real_models_are_shown_as_they_are():
    """None in the catalogue looks like a key."""
    names = [model.id for model in catalogue]
    assert len(names) > 100
    assert presentable({"models": names}) == {"models": names}


async def test_what_is_bound_hides_no_field_of_ours(logger):
    """A variable of the same name as a field of ours gives way."""
    with structlog.contextvars.bound_contextvars(model="theirs", trace_id="t"):
        await Pipeline(ScriptedProvider(), [Logging(logger)]).send(CHAT)
    assert (logger.lines[0].model, logger.lines[0].trace_id) == ("m", "t")


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


async def test_a_handler_of_our_own_logger_that_raises(monkeypatch):
    """Also what we would say about it goes there, and also that fails no call; it is counted."""

    class Burst(logging.Handler):
        def emit(self, record):
            raise ZeroDivisionError("CANARY")

    logger = logging.getLogger("resilient_ai")
    monkeypatch.setattr(logger, "handlers", [Burst()])
    before = fault_counts().get("logging", 0)
    with pytest.raises(ServerFailed):
        await Pipeline(ScriptedProvider(ServerFailed("CANARY", status=500)), [Logging()]).send(CHAT)
    assert fault_counts()["logging"] == before + 1


async def test_an_object_without_a_text(logger):
    """A bound object that cannot be shown takes its line along, and nothing else."""
    with structlog.contextvars.bound_contextvars(odd=Burst()):
        assert await Pipeline(ScriptedProvider(), [Logging(logger)]).send(CHAT) is not None
    assert logger.lines == []


async def test_where_nobody_listens_nothing_is_gathered(monkeypatch):
    """Handlers that drop everything are nobody; a logger without any has the last resort of the standard library."""
    heard = []

    async def look(call, proceed):
        heard.append(len(call.listeners))
        return await proceed(call)

    silent, bare = logging.getLogger("tests.silent"), logging.getLogger("tests.bare")
    for logger, handlers in ((silent, [logging.NullHandler()]), (bare, [])):
        monkeypatch.setattr(logger, "handlers", handlers)
        monkeypatch.setattr(logger, "propagate", False)
        await Pipeline(ScriptedProvider(), [Logging(logger), look]).send(CHAT)
    assert heard == [0, 1]


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
