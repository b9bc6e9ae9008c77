"""What each attempt has cost, also where the price list knows it and the service does not say."""

import asyncio
from decimal import Decimal

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import RateLimited, ServerFailed
from resilient_ai.core.ledger import SendClosed, WhichSend
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost, Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware.batching import Batching
from resilient_ai.middleware.coalesce import Coalesce
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.middleware.hedge import Hedge
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.timeout import Timeout
from resilient_ai.middleware.tracing import Tracing
from resilient_ai.testing import FakeClock, ScriptedProvider, ScriptedSource, answer_to, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
STREAM = Stream(model="m", messages="hi")
TOLD = Cost(amount=Decimal("0.25"), source="provider")
USED = Usage(input_tokens=3, output_tokens=2)


class Prices:
    """A dollar for each token of input, two for each of output."""

    def chat_cost(self, model, **amounts):
        return Decimal(amounts["input_tokens"] + 2 * amounts["output_tokens"])

    def embedding_cost(self, model, *, input_tokens, service_tier=None):
        return Decimal(input_tokens)

    def image_cost(self, model, **amounts):
        return None


class Traced:
    """A pipeline with tracing around everything and accounting inside, and the spans it exported."""

    def __init__(self, *script, stack=(), accounting=True):
        self.exporter = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.clock = FakeClock([0.5])
        inner = [CostAccounting(prices=Prices()), Timeout()] if accounting else []
        self.provider = ScriptedProvider(*script)
        self.tracing = Tracing(tracers)
        self.pipeline = Pipeline(self.provider, [self.tracing, *stack, *inner], clock=self.clock)
        self.send = self.pipeline.send

    @property
    def attempts(self):
        spans = self.exporter.get_finished_spans()
        return sorted((span for span in spans if span.name == "resilient_ai.attempt"), key=lambda span: span.start_time)

    @property
    def call(self):
        return self.exporter.get_finished_spans()[-1]

    @property
    def costs(self):
        return [span.attributes.get("resilient_ai.cost.amount") for span in self.attempts]


def after(seconds, outcome):
    async def step(_):
        await asyncio.sleep(seconds)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return step


@pytest.mark.parametrize(("cost", "expected"), [(TOLD, 0.25), (None, 7.0)], ids=["told", "by the list"])
async def test_an_attempt_shows_its_cost_wherever_it_is_known_from(cost, expected):
    """The service's own figure, or else that of the price list."""
    traced = Traced(chat_result(usage=USED, cost=cost))
    await traced.send(CHAT)
    assert (traced.costs, traced.call.attributes["resilient_ai.cost.amount"]) == ([expected], expected)


async def test_an_attempt_ends_when_its_request_did():
    """Not when somebody told its cost, and before the span of the call."""

    async def slow(call, proceed):
        result = await proceed(call)
        await asyncio.sleep(2.0)
        return result

    traced = Traced(after(1.0, chat_result(usage=USED)), stack=[slow])
    await traced.send(CHAT)
    attempt, call = traced.exporter.get_finished_spans()
    assert attempt.name == "resilient_ai.attempt"
    assert attempt.end_time - attempt.start_time == pytest.approx(1e9, rel=0.01)
    assert call.end_time - call.start_time == pytest.approx(3e9, rel=0.01)


async def test_it_is_told_at_once():
    """Long calls do not hold the spans of their attempts back."""
    seen = []

    async def look(call, proceed):
        result = await proceed(call)
        seen.extend(traced.costs)
        return result

    traced = Traced(chat_result(usage=USED), stack=[look])
    await traced.send(CHAT)
    assert seen == [7.0]


async def test_batches_at_the_same_time_have_each_their_own():
    """Whichever ends first."""

    async def embedded(call):
        (text,) = call.operation.texts
        await asyncio.sleep(len(text))
        return answer_to(call.operation).model_copy(update={"usage": Usage(input_tokens=len(text))})

    traced = Traced(*[embedded] * 3, stack=[Batching(size=1, in_flight=3)])
    await traced.send(Embed(model="m", texts=["a" * 9, "a", "aaaa"]))
    took = [(span.end_time - span.start_time) / 1e9 for span in traced.attempts]
    assert (took, traced.costs) == (pytest.approx([1.0, 4.0, 9.0]), [1.0, 4.0, 9.0])


async def test_a_refused_try_cost_nothing_and_shows_nothing():
    """Of three the one that answered shows a cost."""
    script = [RateLimited("slow down", status=429), ServerFailed("boom", status=503), chat_result(usage=USED)]
    traced = Traced(*script, stack=[Retry()])
    await traced.send(CHAT)
    assert traced.costs == [None, None, 7.0]


async def test_a_stream_shows_what_the_list_says_of_it():
    """Of its usage, and where it was closed in the middle of what had arrived."""
    whole = [[Finished(("stop",), USED)]]
    traced = Traced(StreamResult(ScriptedSource(whole), model="m", first=[TextDelta("a")], clock=FakeClock()))
    await (await traced.send(STREAM)).result()
    assert traced.costs == [7.0]

    cut = [[TextDelta("b")], 9.0]
    traced = Traced(StreamResult(ScriptedSource(cut), model="m", first=[TextDelta("Hello")], clock=FakeClock()))
    stream = await traced.send(STREAM)
    await stream.aclose()
    assert traced.costs == [traced.call.attributes["resilient_ai.cost.amount"]]
    assert traced.costs[0] > 0


