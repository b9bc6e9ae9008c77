"""Streams that break after their first content, over real sockets, under each of the three policies."""

import asyncio
import json

import pytest

from resilient_ai import AsyncClient, Client, ReasoningDelta, Settings, StreamInterrupted, TextDelta
from resilient_ai.core.deltas import Restarted
from resilient_ai.deepinfra.catalogue import PriceTable
from resilient_ai.middleware import (
    Cache,
    CircuitBreaker,
    ConcurrencyLimit,
    CostAccounting,
    Deadline,
    Resume,
    Retry,
    Routing,
    Timeout,
)
from resilient_ai.simulator import Fault, serve
from resilient_ai.stores import MemoryStore

from .raw_server import RawServer

pytestmark = pytest.mark.anyio

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
THINKER = "deepseek-ai/DeepSeek-R1-0528"
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
FAULTS = {
    "an error event": Fault.error_event(after=6),
    "a cut connection": Fault.cut(after=6),
    "a reset": Fault.cut(after=6, reset=True),
    "a line that is no JSON": Fault.garbage(after=6),
    "a body that ends within JSON": Fault.truncated(after=6),
}


@pytest.fixture(scope="module")
def server():
    """Pieces arrive apart, so that what came before a break has been delivered."""
    with serve(token_delay=0.015) as sim:
        yield sim


def stack():
    return [
        Deadline(total=20),
        Cache(MemoryStore()),
        Resume(),
        Routing(),
        Retry(wait_initial=0.01),
        CircuitBreaker(),
        ConcurrencyLimit(limit=1),
        CostAccounting(prices=PriceTable()),
        Timeout(idle=1.0),
    ]


class Reader:
    """What somebody has who reads a stream and forgets everything at a restart."""

    def __init__(self):
        self.text = ""
        self.restarts = 0

    def show(self, event):
        if isinstance(event, Restarted):
            self.text = ""
            self.restarts += 1
        elif isinstance(event, TextDelta):
            self.text += event.text


async def read(client, model=LLAMA, messages=QUESTION, **options):
    """Read a stream to its end with the async or the blocking client; return the reader and the answer or the error."""
    reader = Reader()
    try:
        if isinstance(client, Client):
            return reader, await asyncio.to_thread(read_blocking, reader, client, model, messages, options)
        async with client.stream(model, messages, **options) as stream:
            async for event in stream:
                reader.show(event)
            return reader, await stream.result()
    except StreamInterrupted as error:
        return reader, error


def read_blocking(reader, client, model, messages, options):
    with client.stream(model, messages, **options) as stream:
        for event in stream:
            reader.show(event)
        return stream.result()


def client_of(kind, url):
    return kind(api_key="test-key", base_url=url, stack=stack(), settings=Settings())


@pytest.fixture(params=[AsyncClient, Client])
async def client(request, sim):
    made = client_of(request.param, sim.base_url)
    yield made
    if isinstance(made, Client):
        made.close()
    else:
        await made.aclose()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_raise(client, sim, fault):
    """By default the reader gets an error with the text that had arrived, and nothing is sent again."""
    sim.faults.script(LLAMA, fault)
    reader, error = await read(client)
    assert isinstance(error, StreamInterrupted)
    assert reader.text
    assert (error.partial.text, error.partial.attempts) == (reader.text, 1)
    assert ANSWER.startswith(reader.text)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_restart(client, sim, fault):
    """The reader is told to forget what came, and gets the whole answer once."""
    sim.faults.script(LLAMA, fault)
    reader, answer = await read(client, on_interrupt="restart")
    assert (reader.text, answer.text, reader.restarts) == (ANSWER, ANSWER, 1)
    assert (answer.attempts, answer.finish_reason, answer.cost.complete) == (2, "stop", True)
    assert answer.cost.wasted > 0


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_continue_with_a_model_that_says_everything_again(client, sim, fault):
    """The simulated model does not go on but begins anew, and the reader hears nothing twice."""
    sim.faults.script(LLAMA, fault)
    reader, answer = await read(client, on_interrupt="continue")
    assert (reader.text, answer.text, reader.restarts) == (ANSWER, ANSWER, 0)
    assert (answer.attempts, answer.usage, answer.finish_reason) == (2, None, "stop")


async def test_the_repair_fails_twice_before_it_succeeds(client, sim):
    """What is asked for again is retried, and a second break is repaired like the first."""
    for fault in (Fault.cut(after=6), Fault.status(503), Fault.status(500), Fault.cut(after=6)):
        sim.faults.script(LLAMA, fault)
    reader, answer = await read(client, on_interrupt="restart")
    assert (reader.text, answer.text, reader.restarts, answer.attempts) == (ANSWER, ANSWER, 2, 5)


