"""Spans, figures, log lines and the ledger say the same of the same calls."""

import asyncio
import contextlib
import gc
import logging
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilient_ai.core import semconv
from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import ProviderError, RateLimited, ServerFailed
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost, Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import CostAccounting, Hedge, Logging, Metrics, Retry, Routing, Tracing
from resilient_ai.stores import SQLiteLedger
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, chat_result

pytestmark = pytest.mark.anyio

PAID = Cost(amount=Decimal("0.1"), source="provider")
OF_A_TABLE = Cost(amount=Decimal("0.5"), source="table")
USED = Usage(input_tokens=3, output_tokens=2)
AUTO, STREAM = Chat(model="auto", messages="hi"), Stream(model="m", messages="hi")
DOWN, BUSY = ServerFailed("boom", status=503), RateLimited("slow down", status=429)
HEDGE = Hedge(samples=1, extra=1.0, delay_min=1.0)
OURS = "resilient_ai."


class Prices:
    """A dollar for each token."""

    def chat_cost(self, model, **amounts):
        return Decimal(amounts["input_tokens"] + amounts["output_tokens"])

    def embedding_cost(self, model, **amounts):
        return None

    def image_cost(self, model, **amounts):
        return None


class Watched:
    """A pipeline of which four are told: spans, figures, log lines and a ledger; and how each tells it."""

    def __init__(self, logger, *script, stack=(), prices=None):
        self.lines = logger.lines
        self.exporter = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.ledger = SQLiteLedger(":memory:")
        outer = [Tracing(tracers), Metrics(MeterProvider([self.reader])), Logging(logger)]
        stack = [*outer, *stack, CostAccounting(self.ledger, prices)]
        self.pipeline = Pipeline(ScriptedProvider(*script), stack, clock=FakeClock([0.5]))
        self.send = self.pipeline.send

    async def look(self):
        """Take what has been told up to now."""
        await asyncio.sleep(0)  # what the garbage collector finds is told in the next turn of the loop
        await self.ledger.flush()
        self.rows = sorted(await self.ledger.sends(limit=None), key=lambda row: row.send_id)
        spans = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time)
        self.calls = [told(span) for span in spans if span.name != "resilient_ai.attempt"]
        self.attempts = sorted(
            (told(span) for span in spans if span.name == "resilient_ai.attempt"),
            key=lambda found: (found["start"], found["attempt.number"]),
        )
        (resource,) = self.reader.get_metrics_data().resource_metrics
        (scope,) = resource.scope_metrics
        self.figures = {metric.name: metric.data.data_points for metric in scope.metrics}

    def figure(self, name, *by):
        """Return how often there is each value of some attributes."""
        found = Counter()
        for point in self.figures.get(name, ()):
            count = point.count if hasattr(point, "count") else point.value
            found[tuple(point.attributes.get(attribute) for attribute in by)] += count
        return found

    def of_log(self, event, *fields):
        return [
            tuple(getattr(line, field, None) for field in fields) for line in self.lines if line.getMessage() == event
        ]


def told(span):
    """Return what a span says, without the prefix that is ours."""
    found = {name.removeprefix(OURS): value for name, value in span.attributes.items()}
    retries = [
        {name.removeprefix(OURS): value for name, value in event.attributes.items()}
        for event in span.events
        if event.name == "resilient_ai.retry"
    ]
    return found | {"start": span.start_time, "retried": retries}


def streaming(*steps):
    """Return a step of a provider that answers with a stream."""

    async def step(_):
        return StreamResult(ScriptedSource(steps), model="m", first=[TextDelta("x")], clock=FakeClock())

    return step


@pytest.fixture
def logger():
    logger = logging.getLogger("tests.observability.test_agreement")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.lines = []
    handler = logging.Handler()
    handler.emit = logger.lines.append
    logger.handlers = [handler]
    return logger


async def once(watched, operation):
    with contextlib.suppress(ProviderError):
        await watched.send(operation)


async def twice(watched, operation):
    for _ in range(2):
        await watched.send(operation)


async def read(watched, operation):
    stream = await watched.send(operation)
    await stream.result()


async def closed(watched, operation):
    stream = await watched.send(operation)
    await stream.aclose()


async def forgotten(watched, operation):
    await watched.send(operation)
    gc.collect()


