"""What a breaker and the limits say stands against a call, without waiting and without changing anything."""

import asyncio

import pytest

from resilient_ai.core.errors import AuthenticationFailed, PermissionDenied, ServerFailed
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware.circuit_breaker import CircuitBreaker
from resilient_ai.middleware.concurrency_limit import ConcurrencyLimit
from resilient_ai.middleware.rate_limit import RateLimit
from resilient_ai.testing import ScriptedProvider

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")
BOOM = ServerFailed("boom", status=500)


class Fleet:
    """A fleet that can be reached or not, and says no more."""

    share = 0.25

    def __init__(self, *, reachable):
        self.reachable = reachable

    async def acquire(self, name, *, limit, holder):
        return None

    async def reserve(self, name, *, amount, rate, burst):
        return None

    def release(self, name, *, holder):
        """Nothing was taken."""

    def settle(self, name, *, amount, rate, burst):
        """Nothing was taken."""

    def hold(self, name, *, holder):
        """Nothing was taken."""

    async def aclose(self):
        pass


def against(pipeline, operation=CHAT, **options):
    return pipeline.stack[0].stands_against(pipeline.call(operation, **options))


async def test_an_open_circuit_stands_against_its_model_alone(clock):
    """Until its probe is due; then a call may find out."""
    breaker = CircuitBreaker(consecutive_failures=1, break_duration=10.0)
    pipeline = Pipeline(ScriptedProvider(BOOM), [breaker], clock=clock)
    assert against(pipeline) is None
    with pytest.raises(ServerFailed):
        await pipeline.send(CHAT)
    assert against(pipeline) == "its circuit is open"
    assert against(pipeline, CHAT.on("n")) is None
    await asyncio.sleep(12.0)
    assert against(pipeline) is None
    await pipeline.send(CHAT)
    assert against(pipeline) is None


async def test_a_probe_under_way_stands_against_others(clock):
    """They would fail at once."""
    breaker = CircuitBreaker(consecutive_failures=1, break_duration=2.0)
    pipeline = Pipeline(ScriptedProvider(BOOM, 5.0), [breaker], clock=clock)
    with pytest.raises(ServerFailed):
        await pipeline.send(CHAT)
    await asyncio.sleep(3.0)
    probe = asyncio.ensure_future(pipeline.send(CHAT))
    await asyncio.sleep(1.0)
    assert against(pipeline) == "its circuit is open"
    await probe
    assert against(pipeline) is None


async def test_a_model_that_was_isolated_is_not_asked(clock):
    """Whether it was ever asked or not."""
    pipeline = Pipeline(ScriptedProvider(), [CircuitBreaker()], clock=clock)
    pipeline.stack[0].isolate("m")
    assert against(pipeline) == "it is isolated"
    pipeline.stack[0].reset("m")
    await pipeline.send(CHAT)
    pipeline.stack[0].isolate("m")
    assert against(pipeline) == "it is isolated"


@pytest.mark.parametrize(
    ("error", "other"),
    [
        (AuthenticationFailed("no", status=401), "the key was refused with 401"),
        (PermissionDenied("no", status=403), None),
    ],
)
async def test_a_refused_key_stands_against_what_it_was_refused(clock, error, other):
    """All models, or one, for the time that it is left alone."""
    pipeline = Pipeline(ScriptedProvider(error), [CircuitBreaker()], clock=clock)
    with pytest.raises(type(error)):
        await pipeline.send(CHAT)
    assert against(pipeline) == f"the key was refused with {error.status}"
    assert against(pipeline, CHAT.on("n")) == other
    await asyncio.sleep(20.0)
    assert against(pipeline) is None


async def test_no_free_permit_stands_against_a_model(clock):
    """And for batch work the part that it may not take."""
    pipeline = Pipeline(ScriptedProvider(*[5.0] * 5), [ConcurrencyLimit(limit=5, adaptive=False)], clock=clock)
    assert against(pipeline) is None
    calls = [asyncio.ensure_future(pipeline.send(CHAT, priority="batch")) for _ in range(4)]
    await asyncio.sleep(1.0)
    assert against(pipeline) is None
    assert against(pipeline, priority="batch") == "4 requests are under way and 0 wait"
    calls += [asyncio.ensure_future(pipeline.send(CHAT)) for _ in range(2)]
    await asyncio.sleep(1.0)
    assert against(pipeline) == "5 requests are under way and 1 wait"
    assert against(pipeline, CHAT.on("n")) is None
    await asyncio.gather(*calls)
    assert against(pipeline) is None


async def test_while_the_fleet_cannot_be_asked_its_share_is_the_limit(clock):
    """One of four permits; as long as it can be asked, only it knows."""
    fleet = Fleet(reachable=False)
    pipeline = Pipeline(ScriptedProvider(5.0), [ConcurrencyLimit(limit=4, adaptive=False, fleet=fleet)], clock=clock)
    assert against(pipeline) is None
    call = asyncio.ensure_future(pipeline.send(CHAT))
    await asyncio.sleep(1.0)
    assert against(pipeline) == "1 requests are under way and 0 wait"
    fleet.reachable = True
    assert against(pipeline) is None
    await call


async def test_a_rate_that_is_used_up_stands_against_a_model(clock):
    """For as long as the call would have to wait; for batch work a fifth earlier."""
    pipeline = Pipeline(ScriptedProvider(), [RateLimit(requests=60, burst=5 / 60)], clock=clock)
    assert against(pipeline) is None
    for _ in range(4):
        await pipeline.send(CHAT)
    assert against(pipeline) is None
    assert against(pipeline, priority="batch") == "its rate is used up for 1.0 s"
    await pipeline.send(CHAT)
    assert [against(pipeline) for _ in range(3)] == ["its rate is used up for 1.0 s"] * 3
    assert against(pipeline, CHAT.on("n")) is None
    await asyncio.sleep(1.0)
    assert against(pipeline) is None


async def test_a_rate_that_the_fleet_knows_is_not_asked_for(clock):
    """That would take time; while it cannot be asked this process's own part decides."""
    fleet = Fleet(reachable=False)
    pipeline = Pipeline(ScriptedProvider(), [RateLimit(requests=60, burst=4 / 60, fleet=fleet)], clock=clock)
    await pipeline.send(CHAT)
    assert against(pipeline) == "its rate is used up for 4.0 s"
    fleet.reachable = True
    assert against(pipeline) is None
