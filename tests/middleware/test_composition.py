"""Pairs of middleware: what each promises of the other, and that no stack does more than it foretold."""

import asyncio
import itertools
import logging
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import resilient_ai.middleware as exported
from resilient_ai import Settings, default_stack
from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import (
    AttemptTimeout,
    AuthenticationFailed,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidResponse,
    LimitReached,
    ModelNotFound,
    NoModelAvailable,
    Overloaded,
    RateLimited,
    RequestTooLarge,
    ResilientAIError,
    ServerFailed,
    StreamInterrupted,
)
from resilient_ai.core.events import HedgeSent, RetrySuppressed
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost
from resilient_ai.core.streams import StreamResult
from resilient_ai.deepinfra.catalogue import PriceTable
from resilient_ai.middleware import (
    Batching,
    Budget,
    Budgets,
    Cache,
    Chaos,
    CircuitBreaker,
    Coalesce,
    ConcurrencyLimit,
    CostAccounting,
    Deadline,
    Hedge,
    Logging,
    Metrics,
    RateLimit,
    Resume,
    Retry,
    Routing,
    Timeout,
    Tracing,
)
from resilient_ai.stores import MemoryBudgets, MemoryStore
from resilient_ai.testing import (
    FakeClock,
    ScriptedProvider,
    ScriptedSource,
    answer_to,
    chat_result,
    run,
    stream_of,
    vector_of,
)

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
STREAM = Stream(model="m", messages="hi")
REPEATABLE = {"messages": "hi", "temperature": 0}
FOREVER = 1e6
ORIGIN = ScriptedProvider.origin
# Everything is hedged after a second, once one answer is known.
EAGER = Hedge(samples=1, extra=1.0, delay_min=1.0)

MAKE = {
    "Batching": Batching,
    "Budgets": lambda: Budgets(budgets=[Budget(limit=1, per="day")], book=MemoryBudgets(), prices=PriceTable()),
    "Cache": lambda: Cache(MemoryStore()),
    "Chaos": Chaos,
    "CircuitBreaker": CircuitBreaker,
    "Coalesce": Coalesce,
    "ConcurrencyLimit": ConcurrencyLimit,
    "CostAccounting": CostAccounting,
    "Deadline": Deadline,
    "Logging": Logging,
    "Metrics": Metrics,
    "RateLimit": lambda: RateLimit(requests=60),
    "Resume": Resume,
    "Retry": Retry,
    "Routing": Routing,
    "Timeout": Timeout,
    "Tracing": Tracing,
}
WRONG_ORDERS = [
    (inner, outer, reason)
    for inner in exported.__all__
    for outer, reason in getattr(getattr(exported, inner), "inside_of", {}).items()
]


def boom(status=500):
    return ServerFailed("boom", status=status)


def failing(error=boom):
    """A step that fails with an error of its own each time."""

    async def step(_call):
        raise error()

    return step


def after(seconds, outcome=None):
    """A step that takes so long, and then fails or answers."""

    async def step(_call):
        await asyncio.sleep(seconds)
        if isinstance(outcome, BaseException):
            raise outcome
        return chat_result() if outcome is None else outcome

    return step


def by_model(**steps):
    """A step that does for each model what its own says, and answers for the others."""

    async def step(call):
        return await steps.get(call.model, after(0.0))(call)

    return step


def broken(*texts, clock=None):
    """A stream that breaks after these texts."""
    first, *rest = [TextDelta(text) for text in texts]
    script = [*([event] for event in rest), ConnectionFailed("reset", phase="receive")]
    return StreamResult(ScriptedSource(script), model="m", first=[first], clock=clock or FakeClock())


class Bench:
    """A stack before a scripted provider, and what happened."""

    def __init__(self, stack, *script, chances=(0.5,), always=None):
        self.provider = ScriptedProvider(*script)
        if always is not None:
            self.provider.script = [always] * 1000
        self.clock = FakeClock(chances)
        self.pipeline = Pipeline(self.provider, stack, clock=self.clock)
        self.events = []
        self.pipeline.subscribe(self.events.append)

    async def send(self, operation=CHAT, **options):
        """Send, and read a stream to its end; return the result or the error."""
        try:
            result = await self.pipeline.send(operation, **options)
            return await result.result() if isinstance(result, StreamResult) else result
        except ResilientAIError as error:
            return error

    def later(self, operation=CHAT, **options):
        return asyncio.ensure_future(self.send(operation, **options))

    @property
    def held(self):
        """The limits of which something is held, or for which somebody waits."""
        return [state for state in self.pipeline.health().limits if state.in_use or state.waiting]

    def every_body_has_a_name(self):
        """Whether no two different requests went under one idempotency key."""
        bodies = {}
        return all(
            bodies.setdefault(call.idempotency_key, call.operation) == call.operation for call in self.provider.calls
        )

    @property
    def models(self):
        return [call.model for call in self.provider.calls]

    @property
    def sends(self):
        return len(self.provider.calls)


class Book:
    """A ledger in two lists."""

    def __init__(self):
        self.rows, self.ends = [], []

    def opened(self, row):
        self.rows.append(row)

    async def aclose(self):
        pass

    def closed(self, row):
        self.ends.append(row)

    @property
    def states(self):
        return [row.state for row in self.ends]

    def is_balanced(self):
        return sorted(row.send_id for row in self.rows) == sorted(row.send_id for row in self.ends)


