"""Traces of virtual time, written by the real `Tracing` and the real SDK."""

import asyncio
import random
from contextlib import suppress

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator

from resilient_ai.core.errors import AuthenticationFailed, RateLimited, ServerFailed
from resilient_ai.core.messages import ToolCall
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Choice, Cost
from resilient_ai.middleware import (
    Cache,
    ConcurrencyLimit,
    CostAccounting,
    Hedge,
    Retry,
    Routing,
    Timeout,
    Tracing,
)
from resilient_ai.stores import MemoryStore
from resilient_ai.testing import FakeClock, ScriptedProvider, chat_result, run, stream_of
from resilient_ai.tool_loop import run_tools

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
QWEN = "Qwen/Qwen3-32B"
CHAT = Chat(model=LLAMA, messages="hi")


class SameIds(IdGenerator):
    """The same numbers every time."""

    def __init__(self):
        self.chance = random.Random(7)

    def generate_span_id(self):
        return self.chance.getrandbits(64)

    def generate_trace_id(self):
        return self.chance.getrandbits(128)


def answer(cost="0.0000097", model=LLAMA, **fields):
    return chat_result(model=model, cost=Cost(amount=cost, source="provider"), **fields)


class Recorder:
    """Sends calls to scripted services and keeps their spans."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(id_generator=SameIds())
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(self.tracers)
        self.clock = FakeClock([0.5])

    def pipeline(self, *script, stack=()):
        inner = stack or (Retry(), CostAccounting(), Timeout())
        return Pipeline(ScriptedProvider(*script), [self.tracing, *inner], clock=self.clock)

    def around(self, name):
        """Return a span of the application."""
        start = int(self.clock.wall() * 1e9)
        return self.tracers.get_tracer("app").start_as_current_span(name, start_time=start, end_on_exit=False)

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    @property
    def lines(self):
        return "".join(span.to_json(indent=None) + "\n" for span in self.spans)

    # Scenes

    async def retried(self):
        script = (0.8, ServerFailed("", status=500), 0.3, RateLimited("", status=429, retry_after=2.0), 1.2, answer())
        await self.pipeline(*script).send(CHAT)

    async def streamed(self):
        async def begin(_):
            return stream_of(*["word "] * 20, model=LLAMA, pause=0.08)

        stream = await self.pipeline(0.35, begin).send(Stream(model=LLAMA, messages="hi"))
        await stream.result()

    async def hedged(self):
        async def slow(_):
            await asyncio.sleep(4)
            return answer()

        async def quick(_):
            await asyncio.sleep(0.6)
            return answer()

        provider = ScriptedProvider(0.1, answer(), slow, quick)
        stack = [Retry(hedge=Hedge(samples=1, delay_min=0.5, extra=1.0)), CostAccounting(), Timeout()]
        await Pipeline(provider, stack, clock=self.clock).send(CHAT)  # which teaches it how long answers take
        await Pipeline(provider, [self.tracing, *stack], clock=self.clock).send(CHAT)

    async def fell_back(self):
        script = (0.2, ServerFailed("", status=503), 0.9, answer("0.00002", QWEN))
        stack = [Routing(), Retry(attempts=1), CostAccounting(), Timeout()]
        await self.pipeline(*script, stack=stack).send(Chat(model=(LLAMA, QWEN), messages="hi"))

    async def cached(self):
        chat = Chat(model=LLAMA, messages="hi", temperature=0.0, seed=1)
        pipeline = self.pipeline(0.4, answer(), stack=[Cache(MemoryStore()), Retry(), CostAccounting(), Timeout()])
        await pipeline.send(chat)
        await asyncio.sleep(12)
        await pipeline.send(chat)

    async def queued(self):
        limit = ConcurrencyLimit(limit=1, initial=1)
        pipeline = self.pipeline(1.0, answer(), 0.5, answer(), stack=[limit, CostAccounting(), Timeout()])
        with self.around("answer_ticket") as span:
            await asyncio.gather(pipeline.send(CHAT), pipeline.send(CHAT))
            span.end(int(self.clock.wall() * 1e9))

    async def refused(self):
        with suppress(AuthenticationFailed):
            await self.pipeline(0.1, AuthenticationFailed("", status=401)).send(CHAT)

    async def with_tools(self):
        async def weather(city: str) -> str:
            """Tell the weather."""
            await asyncio.sleep(0.7)
            return f"sunny in {city}"

        wish = ToolCall(id="c1", name="weather", arguments='{"city": "Bonn"}')
        asks = answer("0.00001", choices=(Choice(text="", finish_reason="tool_calls", tool_calls=(wish,)),))
        pipeline = self.pipeline(0.9, asks, 0.6, answer())
        chat = Chat(model=LLAMA, messages="hi", tools=[weather])
        with self.around("agent") as span:
            await run_tools(
                pipeline.send, chat, around=[lambda call, tool: self.tracing.around_tool(call, tool, self.clock)]
            )
            span.end(int(self.clock.wall() * 1e9))


def recorded(*scenes):
    """Return what was recorded of scenes, by name, one after the other."""
    recorder = Recorder()

    async def play():
        for scene in scenes:
            await getattr(recorder, scene)()

    run(play())
    return recorder


def span(**fields):
    """Return a span as a line of a trace file has it, with what is given in the place of usual values."""
    number = fields.pop("number", 1)
    usual = {
        "name": "chat m",
        "context": {"trace_id": f"0x{fields.pop('trace', 1):032x}", "span_id": f"0x{number:016x}", "trace_state": "[]"},
        "kind": "SpanKind.CLIENT",
        "parent_id": None,
        "start_time": "2027-01-15T08:00:00.000000Z",
        "end_time": "2027-01-15T08:00:01.000000Z",
        "status": {"status_code": "UNSET"},
        "attributes": {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "resilient_ai.outcome": "success"},
        "events": [],
        "links": [],
        "resource": {"attributes": {"service.name": "app"}, "schema_url": ""},
    }
    return usual | fields
