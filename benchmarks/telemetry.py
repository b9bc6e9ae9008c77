"""What telemetry adds to a chat: CPU per call with none of it, with the API alone, and with an SDK, in one interleaved run.

A chat goes to a provider that answers at once, with usage and a figure of the service: once through the accounting alone, which
tells telemetry of costs, and once through all parts of the default stack that every call passes. There the same telemetry takes
longer, the SDK's own part as well, since the caches of a processor do not hold all of that code at once.

Spans go to a batch processor whose exporter drops them, metrics to a reader in memory which is not collected, log lines as JSON
to a stream that keeps nothing. "The SDK alone" are two plain functions in the place of `Tracing` and `Metrics`, which make the
spans and record the points of such a call from constants: what nobody can do without who reports them.

Each round measures every row once, so that a noisy machine is noisy for all; shown are the median over the rounds and the best.
CPU is process time, all threads, so the thread that exports is counted. Spans that wait for it give Python's garbage collector
work, whoever made them, so every row is measured with it and without it.

`make bench-telemetry`, or `python -m benchmarks.telemetry --rounds 30`.
"""

import argparse
import asyncio
import gc
import logging
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import structlog
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.telemetry_alone import Alone, sample_of
from resilient_ai.core.call import Call, Middleware
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import ChatResult, Choice, Cost, Usage
from resilient_ai.middleware import (
    CircuitBreaker,
    ConcurrencyLimit,
    CostAccounting,
    Deadline,
    Logging,
    Metrics,
    Retry,
    Timeout,
    Tracing,
)

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
MESSAGES = [{"role": "user", "content": "Which city is the capital of Switzerland? Answer in one word."}]
CALLS = 300
OPERATION = Chat(model=MODEL, messages=MESSAGES)
Row = tuple[str, str]  # the stack, and the telemetry
LIMITS = {"no SDK": 5.0, "traces and metrics": 150.0}  # microseconds

ANSWER = ChatResult(
    model=MODEL,
    served_by=MODEL,
    usage=Usage(input_tokens=1000, output_tokens=500),
    cost=Cost(amount=Decimal("0.00026"), source="provider"),
    choices=(Choice(text="Bern.", finish_reason="stop"),),
)


class Provider:
    """Answers at once."""

    origin = "https://bench.test/v1"

    async def __call__(self, call: Call[Any]) -> Any:
        call.send_started()
        return ANSWER

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""


class Dropping(SpanExporter):
    """Takes spans and keeps none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS


class Nowhere:
    """A stream that keeps nothing."""

    def write(self, text: str) -> None:
        """Drop a line."""

    def flush(self) -> None:
        """Do nothing."""


def whole_stack() -> list[Middleware]:
    return [Deadline(total=60.0), Retry(), CircuitBreaker(), ConcurrencyLimit(), CostAccounting(), Timeout()]


def accounting_alone() -> list[Middleware]:
    return [CostAccounting()]


# Around what telemetry is measured.
STACKS: Mapping[str, Callable[[], list[Middleware]]] = {"alone": accounting_alone, "in the whole stack": whole_stack}


def logger_of(name: str, handler: logging.Handler, level: int) -> logging.Logger:
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    return logger


def json_lines() -> logging.Handler:
    handler = logging.StreamHandler(Nowhere())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    return handler


async def contenders(stack: Callable[[], list[Middleware]]) -> dict[str, Pipeline]:
    """Return what is compared, by the name of its row."""

    def pipeline_of(*telemetry: Middleware) -> Pipeline:
        return Pipeline(Provider(), [*telemetry, *stack()])

    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(Dropping()))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    silent = logger_of("bench.silent", logging.NullHandler(), logging.CRITICAL)
    spoken = logger_of("bench.spoken", json_lines(), logging.INFO)
    assert trace.get_tracer_provider() is not tracers
    assert metrics.get_meter_provider() is not meters
    sample = await sample_of(lambda tracers, meters: pipeline_of(Tracing(tracers), Metrics(meters)), OPERATION)
    return {
        "nothing": pipeline_of(),
        "no SDK": pipeline_of(Tracing(), Metrics(), Logging(silent)),
        "traces": pipeline_of(Tracing(tracers)),
        "metrics": pipeline_of(Metrics(meters)),
        "the SDK alone": pipeline_of(Alone(sample, tracers, meters)),
        "traces and metrics": pipeline_of(Tracing(tracers), Metrics(meters), Logging(silent)),
        "and JSON log lines": pipeline_of(Tracing(tracers), Metrics(meters), Logging(spoken)),
    }


async def measure(rounds: int) -> dict[Row, dict[bool, list[float]]]:
    """Return microseconds per call and round, by row and by whether the garbage collector ran."""
    pipelines = {
        (place, name): pipeline
        for place, stack in STACKS.items()
        for name, pipeline in (await contenders(stack)).items()
    }
    found: dict[Row, dict[bool, list[float]]] = {row: {True: [], False: []} for row in pipelines}
    for number in range(rounds + 1):
        for collects in (True, False):
            for row, pipeline in pipelines.items():
                if not collects:
                    gc.disable()
                started = time.process_time()
                for _ in range(CALLS):
                    await pipeline.send(OPERATION)
                took = time.process_time() - started
                gc.enable()
                if number:  # the first round warms up
                    found[row][collects].append(took / CALLS * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    found = asyncio.run(measure(rounds))
    print(f"CPU per chat over {rounds} interleaved rounds of {CALLS}, Python {sys.version.split()[0]}, in microseconds")
    for place in STACKS:
        print(f"\n{place:<20}{'':>10}{'added':>18}{'added without collector':>26}")
        print(f"{'telemetry':<20}{'per call':>10}{'median':>10}{'best':>8}{'median':>16}{'best':>10}{'limit':>8}")
        base = found[place, "nothing"]
        for (where, name), values in found.items():
            if where == place:
                print_row(name, values, base)


def print_row(name: str, values: dict[bool, list[float]], base: dict[bool, list[float]]) -> None:
    """Print what one row took, and how much more that is than without telemetry."""
    added = [pick(values[on]) - pick(base[on]) for on in (True, False) for pick in (statistics.median, min)]
    limit = f"{LIMITS[name]:>8.0f}" if name in LIMITS else ""
    per_call = statistics.median(values[True])
    print(f"{name:<20}{per_call:>10.1f}{added[0]:>10.1f}{added[1]:>8.1f}{added[2]:>16.1f}{added[3]:>10.1f}{limit}")


if __name__ == "__main__":
    main()
