"""The catalogue and the provider's lists over real sockets: prices that move, models that come and go, servers that lie."""

import asyncio
import contextlib
import time
import tracemalloc
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import httpx
import orjson
import pytest

from resilient_ai import AsyncClient
from resilient_ai.core.errors import (
    AttemptTimeout,
    AuthenticationFailed,
    ConnectionFailed,
    InvalidResponse,
    ProviderError,
)
from resilient_ai.deepinfra.catalogue import (
    ClientCatalogue,
    LiveCatalogue,
    ModelQuery,
    PriceTable,
    Pricing,
    Promo,
    catalogue,
)
from resilient_ai.deepinfra.transport import Transport

from .raw_server import RawServer

pytestmark = pytest.mark.anyio

KEY = "canary-key-7f3a"
LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
BGE = "BAAI/bge-m3"
PAINTER = "black-forest-labs/FLUX-1-schnell"


@contextlib.asynccontextmanager
async def connected(url, http=None):
    transport = Transport(url, KEY, {"User-Agent": "test"}, http=http)
    try:
        yield transport
    finally:
        await transport.aclose()


@pytest.fixture
async def transport(sim):
    async with connected(sim.base_url) as one:
        yield one


def cheaper(model, factor):
    """The same model at other prices."""
    pricing = model.pricing
    named = {
        name: getattr(pricing, name) * factor
        for name in ("input_per_1m", "output_per_1m", "cached_input_per_1m")
        if getattr(pricing, name) is not None
    }
    return replace(model, pricing=replace(pricing, **named))


async def test_lists_that_say_what_is_known_change_nothing(sim, transport):
    """Three units of price and metadata that is null come back as the figures they were made of, discounts included."""
    live = LiveCatalogue()

    changes = await live.refresh(transport)

    assert (changes.added, changes.removed, changes.retired, changes.prices) == ((), (), (), ())
    assert (changes.suspicious, changes.failed) == ((), ())
    assert {(change.field, change.old, change.new) for change in changes.facts} == {("status", "unknown", "active")}
    assert live.get(BGE).price_as_of == datetime.now(UTC).date().isoformat()


