"""Batching: texts in several requests, vectors in one result."""

import asyncio
import copy
import pickle
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_ai.core.errors import (
    BadRequest,
    BudgetExceeded,
    CallRejected,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    InvalidResponse,
    LimitReached,
    RequestTooLarge,
    ServerFailed,
)
from resilient_ai.core.events import BatchDone
from resilient_ai.core.operations import Chat, Embed, Operation
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost, EmbedResult, Usage
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware.batching import Batching
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Routing
from resilient_ai.testing import FakeClock, ScriptedProvider, answer_to, run, vector_of

pytestmark = pytest.mark.anyio


def texts(count):
    return tuple(f"text {n}" for n in range(count))


class Embedder(ScriptedProvider):
    """Takes a while for each request, refuses too many texts, and counts what is under way."""

    def __init__(self, *script, seconds=None, largest=10_000, error=None):
        super().__init__(*script)
        self.seconds = seconds or (lambda call: 1.0)
        self.largest = largest
        self.error = error or RequestTooLarge("too large", status=413)
        self.now = self.most = 0

    async def __call__(self, call):
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds(call))
            if len(call.operation.texts) > self.largest:
                self.calls.append(call)
                raise self.error
            return await super().__call__(call)
        finally:
            self.now -= 1

    @property
    def sizes(self):
        return [len(call.operation.texts) for call in self.calls]


def expected(count):
    return Vectors.pack([vector_of(text) for text in texts(count)])


def test_defaults():
    """Ninety-six texts a request, four requests at once."""
    assert repr(Batching()) == "Batching(size=96, in_flight=4)"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 0}, "size must be a whole number from 1 to 1024, got 0"),
        ({"size": 1025}, "size must be a whole number from 1 to 1024, got 1025"),
        ({"in_flight": 0}, "in_flight must be a whole number >= 1, got 0"),
    ],
)
def test_senseless_options_are_refused(options, sentence):
    """The sentence names the option and what was given."""
    with pytest.raises(ValueError, match=sentence):
        Batching(**options)


def test_an_order_that_cannot_work_is_refused():
    """Batching stands inside of Routing, so that all batches have the same model."""
    with pytest.raises(ConfigurationError, match="Batching must stand after Routing"):
        Pipeline(ScriptedProvider(), [Batching(), Routing()])


async def test_a_small_call_passes_through_untouched(clock):
    """What fits into one request is neither copied nor given a task."""
    seen, operation = [], Embed(model="m", texts=texts(96))
    outer = asyncio.current_task()

    async def look(call, proceed):
        seen.append((call.operation, asyncio.current_task()))
        return await proceed(call)

    result = await Pipeline(ScriptedProvider(), [Batching(), look], clock=clock).send(operation)
    assert seen[0][0] is operation
    assert seen == [(operation, outer)]
    assert result.vectors == expected(96)


async def test_other_operations_pass_through(clock):
    """Batching is about embeddings alone."""
    result = await Pipeline(ScriptedProvider(), [Batching()], clock=clock).send(Chat(model="m", messages="hi"))
    assert result.text == "Hello."


async def test_a_foreign_operation_of_the_same_kind_passes_through(clock):
    """An operation of the user's own that calls itself an embedding is not taken apart."""

    class Mine(Operation[str]):
        kind = "embed"

    async def answer(call):
        return "mine"

    assert await Pipeline(ScriptedProvider(answer), [Batching()], clock=clock).send(Mine(model="m")) == "mine"


async def test_many_texts_come_back_in_their_order(clock):
    """However late each batch answers, vector i belongs to text i."""
    provider = Embedder(seconds=lambda call: 10.0 / len(call.operation.texts[0]) + len(call.operation.texts))
    result = await Pipeline(provider, [Batching(size=96)], clock=clock).send(Embed(model="m", texts=texts(1000)))
    assert result.vectors == expected(1000)
    assert sorted(provider.sizes) == [40] + [96] * 10
    assert (result.usage, result.attempts, result.served_by) == (Usage(input_tokens=1000), 11, "m")
    assert provider.most == 4


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 80),
    size=st.integers(1, 20),
    in_flight=st.integers(1, 6),
    largest=st.integers(1, 30),
    delays=st.lists(st.floats(0, 5), min_size=1, max_size=7),
)
def test_any_split_gives_the_same_vectors(count, size, in_flight, largest, delays):
    """Size, parallelism, refusals and delays never show in the result."""

    async def embed():
        provider = Embedder(largest=largest, seconds=lambda call: delays[len(provider.calls) % len(delays)])
        pipeline = Pipeline(provider, [Batching(size=size, in_flight=in_flight)], clock=FakeClock())
        result = await pipeline.send(Embed(model="m", texts=texts(count)))
        assert result.vectors == expected(count)
        assert provider.most <= in_flight

    run(embed())


