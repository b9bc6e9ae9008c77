"""What nobody should read leaves by no signal: canary words in everything that is said, over every operation and many faults."""

import asyncio
import base64
import contextlib
import gc
import json
import logging
import queue
import threading
import warnings

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from resilient_ai import AsyncClient, Client, Settings
from resilient_ai.core.errors import ServerFailed
from resilient_ai.core.messages import ImagePart, TextPart, UserMessage
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.deepinfra.provider import DeepInfraProvider
from resilient_ai.middleware import Cache, CostAccounting, Logging, Metrics, Retry, Routing, Timeout, Tracing
from resilient_ai.middleware.redactor import Redactor
from resilient_ai.presets import default_stack
from resilient_ai.testing import PIXEL

from ..e2e.raw_server import RawServer  # noqa: TID252 - the tests have no package above them
from ..faults.servers import STREAM_HEAD, chunk, http  # noqa: TID252 - as above

pytestmark = pytest.mark.anyio

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
PICTURES = "black-forest-labs/FLUX-1-schnell"
VECTORS = "BAAI/bge-m3"

# Each canary is in one place, so that a failure says where it got out.
WORD = "CANARY"
KEY = "CANARY-KEY-sk0123456789abcdef"
SAID = {
    "system": "CANARY-SYSTEM",
    "prompt": "CANARY-PROMPT",
    "query": "https://example.org/a.png?sig=CANARY-QUERY",
    "answer": "CANARY-ANSWER",
    "delta": "CANARY-DELTA",
    "reasoning": "CANARY-REASONING",
    "arguments": "CANARY-ARGUMENTS",
    "output": "CANARY-OUTPUT",
    "picture": "CANARY-PICTURE",
    "text": "CANARY-TEXT",
}
LOGGERS = ("", "resilient_ai", "resilient_ai.stores", "aiohttp", "asyncio", "httpcore", "httpx", "concurrent.futures")


def tides(port: str) -> str:
    """Look up the tide times of a port."""
    return SAID["output"]


def crashing(port: str) -> str:
    """Look up the tide times of a port."""
    raise ValueError(f"CANARY-EXCEPTION {port}")


class Watched:
    """All that an application could see of a client from outside, in text."""

    def __init__(self, **capturing):
        self.spans, self.events = InMemorySpanExporter(), InMemoryLogRecordExporter()
        self.reader = InMemoryMetricReader()
        tracers, loggers = TracerProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self.events))
        meters = MeterProvider([self.reader], exemplar_filter=AlwaysOnExemplarFilter(), shutdown_on_exit=False)
        self.tracing = Tracing(tracers, logger_provider=loggers, **capturing)
        self.metrics = Metrics(meters, tenants=3)
        self.lines, self.facts, self.shown = [], [], []

    def stack(self, settings, *own, patience=10.0):
        """Return the default stack, all of it watched, which waits for nothing longer than `patience`.

        Layers of `own` take the place of those of their kind; any other stands inside of the telemetry.
        """
        quick = Retry(attempts=2, wait_initial=0.001, wait_max=0.002, on_retry=self.facts.append)
        swift = Timeout(first_token=patience, idle=patience, attempt=patience)
        given = {type(layer): layer for layer in (quick, swift, *own)}
        usual = [given.pop(type(layer), layer) for layer in default_stack(settings)[3:]]
        return [self.tracing, self.metrics, Logging(level=logging.DEBUG), *given.values(), *usual]

    def client(self, url, home, *own, **options):
        """Return a client with this stack, all of whose events are kept."""
        provider = DeepInfraProvider(KEY, base_url=url, headers={"X-Own": "CANARY-HEADER"})
        settings = Settings(home=home)
        ai = AsyncClient(provider=provider, stack=self.stack(settings, *own, **options), settings=settings)
        ai.subscribe(self.facts.append)
        return ai

    @contextlib.contextmanager
    def listening(self, monkeypatch, capfd):
        """Listen to every logger there is, at its lowest level, to warnings, and to what is printed."""
        handler = logging.Handler()
        handler.emit = lambda record: self.lines.append(shown(record))
        monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
        loggers = [logging.getLogger(name) for name in LOGGERS]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            self.shown += [str(warning.message) for warning in caught]
            self.shown += capfd.readouterr()

    def exported(self):
        """Return everything that left, by the way it took."""
        self.tracing.tracer_provider.force_flush()
        data = self.reader.get_metrics_data()
        return {
            # Without indenting, or else Python's slow encoder would take as long as all calls.
            "spans": [span.to_json(indent=None) for span in self.spans.get_finished_spans()],
            "metrics": [] if data is None else [data.to_json(indent=None)],
            "events": [record.to_json(indent=None) for record in self.events.get_finished_logs()],
            "lines": self.lines,
            "facts": [f"{fact!r} {fact}" for fact in self.facts],
            "shown": self.shown,
        }

    def leaks(self, *except_for):
        return {
            name: [text for text in texts if WORD in text]
            for name, texts in self.exported().items()
            if name not in except_for and any(WORD in text for text in texts)
        }


