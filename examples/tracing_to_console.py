"""See a call as OpenTelemetry sees it: one span for the call, one under it for each request, a line each.

The client reports to the tracer provider of the application. Here it prints; in a service it exports to a collector.

    python examples/tracing_to_console.py

The key is taken from DEEPINFRA_API_KEY, the server from RESILIENT_AI_BASE_URL if it is set.
"""

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from resilient_ai import AsyncClient

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
SHOWN = (
    "resilient_ai.attempts",
    "resilient_ai.cache.outcome",
    "resilient_ai.cost.amount",
    "resilient_ai.attempt.kind",
    "error.type",
    "gen_ai.usage.output_tokens",
)


def line_of(span: ReadableSpan) -> str:
    """Return a span as one line, indented under its parent."""
    indent = "  " if span.parent else ""
    took = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
    attributes = {name: value for name, value in (span.attributes or {}).items() if name in SHOWN}
    events = [event.name for event in span.events]
    return f"{indent}{span.name} {took:.0f} ms {attributes} {events or ''}".rstrip() + "\n"


async def main() -> None:
    """Trace a chat, a hit of the cache, a fallback and a failure; a span is printed when it ends, so children come first."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line_of)))
    trace.set_tracer_provider(provider)

    async with AsyncClient() as ai:
        for _ in range(2):
            await ai.chat(MODEL, "What is 17 * 23?", temperature=0, max_tokens=30)
        await ai.chat(["nobody/no-such-model", MODEL], "What is 6 * 7?", max_tokens=30)
        with trace.get_tracer("example").start_as_current_span("a request of your service"):
            async with ai.stream(MODEL, "Count to three.", max_tokens=30) as stream:
                await stream.result()
    provider.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