async def test_progress_is_told_after_each_batch(clock):
    """Listeners hear how many of the texts are done."""
    events = []
    pipeline = Pipeline(Embedder(), [Batching(size=10, in_flight=1)], clock=clock)
    await pipeline.send(Embed(model="m", texts=texts(25)), listener=events.append)
    assert [(event.done, event.total) for event in events if isinstance(event, BatchDone)] == [
        (10, 25),
        (20, 25),
        (25, 25),
    ]


@pytest.mark.parametrize(
    "error",
    [
        RequestTooLarge("large", status=413),
        BadRequest("many", status=422, code="array_above_max_length"),
        BadRequest("many", status=400, code="array_above_max_length"),
    ],
)
async def test_a_batch_that_is_too_large_is_halved(clock, error):
    """What one batch has shown holds for those not yet sent: they are split without a try."""
    provider = Embedder(largest=6, error=error)
    result = await Pipeline(provider, [Batching(size=20, in_flight=1)], clock=clock).send(
        Embed(model="m", texts=texts(60))
    )
    assert result.vectors == expected(60)
    assert provider.sizes == [20, 10] + [5] * 12


async def test_a_single_batch_that_is_too_large_is_halved_as_well(clock):
    """A call that fits into one batch by count may still be too large for the service."""
    provider = Embedder(largest=3)
    result = await Pipeline(provider, [Batching()], clock=clock).send(Embed(model="m", texts=texts(5)))
    assert result.vectors == expected(5)
    assert sorted(provider.sizes) == [2, 3, 5]


@pytest.mark.parametrize("count", [1, 3])
async def test_a_single_text_that_is_too_large_is_an_error(clock, count):
    """Halving ends with one text."""
    provider = Embedder(largest=0)
    with pytest.raises(RequestTooLarge):
        await Pipeline(provider, [Batching(in_flight=1)], clock=clock).send(Embed(model="m", texts=texts(count)))
    assert provider.sizes[-1] == 1


@pytest.mark.parametrize("count", [3, 60])
async def test_a_bad_request_is_not_halved(clock, count):
    """Only the complaint about the size is answered by smaller requests."""
    error = BadRequest("no", status=400)
    provider = Embedder(largest=0, error=error)
    with pytest.raises(BadRequest) as caught:
        await Pipeline(provider, [Batching(size=20, in_flight=1)], clock=clock).send(
            Embed(model="m", texts=texts(count))
        )
    assert caught.value is error
    assert len(provider.calls) == 1


async def test_the_first_failure_cancels_the_others(clock):
    """The error is the batch's own, with its own cause, and nothing goes on in the background."""
    cause = OSError("socket")
    error = ServerFailed("boom", status=500)
    error.__cause__ = cause

    async def fail(call):
        raise error

    provider = Embedder(fail, seconds=lambda call: 1.0 if call.operation.texts[0] == "text 0" else 50.0)
    pipeline = Pipeline(provider, [Batching(size=10)], clock=clock)
    began = clock.monotonic()
    with pytest.raises(ServerFailed) as caught:
        await pipeline.send(Embed(model="m", texts=texts(100)))
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (cause, None)
    assert clock.monotonic() - began == pytest.approx(1.0)
    assert (provider.now, provider.most) == (0, 4)


@pytest.mark.parametrize("how", ["failure", "cancel"])
async def test_a_failure_does_not_disturb_the_callers_task(clock, how):
    """After a failed call the task is not half cancelled, so that a timeout around it still works as one."""
    steps = [BadRequest("no", status=400) if how == "failure" else asyncio.CancelledError()]
    pipeline = Pipeline(Embedder(*steps), [Batching(size=1)], clock=clock)
    with pytest.raises(BadRequest if how == "failure" else asyncio.CancelledError):
        await pipeline.send(Embed(model="m", texts=texts(10)))
    assert asyncio.current_task().cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await asyncio.sleep(2.0)


async def test_each_batch_is_retried_alone(clock):
    """A batch that failed is sent again without the others."""
    provider = Embedder(ServerFailed("boom", status=500))
    result = await Pipeline(provider, [Batching(size=10), Retry()], clock=clock).send(Embed(model="m", texts=texts(30)))
    assert result.vectors == expected(30)
    assert provider.sizes == [10] * 4
    assert result.attempts == 4


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_cancellation_ends_every_batch(clock, how):
    """Cancelled or out of time, no request is left under way."""
    provider = Embedder(seconds=lambda call: 100.0)
    pipeline = Pipeline(provider, [Deadline(total=5.0 if how == "deadline" else 1000.0), Batching(size=1)], clock=clock)
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(pipeline.send(Embed(model="m", texts=texts(50))))
    await asyncio.sleep(2.0)
    assert provider.now == 4
    if how == "cancel":
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or type(task.exception()).__name__ == "DeadlineExceeded"
    assert (provider.now, asyncio.all_tasks()) == (0, before)


