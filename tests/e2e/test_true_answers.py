"""What an answer says about itself is what the server saw."""

from decimal import Decimal

import pytest
from pydantic import BaseModel

from resilient_ai import (
    AsyncClient,
    Chat,
    CircuitClosed,
    CircuitOpened,
    Embed,
    Finished,
    Image,
    ModelNotFound,
    NoModelAvailable,
    TextDelta,
    user,
)
from resilient_ai.simulator import Fault
from resilient_ai.testing import PIXEL

pytestmark = pytest.mark.anyio

CHAT = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
OTHER = "Qwen/Qwen2.5-72B-Instruct"
EMBEDDER = "BAAI/bge-m3"
PAINTER = "black-forest-labs/FLUX-1-schnell"


async def test_a_chat_costs_what_the_server_bills(ai, sim):
    """Text, usage, attempts, cost, cache and request id are those of the one request the server counted."""
    answer = await ai.chat(CHAT, "Name three tides.")

    assert answer.text
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert answer.request_id.startswith("chatcmpl-")
    assert (answer.attempts, answer.cache) == (1, "off")
    assert answer.cost.source == "provider"
    assert (sim.stats().requests, sim.stats().bill) == (1, answer.cost.amount)


async def test_a_stream_ends_with_the_answer_of_a_chat(ai, sim):
    """The pieces joined are the text of the result, and its cost is on the server's bill."""
    async with ai.stream(CHAT, "Name three tides.") as stream:
        pieces = [event async for event in stream]
        answer = await stream.result()

    assert "".join(event.text for event in pieces if isinstance(event, TextDelta)) == answer.text
    assert isinstance(pieces[-1], Finished)
    assert (answer.attempts, answer.finish_reason) == (1, "stop")
    assert answer.cost.amount == sim.stats().bill
    assert answer.text == (await ai.chat(CHAT, "Name three tides.")).text


async def test_failed_sends_are_counted(ai, sim):
    """An answer of the third try reports three attempts, and the ledger holds three rows."""
    sim.faults.script(CHAT, Fault.status(500), times=2)

    answer = await ai.chat(CHAT, "hi")
    await ai.ledger.flush()

    assert answer.attempts == sim.stats().requests == 3
    assert (await ai.ledger.total()).sends == 3
    assert (await ai.ledger.total()).cost == sim.stats().bill == answer.cost.amount


@pytest.mark.filterwarnings("ignore::resilient_ai.RetiredModelWarning")  # every completion model is retired
async def test_the_ledger_is_the_bill(ai, sim):
    """The ledger's sum equals the sum of the costs that the server reported, over all operations."""
    await ai.chat(CHAT, "hi")
    async with ai.stream(OTHER, "hi") as stream:
        await stream.result()
    await ai.complete("bigcode/starcoder2-15b", "def fib(n):", max_tokens=16)
    await ai.embed(EMBEDDER, ["a", "b"], normalize=True)
    await ai.image(PAINTER, "a lighthouse", size="768x512", steps=4)
    await ai.ledger.flush()
    total = await ai.ledger.total()

    assert (total.sends, total.unknown) == (5, 0)
    assert total.cost == sim.stats().bill


async def test_only_new_texts_are_sent(ai, sim):
    """Five hundred texts and then the same with twenty new ones: the server sees five hundred and twenty."""
    texts = [f"text {number}" for number in range(520)]

    first = await ai.embed(EMBEDDER, texts[:500])
    second = await ai.embed(EMBEDDER, texts)

    assert (first.attempts, first.hits, first.cache) == (6, 0, "miss")
    assert (second.attempts, second.hits, second.cache) == (1, 500, "miss")
    assert sim.stats().embedded_texts == 520
    assert [second.vectors[i] for i in range(500)] == [first.vectors[i] for i in range(500)]


async def test_embeddings_survive_the_client(sim, settings, ai):
    """A client started later on the same folder finds the vectors on disk."""
    first = await ai.embed(EMBEDDER, ["a", "b", "c"])
    await ai.aclose()
    async with AsyncClient(api_key="test-key", base_url=sim.base_url, settings=settings) as later:
        second = await later.embed(EMBEDDER, ["c", "a", "b"])

    assert (second.cache, second.hits, second.attempts, second.cost.amount) == ("hit", 3, 0, Decimal(0))
    assert [second.vectors[i] for i in (1, 2, 0)] == list(first.vectors)


async def test_progress_counts_the_texts_that_are_sent(ai):
    """The callback sees every batch and ends with all texts done."""
    seen = []

    await ai.embed(EMBEDDER, [f"text {number}" for number in range(200)], progress=lambda *step: seen.append(step))

    assert seen[-1] == (200, 200)
    assert len(seen) == 3


async def test_an_answer_that_repeats_itself_is_cached(ai, sim):
    """With temperature 0 the second answer comes from memory, costs nothing, and sends nothing."""
    first = await ai.chat(CHAT, "hi", temperature=0)
    second = await ai.chat(CHAT, "hi", temperature=0)

    assert (first.cache, second.cache) == ("miss", "hit")
    assert (second.text, second.attempts, second.cost.amount) == (first.text, 0, Decimal(0))
    assert sim.stats().requests == 1