def shown(record):
    """Return a line as a formatter might write it, with everything that it could find on the record."""
    return f"{logging.Formatter().format(record)} {vars(record)!r}"


@pytest.fixture
def watched(monkeypatch, capfd):
    watched = Watched()
    with watched.listening(monkeypatch, capfd):
        yield watched


@pytest.fixture
def anyio_backend():
    return "asyncio", {"debug": True}


# What is asked


async def chat(ai):
    return await ai.chat(MODEL, conversation(), tools=[tides], seed=1)


async def structured(ai):
    class Answer(BaseModel):
        port: int

    return await ai.chat(MODEL, conversation(), output=Answer)


async def stream(ai):
    async with ai.stream(MODEL, conversation()) as answer:
        async for _ in answer:
            pass
        return await answer.result()


async def abandoned(ai):
    async with ai.stream(MODEL, conversation()) as answer:
        async for _ in answer:
            break
    return answer


async def forgotten(ai):
    answer = await ai.send(Stream(model=MODEL, messages=conversation()))
    shown = repr(answer)
    del answer
    gc.collect()
    await asyncio.sleep(0)
    return shown


async def complete(ai):
    return await ai.complete(MODEL, SAID["prompt"])


async def embed(ai):
    return await ai.embed(VECTORS, [SAID["text"], SAID["text"] + "2"])


async def image(ai):
    return await ai.image(PICTURES, SAID["picture"], negative_prompt=SAID["picture"])


async def edit(ai):
    return await ai.image(PICTURES, SAID["picture"], images=PIXEL)


async def with_tools(ai):
    return await ai.run_tools(MODEL, conversation(), tools=[tides, crashing], max_rounds=1)


async def cancelled(ai):
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.002):
            return await ai.chat(MODEL, conversation())


async def fallback(ai):
    return await ai.chat([MODEL, "Qwen/Qwen3-32B"], SAID["prompt"])


ASKED = [chat, structured, stream, abandoned, forgotten, complete, embed, image, edit, with_tools, fallback, cancelled]


def conversation():
    return [
        {"role": "system", "content": SAID["system"]},
        UserMessage(content=(TextPart(text=SAID["prompt"]), ImagePart(url=SAID["query"]))),
    ]


# What is answered


def answered(**fields):
    """Return a body that answers every operation at once."""
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "tides", "arguments": json.dumps({"port": SAID["arguments"]})},
    }
    crash = {**call, "id": "c2", "function": {**call["function"], "name": "crashing"}}
    message = {
        "role": "assistant",
        "content": SAID["answer"],
        "reasoning_content": SAID["reasoning"],
        "tool_calls": [call, crash],
    }
    body = {
        "id": "r1",
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "text": SAID["answer"], "finish_reason": "stop"}],
        "data": [{"embedding": [0.5, 0.25], "index": index} for index in range(2)],
        "embeddings": [[0.5, 0.25]] * 2,
        "images": ["data:image/png;base64," + base64.b64encode(PIXEL).decode()],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "estimated_cost": 0.25},
    }
    return http(json.dumps(body | fields).encode(), "200 OK", "X-Told: CANARY-TOLD")


def event(delta, **choice):
    body = {"model": MODEL, "choices": [{"index": 0, "delta": delta, "finish_reason": None, **choice}]}
    return chunk(b"data: %s\n\n" % json.dumps(body).encode())


PIECES = event({"reasoning_content": SAID["reasoning"]}) + event({"content": SAID["delta"]})
CALLED = event(
    {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "tides", "arguments": SAID["arguments"]}}]}
)
END = event({}, finish_reason="stop") + chunk(b"data: [DONE]\n\n") + chunk(b"")


