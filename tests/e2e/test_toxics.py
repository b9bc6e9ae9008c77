"""A network that spoils connections: what a caller meets, what the server really saw, and that all is well afterwards."""

import asyncio
import contextlib
import time
from urllib.parse import urlsplit

import pytest

from resilient_ai import (
    AsyncClient,
    AttemptTimeout,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    Settings,
    StreamInterrupted,
)
from resilient_ai.middleware import CircuitBreaker, Retry, Timeout
from resilient_ai.presets import default_stack
from resilient_ai.simulator import Fault

from .toxic_proxy import (
    Bandwidth,
    HalfOpen,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    ToxicProxy,
    full_backlog,
    self_signed,
)

pytestmark = pytest.mark.anyio

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
LONG = "Tell me about tides. " * 30


def stack_of(home, *, attempts=3, attempt=10.0, idle=10.0, breaker=None):
    """Return the default stack with waits and timers that a test can stand."""
    settings = Settings(home=home, cache="off", timeout=15)
    own = {
        Retry: Retry(attempts=attempts, wait_initial=0.01, wait_max=0.02),
        Timeout: Timeout(attempt=attempt, first_token=attempt, idle=idle),
        CircuitBreaker: breaker or CircuitBreaker(),
    }
    return [own.get(type(part), part) for part in default_stack(settings)]


def port_of(sim):
    return urlsplit(sim.url).port


@contextlib.asynccontextmanager
async def through(sim, home, **timers):
    """Give a client and the proxy through which it speaks to the simulator."""
    async with (
        ToxicProxy(port_of(sim)) as proxy,
        AsyncClient(api_key="k", base_url=proxy.base_url, stack=stack_of(home, **timers)) as ai,
    ):
        yield ai, proxy
        await all_is_well(ai)


async def all_is_well(ai):
    """Ten calls are answered at the first try, no permit is held, and no send is left open in the ledger."""
    answers = [await ai.chat(MODEL, f"Say {number}.") for number in range(10)]
    await ai.ledger.flush()

    assert [answer.attempts for answer in answers] == [1] * 10
    assert {(limit.in_use, limit.waiting) for limit in ai.health().limits} == {(0, 0)}
    assert [row for row in await ai.ledger.by("state") if row.key == ("sent",)] == []


async def failure_of(ai, kind, **options):
    """Return the error of a call and how long it took."""
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        await ai.chat(MODEL, LONG, **options)
    return caught.value, time.monotonic() - started


async def test_latency_and_jitter(sim, tmp_path):
    """An answer that comes late is an answer, of one send."""
    async with through(sim, tmp_path) as (ai, proxy):
        with proxy.spoiled(Latency(0.1, jitter=0.05), Latency(0.05, direction="up")):
            started = time.monotonic()
            answer = await ai.chat(MODEL, "hi")

        assert time.monotonic() - started >= 0.15
        assert (answer.attempts, sim.stats().requests) == (1, 1)


async def test_a_narrow_line(sim, tmp_path):
    """A stream over a narrow line is slower and the same; its idle timer does not fire while content comes."""
    async with through(sim, tmp_path, idle=0.5) as (ai, proxy):
        whole = await ai.chat(MODEL, "Name three tides.")
        with proxy.spoiled(Bandwidth(20_000)):
            async with ai.stream(MODEL, "Name three tides.") as stream:
                streamed = await stream.result()

        assert (streamed.text, streamed.attempts) == (whole.text, 1)


async def test_an_upload_over_a_narrow_line(sim, tmp_path):
    """A request that cannot be written in the time of an attempt ends with its timer and is tried again, no longer."""
    async with through(sim, tmp_path, attempts=2, attempt=0.4) as (ai, proxy):
        with proxy.spoiled(Bandwidth(10_000, direction="up")), pytest.raises(AttemptTimeout) as caught:
            await ai.chat(MODEL, "tides " * 20_000)

        assert (caught.value.timer, caught.value.sent) == ("attempt", True)
        assert sim.stats().by_model == {}