# Orders


def test_every_middleware_is_tried_here():
    """A middleware that is added is part of these tests, and nobody names one that does not exist."""
    assert set(MAKE) == set(exported.__all__) - {"Budget", "Candidate", "ChaosPlan", "Hedge", "Redactor", "Rule"}
    assert {outer for _, outer, _ in WRONG_ORDERS} <= set(MAKE)


@pytest.mark.parametrize(("inner", "outer", "reason"), WRONG_ORDERS, ids=lambda part: part if part in MAKE else "")
def test_a_wrong_order_is_refused_with_its_reason(inner, outer, reason):
    """What must stand inside of another one is refused outside of it, and accepted inside."""
    with pytest.raises(ConfigurationError) as caught:
        Pipeline(ScriptedProvider(), [MAKE[inner](), MAKE[outer]()])
    assert str(caught.value) == f"{inner} must stand after {outer} in the stack: {reason}"
    assert Pipeline(ScriptedProvider(), [MAKE[outer](), MAKE[inner]()]).describe()


@pytest.mark.parametrize("queue", [ConcurrencyLimit(), RateLimit(requests=60)])
def test_a_deadline_inside_of_a_queue_is_refused(queue):
    """It would not see the time in the queue, so a call of one second could take an hour."""
    with pytest.raises(ConfigurationError, match="must stand after Deadline"):
        Pipeline(ScriptedProvider(), [queue, Deadline()])


def test_no_two_middleware_each_want_to_be_the_inner_one():
    """The reasons leave an order in which everything fits."""
    pairs = {(inner, outer) for inner, outer, _ in WRONG_ORDERS}
    assert not any((outer, inner) in pairs for inner, outer in pairs)


def test_the_default_order_is_accepted(tmp_path):
    """With every option on that adds a part; turned around it is refused."""
    options = Settings(home=tmp_path, hedge="on", on_interrupt="continue", requests_per_minute=60, redis_url=None)

    async def main():
        stack = default_stack(options)
        names = [layer.name for layer in Pipeline(ScriptedProvider(), [*stack, Chaos()]).describe()]
        with pytest.raises(ConfigurationError, match="must stand after"):
            Pipeline(ScriptedProvider(), stack[::-1])
        await Pipeline(ScriptedProvider(), stack).aclose()
        return names

    assert asyncio.run(main()) == [
        *("Tracing", "Metrics", "Logging", "Deadline", "Coalesce", "Cache", "Resume", "Routing", "Batching", "Retry"),
        *(
            "CircuitBreaker",
            "RateLimit",
            "ConcurrencyLimit",
            "CostAccounting",
            "Timeout",
            "AttemptSpans",
            "AttemptMetrics",
            "Chaos",
            "ScriptedProvider",
        ),
    ]


# Retry and limits


async def test_a_permit_is_free_while_a_retry_waits():
    """With one permit another call is served between two tries of the first."""
    limit = ConcurrencyLimit(limit=1)
    bench = Bench([Retry(wait_initial=1.0), limit], after(1.0, boom()), after(0.1))
    first = bench.later(Chat(model="m", messages="first"))
    await asyncio.sleep(0.5)
    second = bench.later(Chat(model="m", messages="second"))
    assert (await second).text == (await first).text == "Hello."
    first_id, second_id, third_id = [call.id for call in bench.provider.calls]
    assert first_id == third_id != second_id
    assert limit.in_use(ORIGIN, "m") == 0


async def test_every_try_counts_against_the_rate():
    """A retry waits for its turn like any other request."""
    bench = Bench([Retry(wait_initial=0.1), RateLimit(requests=60, burst=0.001)], boom(), chances=[0.0])
    started = asyncio.get_running_loop().time()
    assert (await bench.send()).attempts == 2
    assert asyncio.get_running_loop().time() - started == pytest.approx(1.0)


async def test_a_full_limit_sends_the_call_to_the_next_model():
    """Where the queue of the first model is full, the second one serves, and nothing waits."""
    bench = Bench([Routing(), Retry(), ConcurrencyLimit(limit=1, queue_size=0)], after(10.0))
    first = bench.later(Chat(model="a", messages="hi"))
    await asyncio.sleep(1)
    answer = await bench.send(Chat(model=["a", "b"], messages="hi"))
    assert (answer.served_by, list(answer.refused)) == ("b", ["a"])
    assert "LimitReached" in answer.refused["a"]
    await first


# Retry and the breaker


async def test_every_try_is_an_outcome():
    """Three tries of one call are three failures for the breaker."""
    breaker = CircuitBreaker()
    bench = Bench([Retry(attempts=3), breaker], always=failing())
    assert isinstance(await bench.send(), ServerFailed)
    assert (breaker.health()[0].failures, breaker.health()[0].throughput) == (3, 3)