@pytest.mark.parametrize("accounting", [True, False], ids=["no price", "no accounting"])
async def test_where_nobody_knows_the_cost_none_is_shown(accounting):
    """The span ends all the same, before that of its call."""
    traced = Traced(chat_result(), accounting=accounting)
    traced.pipeline.provider.script = [chat_result(usage=None)]
    await traced.send(CHAT)
    assert [span.name for span in traced.exporter.get_finished_spans()] == ["resilient_ai.attempt", "chat m"]
    assert traced.costs == [None]


async def test_what_another_request_cost_is_not_taken_for_its_own():
    """Such as one behind the call, which renews an entry of the cache."""

    async def tell(call, proceed):
        result = await proceed(call)
        for told in call.on_send_closed:
            told(SendClosed("s", "settled", Decimal(9), usage=USED, which=WhichSend("another", "chat", "m")))
        return result

    traced = Traced(chat_result(usage=USED), stack=[tell], accounting=False)
    await traced.send(CHAT)
    assert traced.costs == [None]


async def test_a_middleware_that_sends_again_and_does_not_count():
    """Both attempts end, in their order, though nobody can tell them apart."""

    async def twice(call, proceed):
        await proceed(call)
        return await proceed(call)

    traced = Traced(chat_result(), chat_result(), stack=[twice], accounting=False)
    await traced.send(CHAT)
    assert [span.attributes["resilient_ai.attempt.number"] for span in traced.exporter.get_finished_spans()[:2]] == [
        1,
        2,
    ]


async def test_of_two_requests_for_one_answer_each_has_its_own_cost():
    """The one that lost after it had answered was billed as well."""

    async def beside(call, proceed):
        branches = [proceed(call.branch().replace(hedge=hedge, claim=lambda h=hedge: not h)) for hedge in (False, True)]
        return (await asyncio.gather(*branches))[0]

    traced = Traced(
        after(2.0, chat_result(usage=USED)),
        after(3.0, chat_result(usage=Usage(input_tokens=1, output_tokens=1))),
        stack=[beside],
    )
    await traced.send(CHAT)
    assert sorted(traced.costs) == [3.0, 7.0]
    assert sorted(span.attributes["resilient_ai.attempt.outcome"] for span in traced.attempts) == ["lost", "won"]


@pytest.mark.parametrize(("accounting", "costs"), [(True, [7.0]), (False, [None])])
async def test_an_attempt_that_ends_after_its_call_has_its_cost(accounting, costs):
    """Others wait for its answer, and it is paid for; where nobody tells that, it ends without."""
    left = []

    async def leave(call, proceed):
        left.append(asyncio.create_task(proceed(call)))
        await asyncio.sleep(1.0)
        return chat_result()

    traced = Traced(after(2.0, chat_result(usage=USED)), stack=[leave], accounting=accounting)
    await traced.send(CHAT)
    assert not traced.attempts
    await left[0]
    await asyncio.sleep(0)
    assert traced.costs == costs


async def test_the_leader_of_a_shared_send_may_leave_before_it_is_paid():
    """Its attempt, for whose answer somebody else stays, shows what that cost."""
    traced = Traced(after(2.0, chat_result(usage=USED)), stack=[Coalesce(always=True)])
    leader = asyncio.create_task(traced.send(CHAT))
    await asyncio.sleep(0.5)
    other = asyncio.create_task(traced.send(CHAT))
    await asyncio.sleep(0.5)
    leader.cancel()
    assert (await other).cost.amount == Decimal(7)
    assert traced.costs == [7.0]


def test_an_attempt_that_is_dropped_when_its_loop_is_gone_ends_without_a_cost():
    """Nobody would come back to it: it ends at once."""
    stream = StreamResult(ScriptedSource([]), model="m", first=[TextDelta("a")], clock=FakeClock())
    traced = Traced(stream, accounting=False)
    kept = []

    async def leave(call, proceed):
        kept.append(await proceed(call))
        raise KeyError("left")

    async def main():
        with pytest.raises(KeyError):
            await Pipeline(traced.provider, [traced.tracing, leave], clock=traced.clock).send(STREAM)

    asyncio.run(main())
    assert not traced.attempts
    kept.pop().drop()
    assert traced.costs == [None]


async def test_a_hedged_call_shows_each_cost():
    """By the retry of the default stack; the loser was cancelled, and what it cost nobody knows."""
    retry = Retry(hedge=Hedge(samples=1, extra=1.0, delay_min=1.0), wait_initial=1e-9)
    traced = Traced(
        chat_result(usage=USED), after(9.0, chat_result()), after(1.0, chat_result(usage=USED)), stack=[retry]
    )
    await traced.send(CHAT)
    traced.exporter.clear()
    await traced.send(CHAT)
    assert traced.costs == [None, 7.0]