async def test_a_reset_before_the_server_has_heard(sim, tmp_path):
    """A reset with the request under way may have been billed, and is tried again; the server saw none of it."""
    async with through(sim, tmp_path) as (ai, proxy):
        with proxy.spoiled(ResetPeer(0, direction="up")):
            error, elapsed = await failure_of(ai, ConnectionFailed)

        assert (error.phase, error.sent, error.retryable) == ("receive", True, True)
        assert (proxy.connections, sim.stats().requests) == (3, 0)
        assert elapsed < 5


@pytest.mark.parametrize("toxic", [ResetPeer, LimitData])
@pytest.mark.parametrize("after", [0, 40, 400])
async def test_an_answer_that_breaks_off(sim, tmp_path, toxic, after):
    """Broken before its head, in it or in its body, by reset or end, an answer is asked for three times and never cut short."""
    async with through(sim, tmp_path) as (ai, proxy):
        with proxy.spoiled(toxic(after)):
            error, _ = await failure_of(ai, ConnectionFailed)

        assert (error.phase, error.sent) == ("receive", True)
        assert sim.stats().requests == 3


async def test_a_fault_that_passes_is_repaired(sim, tmp_path):
    """A reset at the first try only is not seen by the caller, who is told of two sends."""
    async with through(sim, tmp_path) as (ai, proxy):
        with proxy.spoiled(ResetPeer(0)):

            def mend(event):
                if type(event).__name__ == "RetryScheduled":
                    proxy.toxics.clear()

            ai.subscribe(mend)
            answer = await ai.chat(MODEL, "hi")

        assert (answer.attempts, sim.stats().requests) == (2, 2)


@pytest.mark.parametrize("toxic", [ResetPeer, LimitData])
async def test_a_stream_that_breaks_off(sim, tmp_path, toxic):
    """After the first tokens nothing is repeated: the caller gets what had arrived."""
    async with through(sim, tmp_path) as (ai, proxy):
        with proxy.spoiled(toxic(3000)), pytest.raises(StreamInterrupted) as caught:
            async with ai.stream(MODEL, LONG, max_tokens=500) as stream:
                await stream.result()

        assert caught.value.partial.text
        assert caught.value.partial.finish_reason is None
        assert isinstance(caught.value.__cause__, ConnectionFailed)
        assert sim.stats().requests == 1


async def test_a_stream_that_breaks_off_before_content(sim, tmp_path):
    """Before the first token the stream is asked for again."""
    async with through(sim, tmp_path) as (ai, proxy):
        with proxy.spoiled(ResetPeer(30)), pytest.raises(ConnectionFailed):
            async with ai.stream(MODEL, "hi"):
                pass

        assert sim.stats().requests == 3


async def test_packets_of_one_byte(sim, tmp_path):
    """However the network cuts requests and answers, they are the same."""
    async with through(sim, tmp_path) as (ai, proxy):
        whole = await ai.chat(MODEL, "Name three tides.")
        with proxy.spoiled(Slicer(), Slicer(direction="up")):
            chat = await ai.chat(MODEL, "Name three tides.")
            async with ai.stream(MODEL, "Name three tides.") as stream:
                streamed = await stream.result()

        assert chat.text == streamed.text == whole.text
        assert (chat.attempts, streamed.attempts) == (1, 1)


async def test_a_peer_that_vanished_before_the_answer(sim, tmp_path):
    """Without a byte and without an end, the timer of the attempt fires, twice, and the deadline is far from it."""
    async with through(sim, tmp_path, attempts=2, attempt=0.4) as (ai, proxy):
        with proxy.spoiled(HalfOpen(0)):
            error, elapsed = await failure_of(ai, AttemptTimeout)

        assert (error.timer, error.sent) == ("attempt", True)
        assert 0.8 <= elapsed < 5
        assert sim.stats().requests == 2