@pytest.mark.parametrize(
    ("open_for", "timeout", "sends"),
    [(2.0, 19.0, 1), (2.0, 22.0, 2), (5.9, 1000.0, 2), (6.1, 1000.0, 1), (5.9, None, 2), (6.1, None, 1)],
)
async def test_an_open_circuit_is_waited_for_a_tenth_of_the_time_left(open_for, timeout, sends):
    """At most 6 s; otherwise the failure that opened it is raised at once, with a note."""
    breaker = CircuitBreaker(consecutive_failures=1, break_duration=open_for, ramp=0)
    outer = [] if timeout is None else [Deadline(total=timeout)]
    bench = Bench([*outer, Retry(attempts=2), breaker], boom(), chances=[0.5])
    outcome = await bench.send()
    assert bench.sends == sends
    if sends == 2:
        assert outcome.text == "Hello."
        assert open_for <= bench.clock.slept[0] <= open_for * 1.1
        return
    assert outcome.circuit_open_for == pytest.approx(open_for)
    assert outcome.__notes__ == [f"not tried again: the circuit has opened for {open_for} s"]
    assert bench.clock.slept == []
    assert [event.reason for event in bench.events if isinstance(event, RetrySuppressed)] == ["circuit"]


@pytest.mark.parametrize(("timeout", "sends"), [(19.0, 1), (22.0, 2)])
async def test_a_call_that_finds_the_circuit_open_is_as_patient(timeout, sends):
    """It waits for a probe where that is a tenth of its time, else it fails at once and nothing is sent."""
    stack = [Deadline(), Retry(attempts=2), CircuitBreaker(consecutive_failures=1, ramp=0)]
    bench = Bench(stack, boom())
    await bench.send(timeout=1.0)
    outcome = await bench.send(timeout=timeout)
    assert bench.sends == sends
    assert isinstance(outcome, CircuitOpen) is (sends == 1)


async def test_a_refused_key_is_asked_once():
    """A 401 is neither tried again nor at another model, and the next call fails without a request or a row."""
    book = Book()
    bench = Bench([Routing(), Retry(), CircuitBreaker(), CostAccounting(book)], always=failing(refusal))
    errors = [await bench.send(Chat(model=["a", "b"], messages="hi")) for _ in range(2)]
    assert [(type(error), error.sent) for error in errors] == [
        (AuthenticationFailed, True),
        (AuthenticationFailed, False),
    ]
    assert (bench.models, book.states) == (["a"], ["settled"])


def refusal():
    return AuthenticationFailed("no", status=401)


# The breaker and queues


@pytest.mark.parametrize(
    "queue", [lambda: ConcurrencyLimit(limit=1, adaptive=False), lambda: RateLimit(requests=60, burst=0.001)]
)
async def test_who_waited_in_a_queue_is_looked_at_again(queue):
    """A call that queued while the circuit opened is refused without a request, and what it had got is given back."""
    breaker, queue = CircuitBreaker(consecutive_failures=1), queue()
    bench = Bench([breaker, queue], after(0.5, boom()))
    first, second = bench.later(), bench.later()
    assert [type(await call) for call in (first, second)] == [ServerFailed, CircuitOpen]
    assert bench.sends == 1
    breaker.reset()
    await asyncio.sleep(1)
    started = asyncio.get_running_loop().time()
    assert (await bench.send()).text == "Hello."
    assert asyncio.get_running_loop().time() == started
    (state,) = queue.health()
    assert state.waiting == 0
    assert getattr(state, "in_use", 0) == 0


async def test_a_probe_that_queued_is_still_the_probe():
    """While it waits for its permit the lease holds, and its success closes the circuit."""
    breaker, limit = CircuitBreaker(consecutive_failures=1, ramp=0), ConcurrencyLimit(limit=1, adaptive=False)
    bench = Bench([breaker, limit], after(1.0), after(0.5, boom()))
    slow = Bench([limit], after(10.0))
    assert isinstance(await bench.send(), object)
    await bench.send()
    holder = slow.later()
    await asyncio.sleep(3)
    probe, other = bench.later(), bench.later()
    assert isinstance(await other, CircuitOpen)
    assert (await probe).text == "Hello."
    assert breaker.health()[0].state == "closed"
    await holder


async def test_a_busy_service_is_the_limit_s_affair():
    """A 429 shrinks the limit and neither opens the circuit nor closes it."""
    breaker, limit = CircuitBreaker(consecutive_failures=1), ConcurrencyLimit()
    bench = Bench([breaker, limit], always=failing(lambda: RateLimited("busy", status=429)))
    for _ in range(20):
        assert isinstance(await bench.send(), RateLimited)
    assert breaker.health()[0].state == "closed"
    assert limit.health()[0].limit < 32


# Routing


async def test_an_open_circuit_is_passed_over():
    """The first model is not asked while its circuit is open, and the answer says why."""
    bench = Bench(
        [Routing(), Retry(), CircuitBreaker(consecutive_failures=1)], always=by_model(a=failing(), b=after(0.0))
    )
    answers = [await bench.send(Chat(model=["a", "b"], messages="hi")) for _ in range(2)]
    assert bench.models == ["a", "b", "b"]
    assert [answer.refused["a"].split(":")[0] for answer in answers] == ["ServerFailed", "CircuitOpen"]
    assert bench.clock.slept == []


