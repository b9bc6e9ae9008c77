"""One full stack over a scripted server, with recorders of everything that must come to an end."""

import asyncio
import functools
import gc
import inspect
import itertools
import logging
from collections import Counter, defaultdict, deque
from decimal import Decimal

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilient_ai import middleware
from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import Budget, Budgets
from resilient_ai.stores import MemoryBudgets, MemoryStore
from resilient_ai.testing import FakeClock, ScriptedSource, answer_to, chat_result

# A lease that never ends by itself: a probe that is not given back keeps its circuit shut for good, and shows.
FOR_EVER = 1e6
# Long enough for every break, wait and lasting request of a scenario to be over, and far below that lease.
REST = 1_000.0

_log = logging.getLogger("tests.cancellation")
_log.addHandler(logging.NullHandler())
_log.propagate = False
_log.setLevel(logging.DEBUG)


class Rows:
    """A ledger that counts how often each row was opened, closed, and told to whoever counts."""

    def __init__(self):
        self.opens = Counter()
        self.closes = Counter()
        self.settles = Counter()
        self.states = {}

    def opened(self, row):
        self.opens[row.send_id] += 1

    def closed(self, row):
        self.closes[row.send_id] += 1
        self.states[row.send_id] = row.state

    async def counting(self, call, proceed):
        """Stand around the accounting, as a budget does."""
        return await proceed(call.replace(on_send_closed=(*call.on_send_closed, self.settled)))

    def settled(self, row):
        self.settles[row.send_id] += 1

    async def flush(self):
        """Do nothing: it is all in memory."""

    async def aclose(self):
        """Do nothing: it is all in memory."""


class Started(SpanProcessor):
    """Remembers every span that was started."""

    def __init__(self):
        self.spans = []

    def on_start(self, span, parent_context=None):
        self.spans.append(span)


class Server:
    """A provider whose answers name the question; each model follows a script of its own.

    A step is an exception to raise, a function of the call that gives the answer, or seconds by which the next step is late.

    Args:
        latency: Seconds before every answer.
        farewell: Seconds a request that is cancelled takes to let go of its connection.
    """

    origin = "https://scripted.test/v1"

    def __init__(self, *, latency=0.1, farewell=0.0):
        self.latency = latency
        self.farewell = farewell
        self.scripts = defaultdict(deque)
        self.sources = []
        self.under_way = Counter()
        self.asked = []

    async def __call__(self, call):
        call.send_started()
        self.asked.append((call.model, call.operation.kind))
        self.under_way[call.model] += 1
        try:
            step = await self.next_step(call)
        except asyncio.CancelledError:
            if self.farewell:
                await asyncio.sleep(self.farewell)
            raise
        finally:
            self.under_way[call.model] -= 1
        if isinstance(step, BaseException):
            raise step
        return (step or self.answer)(call)

    async def next_step(self, call):
        script, wait = self.scripts[call.model], self.latency
        while script and isinstance(script[0], int | float):
            wait += script.popleft()
        step = script.popleft() if script else None
        await asyncio.sleep(wait)
        return step

    def answer(self, call):
        if call.operation.kind == "stream":
            pause = self.latency
            return self.stream(call, [TextDelta("re: ")], pause, [TextDelta(question(call))], pause, [FINISHED])
        if call.operation.kind in {"chat", "complete"}:
            return chat_result(f"re: {question(call)}", model=call.model, served_by=call.model)
        return answer_to(call.operation)

    def stream(self, call, first, *script):
        source = ScriptedSource(script)
        self.sources.append(source)
        return StreamResult(source, model=call.model, first=first, clock=call.clock)

    async def aclose(self):
        """Do nothing: there are no connections."""


FINISHED = Finished(("stop",), Usage(input_tokens=10, output_tokens=3))


def question(call):
    if call.operation.kind == "complete":
        return call.operation.prompt
    return "".join(getattr(part, "text", part) for part in call.operation.messages[-1].content)


class Unpriced:
    """A price book that knows nothing."""

    def chat_cost(self, model, **amounts):
        """Return what nobody knows."""

    def embedding_cost(self, model, **amounts):
        """Return what nobody knows."""

    def image_cost(self, model, **amounts):
        """Return what nobody knows."""


def exists(name):
    """Whether the package has this middleware."""
    return hasattr(middleware, name)


@functools.cache
def options_of(kind):
    return frozenset(inspect.signature(kind).parameters)