async def test_a_batch_of_too_few_vectors_is_an_error(clock):
    """A service that loses a vector does not shift the others."""
    short = EmbedResult(model="m", vectors=Vectors.pack([[1.0]]))
    with pytest.raises(InvalidResponse, match="2 texts were sent and 1 vectors came back"):
        await Pipeline(ScriptedProvider(short), [Batching(size=2)], clock=clock).send(Embed(model="m", texts=texts(4)))


async def test_batches_of_different_dimensions_are_an_error(clock):
    """Vectors of two lengths never get into one result."""
    other = EmbedResult(model="m", vectors=Vectors.pack([[1.0], [2.0]]))
    with pytest.raises(InvalidResponse, match="the batches do not fit together: packs of different dimensions"):
        await Pipeline(ScriptedProvider(other), [Batching(size=2)], clock=clock).send(Embed(model="m", texts=texts(4)))


def priced(amount, usage=None, source="provider", **fields):
    async def answer(call):
        cost = None if amount is None else Cost(amount=Decimal(amount), source=source)
        return answer_to(call.operation).model_copy(update={"usage": usage, "cost": cost, **fields})

    return answer


@pytest.mark.parametrize(
    ("usages", "total"),
    [
        ((Usage(input_tokens=3, cached_tokens=1), Usage(input_tokens=4)), Usage(input_tokens=7)),
        ((None, Usage(input_tokens=4)), None),
        ((None, None), None),
    ],
)
async def test_usage_is_the_sum_of_what_each_batch_reports(clock, usages, total):
    """A count that one batch did not report is None, never the sum of the others."""
    provider = ScriptedProvider(*(priced(None, usage) for usage in usages))
    result = await Pipeline(provider, [Batching(size=2)], clock=clock).send(Embed(model="m", texts=texts(4)))
    assert result.usage == total


@pytest.mark.parametrize(
    ("script", "total"),
    [
        ((priced("0.1"), priced("0.2")), Cost(amount=Decimal("0.3"), source="provider")),
        ((priced("0.1"), priced("0.2", source="table")), Cost(amount=Decimal("0.3"), source="mixed")),
        ((priced("0.1"), priced(None)), None),
    ],
)
async def test_costs_add_up_only_where_all_are_known(clock, script, total):
    """A batch of unknown cost makes the cost of all unknown."""
    pipeline = Pipeline(ScriptedProvider(*script), [Batching(size=2)], clock=clock)
    result = await pipeline.send(Embed(model="m", texts=texts(4)))
    assert result.cost == total


async def test_several_requests_have_no_request_id(clock):
    """The id of one of them would be misleading; hits of an inner cache are added up."""
    provider = ScriptedProvider(priced(None, request_id="a", hits=1), priced(None, request_id="b", hits=2))
    result = await Pipeline(provider, [Batching(size=2)], clock=clock).send(Embed(model="m", texts=texts(4)))
    assert (result.request_id, result.hits) == (None, 3)


REFUSALS = [
    BudgetExceeded("the budget is used up", spent=1, limit=1, left=0, budget="b", retry_after=9.0),
    LimitReached("the queue is full", limit=3),
    CircuitOpen(model="m", retry_after=5.0),
]


class Policy:
    """Refuses the batch that begins with a text, lets one wait before it is sent, and the others through."""

    def __init__(self, error, *, refused, after=0.0, queued=""):
        self.error, self.refused, self.after, self.queued = error, refused, after, queued

    async def __call__(self, call, proceed):
        first = call.operation.texts[0]
        if first == self.queued:
            await asyncio.sleep(100.0)
        if first == self.refused:
            await asyncio.sleep(self.after)
            raise self.error
        return await proceed(call)


class Sender(ScriptedProvider):
    """Answers the batches that begin with these texts after so many seconds, with an error where there is one."""

    def __init__(self, **seconds):
        super().__init__()
        self.seconds = seconds
        self.sent = []

    async def __call__(self, call):
        first = call.operation.texts[0]
        self.sent.append(first)
        call.send_started()
        result = self.seconds.get(first.replace(" ", ""), 1.0)
        await asyncio.sleep(result if isinstance(result, float) else 2.0)
        if isinstance(result, Exception):
            raise result
        cost = Cost(amount=Decimal("0.001"), source="provider")
        call.record.costs.append((cost.amount, cost.source, True))
        return answer_to(call.operation).model_copy(update={"cost": cost})