async def test_another_model_serves_the_restart(client, sim):
    """Where the model does not come back, the next of the list answers."""
    other = "Qwen/Qwen3-32B"
    sim.faults.script(LLAMA, Fault.cut(after=6))
    sim.faults.script(LLAMA, Fault.status(500), times=3)
    reader, answer = await read(client, [LLAMA, other], on_interrupt="restart")
    assert (answer.served_by, reader.restarts, reader.text) == (other, 1, answer.text)


async def test_a_stream_that_falls_silent_is_restarted(client, sim):
    """Silence, also with pings, is a break like any other."""
    sim.faults.script(LLAMA, Fault.stall(after=6, pings=True))
    reader, answer = await read(client, on_interrupt="restart")
    assert (reader.text, answer.text, reader.restarts) == (ANSWER, ANSWER, 1)


async def test_thoughts_begin_again_with_a_restart(client, sim):
    """The thoughts of the stream that broke are not part of the answer."""
    _, clean = await read(client, THINKER, "Why is the sky blue?")
    sim.faults.script(THINKER, Fault.cut(after=6))
    reader, answer = await read(client, THINKER, "Why is the sky blue?", on_interrupt="restart")
    assert (reader.text, answer.text, answer.reasoning) == (clean.text, clean.text, clean.reasoning)


async def test_a_repaired_answer_comes_from_the_cache(client, sim):
    """A restarted answer that is repeatable is kept, and the policy does not matter to who asks next."""
    sim.faults.script(LLAMA, Fault.cut(after=6))
    await read(client, temperature=0, on_interrupt="restart")
    reader, answer = await read(client, temperature=0, on_interrupt="continue")
    assert (reader.text, answer.cache) == (ANSWER, "hit")


# A model that goes on, and one that just stops: a server that says exactly that


def chunk(**fields):
    return f"data: {json.dumps({'id': 'r', 'model': 'm', **fields})}\n\n".encode()


def delta(text, finish=None):
    return chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


def answers(*bodies):
    """Return a server's answers in turn, each a list of pieces that arrive apart and make a body that ends cleanly."""
    left = list(bodies)

    async def answer(writer):
        body = left.pop(0)
        length = sum(map(len, body))
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n".encode())
        for piece in body:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)

    return answer


HALF = [delta("One, "), delta("two,")]
REST = [delta(" three."), delta("", "stop") + b"data: [DONE]\n\n"]


@pytest.mark.parametrize("kind", [AsyncClient, Client])
async def test_continue_with_a_model_that_goes_on(kind):
    """After a clean end without a finish reason the text is sent as the last message, and only the rest arrives."""
    async with RawServer(answers(HALF, REST)) as server:
        client = client_of(kind, server.url)
        reader, answer = await read(client, "m", "Count.", on_interrupt="continue")
        first, second = (json.loads(body) for _, body in server.requests)
        await (asyncio.to_thread(client.close) if kind is Client else client.aclose())
    assert (reader.text, answer.text, reader.restarts) == ("One, two, three.", "One, two, three.", 0)
    assert second["messages"] == [*first["messages"], {"role": "assistant", "content": "One, two,"}]
    assert not {"on_interrupt"} & (first.keys() | second.keys())


async def test_the_first_token_alone_can_be_continued():
    """An error event right after the first token is repaired too."""
    body = [delta("One,"), chunk(error={"message": "Inference failed", "code": 500})]
    async with (
        RawServer(answers(body, [delta(" two,"), *REST])) as server,
        client_of(AsyncClient, server.url) as client,
    ):
        reader, answer = await read(client, "m", "Count.", on_interrupt="continue")
    assert (reader.text, answer.text, answer.attempts) == ("One, two, three.", "One, two, three.", 2)


async def test_a_body_that_ends_without_a_finish_reason_raises_by_default():
    """A clean end is no whole answer where nobody said that it is over."""
    async with RawServer(answers(HALF)) as server, client_of(AsyncClient, server.url) as client:
        reader, error = await read(client, "m", "Count.")
    assert (type(error), error.partial.text, reader.text) == (StreamInterrupted, "One, two,", "One, two,")


async def test_second_thoughts_stay_unheard():
    """A reasoning model that thinks again before it goes on does not interrupt its own answer."""
    thought = chunk(choices=[{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}])
    async with (
        RawServer(answers([thought, *HALF], [thought, *REST])) as server,
        client_of(AsyncClient, server.url) as client,
        client.stream("m", "Count.", on_interrupt="continue") as stream,
    ):
        events = [event async for event in stream]
        answer = await stream.result()
    assert [event for event in events if isinstance(event, ReasoningDelta)] == [ReasoningDelta("hm")]
    assert (answer.text, answer.reasoning) == ("One, two, three.", "hm")
