"""The fold of middleware around a provider."""

import asyncio
import gc
from dataclasses import dataclass
from typing import ClassVar

import pytest

from resilient_ai.core.cache_control import CacheControl
from resilient_ai.core.call import CallRecord
from resilient_ai.core.clock import SystemClock
from resilient_ai.core.errors import ClientClosed, ConfigurationError, InvalidInput, ServerFailed
from resilient_ai.core.health import PriceState
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Description, Layer, Pipeline
from resilient_ai.testing import ScriptedProvider, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
REFRESH = CacheControl(mode="refresh")


@dataclass(frozen=True, kw_only=True)
class Retry:
    attempts: int = 3

    async def __call__(self, call, proceed):
        for attempt in range(1, self.attempts + 1):
            try:
                return await proceed(call.replace(attempt=attempt))
            except TimeoutError:
                if attempt == self.attempts:
                    raise
        raise AssertionError


@dataclass(frozen=True, kw_only=True)
class Timeout:
    attempt: float = 2.0

    async def __call__(self, call, proceed):
        async with call.clock.timeout(self.attempt):
            return await proceed(call)


class Deadline:
    sets_deadline = True

    async def __call__(self, call, proceed):
        return await proceed(call.replace(deadline=call.started + call.timeout))


class Inner:
    inside_of: ClassVar = {"Retry": "each try is counted alone"}

    async def __call__(self, call, proceed):
        return await proceed(call)


async def passing(call, proceed):
    return await proceed(call)


@pytest.mark.parametrize(
    ("stack", "seconds"),
    [([Retry(attempts=3), Timeout(attempt=2)], 6.0), ([Timeout(attempt=2), Retry(attempts=3)], 2.0)],
)
async def test_the_first_is_outermost(clock, stack, seconds):
    """Three tries of two seconds each take six; three tries within two seconds take two."""

    async def slow(_call):
        await clock.sleep(9)

    started = clock.monotonic()
    with pytest.raises(TimeoutError):
        await Pipeline(ScriptedProvider(slow, slow, slow), stack, clock=clock).send(CHAT)
    assert clock.monotonic() - started == pytest.approx(seconds)


async def test_calls_go_down_and_results_come_up(clock):
    """Each middleware sees the call after the one before it and the result before it."""
    trail = []

    def noting(name):
        async def middleware(call, proceed):
            trail.append(f"{name} down")
            result = await proceed(call.replace(tags={**call.tags, name: "was here"}))
            trail.append(f"{name} up")
            return result

        return middleware

    provider = ScriptedProvider()
    await Pipeline(provider, [noting("a"), noting("b")], clock=clock).send(CHAT, tags={"tenant": "t"})
    assert trail == ["a down", "b down", "b up", "a up"]
    assert dict(provider.calls[0].tags) == {"tenant": "t", "a": "was here", "b": "was here"}


async def test_a_middleware_may_answer_itself(clock):
    """Who does not proceed answers in place of everything below."""

    async def answering(call, proceed):
        return chat_result("From above.")

    provider = ScriptedProvider()
    answer = await Pipeline(provider, [answering], clock=clock).send(CHAT)
    assert (answer.text, answer.attempts, provider.calls) == ("From above.", 0, [])


async def test_a_call_starts_with_what_send_was_given(clock):
    """Time, origin, tags, cache mode and listeners reach the provider."""
    provider, told = ScriptedProvider(), []
    pipe = Pipeline(provider, [Deadline()], clock=clock)
    pipe.subscribe(told.append)
    await pipe.send(CHAT, timeout=5, cache="refresh", listener=told.append, tags={"user": "u"})
    (call,) = provider.calls
    assert (call.origin, call.timeout, call.cache, call.started) == (provider.origin, 5, REFRESH, clock.monotonic())
    assert (call.deadline, call.remaining(), dict(call.tags)) == (call.started + 5, 5, {"user": "u"})
    assert [event.number for event in told] == [1, 1]


def test_calls_share_nothing_that_changes():
    """Each has a name, a record and a count of its own."""
    pipe = Pipeline(ScriptedProvider())
    one, other = pipe.call(CHAT), pipe.call(CHAT)
    one.send_started()
    one.record.costs.append((None, "table", True))
    assert one.id != other.id
    assert (one.record.sends, one.departed.count) == (1, 1)
    assert (other.record, other.departed.count) == (CallRecord(), 0)