async def test_where_all_circuits_are_open_the_nearest_is_asked_once_a_second():
    """The first to come back is probed ahead of time, and no model more than once a second."""
    breaker = CircuitBreaker(consecutive_failures=1)
    asked = []

    async def down(call):
        asked.append((call.model, call.clock.monotonic()))
        raise boom()

    bench = Bench([Routing(), Retry(), breaker], always=down)
    await bench.send(Chat(model="b", messages="hi"), timeout=None)
    await asyncio.sleep(0.5)
    await bench.send(Chat(model="a", messages="hi"))
    asked.clear()
    for _ in range(100):
        error = await bench.send(Chat(model=["a", "b"], messages="hi"))
        assert isinstance(error, NoModelAvailable)
        assert set(error.refused) == {"a", "b"}
        await asyncio.sleep(0.05)
    assert asked[0][0] == "b"
    for model in "ab":
        times = [at for name, at in asked if name == model]
        assert all(later - earlier >= 0.999 for earlier, later in itertools.pairwise(times))
    assert 2 <= len(asked) <= 12


async def test_a_probe_ahead_of_time_that_succeeds_serves_the_call():
    """With all circuits open the call is answered as soon as one model is back."""
    bench = Bench([Routing(), Retry(attempts=1), CircuitBreaker(consecutive_failures=1)], boom(), boom())
    both = Chat(model=["a", "b"], messages="hi")
    assert isinstance(await bench.send(both), NoModelAvailable)
    answer = await bench.send(both)
    assert (answer.served_by, bench.models) == ("a", ["a", "b", "a"])


async def test_a_model_isolated_by_hand_is_not_probed():
    """Where every circuit is isolated nothing is sent."""
    breaker = CircuitBreaker()
    bench = Bench([Routing(), breaker])
    breaker.isolate("a")
    breaker.isolate("b")
    assert isinstance(await bench.send(Chat(model=["a", "b"], messages="hi")), NoModelAvailable)
    assert bench.sends == 0


@pytest.mark.parametrize("attempts", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("models", [1, 2, 3, 4, 5, 8])
async def test_a_call_sends_no_more_than_its_ceiling(models, attempts):
    """Six requests over all models, at least one to each; a model alone has all its tries."""
    bench = Bench([Routing(), Retry(attempts=attempts)], always=failing())
    assert isinstance(await bench.send(Chat(model=list("abcdefgh"[:models]), messages="hi")), ResilientAIError)
    foretold = attempts if models == 1 else max(models, min(6, attempts * models))
    assert bench.sends == foretold == bench.pipeline.describe(models=models).worst_case.sends
    assert sorted(set(bench.models)) == list("abcdefgh"[:models])


async def test_a_missing_model_costs_one_request():
    """A 404 goes on to the next model at once, without a retry."""
    bench = Bench([Routing(), Retry()], ModelNotFound("gone", status=404))
    answer = await bench.send(Chat(model=["a", "b"], messages="hi"))
    assert (answer.served_by, bench.models, bench.clock.slept) == ("b", ["a", "b"], [])


# Deadline and everything


class BusyFleet:
    """A fleet whose permits are all taken for ever."""

    share = 0.25
    reachable = True

    async def acquire(self, name, *, limit, holder):
        return 1

    def hold(self, name, *, holder):
        pass

    def release(self, name, *, holder):
        pass

    async def reserve(self, name, *, amount, rate, burst):
        return FOREVER

    def settle(self, name, *, amount, rate, burst):
        pass

    async def aclose(self):
        pass


def hang_in_queue():
    return [ConcurrencyLimit(limit=1)], [after(FOREVER)], CHAT, {"before": CHAT}


def hang_in_the_queue_of_the_fleet():
    return [ConcurrencyLimit(fleet=BusyFleet())], [], CHAT, {}


def hang_in_the_line_of_a_rate():
    limit = RateLimit(requests=1)
    return [limit], [], CHAT, {"before": CHAT, "and": CHAT, "priority": "batch"}


def hang_in_attempt():
    return [Retry(), Timeout()], [after(FOREVER)], CHAT, {}


def hang_in_second_attempt():
    return [Retry(), Timeout()], [after(1.0, boom()), after(FOREVER)], CHAT, {}


def hang_in_fallback():
    return [Routing(), Retry(attempts=1)], [boom(), after(FOREVER)], Chat(model=["a", "b"], messages="hi"), {}


def hang_in_both_hedges():
    return [Retry(hedge=EAGER)], [chat_result(), after(FOREVER), after(FOREVER)], CHAT, {"first": CHAT}


def hang_in_resume():
    return [Resume(on_interrupt="restart")], [broken("Hel"), after(FOREVER)], STREAM, {}


def hang_in_a_stream():
    source = ScriptedSource([[TextDelta("lo")], FOREVER])
    stream = StreamResult(source, model="m", first=[TextDelta("Hel")], clock=FakeClock())
    return [Retry(), ConcurrencyLimit(), Timeout(idle=100.0)], [stream], STREAM, {}


def hang_in_a_batch():
    texts = [f"text {number}" for number in range(4)]
    return [Batching(size=1), Retry()], [boom(), after(FOREVER)], Embed(model="m", texts=texts), {}


HANGS = [
    hang_in_queue,
    hang_in_the_queue_of_the_fleet,
    hang_in_the_line_of_a_rate,
    hang_in_attempt,
    hang_in_second_attempt,
    hang_in_fallback,
    hang_in_both_hedges,
    hang_in_resume,
    hang_in_a_stream,
    hang_in_a_batch,
]


@pytest.mark.parametrize("hang", HANGS)
@pytest.mark.parametrize("timeout", [2.0, 7.5])
async def test_the_deadline_is_never_late(hang, timeout):
    """Wherever a call hangs, it ends at its deadline exactly, and leaves nothing behind."""
    stack, script, operation, more = hang()
    bench = Bench([Deadline(total=3 * FOREVER), *stack], *script)
    others = []
    if "first" in more:
        await bench.send(more["first"])
    for name in ("before", "and"):
        if name in more:
            others.append(bench.later(more[name], priority=more.get("priority", "interactive")))
            await asyncio.sleep(0)
    started = asyncio.get_running_loop().time()
    error = await bench.send(operation, timeout=timeout, priority=more.get("priority", "interactive"))
    assert isinstance(error, DeadlineExceeded)
    assert asyncio.get_running_loop().time() - started == pytest.approx(timeout, abs=1e-6)
    assert (error.timeout, error.elapsed) == (timeout, pytest.approx(timeout, abs=1e-6))
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)
    assert not bench.held