def build(name, **options):
    """Make a middleware of those options that it has; none where the package has no such middleware."""
    if not exists(name):
        return []
    kind = getattr(middleware, name)
    known = options_of(kind)
    return [kind(**{option: value for option, value in options.items() if option in known})]


class World:
    """A pipeline of everything, and what it has under way.

    Args:
        permits: Requests at once per model.
        latency, farewell: See `Server`.
        retry: Options of `Retry`.
        rate: Options of `RateLimit`.
        break_duration: Seconds of the first break of a circuit.
        ramp: Seconds over which a circuit that has closed comes back.
        attempt: Seconds of an attempt.
        total: Seconds of a call.
    """

    def __init__(
        self,
        *,
        permits=2,
        latency=0.1,
        farewell=0.0,
        retry=None,
        rate=None,
        break_duration=2.0,
        ramp=1.0,
        attempt=20.0,
        total=60.0,
    ):
        self.server = Server(latency=latency, farewell=farewell)
        self.rows = Rows()
        self.book = MemoryBudgets()
        self.started = Started()
        self.exporter = InMemorySpanExporter()
        self.bystanders = set()
        self.kept = []
        self.may_leave_tasks = False
        self.complaints = []
        tracer_provider = TracerProvider(shutdown_on_exit=False, resource=Resource.get_empty())
        tracer_provider.add_span_processor(self.started)
        tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.ramp = ramp
        clock = FakeClock([0.5])
        stack = [
            *build("Tracing", tracer_provider=tracer_provider),
            *build("Logging", logger=_log),
            *build("Deadline", total=total),
            *build("Coalesce"),
            *build("Cache", answers=MemoryStore(clock=clock)),
            *build("Resume"),
            *build("Routing"),
            *build("Batching", size=2, in_flight=2),
            *build("Retry", **{"attempts": 3, "wait_initial": 0.5, **(retry or {})}),
            *build(
                "CircuitBreaker",
                consecutive_failures=3,
                break_duration=break_duration,
                probe_lease=FOR_EVER,
                ramp=ramp,
            ),
            *build("RateLimit", **(rate or {"requests": 600_000, "tokens": 600_000_000})),
            *build("ConcurrencyLimit", limit=permits),
            Budgets(
                budgets=[Budget(limit=1_000_000, per="total")], book=self.book, prices=Unpriced(), unpriced=Decimal(1)
            ),
            self.rows.counting,
            *build("CostAccounting", ledger=self.rows),
            *build("Timeout", attempt=attempt, first_token=attempt, idle=attempt),
        ]
        self.pipeline = Pipeline(self.server, stack, clock=clock)

    # What scenarios use

    def script(self, model, *steps):
        """Have `model` follow these steps from now on."""
        self.server.scripts[model].extend(steps)

    async def send(self, operation, **options):
        return await self.pipeline.send(operation, **options)

    async def chat(self, prompt="hi", *, model="m", priority="interactive", **options):
        """Ask, and check that the answer belongs to the question."""
        answer = await self.send(Chat(model=model, messages=prompt, **options), priority=priority)
        assert answer.text == f"re: {prompt}", answer.text
        return answer

    def begin(self, coroutine):
        """Begin something beside the victim; it must come to a good end in its own time."""
        self.bystanders.add(asyncio.get_running_loop().create_task(coroutine))

    async def bystand(self, coroutine):
        """Begin something, and let it go as far as it comes in 0.01 s."""
        self.begin(coroutine)
        await asyncio.sleep(0.01)

    # What the harness uses

    def available(self):
        """Return what may go at once, by model and unit."""
        return {(*state.key, state.unit): state.available for state in self.pipeline.health().rates}

    def not_given_back(self, before):
        """Return the limits of which less may go than `before`, although nothing was sent since."""
        full = {(*state.key, state.unit): state.limit * 0.1 for state in self.pipeline.health().rates}
        for key, available in self.available().items():
            if available < (expected := before.get(key, full[key])) - 1e-6:
                yield f"of {key[1:]} {expected - available:g} were not given back, and nothing was sent"

    async def settle(self):
        """Let everything come to its end, and return what did not."""
        broken = []
        for number, task in enumerate(self.bystanders):
            done, _ = await asyncio.wait({task}, timeout=REST)
            if not done:
                broken.append(f"bystander {number} hangs")
                task.cancel()
                await asyncio.wait({task})
            elif task.cancelled():
                broken.append(f"bystander {number} was cancelled")
            elif task.exception() is not None:
                broken.append(f"bystander {number} raised {task.exception()!r}")
        self.bystanders.clear()
        # The first look takes what is unreachable, the second what that had kept.
        gc.collect()
        await asyncio.sleep(1.0)
        gc.collect()
        await asyncio.sleep(1.0)
        broken += self.leftovers()
        await asyncio.sleep(REST)
        broken += await self.fresh_calls()
        return list(dict.fromkeys([*broken, *self.leftovers(), *self.complaints]))

    def leftovers(self):
        """Return what is still held, in words."""
        health = self.pipeline.health()
        yield from (f"permits left in use: {state}" for state in health.limits if state.in_use or state.waiting)
        limit = next(layer for layer in self.pipeline.stack if type(layer).__name__ == "ConcurrencyLimit")
        for model in {model for model, _ in self.server.asked}:
            held = (limit.in_use(Server.origin, model), limit.waiting(Server.origin, model))
            if held != (0, 0):
                yield f"{model}: (in use, waiting) = {held}"
        yield from (f"calls left waiting: {state}" for state in health.rates if state.waiting)
        for state in health.breakers:
            if state.state == "half_open" and state.retry_after > 0:
                yield f"the probe was not given back: {state}"
        for row in {*self.rows.opens, *self.rows.closes}:
            counts = (self.rows.opens[row], self.rows.closes[row], self.rows.settles[row])
            if counts != (1, 1, 1):
                yield f"a row was opened, closed and counted {counts} times"
        # Nothing has a price here: what is of unknown cost keeps the dollar it was reserved with, and the rest has given it back.
        budgets = next(layer for layer in self.pipeline.stack if isinstance(layer, Budgets))
        spent = sum(state.spent for state in budgets.health())
        unknown = sum(state == "unknown" for state in self.rows.states.values())
        if spent != unknown:
            yield f"{unknown} requests are of unknown cost, and {spent} dollars are reserved"
        ended = {span.context.span_id for span in self.exporter.get_finished_spans()}
        yield from (
            f"span {span.name!r} has not ended" for span in self.started.spans if span.context.span_id not in ended
        )
        if len(self.exporter.get_finished_spans()) > len(self.started.spans):
            yield "a span ended twice"
        yield from (f"a request to {model} is still under way" for model, n in self.server.under_way.items() if n)
        yield from (
            "a stream was neither read to its end nor dropped"
            for source in self.server.sources
            if not (source.aborted or source._finished)
        )
        others = asyncio.all_tasks() - {asyncio.current_task()}
        yield from (f"a task is left: {task!r}" for task in others)

    async def fresh_calls(self):
        """Send a call of each sort that was seen, then four at once, more than there are permits; return what went wrong."""
        self.server.scripts.clear()
        self.server.farewell = 0.0
        broken, numbers = [], itertools.count()
        sorts = list(dict.fromkeys(self.server.asked)) or [("m", "chat")]
        for model, kind in sorts:
            # A circuit that is half open lets one call through, whose success closes it, bit by bit.
            broken += await self.fresh(model, kind, next(numbers))
        await asyncio.sleep(self.ramp)
        more = itertools.islice(itertools.cycle(sorts), 4)
        outcomes = await asyncio.gather(*(self.fresh(model, kind, next(numbers)) for model, kind in more))
        return broken + [text for outcome in outcomes for text in outcome]

    async def fresh(self, model, kind, number):
        prompt = f"fresh {number}"
        operation = {
            "chat": lambda: Chat(model=model, messages=prompt),
            "complete": lambda: Complete(model=model, prompt=prompt),
            "stream": lambda: Stream(model=model, messages=prompt),
            "embed": lambda: Embed(model=model, texts=[prompt]),
            "image": lambda: Image(model=model, prompt=prompt),
        }[kind]()
        try:
            answer = await self.send(operation)
            if kind == "stream":
                async with answer:
                    answer = await answer.result()
            if kind in {"chat", "complete", "stream"} and answer.text != f"re: {prompt}":
                return [f"a fresh {kind} of {model} was answered {answer.text!r}"]
        except Exception as error:  # noqa: BLE001 - every failure is reported
            return [f"a fresh {kind} of {model} raised {error!r}"]
        return []