async def test_results_and_streams_are_stamped(clock):
    """The facts of the call stand on the result, and on the final answer of a stream."""
    pipe = Pipeline(ScriptedProvider(), clock=clock)
    answer = await pipe.send(CHAT)
    assert (answer.attempts, answer.served_by) == (1, "m")
    stream = await pipe.send(Stream(model="m", messages="hi"))
    assert ((await stream.result()).attempts, (await pipe.send(Embed(model="m", texts="a"))).attempts) == (1, 1)


async def test_a_result_of_another_kind_passes(clock):
    """What is neither a result nor a stream is handed on as it is."""
    assert await Pipeline(ScriptedProvider("odd"), clock=clock).send(CHAT) == "odd"


async def test_an_error_passes_unchanged(clock):
    """What the provider raises reaches the caller."""
    error = ServerFailed("boom", status=500)
    with pytest.raises(ServerFailed) as caught:
        await Pipeline(ScriptedProvider(error), [passing], clock=clock).send(CHAT)
    assert caught.value is error


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
async def test_a_timeout_is_a_positive_number(timeout):
    """The sentence names the value."""
    with pytest.raises(InvalidInput, match=f"timeout: must be a positive number of seconds, got {timeout!r}"):
        await Pipeline(ScriptedProvider(), [Deadline()]).send(CHAT, timeout=timeout)


async def test_a_timeout_needs_a_deadline():
    """Without a middleware that keeps it, a timeout would be a false promise."""
    with pytest.raises(ConfigurationError, match="needs a Deadline in the stack"):
        await Pipeline(ScriptedProvider(), [passing]).send(CHAT, timeout=5)


@pytest.mark.parametrize(("tags", "field"), [({"user": 5}, "tags.user"), ({5: "x"}, "tags.5")])
async def test_tags_are_text(tags, field):
    """A tag of another type is refused by name."""
    with pytest.raises(InvalidInput, match="tags: names and values are text, got") as caught:
        await Pipeline(ScriptedProvider()).send(CHAT, tags=tags)
    assert caught.value.field == field


@pytest.mark.parametrize("tags", [{"tenant": "a\ud800"}, {"a\udfff": "tenant"}])
async def test_half_of_a_surrogate_pair_is_no_tag(tags):
    """JSON can hold it and no database can, so the call is refused before it is paid for."""
    provider = ScriptedProvider()
    with pytest.raises(InvalidInput, match=r"tags: half of a surrogate pair is no text, got '.*ud"):
        await Pipeline(provider).send(CHAT, tags=tags)
    assert provider.calls == []


@pytest.mark.parametrize("value", ["", "Zoë", "日本", "\U0001f30a", "\ud7ff\ue000"])
async def test_any_other_text_is_a_tag(value):
    """Whole characters outside of ASCII reach the provider as they are."""
    provider = ScriptedProvider()
    await Pipeline(provider).send(CHAT, tags={"tenant": value})
    assert dict(provider.calls[0].tags) == {"tenant": value}


async def test_a_cache_mode_is_one_of_five():
    """A misspelled mode is refused rather than taken for the default."""
    with pytest.raises(InvalidInput, match=r"cache: must be one of .* or a CacheControl, got 'of'"):
        await Pipeline(ScriptedProvider()).send(CHAT, cache="of")


async def test_tags_are_copied(clock):
    """What the caller changes afterwards does not reach the call, and nobody below can change them."""
    provider, tags = ScriptedProvider(), {"user": "u"}
    await Pipeline(provider, clock=clock).send(CHAT, tags=tags)
    tags["user"] = "v"
    assert provider.calls[0].tags["user"] == "u"
    with pytest.raises(TypeError):
        provider.calls[0].tags["user"] = "w"


async def test_a_subscription_ends(clock):
    """A listener is told of every call until it unsubscribes, once or more often, and no other is affected."""
    pipe, one, two = Pipeline(ScriptedProvider(), clock=clock), [], []
    stop = pipe.subscribe(one.append)
    pipe.subscribe(two.append)
    await pipe.send(CHAT)
    stop()
    stop()
    await pipe.send(CHAT)
    assert (len(one), len(two)) == (1, 2)


def test_an_order_that_cannot_work_is_refused():
    """A middleware that must stand inside of another says why; in the right order, or alone, it is fine."""
    with pytest.raises(
        ConfigurationError, match="Inner must stand after Retry in the stack: each try is counted alone"
    ):
        Pipeline(ScriptedProvider(), [Inner(), passing, Retry()])
    Pipeline(ScriptedProvider(), [Retry(), passing, Inner()])
    Pipeline(ScriptedProvider(), [Inner()])