@pytest.mark.parametrize(
    ("stack", "script", "expected"),
    [
        ([Retry(wait_initial=5.0)], [boom()], ServerFailed),
        ([Retry()], [RateLimited("busy", status=429, retry_after=10.0)], RateLimited),
        ([RateLimit(requests=6, burst=0.01)], [], LimitReached),
    ],
)
async def test_a_wait_that_does_not_fit_is_not_begun(stack, script, expected):
    """The call fails at once with what stands in its way, instead of waiting for its deadline."""
    bench = Bench([Deadline(total=4.0), *stack], *script, chances=[0.99])
    if not script:
        await bench.send()
    started = asyncio.get_running_loop().time()
    assert type(await bench.send()) is expected
    assert asyncio.get_running_loop().time() == started


# Timeout


async def test_a_timeout_inside_of_retry_is_for_each_try():
    """Three tries have two seconds each; outside of it all three have two together."""
    inside = Bench([Retry(attempts=3), Timeout(attempt=2.0)], always=after(FOREVER), chances=[0.0])
    outside = Bench([Timeout(attempt=2.0), Retry(attempts=3)], always=after(FOREVER), chances=[0.0])
    for bench, sends, seconds in ((inside, 3, 6.0), (outside, 1, 2.0)):
        started = asyncio.get_running_loop().time()
        error = await bench.send()
        assert (type(error), error.timer, bench.sends) == (AttemptTimeout, "attempt", sends)
        assert asyncio.get_running_loop().time() - started == pytest.approx(seconds)
    assert inside.pipeline.health().send_budgets[0].left == pytest.approx(100 - 2 * 2 + 0.05 * 6, abs=0.01)


async def test_the_timer_of_an_attempt_does_not_run_in_the_queue():
    """A call that waited longer for its permit than an attempt may take is served."""
    bench = Bench([Retry(attempts=1), ConcurrencyLimit(limit=1), Timeout(attempt=2.0)], after(1.9), after(1.9))
    first, second, third = bench.later(), bench.later(), bench.later()
    assert [(await call).text for call in (first, second, third)] == ["Hello."] * 3


# Cache


@pytest.mark.parametrize(("how", "text"), [("restart", "Hello."), ("continue", "Hello.")])
async def test_a_resumed_stream_is_kept_whole(how, text):
    """What the cache gives the next one, stream or chat, is the whole answer as the reader got it."""
    rest = stream_of("Hel", "lo.") if how == "restart" else stream_of("lo", ".")
    bench = Bench([Cache(MemoryStore()), Resume(on_interrupt=how)], broken("Hel"), rest)
    first = await bench.send(Stream(model="m", **REPEATABLE))
    await asyncio.sleep(0)
    again = [await bench.send(kind(model="m", **REPEATABLE)) for kind in (Stream, Chat)]
    assert [answer.text for answer in (first, *again)] == [text] * 3
    assert [answer.cache for answer in (first, *again)] == ["miss", "hit", "hit"]
    assert bench.sends == 2


async def test_a_broken_stream_is_not_kept():
    """Half an answer never reaches the cache."""
    bench = Bench([Cache(MemoryStore()), Resume()], broken("Hel"))
    assert isinstance(await bench.send(Stream(model="m", **REPEATABLE)), StreamInterrupted)
    await asyncio.sleep(0)
    assert (await bench.send(Chat(model="m", **REPEATABLE))).cache == "miss"


async def test_an_answer_of_a_fallback_is_kept_for_the_route():
    """A hit says who served, and neither the first model alone nor another route gets that answer."""
    bench = Bench([Cache(MemoryStore()), Routing(), Retry(attempts=1)], boom())
    route = Chat(model=["a", "b"], **REPEATABLE)
    answers = [await bench.send(route) for _ in range(2)]
    assert [(answer.served_by, answer.cache) for answer in answers] == [("b", "miss"), ("b", "hit")]
    others = [await bench.send(Chat(model=model, **REPEATABLE)) for model in ("a", ["a", "c"], ["b", "a"])]
    assert [answer.cache for answer in others] == ["miss"] * 3


async def test_a_hit_needs_nothing_below():
    """With the circuit open and the limit full, an answer that is known is given."""
    limit = ConcurrencyLimit(limit=1, queue_size=0)
    breaker = CircuitBreaker()
    book = Book()
    bench = Bench([Cache(MemoryStore()), Retry(), breaker, limit, CostAccounting(book)])
    await bench.send(Chat(model="m", **REPEATABLE))
    breaker.isolate("m")
    answer = await bench.send(Chat(model="m", **REPEATABLE))
    assert (answer.cache, answer.cost.amount, len(book.rows), bench.sends) == ("hit", 0, 1, 1)