async def test_a_peer_that_vanished_in_a_stream(sim, tmp_path):
    """The idle timer fires, and the caller gets what had arrived."""
    async with through(sim, tmp_path, idle=0.3) as (ai, proxy):
        with proxy.spoiled(HalfOpen(3000)), pytest.raises(StreamInterrupted) as caught:
            async with ai.stream(MODEL, LONG, max_tokens=500) as stream:
                await stream.result()

        assert caught.value.partial.text
        assert (caught.value.__cause__.timer, sim.stats().requests) == ("idle", 1)


async def test_a_peer_that_vanished_between_two_calls(sim, tmp_path):
    """A kept connection that is dead without a word costs one timer; the next try has a connection of its own."""
    async with through(sim, tmp_path, attempt=0.4) as (ai, proxy):
        await ai.chat(MODEL, "hi")
        proxy.vanish()
        answer = await ai.chat(MODEL, "hi")
        proxy.drop()

        assert answer.attempts == 2
        assert proxy.connections == 2


async def test_a_blackhole(sim, tmp_path):
    """Connections that are taken and never served end with the deadline, whatever the retries had in mind."""
    async with through(sim, tmp_path, attempt=5.0) as (ai, proxy):
        with proxy.spoiled(HalfOpen(0, direction="up")):
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded) as caught:
                await ai.with_options(timeout=0.5).chat(MODEL, "hi")

        assert caught.value.sent
        assert time.monotonic() - started < 2
        assert sim.stats().requests == 0


async def test_a_connection_that_is_never_taken(tmp_path):
    """Where the first packet is dropped the timer of the connection fires; nothing was sent, and it is tried again."""
    with full_backlog() as port:
        settings = Settings(home=tmp_path, cache="off", connect_timeout=0.3)
        stack = stack_of(tmp_path, attempts=2)
        async with AsyncClient(
            api_key="k", base_url=f"http://127.0.0.1:{port}/v1", stack=stack, settings=settings
        ) as ai:
            error, elapsed = await failure_of(ai, AttemptTimeout)
            await ai.ledger.flush()
            states = {row.key: row.sends for row in await ai.ledger.by("state")}

    assert (error.timer, error.sent, error.elapsed) == ("connect", False, 0.3)
    assert 0.6 <= elapsed < 5
    assert states == {("never_sent",): 2}


async def test_a_server_that_is_down(sim, tmp_path):
    """A refused connection fails fast with nothing sent; once the server is back, the same client works."""
    async with through(sim, tmp_path) as (ai, proxy):
        await ai.chat(MODEL, "hi")
        proxy.down()
        await asyncio.sleep(0.05)
        error, elapsed = await failure_of(ai, ConnectionFailed)
        await proxy.up()

        assert (error.phase, error.sent, error.retryable) == ("connect", False, True)
        assert elapsed < 2
        assert sim.stats().requests == 1


async def test_an_end_that_comes_late(sim, tmp_path):
    """A cut whose end is passed on later breaks the stream then, and closing the client does not wait for ends."""
    async with through(sim, tmp_path) as (ai, proxy):
        sim.faults.script(MODEL, Fault.cut(after=3))
        with proxy.spoiled(SlowClose(0.2)):
            started = time.monotonic()
            with pytest.raises(StreamInterrupted) as caught:
                async with ai.stream(MODEL, LONG, max_tokens=500) as stream:
                    await stream.result()

        assert time.monotonic() - started >= 0.2
        assert caught.value.partial.text


async def test_an_answer_to_a_tls_hello_that_is_none(sim, tmp_path):
    """A handshake that fails sent nothing, says so, and is tried again."""
    async with ToxicProxy(port_of(sim), garbage=b"HTTP/1.1 400 Bad Request\r\n\r\n") as proxy:
        async with AsyncClient(api_key="k", base_url=proxy.base_url, stack=stack_of(tmp_path)) as ai:
            error, _ = await failure_of(ai, ConnectionFailed)

        assert (error.phase, error.sent, error.retryable) == ("tls", False, True)
        assert (proxy.connections, sim.stats().requests) == (3, 0)