async def slow(call):
    await asyncio.sleep(1.0 if call.hedge else 2.0)
    return chat_result(cost=PAID)


async def stuck(call):
    await asyncio.sleep(1.0 if call.hedge else 60.0)
    return chat_result(cost=PAID)


ANSWER = chat_result(cost=PAID)
DONE = [Finished(("stop",), USED, model="m", cost=PAID)]
ONE = Chat(model="m", messages="hi")
RETRY, BY_HEDGE = Retry(attempts=2), Retry(hedge=HEDGE)

# What is sent and how, by what stack and script; and kind and outcome of each attempt, in their order.
CALLS = {
    "auto": (once, AUTO, [Routing(models=["a", "b"]), RETRY], [ANSWER], [("initial", "success")]),
    "auto, a retry": (
        *(once, AUTO, [Routing(models=["a", "b"]), RETRY], [DOWN, ANSWER]),
        [("initial", "error"), ("retry", "success")],
    ),
    "a fallback, and retries": (
        *(once, Chat(model=["a", "b"], messages="hi"), [Routing(), RETRY], [DOWN, DOWN, BUSY, ANSWER]),
        [("initial", "error"), ("retry", "error"), ("fallback", "error"), ("fallback", "success")],
    ),
    "a call that fails": (
        *(once, ONE, [RETRY], [DOWN, BUSY]),
        [("initial", "error"), ("retry", "error")],
    ),
    "a hedge that lost": (
        *(twice, ONE, [BY_HEDGE], [ANSWER, slow, slow]),
        [("initial", "success"), ("initial", "won"), ("hedge", "lost")],
    ),
    "a hedge that won": (
        *(twice, ONE, [BY_HEDGE], [ANSWER, stuck, stuck]),
        [("initial", "success"), ("initial", "lost"), ("hedge", "won")],
    ),
    "a cost that the service took from a table": (
        *(once, ONE, [], [chat_result(usage=USED, cost=OF_A_TABLE)]),
        [("initial", "success")],
    ),
    "a stream": (read, STREAM, [RETRY], [streaming(DONE)], [("initial", "success")]),
    "a stream that its reader left": (closed, STREAM, [RETRY], [streaming(60.0)], [("initial", "abandoned")]),
    "a stream that nobody closed": (forgotten, STREAM, [RETRY], [streaming(60.0)], [("initial", "abandoned")]),
}


@pytest.fixture(params=CALLS)
async def watched(request, logger):
    """What was told of some calls, with what is expected of their attempts."""
    send, operation, stack, script, expected = CALLS[request.param]
    watched = Watched(logger, *script, stack=stack, prices=Prices())
    await send(watched, operation)
    await watched.look()
    watched.expected = expected
    yield watched
    await watched.pipeline.aclose()


async def test_attempts_have_the_same_kind_and_end_on_spans_and_in_figures(watched):
    """Each is counted once by its kind, model, outcome and error, which are those of its span."""
    by = ("attempt.kind", "attempt.outcome", "attempt.model", "error.type")
    assert [(span["attempt.kind"], span["attempt.outcome"]) for span in watched.attempts] == watched.expected
    of_spans = Counter(tuple(span.get(name) for name in by) for span in watched.attempts)
    names = [f"{OURS}{name}" for name in by[:3]]
    assert watched.figure("resilient_ai.attempt.duration", *names, "error.type") == of_spans


async def test_attempts_are_counted_alike(watched):
    """By spans, by the span of the call, by figures, by the line of the call, and by rows, in the same order of models."""
    count = len(watched.rows)
    assert [span["attempt.model"] for span in watched.attempts] == [row.model for row in watched.rows]
    assert sum(span["attempts"] for span in watched.calls) == count
    assert sum(point.sum for point in watched.figures["resilient_ai.request.attempts"]) == count
    assert sum(attempts for (attempts,) in watched.of_log("resilient_ai.call", "attempts")) == count