# Batching


async def test_a_batch_that_fails_is_sent_again_alone_under_its_name():
    """Three batches, one of which fails once: four requests, each batch with a key of its own that a repeat keeps."""
    book = Book()
    texts = [f"text {number}" for number in range(9)]
    stack = [Batching(size=3, in_flight=1), Retry(), ConcurrencyLimit(), CostAccounting(book)]
    clean, bench = Bench([]), Bench(stack, after(0.0, None), chances=[0.0])
    bench.provider.script = [failing()]
    operation = Embed(model="m", texts=texts)
    result = await bench.send(operation)
    assert [list(vector) for vector in result.vectors] == [
        list(vector) for vector in (await clean.send(operation)).vectors
    ]
    keys = [call.idempotency_key for call in bench.provider.calls]
    assert (len(keys), len(set(keys)), keys[0] == keys[1]) == (4, 3, True)
    assert bench.provider.calls[0].operation == bench.provider.calls[1].operation
    assert (result.attempts, len(book.rows), book.is_balanced()) == (4, 4, True)


async def test_all_batches_of_a_call_go_to_one_model():
    """Where one batch fails for good, the next model embeds them all."""
    bench = Bench(
        [Routing(embed_across_models=True), Batching(size=2, in_flight=2), Retry(attempts=1)],
    )

    async def step(call):
        if call.model == "a" and call.operation.texts[0] == "text 2":
            raise boom()
        return await ScriptedProvider()(call.replace(record=type(call.record)()))

    bench.provider.script = [step] * 20
    result = await bench.send(Embed(model=["a", "b"], texts=[f"text {number}" for number in range(6)]))
    assert (result.served_by, len(result.vectors)) == ("b", 6)
    assert bench.models.count("b") == 3


# CostAccounting


def paid(text="Hello."):
    return chat_result(text, cost=Cost(amount=Decimal("0.25"), source="provider"))


async def test_every_try_has_a_row_and_the_answer_says_what_is_not_known():
    """A refusal costs nothing, a try without an answer may have cost something, and the sum is then no more than a part."""
    book = Book()
    bench = Bench([Retry(), CostAccounting(book), Timeout(attempt=1.0)], boom(), after(FOREVER), paid())
    answer = await bench.send()
    assert (answer.attempts, answer.maybe_billed) == (3, 1)
    assert (answer.cost.amount, answer.cost.complete) == (Decimal("0.25"), False)
    assert book.states == ["settled", "unknown", "settled"]
    assert [row.attempt for row in book.rows] == [1, 2, 3]
    assert book.is_balanced()


async def test_what_was_never_sent_is_not_in_the_cost():
    """A try that did not connect has a row and costs nothing."""
    book = Book()
    refused = ConnectionFailed("refused", phase="connect")
    bench = Bench([Retry(), CostAccounting(book)], refused, paid())
    answer = await bench.send()
    assert book.states == ["never_sent", "settled"]
    assert (answer.maybe_billed, answer.cost.amount, answer.cost.complete) == (0, Decimal("0.25"), True)


async def test_the_loser_of_a_race_has_a_row():
    """The request that was not waited for is closed as one that may be billed."""
    book = Book()
    bench = Bench([Retry(hedge=EAGER), CostAccounting(book)], paid(), after(FOREVER), paid("second"))
    await bench.send()
    answer = await bench.send()
    await asyncio.sleep(0)
    assert answer.text == "second"
    assert (len(book.rows), book.is_balanced(), sorted(book.states)) == (3, True, ["settled", "settled", "unknown"])
    assert answer.attempts == 2


async def test_the_loser_of_a_race_is_in_the_answer():
    """It may be billed, and the answer says so."""
    bench = Bench([Retry(hedge=EAGER), CostAccounting()], paid(), after(FOREVER), paid("second"))
    await bench.send()
    answer = await bench.send()
    assert (answer.text, answer.maybe_billed, answer.cost.complete) == ("second", 1, False)


async def test_every_part_of_a_resumed_stream_has_a_row():
    """The half that broke is a request of its own, and the cost of the answer is not all there was to pay."""
    book = Book()
    cost = Cost(amount=Decimal("0.25"), source="provider")
    whole = ScriptedSource([[Finished(("stop",), cost=cost)]])
    second = StreamResult(whole, model="m", first=[TextDelta("Hello.")], clock=FakeClock())
    bench = Bench([Resume(on_interrupt="restart"), CostAccounting(book)], broken("Hel"), second)
    answer = await bench.send(STREAM)
    assert (answer.text, answer.attempts, answer.maybe_billed) == ("Hello.", 2, 1)
    assert (answer.cost.amount, answer.cost.complete) == (Decimal("0.25"), False)
    assert (len(book.rows), book.is_balanced(), book.states) == (2, True, ["unknown", "settled"])


def connecting(seconds):
    """A step that connects for so long, sends, and then hears nothing."""

    async def step(call):
        await asyncio.sleep(seconds)
        call.bytes_leave()
        await asyncio.sleep(FOREVER)

    return step


class Connecting(ScriptedProvider):
    """A provider whose requests have yet to connect when they start."""

    async def __call__(self, call):
        self.calls.append(call)
        call.send_started(leaving=False)
        return await self.script.pop(0)(call)