async def test_the_next_model_serves(ai, sim):
    """When the first model is down the second answers, says so, and the failed sends are counted."""
    sim.faults.outage(CHAT)

    answer = await ai.chat([CHAT, OTHER], "hi")

    assert answer.served_by == OTHER
    assert answer.attempts == sim.stats().requests


async def test_no_model_is_left(ai, sim):
    """When every model fails the error names the refusal of each."""
    sim.faults.outage(CHAT)
    sim.faults.outage(OTHER)

    with pytest.raises(NoModelAvailable) as caught:
        await ai.chat([CHAT, OTHER], "hi")

    assert list(caught.value.refused) == [CHAT, OTHER]


async def test_a_picture_can_be_saved(ai, sim, tmp_path):
    """The bytes are a picture of the size that was asked for, saved under the right suffix."""
    result = await ai.image(PAINTER, "a lighthouse", size="768x512", seed=7)
    path = result.images[0].save(tmp_path / "lighthouse")

    assert path.suffix in {".png", ".jpg"}
    assert path.read_bytes() == result.images[0].data
    assert result.seed == 7
    assert result.cost.amount == sim.stats().bill


async def test_a_picture_can_be_edited_and_varied(ai):
    """Source pictures travel as a form on the OpenAI routes."""
    edited = await ai.image("Qwen/Qwen-Image-Edit", "make it night", images=[PIXEL, PIXEL])
    varied = await ai.image("Qwen/Qwen-Image-Edit", images=PIXEL, n=2)

    assert len(edited.images) == 1
    assert len(varied.images) == 2


async def test_a_tool_loop_calls_the_functions(ai):
    """The model's wish is carried out and its answer quotes the result."""

    def tides(port: str) -> str:
        """Look up the tide times of a port."""
        return f"high water at {port}: 04:12"

    run = await ai.run_tools(CHAT, "What are the tides of Kiel?", tools=[tides])

    assert [step.call.name for step in run.steps] == ["tides"]
    assert "04:12" in run.steps[0].output
    assert run.answer.tool_calls == ()
    assert "04:12" in run.answer.text


async def test_an_answer_is_read_into_a_model(ai):
    """`output=` gives an instance of the class."""

    class Invoice(BaseModel):
        number: str
        total: float
        paid: bool

    answer = await ai.chat(CHAT, "Invoice 42 over 99.50 is paid.", output=Invoice)

    assert isinstance(answer.output, Invoice)
    assert answer.text


async def test_a_picture_is_seen(ai):
    """Bytes of an image travel within the message."""
    answer = await ai.chat("google/gemma-3-12b-it", [user("What is this?", PIXEL)])

    assert answer.text


async def test_reasoning_is_kept_apart(ai):
    """Thoughts in tags and thoughts in a field both leave the answer alone, streamed or not."""
    for model in ("deepseek-ai/DeepSeek-R1-0528", "moonshotai/Kimi-K2.6"):
        whole = await ai.chat(model, "17 * 23?")
        async with ai.stream(model, "17 * 23?") as stream:
            streamed = await stream.result()

        assert whole.reasoning
        assert "think>" not in whole.text
        assert (streamed.text, streamed.reasoning) == (whole.text, whole.reasoning)


async def test_a_breaker_opens_and_closes_again(sim, settings):
    """In an outage the model is left alone; once it is back one probe closes the breaker."""
    events = []
    async with AsyncClient(api_key="test-key", base_url=sim.base_url, settings=settings) as patient:
        ai = patient.with_options(timeout=10)  # with more time a call waits for the circuit
        ai.subscribe(events.append)
        sim.faults.outage(CHAT)
        for _ in range(6):
            with pytest.raises(Exception, match=r"open|Overloaded|50\d|unavailable|down"):
                await ai.chat(CHAT, "hi")
        counted = sim.stats().requests
        sim.faults.outage(CHAT, on=False)
        opened = next(event for event in events if isinstance(event, CircuitOpened))
        await ai._pipeline.clock.sleep(opened.retry_after + 0.05)
        answer = await ai.chat(CHAT, "hi")
        await ai.chat(CHAT, "hi")

    assert counted <= 7
    assert answer.text
    assert any(isinstance(event, CircuitClosed) for event in events)


async def test_an_unknown_model_is_named(ai):
    """The service's 404 becomes an error that names the model."""
    with pytest.raises(ModelNotFound) as caught:
        await ai.chat("acme/no-such-model", "hi")

    assert caught.value.model == "acme/no-such-model"


async def test_send_is_what_all_do(ai):
    """`send` takes any operation and returns its own kind of result."""
    chat = await ai.send(Chat(model=CHAT, messages="hi"), tags={"tenant": "a"}, timeout=20)
    vectors = await ai.send(Embed(model=EMBEDDER, texts=["a"]))
    picture = await ai.send(Image(model=PAINTER, prompt="dusk"))
    await ai.ledger.flush()

    assert chat.text
    assert vectors.dimensions == 1024
    assert picture.images[0].media_type.startswith("image/")
    assert (await ai.ledger.total(tags={"tenant": "a"})).sends == 1