async def refused(clock, policy, provider, *, in_flight, outer=()):
    """The error of forty texts in batches of ten, and the texts of which vectors were handed over."""
    kept = []

    async def keep(call, proceed):
        return await proceed(call.replace(arrived=lambda texts, result: kept.extend(texts)))

    stack = [*outer, keep, Batching(size=10, in_flight=in_flight), policy]
    before = asyncio.all_tasks()
    with pytest.raises(CallRejected) as caught:
        await Pipeline(provider, stack, clock=clock).send(Embed(model="m", texts=texts(40)))
    assert asyncio.all_tasks() == before
    return caught.value, kept


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
async def test_a_refusal_in_the_middle_tells_what_was_sent(clock, error):
    """The error is the policy's own, with its own numbers, and no further batch begins."""
    error = copy.copy(error)
    fields, words = dict(vars(error)), str(error)
    provider = Sender()

    caught, kept = await refused(clock, Policy(error, refused="text 20"), provider, in_flight=1)

    assert caught is error
    assert vars(error) == {**fields, "sent": True}
    assert (
        str(error)
        == f"20 of 40 texts were embedded, the call has cost 0.002 USD, and then one batch was refused: {words}"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert (provider.sent, tuple(kept)) == (["text 0", "text 10"], texts(20))


@pytest.mark.parametrize(
    "failure",
    [RequestTooLarge("large", status=413), ServerFailed("boom", status=500), copy.copy(REFUSALS[1])],
    ids=lambda error: type(error).__name__,
)
async def test_a_refusal_lets_what_is_under_way_come_to_its_end(clock, failure):
    """It is paid for, so its vectors are handed over; what fails meanwhile changes nothing, and is not sent again."""
    provider = Sender(text0=30.0, text10=failure)
    began = clock.monotonic()

    caught, kept = await refused(clock, Policy(copy.copy(REFUSALS[0]), refused="text 20"), provider, in_flight=3)

    assert (type(caught), caught.sent, clock.monotonic() - began) == (BudgetExceeded, True, pytest.approx(30.0))
    assert str(caught).startswith(
        "10 of 40 texts were embedded, the call has cost 0.001 USD, and then one batch was refused: the budget"
    )
    assert (provider.sent, tuple(kept)) == (["text 0", "text 10"], texts(10))


async def test_what_still_waits_in_a_queue_is_not_sent_after_a_refusal(clock):
    """It has cost nothing, and nobody needs to wait for it."""
    policy = Policy(copy.copy(REFUSALS[0]), refused="text 20", after=1.0, queued="text 10")
    provider, began = Sender(text0=5.0), clock.monotonic()

    caught, kept = await refused(clock, policy, provider, in_flight=4)

    assert clock.monotonic() - began == pytest.approx(5.0)
    assert (caught.sent, provider.sent, len(kept)) == (True, ["text 0", "text 30"], 20)


async def test_the_first_of_several_refusals_is_told(clock):
    """And where nothing was sent it is left as it is."""
    error = copy.copy(REFUSALS[0])

    class Everything:
        async def __call__(self, call, proceed):
            await asyncio.sleep(1.0)
            raise error if call.operation.texts[0] == "text 0" else copy.copy(REFUSALS[1])

    caught, kept = await refused(clock, Everything(), Sender(), in_flight=4)

    assert (caught, caught.sent, str(caught), kept) == (error, False, "the budget is used up", [])


async def test_a_refusal_waits_no_longer_than_the_deadline(clock):
    """What is under way then is cancelled, and the deadline is the error."""
    provider = Sender(text0=1000.0)

    caught, _ = await refused(
        clock, Policy(copy.copy(REFUSALS[0]), refused="text 10"), provider, in_flight=2, outer=[Deadline(total=7.0)]
    )

    assert (type(caught), caught.sent, caught.elapsed) == (DeadlineExceeded, True, pytest.approx(7.0))


async def test_a_batch_without_time_to_begin_ends_the_call_at_once(clock):
    """Nobody waits for the others, and the error knows that they were sent."""
    late = DeadlineExceeded(timeout=3.0, elapsed=1.0, sent=False)
    provider, began = Sender(text0=50.0), clock.monotonic()

    caught, _ = await refused(clock, Policy(late, refused="text 10", after=1.0), provider, in_flight=2)

    assert (caught, caught.sent, clock.monotonic() - began) == (late, True, pytest.approx(1.0))
    assert "0 of 40 texts were embedded, the call has cost an unknown amount, and then one batch was refused: " in str(
        caught
    )


async def test_a_cost_that_is_known_in_part_is_told_as_the_least(clock):
    """A send that was not used may have been billed."""

    class Doubtful(Sender):
        async def __call__(self, call):
            result = await super().__call__(call)
            call.record.costs.append((None, "provider", False))
            return result

    caught, _ = await refused(clock, Policy(copy.copy(REFUSALS[0]), refused="text 10"), Doubtful(), in_flight=1)

    assert "the call has cost at least 0.001 USD" in str(caught)