def streamed(*pieces):
    """Return a function that writes pieces of a stream, waits where a piece is a number, and drops the connection at the end."""

    async def write(writer):
        writer.write(STREAM_HEAD)
        for piece in pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                writer.write(piece)
                await writer.drain()

    return write


async def silent(writer):
    await asyncio.sleep(2)


async def reset(writer):
    writer.transport.abort()


def told(status, body, *headers):
    return http(body if isinstance(body, bytes) else json.dumps(body).encode(), status, *headers)


OPENAI = {
    "error": {
        "message": "CANARY-BODY said CANARY-PROMPT",
        "type": "CANARY-TYPE",
        "param": "CANARY-PARAM",
        "code": "CANARY-CODE",
    }
}
FAULTS = {
    "none": answered(),
    "a stream": streamed(PIECES, CALLED, END),
    **{
        f"status {status}": told(f"{status} Said", OPENAI)
        for status in (400, 401, 402, 403, 404, 405, 413, 418, 429, 500, 503)
    },
    "native error": told("500 CANARY-REASON", {"detail": {"error": "CANARY-BODY"}}),
    "validation": told("422 Said", {"detail": [{"loc": ["body", "CANARY-PARAM"], "msg": "CANARY-BODY", "type": "x"}]}),
    "too long": told("400 Said", {"error": {"message": "maximum context length CANARY-BODY"}}),
    "html": told("502 Bad Gateway", b"<html>CANARY-BODY"),
    "key repeated": told("401 Said", {"detail": f"Bearer {KEY} is wrong"}),
    "a wait": told("429 Said", OPENAI, "Retry-After: CANARY-TOLD", "X-Request-Id: r1"),
    "an error inside": told("200 OK", {"error": {"message": "CANARY-BODY"}}),
    "a redirect": told("307 Elsewhere", b"", "Location: https://example.org/?CANARY-QUERY"),
    "no JSON": told("200 OK", b'{"choices": [{"message": {"content": "CANARY-ANSWER'),
    "other JSON": told("200 OK", {"choices": "CANARY-ANSWER", "data": ["CANARY-ANSWER"], "images": ["CANARY-ANSWER"]}),
    "wrong vectors": answered(data=[{"embedding": ["CANARY-ANSWER"], "index": 0}]),
    "wrong pictures": answered(images=["data:image/png;base64,CANARYANSWER"]),
    "bad gzip": told("200 OK", b"CANARY-ANSWER", "Content-Encoding: gzip"),
    "a bad head": b"HTTP/1.1 CANARY-REASON\r\nCANARY-TOLD\r\n\r\n",
    "a bad header": b"HTTP/1.1 200 OK\r\nCANARY-TOLD \x00: x\r\ncontent-length: 0\r\n\r\n",
    "a short body": answered()[:-40],
    "a cut stream": streamed(PIECES),
    "a cut stream of calls": streamed(CALLED),
    "a stream that hangs": streamed(PIECES, 2.0),
    "an error in a stream": streamed(PIECES, chunk(b'data: {"error": {"message": "CANARY-BODY"}}\n\n')),
    "an error at once in a stream": streamed(chunk(b'data: {"error": {"message": "CANARY-BODY"}}\n\n')),
    "no JSON in a stream": streamed(PIECES, chunk(b"data: CANARY-DELTA\n\n"), END),
    "no stream": streamed(chunk(b"CANARY-DELTA\n\n" * 3)),
    "silence": silent,
    "a reset": reset,
}


async def outcome(ask, ai):
    """Ask, and return what came of it; only the caller is to see it."""
    try:
        return await ask(ai)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error


# Of these there is nothing to be had but waiting.
SLOW = {"a short body", "a stream that hangs", "silence"}
SENT = ("system", "prompt", "query", "picture", "text")
ANSWERED = {"none": ("answer", "reasoning"), "a stream": ("delta", "reasoning", "arguments")}