async def test_a_handshake_that_ends(sim, tmp_path):
    """A peer that hangs up in the handshake is a failure of TLS or of the connection, not sent, and tried again."""
    async with ToxicProxy(port_of(sim), garbage=b"") as proxy:
        url = proxy.base_url.replace("http://", "https://")
        async with AsyncClient(api_key="k", base_url=url, stack=stack_of(tmp_path)) as ai:
            error, _ = await failure_of(ai, ConnectionFailed)

        assert (error.sent, error.retryable) == (False, True)
        assert error.phase in {"tls", "connect"}
        assert (proxy.connections, sim.stats().requests) == (3, 0)


async def test_a_certificate_that_nobody_trusts(sim, tmp_path):
    """A wrong certificate is refused at once, is not tried again, and verification is never given up."""
    async with ToxicProxy(port_of(sim), certificate=self_signed()) as proxy:
        async with AsyncClient(api_key="k", base_url=proxy.base_url, stack=stack_of(tmp_path)) as ai:
            error, _ = await failure_of(ai, ConnectionFailed)

        assert (error.phase, error.sent, error.retryable) == ("tls", False, False)
        assert "certificate" in str(error)
        assert sim.stats().requests == 0


async def test_forty_calls_through_a_network_that_flaps(sim, tmp_path):
    """Calls at once while connections are dropped again and again end as answers or clear errors, and nothing is kept."""
    patient = CircuitBreaker(consecutive_failures=1000, minimum_throughput=1000)
    async with through(sim, tmp_path, breaker=patient) as (ai, proxy):
        calls = [asyncio.create_task(ai.chat(MODEL, f"Say {number}.")) for number in range(40)]
        for _ in range(10):
            await asyncio.sleep(0.02)
            proxy.drop()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(one).__name__ for one in outcomes} <= {"ChatResult", "ConnectionFailed"}


@contextlib.asynccontextmanager
async def blocking(sim, home, **timers):
    async with ToxicProxy(port_of(sim)) as proxy:
        with Client(api_key="k", base_url=proxy.base_url, stack=stack_of(home, **timers)) as ai:
            yield ai, proxy
            answers = await asyncio.to_thread(lambda: [ai.chat(MODEL, "hi").attempts for _ in range(10)])
            await asyncio.to_thread(ai.close)

    assert answers == [1] * 10


@pytest.mark.parametrize(
    ("toxic", "requests"),
    [
        (ResetPeer(0), 3),
        (LimitData(400), 3),
        (ResetPeer(0, direction="up"), 0),
    ],
    ids=["reset", "end in the body", "reset before"],
)
async def test_the_blocking_client_meets_the_same(sim, tmp_path, toxic, requests):
    """Errors, tries and sends are those of the asynchronous client."""
    async with blocking(sim, tmp_path) as (ai, proxy):
        with proxy.spoiled(toxic), pytest.raises(ConnectionFailed) as caught:
            await asyncio.to_thread(ai.chat, MODEL, LONG)

        assert (caught.value.phase, caught.value.sent) == ("receive", True)
        assert sim.stats().requests == requests


async def test_a_blocking_stream_that_breaks_off(sim, tmp_path):
    """The thread that reads gets what had arrived."""

    def read(ai):
        with ai.stream(MODEL, LONG, max_tokens=500) as stream:
            return stream.result()

    async with blocking(sim, tmp_path) as (ai, proxy):
        with proxy.spoiled(ResetPeer(3000)), pytest.raises(StreamInterrupted) as caught:
            await asyncio.to_thread(read, ai)

        assert caught.value.partial.text
        assert sim.stats().requests == 1


async def test_a_blocking_call_to_a_peer_that_vanished(sim, tmp_path):
    """A thread never waits longer than the timers."""
    async with blocking(sim, tmp_path, attempts=2, attempt=0.4) as (ai, proxy):
        started = time.monotonic()
        with proxy.spoiled(HalfOpen(0)), pytest.raises(AttemptTimeout):
            await asyncio.to_thread(ai.chat, MODEL, "hi")

        assert time.monotonic() - started < 5
