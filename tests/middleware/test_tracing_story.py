"""What the span of a call tells of the way: waits, routes, races, reasons, what was thrown away, and what backends look for."""

import asyncio
from decimal import Decimal

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import StatusCode

from resilient_ai.core.deltas import Finished, ReasoningDelta, Restarted, TextDelta
from resilient_ai.core.errors import (
    AuthenticationFailed,
    BudgetExceeded,
    BudgetUnavailable,
    CircuitOpen,
    NoModelAvailable,
    ServerFailed,
)
from resilient_ai.core.events import CallJoined, HedgeSettled, PermitGranted, RetrySuppressed
from resilient_ai.core.ledger import SendClosed
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Considered, Cost, Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import _telemetry_faults
from resilient_ai.middleware.concurrency_limit import ConcurrencyLimit
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.middleware.hedge import Hedge
from resilient_ai.middleware.rate_limit import RateLimit
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Routing
from resilient_ai.middleware.timeout import Timeout
from resilient_ai.middleware.tracing import Tracing
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, chat_result, stream_of

pytestmark = pytest.mark.anyio

CHAT = Chat(model="meta/llama", messages="hi")
STREAM = Stream(model="meta/llama", messages="hi")
TOLD = {"call_id": "c", "model": "m"}


class Traced:
    """A pipeline with tracing around everything, and the spans it exported."""

    def __init__(self, *script, stack=(), **options):
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.provider = ScriptedProvider(*script)
        self.tracing = Tracing(self.tracers, **options)
        self.pipeline = Pipeline(self.provider, [self.tracing, *stack], clock=FakeClock([0.5]))
        self.send = self.pipeline.send

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    @property
    def call(self):
        """The last span of a call."""
        return [span for span in self.spans if not span.name.startswith("resilient_ai.")][-1]

    @property
    def attempts(self):
        attempts = [span for span in self.spans if span.name == "resilient_ai.attempt"]
        return sorted(attempts, key=lambda span: span.start_time)

    def of_call(self, *names):
        return tuple(self.call.attributes.get(f"resilient_ai.{name}") for name in names)

    def of_attempts(self, name):
        return [span.attributes.get(f"resilient_ai.attempt.{name}") for span in self.attempts]

    async def warm(self, operation=CHAT):
        """Have the one answer that a hedge needs, and forget it."""
        result = await self.send(operation)
        if isinstance(result, StreamResult):
            await result.result()
        self.exporter.clear()


def eager():
    """A retry that hedges everything after a second."""
    return Retry(hedge=Hedge(samples=1, extra=1.0, delay_min=1.0), wait_initial=1e-9)


def telling(*facts):
    async def tell(call, proceed):
        for fact in facts:
            call.emit(fact)
        return await proceed(call)

    return tell


def after(seconds, outcome=None):
    async def step(call):
        await asyncio.sleep(seconds)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome or (stream_of("a", "b") if call.operation.kind == "stream" else chat_result())

    return step


# Why not again


@pytest.mark.parametrize(
    ("stack", "error", "reason"),
    [
        ([Retry(attempts=2)], ServerFailed("boom", status=503), "exhausted"),
        ([Retry(attempts=2)], AuthenticationFailed("no", status=401), "not_retryable"),
        ([Retry(budget=0)], ServerFailed("boom", status=503), "budget"),
        ([], ServerFailed("boom", status=503), None),
        ([Retry()], CircuitOpen(model="m", retry_after=99.0), None),
        ([Retry()], KeyError("ours"), None),
    ],
    ids=["exhausted", "not retryable", "budget", "nobody retries", "refused", "not the service's"],
)
async def test_a_call_that_failed_says_why_it_was_not_tried_again(stack, error, reason):
    """As far as anybody knows."""
    traced = Traced(error, error, stack=stack)
    with pytest.raises(type(error)):
        await traced.send(CHAT)
    assert traced.of_call("retry.stop_reason") == (reason,)


@pytest.mark.parametrize(
    ("told", "reason"),
    [("ceiling", "exhausted"), ("deadline", "deadline"), ("wait", "wait"), ("circuit", "circuit")],
)
async def test_whoever_gave_up_says_why(told, reason):
    """The words of the event, in those of the span."""
    error = ServerFailed("boom", status=503)
    traced = Traced(error, stack=[telling(RetrySuppressed(**TOLD, reason=told, error=error))])
    with pytest.raises(ServerFailed):
        await traced.send(CHAT)
    assert traced.of_call("retry.stop_reason") == (reason,)


