"""What telemetry adds to a chat: CPU per call with none of it, with the API alone, and with an SDK, in one interleaved run.

A chat goes through the parts of the default stack that every call passes, to a provider that answers at once, with usage and a
figure of the service. Spans go to a batch processor whose exporter drops them, metrics to a reader in memory, log lines as JSON
to a stream that keeps nothing. Each round measures every row once, so that a noisy machine is noisy for all; what is shown is the
median over the rounds. CPU is process time, all threads, so the thread that exports is counted.

`make bench-telemetry`, or `python -m benchmarks.telemetry --rounds 30`.
"""

import argparse
import asyncio
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import structlog
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

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


def pipeline_of(*telemetry: Middleware) -> Pipeline:
    stack = [Deadline(total=60.0), Retry(), CircuitBreaker(), ConcurrencyLimit(), CostAccounting(), Timeout()]
    return Pipeline(Provider(), [*telemetry, *stack])


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


def contenders() -> dict[str, Pipeline]:
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(Dropping()))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    silent = logger_of("bench.silent", logging.NullHandler(), logging.CRITICAL)
    spoken = logger_of("bench.spoken", json_lines(), logging.INFO)
    assert trace.get_tracer_provider() is not tracers
    assert metrics.get_meter_provider() is not meters
    return {
        "nothing": pipeline_of(),
        "no SDK": pipeline_of(Tracing(), Metrics(), Logging(silent)),
        "traces": pipeline_of(Tracing(tracers)),
        "metrics": pipeline_of(Metrics(meters)),
        "traces and metrics": pipeline_of(Tracing(tracers), Metrics(meters), Logging(silent)),
        "and JSON log lines": pipeline_of(Tracing(tracers), Metrics(meters), Logging(spoken)),
    }


async def measure(rounds: int) -> dict[str, list[float]]:
    pipelines = contenders()
    found: dict[str, list[float]] = {name: [] for name in pipelines}
    operation = Chat(model=MODEL, messages=MESSAGES)
    for number in range(rounds + 1):
        for name, pipeline in pipelines.items():
            started = time.process_time()
            for _ in range(CALLS):
                await pipeline.send(operation)
            if number:  # the first round warms up
                found[name].append((time.process_time() - started) / CALLS * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    medians = {name: statistics.median(values) for name, values in asyncio.run(measure(rounds)).items()}
    print(f"CPU per chat, median of {rounds} interleaved rounds, Python {sys.version.split()[0]}\n")
    print(f"{'telemetry':<22}{'per call':>12}{'added':>12}{'limit':>10}")
    for name, median in medians.items():
        limit = f"{LIMITS[name]:>7.0f} µs" if name in LIMITS else ""
        print(f"{name:<22}{median:>9.1f} µs{median - medians['nothing']:>9.1f} µs{limit:>10}")


if __name__ == "__main__":
    main()