async def test_numbers_and_tries_belong_together(watched):
    """Spans number the attempts of a call, rows and log lines the tries of a model; a retry names the attempt that had failed."""
    pairs = list(zip(watched.attempts, watched.rows, strict=True))
    before = [row.attempt - 1 + (span["attempt.kind"] == "hedge") for span, row in pairs]
    assert [span.get("attempt.previous_attempts", 0) for span in watched.attempts] == before
    retried = [event for span in watched.calls for event in span["retried"]]
    failed = [pairs[event["attempt.number"] - 1] for event in retried]
    of_failed = [(span["attempt.model"], span.get("error.type"), row.attempt) for span, row in failed]
    assert of_failed == watched.of_log("resilient_ai.retry", "model", "error_type", "attempt")
    assert [event["error.type"] for event in retried] == [error for _, error, _ in of_failed]
    counted = watched.figure("resilient_ai.retries", "resilient_ai.attempt.model", "error.type")
    assert counted == Counter((model, error) for model, error, _ in of_failed)


async def test_money_is_the_same_everywhere(watched):
    """Attempt by attempt, call by call, in all, and what of it was wasted; what is not known is nowhere zero, or something."""
    booked = [None if row.cost is None else float(row.cost) for row in watched.rows]
    assert [span.get("cost.amount") for span in watched.attempts] == [cost or None for cost in booked]
    of_calls = [span.get("cost.amount") for span in watched.calls]
    assert of_calls == [cost for (cost,) in watched.of_log("resilient_ai.call", "cost")]
    known = [cost for cost in booked if cost is not None]
    assert sum(cost or 0 for cost in of_calls) == pytest.approx(sum(known))
    by = watched.figure("resilient_ai.cost", "resilient_ai.cost.disposition")
    wasted = sum(float(row.cost) for row in watched.rows if row.cost and not row.used)
    assert sum(by.values()) == pytest.approx(sum(known))
    assert by["wasted",] == pytest.approx(wasted)
    assert sum(span.get("cost.wasted", 0) for span in watched.calls) == pytest.approx(wasted)
    assert all((cost is None) == (not known) for cost in of_calls)


async def test_calls_end_alike(watched):
    """With the same outcome, error and end of the stream on the span, in the line and in the figure."""
    ends = [(span["outcome"], span.get("error.type")) for span in watched.calls]
    assert ends == watched.of_log("resilient_ai.call", "outcome", "error_type")
    assert watched.figure("resilient_ai.request.duration", "resilient_ai.outcome", "error.type") == Counter(ends)
    streams = [(span.get("stream.outcome"), span.get("stream.leaked")) for span in watched.calls]
    assert streams == watched.of_log("resilient_ai.call", "stream", "leaked")


@pytest.mark.parametrize(("prices", "expected"), [(None, None), (Prices(), Decimal(5))], ids=["no prices", "prices"])
async def test_a_cost_that_is_not_of_the_service_counts_as_it_is_booked(prices, expected, logger):
    """Somebody's table in front of us is not believed where sends are accounted for: by the price list, or not at all."""
    watched = Watched(logger, chat_result(usage=USED, cost=OF_A_TABLE), prices=prices)
    result = await watched.send(ONE)
    await watched.look()
    amount = None if expected is None else float(expected)
    assert (None if result.cost is None else result.cost.amount) == expected
    assert [row.cost for row in watched.rows] == [expected]
    assert watched.of_log("resilient_ai.call", "cost") == [(amount,)]
    assert [span.get("cost.amount") for span in watched.calls + watched.attempts] == [amount] * 2
    assert [point.value for point in watched.figures.get("resilient_ai.cost", ())] == (
        [] if amount is None else [amount]
    )
    await watched.pipeline.aclose()


async def test_the_ways_of_leaving_a_stream_are_told_apart(logger):
    """Both are abandoned; the one that nobody closed is said to have leaked."""
    watched = Watched(logger, streaming(60.0), streaming(60.0))
    await closed(watched, STREAM)
    await forgotten(watched, STREAM)
    await watched.look()
    assert [(span["stream.outcome"], span.get("stream.leaked")) for span in watched.calls] == [
        ("abandoned", None),
        ("abandoned", True),
    ]
    assert watched.of_log("resilient_ai.call", "stream", "leaked") == [("abandoned", None), ("abandoned", True)]
    await watched.pipeline.aclose()


def test_the_page_names_all_that_is_ours():
    """Every name of `resilient_ai.*` stands there, in full or beginning with its dot."""
    page = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    ours = {value for name, value in vars(semconv).items() if name.isupper() and str(value).startswith(OURS)}
    assert len(ours) > 80
    assert (
        sorted(name for name in ours if f"`{name}`" not in page and f"`.{name.removeprefix(OURS)}`" not in page) == []
    )