async def test_what_one_model_gave_up_on_is_not_said_of_the_next():
    """The reason is that of the model that failed last."""
    errors = [ServerFailed("boom", status=503) for _ in range(4)]
    traced = Traced(*errors, stack=[Routing(), Retry(attempts=2)])
    with pytest.raises(NoModelAvailable):
        await traced.send(Chat(model=["m", "n"], messages="hi"))
    assert traced.of_call("retry.stop_reason", "retries") == (None, 2)


# Waits


@pytest.mark.parametrize("waited", [0.004, 2.0])
async def test_a_long_wait_in_line_is_a_span(waited):
    """It has the time of the wait, and ends where the request begins; a short one only counts."""
    traced = Traced(after(waited), after(1.0), stack=[ConcurrencyLimit(limit=1, adaptive=False)])
    await asyncio.gather(traced.send(CHAT), traced.send(CHAT))
    waits = [span for span in traced.spans if span.name == "resilient_ai.limiter.wait"]
    assert traced.of_call("limiter.wait") == (pytest.approx(waited),)
    if waited < 0.005:
        assert waits == []
        return
    (wait,) = waits
    assert dict(wait.attributes) == {
        "resilient_ai.limiter.name": "concurrency",
        "resilient_ai.attempt.model": "meta/llama",
    }
    assert wait.parent.span_id == traced.call.context.span_id
    assert (wait.end_time - wait.start_time) / 1e9 == pytest.approx(waited)
    assert wait.end_time <= traced.attempts[1].start_time


async def test_a_wait_that_cannot_be_a_span_still_counts():
    """A sampler that raises takes the span away, and nothing else."""

    class Broken(Sampler):
        def should_sample(self, parent_context, trace_id, name, *others, **options):
            if name == "resilient_ai.limiter.wait":
                raise KeyError("secret")
            return ALWAYS_ON.should_sample(parent_context, trace_id, name, *others, **options)

        def get_description(self):
            return "Broken"

    traced = Traced(stack=[telling(PermitGranted(**TOLD, waited=2.0))])
    traced.tracers.sampler = Broken()
    await traced.send(CHAT)
    assert (len(traced.spans), traced.of_call("limiter.wait")) == (2, (2.0,))


async def test_a_wait_for_the_rate_has_its_name():
    """The limit of requests per minute is another one than that of requests at once."""
    traced = Traced(stack=[RateLimit(requests=1, per=2.0, burst=1.0)])
    await traced.send(CHAT)
    await traced.send(CHAT)
    (wait,) = [span for span in traced.spans if span.name == "resilient_ai.limiter.wait"]
    assert wait.attributes["resilient_ai.limiter.name"] == "rate"


# Routes


async def test_the_route_that_was_chosen_and_why():
    """The model that stood first, with the reason."""
    traced = Traced(stack=[Routing(models=["large", "small"], prefer=lambda candidates: candidates[::-1])])
    await traced.send(Chat(model="auto", messages="hi"))
    assert traced.of_call("route", "route.reason", "fallback.model") == ("small", "chosen by <lambda>", None)
    assert traced.of_attempts("kind") == ["initial"]


async def test_where_nothing_was_to_choose_there_is_no_route():
    """Also where a model was considered and left out."""

    async def choose(call, proceed):
        call.record.considered = (Considered(model="m", place=None, why="lacks eyes"),)
        return await proceed(call)

    traced = Traced(stack=[choose])
    await traced.send(CHAT)
    assert traced.of_call("route", "route.reason") == (None, None)


# Races


async def test_a_hedge_that_won():
    """The first request is cancelled and lost; the second knows how many were before it."""
    traced = Traced(stack=[eager(), CostAccounting(), Timeout()])
    await traced.warm()
    traced.provider.script = [after(60.0), after(1.0)]
    await traced.send(CHAT)
    assert traced.of_attempts("outcome") == ["lost", "won"]
    assert traced.of_attempts("previous_attempts") == [0, 1]
    assert traced.of_call("hedges", "hedge.winner", "attempts") == (1, 2, 2)
    assert [span.attributes.get("error.type") for span in traced.attempts] == [None, None]
    assert [span.status.status_code for span in traced.attempts] == [StatusCode.UNSET, StatusCode.UNSET]
    (event,) = traced.call.events
    assert dict(event.attributes) == {"resilient_ai.attempt.number": 2, "resilient_ai.hedge.delay": 1.0}