@pytest.mark.parametrize("odd", [5, None, "Retry"])
def test_what_is_no_middleware_is_refused(odd):
    """The mistake is found when the pipeline is built."""
    with pytest.raises(ConfigurationError, match=f"a middleware is a function or an object with __call__, got {odd!r}"):
        Pipeline(ScriptedProvider(), [odd])


class WithHalf:
    def __init__(self, half):
        self.inner_half = half

    async def __call__(self, call, proceed):
        return await proceed(call)


def test_inner_halves_stand_next_to_the_provider():
    """Halves come after the whole stack, in the order of their outer halves."""
    one, two = Retry(attempts=1), Retry(attempts=2)
    stack = [WithHalf(one), passing, WithHalf(two), WithHalf(None)]
    assert Pipeline(ScriptedProvider(), stack).stack == (*stack, one, two)


def test_whoever_watches_is_given_the_health_of_the_stack():
    """A middleware that watches gets what tells the health of the whole stack, which keeps no pipeline alive."""
    asks = []

    class Watcher(Inner):
        def watch(self, health):
            asks.append(health)

    class Known(Inner):
        def health(self):
            return [PriceState(key=("https://x", "m"), drift=1.0, sends=1)]

    pipeline = Pipeline(ScriptedProvider(), [Watcher(), Known()])
    (ask,) = asks
    assert ask() == pipeline.health()
    assert len(ask().prices) == 1
    del pipeline
    gc.collect()
    assert ask() is None


def test_a_stack_is_described_outermost_first():
    """Name and settings of each part, a line each; functions have a name alone."""

    @dataclass(frozen=True)
    class Local:
        size: int = 5

        async def __call__(self, call, proceed): ...

    class Odd:
        async def __call__(self, call, proceed): ...

        def __repr__(self):
            return "<odd>"

    described = Pipeline(ScriptedProvider(), [Retry(attempts=2), passing, Local(), Odd(), Inner()]).describe()
    assert described == (
        Layer("Retry", "attempts=2"),
        Layer("passing", ""),
        Layer("Local", "size=5"),
        Layer("Odd", ""),
        Layer("Inner", ""),
        Layer("ScriptedProvider", ""),
    )
    assert str(described).splitlines()[:2] == ["Retry             attempts=2", "passing"]
    assert str(Description()) == ""


class Closing:
    def __init__(self, name, closed, error=None):
        self.name, self.closed, self.error = name, closed, error

    async def __call__(self, call, proceed):
        return await proceed(call)

    async def aclose(self):
        self.closed.append(self.name)
        if self.error:
            raise self.error


async def test_closing_goes_from_the_outside_in():
    """Every middleware that holds something is closed, then the provider."""
    closed, provider = [], ScriptedProvider()
    async with Pipeline(provider, [Closing("a", closed), passing, Closing("b", closed)]):
        assert not provider.closed
    assert (closed, provider.closed) == (["a", "b"], True)


@pytest.mark.parametrize("error", [OSError("a"), asyncio.CancelledError()])
async def test_one_that_fails_to_close_stops_no_other(error):
    """Everything is closed, and then the failure is raised."""
    closed, provider = [], ScriptedProvider()
    with pytest.raises(type(error)):
        await Pipeline(provider, [Closing("a", closed, error), Closing("b", closed)]).aclose()
    assert (closed, provider.closed) == (["a", "b"], True)


async def test_a_closed_pipeline_refuses_calls():
    """After closing, calls are refused, and closing again closes nothing twice."""
    closed = []
    pipe = Pipeline(ScriptedProvider(), [Closing("a", closed)])
    await pipe.aclose()
    await pipe.aclose()
    assert closed == ["a"]
    with pytest.raises(ClientClosed):
        await pipe.send(CHAT)


def test_the_default_clock_is_the_machine_s():
    """A pipeline without a clock takes the machine's."""
    assert isinstance(Pipeline(ScriptedProvider()).clock, SystemClock)


@pytest.mark.parametrize(("listener", "given"), [("x", "'x'"), (5, "5"), (asyncio.sleep, "an async one")])
async def test_a_listener_is_a_plain_function(listener, given):
    """What cannot be called, or would have to be awaited, would never hear anything."""
    pipeline = Pipeline(ScriptedProvider(), [])
    with pytest.raises(ConfigurationError, match=f"listener: a plain function, got {given}"):
        pipeline.subscribe(listener)
    with pytest.raises(ConfigurationError, match=f"listener: a plain function, got {given}"):
        await pipeline.send(CHAT, listener=listener)