@pytest.mark.parametrize("name", FAULTS)
async def test_nothing_that_was_said_is_exported(name, watched, tmp_path):
    """Whatever is asked, and whatever becomes of it, no signal has a canary."""

    async def asked(ask):
        # By a client of its own, or else one would open the circuit for all that follow.
        async with watched.client(server.url, tmp_path / ask.__name__, patience=0.5 if name in SLOW else 10.0) as ai:
            found = await outcome(ask, ai)
            watched.shown += [repr(ai), str(ai), repr(ai.describe()), str(ai.describe()), repr(ai.health())]
            return found

    async with RawServer(FAULTS[name]) as server:
        # With this everything is slow, and asyncio logs what it has run, with what it was given and what came of it.
        asyncio.get_running_loop().slow_callback_duration = 0
        outcomes = await asyncio.gather(*map(asked, ASKED))
    exported = watched.exported()
    assert watched.leaks() == {}
    # There was something to see, or else this would prove nothing.
    sent, got = repr(server.requests), repr(outcomes)
    assert not [word for word in SENT if SAID[word] not in sent]
    assert not [word for word in ANSWERED.get(name, ()) if SAID[word] not in got]
    assert KEY in sent
    assert "CANARY-HEADER" in sent
    assert len(exported["spans"]) > len(ASKED)
    assert len(exported["lines"]) > len(ASKED)
    assert exported["metrics"][0].count("exemplars") > 5
    assert len(exported["facts"]) > len(ASKED)
    assert exported["events"] == []


CONTENT = {
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
}


def without_content(exported):
    """Return a span or an event without the attributes that are for content, and these attributes."""
    told = json.loads(exported)
    content = {name: told["attributes"].pop(name) for name in CONTENT & told["attributes"].keys()}
    return json.dumps(told), content


@pytest.mark.parametrize("name", ["none", "a stream", "status 500", "a cut stream", "no JSON"])
async def test_with_capture_it_is_in_its_attributes_alone(name, monkeypatch, capfd, tmp_path):
    """Prompts and answers are where the conventions have them, on spans and events, and nowhere else; secrets not even there."""
    secret = "ann@example.org, 4111 1111 1111 1111 and Bearer CANARYSECRET"
    monkeypatch.setitem(SAID, "prompt", f"CANARY-PROMPT {secret}")
    watched = Watched(capture="both")
    with watched.listening(monkeypatch, capfd):
        async with RawServer(FAULTS[name]) as server:
            for ask in ASKED:
                async with watched.client(server.url, tmp_path / ask.__name__) as ai:
                    await outcome(ask, ai)
    assert watched.leaks("spans", "events") == {}
    exported = watched.exported()
    for way in ("spans", "events"):
        bare, content = zip(*map(without_content, exported[way]), strict=True)
        assert not [text for text in bare if WORD in text]
        told = json.dumps(content)
        assert not [word for word in ("SECRET", "example.org,", "4111", KEY, "HEADER", "BODY") if word in told]
        assert "CANARY-PROMPT [email], [card] and Bearer [key]" in told
        assert "CANARY-SYSTEM" in told
        assert "CANARY-TEXT" not in told  # of embeddings the conventions have none
        assert ("CANARY-ANSWER" in told) == (name == "none")
        assert ("CANARY-DELTA" in told) == (name in {"a stream", "a cut stream"})
    outputs = [
        json.loads(span["attributes"]["gen_ai.output.messages"])
        for span in map(json.loads, exported["spans"])
        if "gen_ai.output.messages" in span["attributes"]
    ]
    assert all(message["parts"] for messages in outputs for message in messages)


@pytest.mark.parametrize(
    "redactor",
    [
        Redactor(patterns={"canary": r"(?i)canary[-\w]*"}),
        Redactor(function=lambda text: "x" * len(text)),
        Redactor(patterns={"all": r"(?s).+"}, replace=lambda found: {}[found.text]),
        Redactor(function=lambda text: None),
    ],
    ids=["pattern", "function", "raises", "returns nothing"],
)
async def test_what_a_redactor_takes_out_is_nowhere(redactor, monkeypatch, capfd, tmp_path):
    """A pattern or a function of the application's own decides; one that fails takes everything with it."""
    watched = Watched(capture="both", redactor=redactor)
    with watched.listening(monkeypatch, capfd):
        async with RawServer(FAULTS["none"]) as server:
            for ask in ASKED:
                async with watched.client(server.url, tmp_path / ask.__name__) as ai:
                    await outcome(ask, ai)
    assert watched.leaks() == {}
    assert len(watched.exported()["events"]) > len(ASKED) - 3