async def test_a_retry_names_the_attempt_that_failed_last():
    """Not the last that began: the second request may fail first."""
    traced = Traced(stack=[eager()])
    await traced.warm()
    traced.provider.script = [
        after(4.0, ServerFailed("first", status=500)),
        after(1.0, ServerFailed("second", status=500)),
        after(0.5),
    ]
    await traced.send(CHAT)
    (retried,) = [event for event in traced.call.events if event.name == "resilient_ai.retry"]
    assert retried.attributes["resilient_ai.attempt.number"] == 1


async def test_a_hedge_that_was_not_needed():
    """The first request wins all the same."""
    traced = Traced(stack=[eager()])
    await traced.warm()
    traced.provider.script = [after(2.0), after(60.0)]
    await traced.send(CHAT)
    assert (traced.of_attempts("outcome"), traced.of_call("hedge.winner")) == (["won", "lost"], (1,))


async def test_a_race_that_one_fails():
    """The error of a request is its own; the other one wins."""
    traced = Traced(stack=[eager()])
    await traced.warm()
    traced.provider.script = [after(2.0, ServerFailed("boom", status=500)), after(2.0)]
    await traced.send(CHAT)
    assert traced.of_attempts("outcome") == ["error", "won"]
    assert [span.status.status_code for span in traced.attempts] == [StatusCode.ERROR, StatusCode.UNSET]


async def test_a_race_that_nobody_wins():
    """Both have their error, and the next try is no part of the race."""
    traced = Traced(stack=[eager()])
    await traced.warm()
    boom = ServerFailed("boom", status=500)
    traced.provider.script = [after(2.0, boom), after(0.5, boom), chat_result()]
    await traced.send(CHAT)
    assert traced.of_attempts("outcome") == ["error", "error", "success"]
    assert traced.of_attempts("kind") == ["initial", "hedge", "retry"]
    assert traced.of_call("hedges", "hedge.winner", "retries") == (1, None, 1)
    assert not traced.attempts[2].links


async def test_a_race_that_is_called_off():
    """Cancelled by the caller, both are cancelled, and neither has lost."""
    traced = Traced(stack=[eager()])
    await traced.warm()
    traced.provider.script = [after(60.0), after(60.0)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await traced.send(CHAT)
    assert traced.of_attempts("outcome") == ["cancelled", "cancelled"]
    assert traced.call.attributes["error.type"] == "cancelled"


async def test_two_streams_for_one_answer():
    """The stream that comes second is dropped and lost, the first has won once it is read to its end."""
    traced = Traced(stack=[eager(), CostAccounting()])
    await traced.warm(STREAM)
    traced.provider.script = [after(2.0), after(1.0)]
    await (await traced.send(STREAM)).result()
    assert sorted(traced.of_attempts("outcome")) == ["lost", "won"]
    assert [span.status.status_code for span in traced.attempts] == [StatusCode.UNSET, StatusCode.UNSET]


async def test_a_request_in_line_may_be_overtaken_by_the_one_that_was_to_help_it():
    """Then the first is the one that is linked, and still the initial one."""
    started = []

    async def held(call, proceed):
        if started and not call.hedge:
            await asyncio.sleep(1.5)
        started.append(call.hedge)
        return await proceed(call)

    late = Traced(stack=[eager(), held])
    await late.warm()
    late.provider.script = [after(60.0), after(3.0)]
    await late.send(CHAT)
    assert started == [False, True, False]
    assert late.of_attempts("kind") == ["hedge", "initial"]
    assert late.of_attempts("outcome") == ["lost", "won"]
    assert [len(span.links) for span in late.attempts] == [0, 1]


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([after(60.0), after(1.0)], "won"),
        ([after(2.0), after(60.0)], "lost"),
        ([after(2.0, KeyError("no")), after(2.0, KeyError("no"))], "failed"),
        ([after(60.0), after(60.0)], "cancelled"),
        ([after(0.5)], None),
    ],
)
async def test_how_a_race_ends_is_an_event(script, outcome):
    """Told once, as soon as it is decided; where there was no race nothing is."""
    traced, told = Traced(stack=[eager()]), []
    await traced.warm()
    traced.provider.script = script
    traced.pipeline.subscribe(lambda event: told.append(event.outcome) if isinstance(event, HedgeSettled) else None)
    try:
        async with asyncio.timeout(10):
            await traced.send(CHAT)
    except (KeyError, TimeoutError):
        pass
    assert told == ([outcome] if outcome else [])


async def test_batches_at_the_same_time_are_no_race():
    """Each body has attempts of its own."""

    async def in_two(call, proceed):
        return (await asyncio.gather(*(proceed(call.with_body(call.operation, part)) for part in ("b0", "b1"))))[0]

    traced = Traced(after(1.0, chat_result()), after(1.0, chat_result()), stack=[in_two])
    await traced.send(CHAT)
    assert traced.of_attempts("outcome") == ["success", "success"]
    assert traced.of_attempts("number") == [1, 2]