@pytest.mark.parametrize("kind", ["batches", "race"])
async def test_requests_side_by_side_know_each_for_itself_whether_they_left(kind):
    """What one of them sent is not taken for a request of the other, which is still connecting."""
    book = Book()
    inner = [CostAccounting(book), Timeout(attempt=5.0)]
    if kind == "batches":
        stack, operation = [Batching(size=1, in_flight=2)], Embed(model="m", texts=["ebb", "flood"])
    else:
        stack, operation = [Deadline(total=4.0), Retry(hedge=EAGER)], CHAT
    bench = Bench([*stack, *inner])
    provider = Connecting(connecting(FOREVER), connecting(0.5))
    if kind == "race":
        provider.script.insert(0, after(0.1))
    bench.provider, bench.pipeline = provider, Pipeline(provider, [*stack, *inner], clock=bench.clock)
    if kind == "race":
        await bench.send()
        book.ends.clear()
    error = await bench.send(operation)
    assert isinstance(error, AttemptTimeout if kind == "batches" else DeadlineExceeded)
    await asyncio.sleep(0)
    assert sorted(book.states) == ["never_sent", "unknown"]


# Tracing and logging


def traced(stack, *script):
    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter, Bench([Tracing(tracers), *stack], *script)


def attempts_of(exporter):
    spans = [span for span in exporter.get_finished_spans() if span.name == "resilient_ai.attempt"]
    prefix = "resilient_ai.attempt."
    return [
        tuple(span.attributes[prefix + name] for name in ("number", "kind", "model", "outcome"))
        for span in sorted(spans, key=lambda span: span.start_time)
    ]


async def test_each_request_of_a_race_has_a_span():
    """Both are children of the call's span, which tells of the hedge, and of which was used."""
    exporter, bench = traced([Retry(hedge=EAGER)], chat_result(), after(FOREVER), chat_result("second"))
    await bench.send()
    exporter.clear()
    await bench.send()
    await asyncio.sleep(0)
    outcomes = [(number, outcome) for number, _, _, outcome in attempts_of(exporter)]
    assert outcomes == [(1, "lost"), (2, "won")]
    (call,) = [span for span in exporter.get_finished_spans() if span.name != "resilient_ai.attempt"]
    assert [event.name for event in call.events] == ["resilient_ai.hedge"]
    assert len([event for event in bench.events if isinstance(event, HedgeSent)]) == 1
    children = [span for span in exporter.get_finished_spans() if span is not call]
    assert {span.parent.span_id for span in children} == {call.context.span_id}


async def test_retries_and_fallbacks_are_attempts_of_one_call():
    """One span and one line for the call, with an attempt for every request."""
    exporter, bench = traced([Routing(), Retry(attempts=2)], boom(), boom())
    await bench.send(Chat(model=["a", "b"], messages="hi"))
    assert attempts_of(exporter) == [
        (1, "initial", "a", "error"),
        (2, "retry", "a", "error"),
        (3, "fallback", "b", "success"),
    ]
    assert len(exporter.get_finished_spans()) == 4


async def test_one_line_for_a_call_of_many_requests(caplog):
    """However often it was sent, a call that succeeds is one line at its level."""
    bench = Bench([Logging(), Routing(), Retry(attempts=2)], boom(), boom())
    with caplog.at_level(logging.INFO, "resilient_ai"):
        await bench.send(Chat(model=["a", "b"], messages="hi"))
    lines = [record for record in caplog.records if record.msg.startswith("resilient_ai.call")]
    assert len(lines) == 1


# Whatever stack, whatever happens

FAILURES = {
    "ok": lambda: None,
    "500": boom,
    "503": lambda: Overloaded("full", status=503, retry_after=3.0),
    "429": lambda: RateLimited("busy", status=429),
    "429 for a minute": lambda: RateLimited("busy", status=429, retry_after=60.0),
    "garbage": lambda: InvalidResponse("garbage"),
    "refused": lambda: ConnectionFailed("refused", phase="connect"),
    "reset": lambda: ConnectionFailed("reset", phase="receive"),
    "hang": lambda: FOREVER,
    "slow": lambda: 1.5,
    "broken": lambda: "broken",
}


def unlucky(kinds, clock):
    """A step that takes the next kind of failure for each request, the last for ever."""

    async def step(call):
        outcome = FAILURES[kinds.pop(0) if len(kinds) > 1 else kinds[0]]()
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, float):
            await asyncio.sleep(outcome)
        if call.operation.kind == "stream":
            return broken("Hel", "lo", clock=clock) if outcome == "broken" else stream_of("Hel", "lo.")
        return chat_result()

    return step


@st.composite
def stacks(draw):
    """Any part of the stack, in its order, with any options; attempts are always bounded in time."""
    maybe = st.booleans()
    parts = []
    if draw(maybe):
        parts.append(Deadline(total=draw(st.sampled_from([0.7, 5.0, 40.0, 400.0]))))
    if draw(maybe):
        parts.append(Resume(on_interrupt=draw(st.sampled_from(["raise", "restart", "continue"])), resumes=2))
    parts.append(Routing(max_sends=draw(st.integers(1, 7))))
    if draw(maybe):
        hedge = draw(st.sampled_from([None, EAGER]))
        parts.append(Retry(attempts=draw(st.integers(1, 4)), hedge=hedge))
    if draw(maybe):
        parts.append(CircuitBreaker(consecutive_failures=draw(st.integers(1, 5))))
    if draw(maybe):
        parts.append(ConcurrencyLimit(limit=draw(st.integers(1, 3))))
    return parts, draw(st.sampled_from([Chat, Stream])), draw(st.integers(1, 5))