async def test_a_price_that_moved_is_what_the_next_call_is_billed(sim, transport, ai):
    """The table agrees with the service's own figure again, for text, vectors and pictures."""
    llama, bge, painter = (catalogue.get(name) for name in (LLAMA, BGE, PAINTER))
    image = replace(painter.pricing.image, usd_per_unit=Decimal("0.0007"))
    sim.put_models(
        cheaper(llama, Decimal("0.5")), cheaper(bge, Decimal("1.5")), replace(painter, pricing=Pricing(image=image))
    )
    live = LiveCatalogue()
    prices = PriceTable(live)

    changes = await live.refresh(transport)
    answer = await ai.chat(LLAMA, "Name three tides.", max_tokens=30)
    vectors = await ai.embed(BGE, "tide")
    picture = await ai.image(PAINTER, "a tide", size="512x512")

    assert [(change.model, change.field, change.old, change.new) for change in changes.prices] == [
        (BGE, "input_per_1m", Decimal("0.01"), Decimal("0.015")),
        (PAINTER, "image_unit", Decimal("0.0005"), Decimal("0.0007")),
        (LLAMA, "input_per_1m", Decimal("0.1"), Decimal("0.05")),
        (LLAMA, "output_per_1m", Decimal("0.32"), Decimal("0.16")),
    ]
    usage = answer.usage
    assert (
        prices.chat_cost(LLAMA, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
        == answer.cost.amount
    )
    assert prices.embedding_cost(BGE, input_tokens=vectors.usage.input_tokens) == sim.stats().bill_by_model[BGE]
    assert prices.image_cost(PAINTER, images=1, width=512, height=512) == picture.cost.amount


async def test_a_discount_is_no_new_list_price(sim, transport):
    """It is noted beside the list price, and ends with the list."""
    llama = catalogue.get(LLAMA)
    promo = Promo(
        discount_pct=Decimal(25), as_of=date(2026, 1, 1), input_per_1m=Decimal("0.075"), output_per_1m=Decimal("0.24")
    )
    sim.put_models(replace(llama, promo=promo))
    live = LiveCatalogue()

    begun = await live.refresh(transport)
    noted = live.get(LLAMA)
    sim.put_models(llama)
    ended = await live.refresh(transport)

    assert (noted.pricing, noted.promo.input_per_1m) == (llama.pricing, Decimal("0.075"))
    assert [(change.old, change.new) for change in begun.facts if change.model == LLAMA] == [(None, Decimal(25))]
    assert [(change.old, change.new) for change in ended.facts] == [(Decimal(25), None)]
    assert begun.prices == ended.prices == ()


async def test_models_come_go_and_retire(sim, transport, tmp_path):
    """A new one can be chosen at once, a retired one leads to its replacement, one that is gone is told of, and not chosen."""
    llama = catalogue.get(LLAMA)
    new = cheaper(replace(llama, id="meta-llama/Llama-9-Mini", family=None, price_as_of=None), Decimal("0.5"))
    retired = replace(llama, status="retired", deprecated_on=date(2026, 11, 1), replaced_by=new.id)
    sim.put_models(new, retired)
    sim.drop_models(BGE)
    live = LiveCatalogue(path=tmp_path / "catalogue.json")
    query = ModelQuery(text="llama-9", catalogue=live)
    assert query.models() == ()

    changes = await live.refresh(transport)

    assert (changes.added, changes.retired, changes.removed) == ((new.id,), (LLAMA,), (BGE,))
    assert (query.models(), live.replacement(LLAMA)) == ((new.id,), new.id)
    assert live.get(BGE) == replace(catalogue.get(BGE), status="presumed_removed")
    assert live.get(new.id).pricing == new.pricing
    assert LiveCatalogue(path=tmp_path / "catalogue.json").models == live.models
    assert "retired        " + LLAMA in str(changes)


async def test_a_client_of_the_user_is_used(sim):
    """Proxies, certificates and everything else of it hold for the lists as well."""
    seen = []

    async def note(request):
        seen.append((request.url.path, request.headers["authorization"]))

    async with (
        httpx.AsyncClient(event_hooks={"request": [note]}) as http,
        connected(sim.base_url, http) as transport,
    ):
        models = ClientCatalogue(LiveCatalogue(), transport)
        assert not (await models.refresh()).prices

    assert sorted(seen) == [("/models/list", f"Bearer {KEY}"), ("/v1/openai/models", f"Bearer {KEY}")]


async def test_a_service_that_is_not_there_leaves_everything_as_it_was():
    """The error is that of any other call."""
    async with RawServer(b"") as server:
        url = server.url
    live = LiveCatalogue()

    async with connected(url) as transport:
        with pytest.raises(ConnectionFailed):
            await live.refresh(transport)

    assert (live.models, live.fetched_at) == (catalogue.models, None)


def http(body, status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def endless(writer):
    """A body that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[")
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b'"x",' * 16_384)
            await writer.drain()


async def silent(writer):
    """An answer that never comes."""
    with contextlib.suppress(ConnectionError):
        await writer.drain()
        await asyncio.sleep(3)


LIES = {
    "no JSON": (http(b"<html>Welcome to the hotel</html>"), InvalidResponse),
    "deep JSON": (http(b"[" * 1_000_000), InvalidResponse),
    "a million rows": (http(b"[" + b"{}," * 1_000_000 + b"{}]"), InvalidResponse),
    "an endless body": (endless, InvalidResponse),
    "a bomb": (http(b"\x1f\x8b" + b"\x00" * 64, "200 OK", "content-encoding: gzip"), InvalidResponse),
    "a redirect": (http(b"", "302 Found", "location: http://127.0.0.1:9/"), InvalidResponse),
    "a refusal": (http(b'{"detail": "no ' + KEY.encode() + b'"}', "401 Unauthorized"), AuthenticationFailed),
    "silence": (silent, AttemptTimeout),
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", ProviderError),
}


@pytest.mark.parametrize(("answer", "error"), LIES.values(), ids=LIES.keys())
async def test_a_server_that_lies_cannot_hurt(answer, error):
    """An error in time and in bounded memory, without the key in it, and everything as it was."""
    live = LiveCatalogue()
    len(live)
    began = time.monotonic()
    tracemalloc.start()
    try:
        async with RawServer(answer) as server, connected(server.url) as transport:
            with pytest.raises(error) as caught:
                await live.refresh(transport, timeout=1 if answer is silent else 10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert KEY not in f"{caught.value} {vars(caught.value)}"
    assert (live.models, live.fetched_at) == (catalogue.models, None)
    assert peak < 256 << 20
    assert time.monotonic() - began < 10


async def test_a_list_of_nonsense_changes_nothing(sim):
    """Ten thousand rows of wrong types, ids that are none and prices in every wrong unit: all of it is told of, none believed."""
    strange = [None, -1, 1e300, "0.1", [], {}, True, 1e-300]
    rows = [
        {
            "id": (LLAMA, BGE, "a/\x1b[2J", "b", None, 7)[number % 6],
            "metadata": {
                "pricing": {"input_tokens": strange[number % 8]},
                "context_length": strange[number % 7],
                "tags": 5,
            },
        }
        for number in range(10_000)
    ]
    body = orjson.dumps({"data": rows})
    live = LiveCatalogue()

    async with RawServer(http(body)) as server, connected(server.url) as transport:
        changes = await live.refresh(transport)

    assert not changes
    assert len(changes.suspicious) == 1_000
    assert changes.failed == ("/models/list: InvalidResponse: the list of models has no rows",)
    assert live.models == catalogue.models
    assert all(line.isprintable() for line in str(changes).splitlines())


async def test_calls_go_on_while_the_catalogue_is_refreshed(sim, transport, ai):
    """A refresh holds the loop up for no longer than it takes to read two answers."""
    live = LiveCatalogue()
    await live.refresh(transport)
    lags = []

    async def watch():
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - before - 0.001)

    watcher = asyncio.create_task(watch())
    answers = asyncio.gather(*(ai.chat(LLAMA, f"Tide {number}?", max_tokens=5) for number in range(10)))
    for _ in range(3):
        await live.refresh(transport)
    assert all(answer.text for answer in await answers)
    watcher.cancel()

    assert sorted(lags)[len(lags) // 2] < 0.05


async def test_background_refresh_over_sockets(sim, tmp_path, settings):
    """A client's catalogue follows a price by itself, and ends when it is closed."""
    async with (
        AsyncClient(api_key=KEY, base_url=sim.base_url, settings=settings) as ai,
        connected(sim.base_url) as transport,
    ):
        models = ClientCatalogue(LiveCatalogue(path=tmp_path / "catalogue.json"), transport, every=0.05)
        models.keep_fresh()
        sim.put_models(cheaper(catalogue.get(LLAMA), Decimal("0.5")))
        end = time.monotonic() + 20
        while models.get(LLAMA).pricing.input_per_1m != Decimal("0.05"):
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        assert (await ai.chat(LLAMA, "hi", max_tokens=5)).text
        await models.aclose()