# Money and tokens


async def test_tokens_that_went_to_nobody_are_added_up():
    """Those of answers that were not used; where nobody counted them there is nothing to tell."""
    ends = [
        SendClosed("s", "settled", usage=Usage(input_tokens=5, output_tokens=2), used=False),
        SendClosed("s", "settled", usage=Usage(input_tokens=5), used=False),
        SendClosed("s", "settled", usage=None, used=False),
        SendClosed("s", "settled", usage=Usage(input_tokens=99, output_tokens=99), used=True),
    ]

    async def account(call, proceed):
        for told in call.on_send_closed:
            for end in ends:
                told(end)
        return await proceed(call)

    traced = Traced(stack=[account])
    await traced.send(CHAT)
    assert traced.of_call("usage.discarded_input_tokens", "usage.discarded_output_tokens") == (10, 2)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (BudgetExceeded("no", spent=1, limit=1, budget="day tenant=acme user=ada", shown_as="day user"), "day user"),
        (BudgetUnavailable("no", budget="day user=ada", shown_as="day user"), "day user"),
        (BudgetExceeded("no", spent=1, limit=1, budget="day user=ada"), None),
    ],
)
async def test_a_refusal_by_a_budget_has_its_name_without_the_values_of_tags(error, name):
    """A tag may be anybody's name."""
    traced = Traced(error)
    with pytest.raises(type(error)):
        await traced.send(CHAT)
    assert traced.of_call("budget.name") == (name,)


# Streams


async def test_a_stream_that_thinks_first():
    """The first piece, the first that is no thought, and how many there were without the end."""
    source = ScriptedSource(
        [2.0, [ReasoningDelta("b")], [Restarted()], 3.0, [TextDelta("a"), TextDelta("b")], [Finished(("stop",))]]
    )
    stream = StreamResult(source, model="m", first=[ReasoningDelta("a")], clock=FakeClock())
    traced = Traced(1.0, stream)
    await (await traced.send(STREAM)).result()
    first, content = traced.call.attributes["gen_ai.response.time_to_first_chunk"], "stream.time_to_first_content"
    assert (first, *traced.of_call(content, "stream.chunks")) == (pytest.approx(1.0), pytest.approx(6.0), 5)
    assert traced.of_call("usage.missing") == (True,)


# Conventions


async def test_the_newest_text_says_error_where_no_reason_came():
    """In the position of every choice that did not finish."""
    broken = StreamResult(
        ScriptedSource([ServerFailed("boom", status=500)]), model="m", first=[TextDelta("a")], clock=FakeClock()
    )
    traced = Traced(ServerFailed("boom", status=500), broken, conventions="latest")
    with pytest.raises(ServerFailed):
        await traced.send(Chat(model="m", messages="hi", n=2))
    assert traced.call.attributes["gen_ai.response.finish_reasons"] == ("error", "error")
    assert not traced.call.instrumentation_scope.schema_url
    await (await traced.send(STREAM)).aclose()
    assert traced.call.attributes["gen_ai.response.finish_reasons"] == ("error",)
    await traced.send(Embed(model="m", texts="a"))
    assert "gen_ai.response.finish_reasons" not in traced.call.attributes


@pytest.mark.parametrize(
    ("conventions", "names"),
    [("1.41", {"cache_creation"}), ("latest", {"cache_write"}), ("both", {"cache_creation", "cache_write"})],
)
async def test_what_went_into_the_cache_of_the_provider(conventions, names):
    """By the old name, the new one, or both."""
    traced = Traced(chat_result(usage=Usage(input_tokens=9, cache_write_tokens=2)), conventions=conventions)
    await traced.send(CHAT)
    found = {key.split(".")[2] for key in traced.call.attributes if key.startswith("gen_ai.usage.cache")}
    assert found == names


# Whom it is for


async def test_whom_a_call_is_for():
    """User and session are on every span, the conversation on the call alone, and no other tag but those that are named."""
    traced = Traced(tags=["feature", "missing"])
    await traced.send(
        CHAT, tags={"user": "ada", "session": "s", "conversation": "c", "feature": "search", "x": "CANARY"}
    )
    (attempt,), call = traced.attempts, traced.call
    assert call.attributes["gen_ai.conversation.id"] == "c"
    assert call.attributes["resilient_ai.tags"] == ("feature:search",)
    for span in (attempt, call):
        assert (span.attributes["user.id"], span.attributes["session.id"]) == ("ada", "s")
        assert "CANARY" not in span.to_json()
    assert "gen_ai.conversation.id" not in attempt.attributes