@settings(max_examples=150, deadline=None)
@given(
    stack=stacks(),
    kinds=st.lists(st.sampled_from(sorted(FAILURES)), min_size=1, max_size=12),
    chance=st.floats(0, 1, exclude_max=True),
    calls=st.integers(1, 4),
    together=st.booleans(),
)
def test_no_call_does_more_than_was_foretold(stack, kinds, chance, calls, together):
    """`worst_case` bounds the requests and the seconds of every call, each request has one row, and nothing stays held."""
    parts, kind, models = stack

    async def main():
        book = Book()
        timers = Timeout(first_token=2.0, idle=1.0, attempt=10.0)
        bench = Bench([*parts, CostAccounting(book), timers], chances=[chance])
        bench.provider.script = [unlucky(list(kinds), bench.clock)] * 1000
        worst = bench.pipeline.describe(models=models).worst_case

        async def one():
            started = asyncio.get_running_loop().time()
            outcome = await bench.send(kind(model=list("abcde"[:models]), messages="hi"))
            return outcome, asyncio.get_running_loop().time() - started

        if together:
            done = await asyncio.gather(*(one() for _ in range(calls)))
        else:
            done = [await one() for _ in range(calls)]
        await asyncio.sleep(0)
        sends = Counter(call.id for call in bench.provider.calls)
        assert all(count <= worst.sends for count in sends.values())
        if not together or isinstance(parts[0], Deadline):  # who waits for others has no other bound than a deadline
            assert all(seconds <= worst.seconds + 1e-6 for _, seconds in done)
        answers = [outcome for outcome, _ in done if not isinstance(outcome, Exception)]
        assert sum(answer.attempts for answer in answers) <= bench.sends
        assert len(book.rows) == bench.sends
        assert book.is_balanced()
        assert not bench.held
        assert bench.every_body_has_a_name()

    run(main())


def choosy(kinds, largest):
    """A step like `unlucky`, of a model that takes no more than so many texts."""

    async def step(call):
        await asyncio.sleep(0.01)
        if len(call.operation.texts) > largest:
            raise RequestTooLarge("too many", status=413)
        outcome = FAILURES[kinds.pop(0) if len(kinds) > 1 else kinds[0]]()
        if isinstance(outcome, Exception):
            raise outcome
        return answer_to(call.operation)

    return step


@settings(max_examples=80, deadline=None)
@given(
    texts=st.integers(1, 12),
    size=st.integers(1, 6),
    in_flight=st.integers(1, 3),
    largest=st.integers(1, 6),
    kinds=st.lists(st.sampled_from(["ok", "500", "429", "garbage", "reset", "refused"]), min_size=1, max_size=8),
)
def test_no_text_is_lost_and_none_is_embedded_under_the_name_of_another(texts, size, in_flight, largest, kinds):
    """However batches are split, fail, are sent again and go to another model: whole vectors in order, or an error."""
    asked = [f"text {number}" for number in range(texts)]

    async def main():
        book = Book()
        bench = Bench(
            [
                *(Deadline(), Routing(embed_across_models=True), Batching(size=size, in_flight=in_flight), Retry()),
                *(CircuitBreaker(), ConcurrencyLimit(limit=2), CostAccounting(book), Timeout()),
            ]
        )
        bench.provider.script = [choosy([*kinds, "ok"], largest)] * 1000
        result = await bench.send(Embed(model=["a", "b"], texts=asked))
        await asyncio.sleep(0)
        assert book.is_balanced()
        assert not bench.held
        assert bench.every_body_has_a_name()
        if not isinstance(result, Exception):
            assert [list(vector) for vector in result.vectors] == [
                pytest.approx(vector_of(text), abs=1e-6) for text in asked
            ]
            assert result.attempts == bench.sends == len(book.rows)

    run(main())


def test_a_long_wait_of_one_s_own_is_foretold():
    """Waits that were set to be longer than any server may ask for are part of the worst case."""

    async def main():
        bench = Bench([Retry(attempts=2, wait_initial=200.0, wait_max=200.0), Timeout(attempt=1.0)], chances=[0.999])
        bench.provider.script = [failing()] * 2
        started = asyncio.get_running_loop().time()
        await bench.send()
        return asyncio.get_running_loop().time() - started, bench.pipeline.describe().worst_case.seconds

    took, foretold = run(main())
    assert took <= foretold


@pytest.mark.parametrize("queue", [ConcurrencyLimit(), RateLimit(requests=60)])
def test_a_queue_without_a_deadline_has_no_bound(queue):
    """Nothing bounds how long a call may wait in line but its deadline."""
    assert Pipeline(ScriptedProvider(), [queue, Timeout(attempt=1.0)]).describe().worst_case.seconds == float("inf")
    stack = [Deadline(total=9.0), queue, Timeout(attempt=1.0)]
    assert Pipeline(ScriptedProvider(), stack).describe().worst_case.seconds == 9.0
