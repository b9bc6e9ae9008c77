"""Whether bytes of a request had left when its time was up: in the error, and in the row of the ledger."""

import asyncio
import contextlib
import socket

import httpx
import pytest

from resilient_ai import AsyncClient, AttemptTimeout, Client, DeadlineExceeded, Settings
from resilient_ai.middleware import Batching, CostAccounting, Deadline, Retry, Timeout
from resilient_ai.simulator import Fault

from .toxic_proxy import full_backlog

pytestmark = pytest.mark.anyio

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
SOON = 0.15
# Time enough for bytes to leave, on a busy machine too.
OUT = 0.6


class Ends:
    """How the rows of a stack were closed."""

    def __init__(self):
        self.states = []

    def __call__(self, event):
        self.states.append(event.state)


@contextlib.asynccontextmanager
async def client_of(base_url, *stack, **options):
    """Give a client with this stack around its accounting, and how rows were closed."""
    ends = Ends()
    outer = [layer for layer in stack if not isinstance(layer, Timeout)]
    inner = [layer for layer in stack if isinstance(layer, Timeout)]
    layers = [*outer, CostAccounting(on_settled=ends), *inner]
    async with AsyncClient("k", base_url=base_url, stack=layers, **options) as ai:
        yield ai, ends


@contextlib.contextmanager
def room_for_one():
    """Give the address of a port that takes one connection, serves nobody, and drops the first packet of every other."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        yield address(listener.getsockname()[1])


def address(port):
    return f"http://127.0.0.1:{port}/v1"


async def stream(ai):
    async with ai.stream(MODEL, "hi") as answer:
        return await answer.result()


ASK = {
    "chat": lambda ai: ai.chat(MODEL, "hi"),
    "stream": stream,
    "embed": lambda ai: ai.embed("BAAI/bge-m3", "hi"),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
async def test_an_attempt_that_ends_while_it_connects_has_sent_nothing(ask):
    """The timer of the attempt, or of the first token, fires before there is a connection."""
    with full_backlog() as port:
        async with client_of(address(port), Timeout(attempt=SOON, first_token=SOON)) as (ai, ends):
            with pytest.raises(AttemptTimeout) as caught:
                await ask(ai)
    assert caught.value.timer in {"attempt", "first_token"}
    assert (caught.value.sent, ends.states) == (False, ["never_sent"])


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
async def test_an_attempt_that_ends_once_its_request_is_out_may_be_billed(sim, ask):
    """The same timer fires while the service works."""
    sim.faults.script(None, Fault.delay(3.0))
    async with client_of(sim.base_url, Timeout(attempt=OUT, first_token=OUT)) as (ai, ends):
        with pytest.raises(AttemptTimeout) as caught:
            await ask(ai)
    assert (caught.value.sent, ends.states) == (True, ["unknown"])
    assert sim.stats().requests == 1


async def test_a_deadline_that_passes_while_it_connects_has_sent_nothing():
    """Nothing can be billed, and the row says so."""
    with full_backlog() as port:
        async with client_of(address(port), Deadline(total=SOON)) as (ai, ends):
            with pytest.raises(DeadlineExceeded) as caught:
                await ai.chat(MODEL, "hi")
    assert (caught.value.sent, ends.states) == (False, ["never_sent"])


async def test_a_deadline_that_passes_once_the_request_is_out_may_be_billed(sim):
    """The service had the request."""
    sim.faults.script(None, Fault.delay(3.0))
    async with client_of(sim.base_url, Deadline(total=OUT)) as (ai, ends):
        with pytest.raises(DeadlineExceeded) as caught:
            await ai.chat(MODEL, "hi")
    assert (caught.value.sent, ends.states) == (True, ["unknown"])


@pytest.mark.parametrize("leave", ["cancel", "deadline"])
async def test_a_caller_who_leaves_while_it_connects_has_sent_nothing(leave):
    """A cancellation is told apart in the same way."""
    with full_backlog() as port:
        async with client_of(address(port), Deadline()) as (ai, ends):
            task = asyncio.ensure_future(ai.with_options(timeout=SOON if leave == "deadline" else 60).chat(MODEL, "hi"))
            await asyncio.sleep(SOON / 2)
            if leave == "cancel":
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert ends.states == ["never_sent"]


async def test_each_attempt_is_told_apart():
    """The first got out and was not answered; the second found no connection. The call as a whole may be billed."""
    with room_for_one() as url:
        stack = (Deadline(total=5 * OUT), Retry(attempts=2, wait_initial=0.01), Timeout(attempt=OUT))
        async with client_of(url, *stack) as (ai, ends):
            with pytest.raises(AttemptTimeout) as caught:
                await ai.chat(MODEL, "hi")
    assert (caught.value.sent, ends.states) == (False, ["unknown", "never_sent"])


async def test_a_call_that_sent_once_may_be_billed_although_it_ends_while_it_connects():
    """The deadline passes in the second attempt, but the first one was out."""
    with room_for_one() as url:
        stack = (Deadline(total=2 * OUT), Retry(attempts=3, wait_initial=0.001), Timeout(attempt=1.5 * OUT))
        async with client_of(url, *stack) as (ai, ends):
            with pytest.raises(DeadlineExceeded) as caught:
                await ai.chat(MODEL, "hi")
    assert (caught.value.sent, ends.states) == (True, ["unknown", "never_sent"])


async def test_requests_side_by_side_are_told_apart():
    """Of two batches under way at once one got out and the other found no connection."""
    with room_for_one() as url:
        async with client_of(url, Batching(size=1, in_flight=2), Timeout(attempt=OUT)) as (ai, ends):
            with pytest.raises(AttemptTimeout):
                await ai.embed("BAAI/bge-m3", ["ebb", "flood"])
    assert sorted(ends.states) == ["never_sent", "unknown"]


@pytest.mark.parametrize(("port", "rows"), [(full_backlog, ["never_sent"] * 2), (room_for_one, ["unknown"])])
async def test_a_picture_is_tried_again_only_where_nothing_was_sent(port, rows):
    """What may have been drawn is not paid for twice."""
    with port() as place:
        url = place if isinstance(place, str) else address(place)
        stack = (Retry(attempts=2, wait_initial=0.01), Timeout(attempt=OUT))
        async with client_of(url, *stack) as (ai, ends):
            with pytest.raises(AttemptTimeout):
                await ai.image("black-forest-labs/FLUX-1-schnell", "a tide")
    assert ends.states == rows


async def test_the_timer_of_the_connection_is_one_of_its_own():
    """It fires before those of the attempt, and says how long it was."""
    with full_backlog() as port:
        options = {"settings": Settings(connect_timeout=SOON)}
        async with client_of(address(port), Deadline(total=9), Timeout(attempt=5), **options) as (ai, ends):
            with pytest.raises(AttemptTimeout) as caught:
                await ai.chat(MODEL, "hi")
    error = caught.value
    assert (error.timer, error.elapsed, error.sent, error.retryable) == ("connect", SOON, False, True)
    assert ends.states == ["never_sent"]


@pytest.mark.parametrize("make", [httpx.AsyncHTTPTransport, httpx.AsyncClient])
async def test_a_transport_of_one_s_own_stays_on_the_safe_side(make):
    """It does not tell when bytes leave, so a request that was handed to it counts as one that may be billed."""
    http = make()
    with full_backlog() as port:
        async with client_of(address(port), Timeout(attempt=OUT), http=http) as (ai, ends):
            with pytest.raises(AttemptTimeout) as caught:
                await ai.chat(MODEL, "hi")
        async with client_of(address(port), Deadline(total=OUT), http=http) as (ai, late):
            with pytest.raises(DeadlineExceeded) as passed:
                await ai.chat(MODEL, "hi")
    await http.aclose()
    assert (caught.value.sent, ends.states) == (True, ["unknown"])
    assert (passed.value.sent, late.states) == (True, ["unknown"])


async def test_a_client_of_one_s_own_may_tell_that_it_did_not_connect():
    """Where its own connect timer fires, nothing was sent."""
    with full_backlog() as port:
        async with (
            httpx.AsyncClient(timeout=SOON) as http,
            client_of(address(port), Timeout(attempt=5), http=http) as (ai, ends),
        ):
            with pytest.raises(AttemptTimeout) as caught:
                await ai.chat(MODEL, "hi")
    assert (caught.value.timer, caught.value.sent, ends.states) == ("connect", False, ["never_sent"])


def test_the_blocking_client_tells_them_apart_as_well(sim):
    """The same two ends through the thread in the background."""
    sim.faults.script(None, Fault.delay(3.0))
    found = []
    with full_backlog() as port:
        for url in (address(port), sim.base_url):
            ends = Ends()
            stack = [CostAccounting(on_settled=ends), Timeout(attempt=OUT)]
            with Client("k", base_url=url, stack=stack) as ai, pytest.raises(AttemptTimeout) as caught:
                ai.chat(MODEL, "hi")
            found.append((caught.value.sent, ends.states))
    assert found == [(False, ["never_sent"]), (True, ["unknown"])]