COST = Cost(amount=Decimal("0.25"), source="provider")
TTFT = 2.0


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        (
            "langfuse",
            {
                "langfuse.observation.cost_details": '{"total":0.25}',
                "langfuse.observation.completion_start_time": "2027-01-15T08:16:44+00:00",
                "langfuse.trace.tags": ("feature:search",),
            },
        ),
        ("phoenix", {"llm.cost.total": 0.25, "tag.tags": ("feature:search",), "session.id": "c"}),
        ("openinference", {"llm.cost.total": 0.25, "tag.tags": ("feature:search",), "session.id": "c"}),
        ("logfire", {"operation.cost": 0.25, "gen_ai.client.operation.time_to_first_chunk": TTFT}),
        ("datadog", {}),
        ("honeycomb", {"gen_ai.agent.name": "clerk"}),
        ("signoz", {"gen_ai.server.ttft": TTFT}),
        ("grafana", {"gen_ai.usage.cost": 0.25}),
        ("openlit", {"gen_ai.usage.cost": 0.25}),
    ],
)
async def test_what_a_backend_looks_for(backend, expected):
    """Beside the conventions, on the span of the call alone."""
    tags = {"conversation": "c", "agent": "clerk", "feature": "search"}

    async def answer():
        source = ScriptedSource([[Finished(("stop",), Usage(input_tokens=1, output_tokens=1), cost=COST)]])
        return StreamResult(source, model="m", first=[TextDelta("a")], clock=FakeClock())

    keys = []
    for backends in ([], [backend]):
        traced = Traced(TTFT, await answer(), backends=backends, tags=["feature"])
        await (await traced.send(STREAM, tags=tags)).result()
        keys.append(traced.call.attributes)
        assert set(traced.attempts[0].attributes) == {
            f"resilient_ai.attempt.{name}" for name in ("number", "kind", "model", "previous_attempts", "outcome")
        } | {"resilient_ai.cost.amount"}
    plain, added = keys
    found = {key: value for key, value in added.items() if key not in plain}
    assert found == {
        key: pytest.approx(value) if isinstance(value, float) else value for key, value in expected.items()
    }


@pytest.mark.parametrize("backend", ["langfuse", "phoenix", "logfire", "honeycomb", "signoz", "grafana"])
async def test_what_is_not_known_is_told_to_no_backend(backend):
    """A call without a cost, a stream, or a tag adds nothing."""
    traced = Traced(backends=[backend])
    await traced.send(CHAT)
    plain = Traced()
    await plain.send(CHAT)
    assert traced.call.attributes.keys() == plain.call.attributes.keys()


async def test_a_session_of_its_own_stands_for_the_conversation():
    """Phoenix takes the conversation for a session only where there is none."""
    traced = Traced(backends=["phoenix"])
    await traced.send(CHAT, tags={"conversation": "c", "session": "s"})
    assert traced.call.attributes["session.id"] == "s"


async def test_a_call_that_joined_one_that_is_not_traced_has_no_link():
    """There is nothing to link to."""
    traced = Traced(stack=[telling(CallJoined(**TOLD, leader="l"))])
    await traced.send(CHAT)
    assert len(traced.call.links) == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"backends": ["splunk"]}, "backends must be of"),
        ({"backends": "langfuse"}, "backends must be a list of names"),
        ({"conventions": "1.36"}, "conventions must be None or one of"),
        ({"tags": "user"}, "tags must be a list of names"),
        ({"propagate": 1}, "propagate must be"),
        ({"capture": "all"}, "capture must be None or one of"),
        ({"longest_part": 1}, "longest_part must be"),
        ({"logger_provider": 3}, "logger_provider must"),
        ({"events": "records"}, "events must be one of"),
    ],
)
def test_senseless_options_are_refused(options, sentence):
    """The sentence names the option."""
    with pytest.raises(ValueError, match=sentence):
        Tracing(**options)


async def test_a_fault_of_an_event_is_counted_and_passed_over(monkeypatch):
    """What cannot be noted is left out."""
    monkeypatch.setattr(_telemetry_faults, "_counts", {})
    traced = Traced(stack=[telling(CallJoined(**TOLD, leader="l", leader_span="no span"))])
    assert (await traced.send(CHAT)).text == "Hello."
    assert _telemetry_faults.fault_counts() == {"tracing": 1}