class Crash(Exception):
    """What code of users raises."""

    def __init__(self, *_):
        super().__init__("CANARY-EXCEPTION")


def crash(*_args, **_kwargs):
    raise Crash


class Crashing:
    """Whatever is asked of it, it raises."""

    chat_cost = embedding_cost = image_cost = opened = closed = spared = get_many = set_many = crash
    lacks = output_limit = service_tiers = dimensions = crash

    async def flush(self):
        raise Crash

    aclose = flush


async def crashing_middleware(call, proceed):
    await proceed(call)
    raise Crash


async def listened_to(ai):
    return await ai.send(Chat(model=MODEL, messages=SAID["prompt"]), listener=crash)


CRASHES = {
    "a middleware": crashing_middleware,
    "on_retry": Retry(attempts=2, wait_initial=0.001, on_retry=crash),
    "retry_on": Retry(attempts=2, wait_initial=0.001, retry_on=crash),
    "a store": Cache(Crashing()),
    "a ledger": CostAccounting(ledger=Crashing()),
    "prices": CostAccounting(prices=Crashing()),
    "on_settled": CostAccounting(on_settled=crash),
    "abilities": Routing(abilities=Crashing(), prices=Crashing()),
}


@pytest.mark.parametrize("name", ["none", "a stream", "status 500"])
@pytest.mark.parametrize("own", CRASHES.values(), ids=CRASHES.keys())
async def test_what_code_of_users_raises_is_not_told(own, name, watched, tmp_path):
    """Callbacks, stores, ledgers, prices and middleware that raise, listeners beside: their messages stay with the caller."""
    async with RawServer(FAULTS[name]) as server:
        for ask in (chat, stream, embed, with_tools):
            with contextlib.suppress(Crash):  # where the client is closed
                async with watched.client(server.url, tmp_path / ask.__name__, own) as ai:
                    ai.subscribe(crash)
                    await outcome(ask, ai)
                    await outcome(listened_to, ai)
    gc.collect()
    await asyncio.sleep(0)
    assert watched.leaks() == {}
    assert any("raised Crash" in line or "'error_class': 'Crash'" in line for line in watched.lines)


async def test_a_catalogue_that_cannot_be_fetched(watched, tmp_path):
    """Of what the service says then nothing is in the log."""
    async with RawServer(FAULTS["status 500"]) as server, watched.client(server.url, tmp_path) as ai:
        await ai.catalogue.refresh_quietly()
    assert any("the catalogue could not be refreshed: ServerFailed" in line for line in watched.lines)
    assert watched.leaks() == {}


async def test_operations_do_not_show_what_they_ask(watched):
    """A call that fails in code of the application may be printed with its operation."""
    for operation in (
        Chat(model=MODEL, messages=conversation(), tools=[tides], stop=[WORD], extra={"x": WORD}),
        Stream(model=MODEL, messages=conversation()),
        Complete(model=MODEL, prompt=SAID["prompt"]),
        Embed(model=VECTORS, texts=[SAID["text"]]),
        Image(model=PICTURES, prompt=SAID["picture"], negative_prompt=SAID["picture"]),
    ):
        watched.shown += [repr(operation), str(operation), f"{operation}"]
    assert watched.leaks() == {}


@contextlib.contextmanager
def served(answer):
    """Give the address of a server in a thread of its own."""
    addresses, done = queue.SimpleQueue(), threading.Event()

    async def serve():
        async with RawServer(answer) as server:
            addresses.put(server.url)
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield addresses.get(timeout=10)
    finally:
        done.set()
        thread.join()


def test_the_blocking_client(watched, tmp_path):
    """Its thread and its loop tell no more."""
    with (
        served(FAULTS["status 500"]) as url,
        Client(KEY, base_url=url, stack=watched.stack(Settings(home=tmp_path))) as ai,
    ):
        ai.subscribe(watched.facts.append)
        with pytest.raises(ServerFailed, match="CANARY-BODY"):
            ai.chat(MODEL, SAID["prompt"])
        with pytest.raises(ServerFailed, match="CANARY-BODY"):
            ai.stream(MODEL, SAID["prompt"])
        watched.shown += [repr(ai), str(ai)]
    assert watched.leaks() == {}
    assert len(watched.lines) > 2
