"""The hostile server of the resilience benchmark misbehaves as the name of the model says, and counts."""

import asyncio
import json

import pytest

from benchmarks.resilience.server import Fault, Request, misbehave

pytestmark = pytest.mark.anyio


async def answer(model, *, number=1, path="/openai/chat/completions", **body):
    """Return all bytes of an answer."""
    return b"".join([piece async for piece in misbehave(Request(path, {"model": model, **body}), number)])


async def test_a_good_answer_is_whole():
    """Its body is a chat completion as long as it says."""
    head, _, body = (await answer("ok/x")).partition(b"\r\n\r\n")

    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["choices"][0]["message"]["content"] == "one two three four five"


async def test_busy_only_once():
    """The first request is refused with a wait, the second is not."""
    assert b"retry-after: 2" in await answer("busy/x")
    assert b"200" in (await answer("busy/x", number=2)).splitlines()[0]


@pytest.mark.parametrize(("number", "status"), [(5, b"500"), (6, b"200")])
async def test_a_number_says_how_many_fail(number, status):
    """`fails5/x` fails five requests."""
    assert status in (await answer("fails5/x", number=number)).splitlines()[0]


async def test_a_lost_connection_is_no_answer():
    """The caller drops the socket."""
    with pytest.raises(Fault):
        await answer("lost/x", path="/inference/lost/x")


async def test_a_trickle_takes_its_time():
    """Two hundred bytes, two a second, take a hundred seconds and more."""
    loop = asyncio.get_running_loop()
    started = loop.time()

    await answer("trickle/x")

    assert loop.time() - started > 100


@pytest.mark.parametrize(
    ("model", "mark"), [("cut/x", b"one "), ("broken/x", b"lost the instance"), ("ping/x", b": ping")]
)
async def test_a_spoilt_stream_has_no_finish_reason(model, mark):
    """It ends cleanly all the same."""
    stream = await answer(model, stream=True)

    assert mark in stream
    assert b'"stop"' not in stream
    assert stream.endswith(b"0\r\n\r\n")


async def test_an_answer_goes_on_from_its_beginning():
    """A conversation that ends with the first words of the answer gets the others."""
    begun = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "one two "}]
    body = await answer("broken/x", number=2, messages=begun)

    assert b'"three four five"' in body
