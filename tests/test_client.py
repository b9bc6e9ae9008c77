"""The asynchronous client, over scripted answers."""

import asyncio
import json
import os
import re
import subprocess
import sys

import httpx
import pytest
from pydantic import BaseModel

from resilient_ai import AsyncClient, Settings
from resilient_ai.core.errors import (
    AttemptTimeout,
    CircuitOpen,
    ClientClosed,
    ConfigurationError,
    InvalidInput,
    ServerFailed,
    ToolLoopUnfinished,
)
from resilient_ai.core.events import BatchDone, Event, SendStarted
from resilient_ai.core.messages import ToolCall
from resilient_ai.core.operations import Chat
from resilient_ai.core.results import Choice
from resilient_ai.middleware import (
    CircuitBreaker,
    ConcurrencyLimit,
    CostAccounting,
    Deadline,
    RateLimit,
    Retry,
    Routing,
    Timeout,
)
from resilient_ai.testing import PIXEL, ScriptedProvider, chat_result, vector_of

pytestmark = pytest.mark.anyio

KEYS = ("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN", "DEEPINFRA_API_TOKEN")
REPLY = {"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in (*KEYS, "RESILIENT_AI_API_KEY", "RESILIENT_AI_BASE_URL", "RESILIENT_AI_CONFIG"):
        monkeypatch.delenv(name, raising=False)


class Answers:
    """A stack of one that answers every call from a script."""

    def __init__(self, *script):
        self.provider = ScriptedProvider(*script)

    async def __call__(self, call, proceed):
        return await self.provider(call)

    async def aclose(self):
        await self.provider.aclose()

    @property
    def calls(self):
        return self.provider.calls


def client(*script, clock=None):
    answers = Answers(*script)
    return AsyncClient("k", stack=[Deadline(), answers], clock=clock), answers


async def key_of(**options):
    """Return the key with which a client asks."""
    seen = []

    def handle(request):
        seen.append((request.headers["authorization"], str(request.url)))
        return httpx.Response(200, json=REPLY)

    async with AsyncClient(stack=[], http=httpx.MockTransport(handle), **options) as ai:
        await ai.chat("m", "hi")
    return seen[0]


async def test_the_key_comes_from_the_nearest_place(monkeypatch):
    """The argument wins over the settings, these over the variables of DeepInfra, which have an order of their own."""
    for name in reversed(KEYS):
        monkeypatch.setenv(name, name.lower())
        assert (await key_of())[0] == f"Bearer {name.lower()}"
    monkeypatch.setenv("RESILIENT_AI_API_KEY", "from-settings")
    assert (await key_of())[0] == "Bearer from-settings"
    assert (await key_of(settings=Settings(api_key="given")))[0] == "Bearer given"
    assert (await key_of(api_key=" argument\n"))[0] == "Bearer argument"


async def test_the_server_comes_from_the_argument_or_the_settings(monkeypatch):
    """The argument wins, and the usual address is the default."""
    monkeypatch.setenv("RESILIENT_AI_BASE_URL", "https://settings.test/v1")
    assert (await key_of(api_key="k"))[1] == "https://settings.test/v1/openai/chat/completions"
    assert (await key_of(api_key="k", base_url="https://own.test/v1/"))[1].startswith("https://own.test/v1/openai/")
    monkeypatch.delenv("RESILIENT_AI_BASE_URL")
    assert repr(AsyncClient("secret", stack=[])) == "AsyncClient(base_url='https://api.deepinfra.com/v1')"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "no API key: pass api_key"),
        ({"api_key": ""}, "no API key"),
        ({"api_key": "a b"}, "api_key: holds a space"),
        ({"api_key": "k\nX: y"}, "api_key: holds a space, a line break"),
        ({"api_key": "k", "base_url": "ftp://x"}, "base_url: must be like"),
        ({"api_key": "k", "base_url": "http://example.org"}, "base_url: the key must not travel unencrypted"),
        ({"api_key": "k", "stack": [5]}, "a middleware is a function or an object with __call__"),
        ({"api_key": "k", "stack": [Retry(), Routing()]}, "must stand"),
    ],
)
def test_what_cannot_work_is_found_when_the_client_is_built(options, complaint):
    """A missing key, an address that cannot be used and a stack in a wrong order are refused at once."""
    with pytest.raises(ConfigurationError, match=complaint):
        AsyncClient(**({"stack": []} | options))


async def test_each_method_sends_its_operation(clock):
    """Models, content and options reach the operation, and the result comes back."""
    ai, answers = client(clock=clock)
    assert (await ai.chat(["a", "b"], "hi", temperature=0)).text == "Hello."
    async with ai.stream("m", "hi", max_tokens=5) as stream:
        assert (await stream.result()).text == "Hello."
    assert (await ai.complete("m", "Once", echo=True)).text == "Hello."
    assert list((await ai.embed("m", ["a", "b"], normalize=True)).vectors) == [vector_of("a"), vector_of("b")]
    assert [image.data for image in (await ai.image("m", "a boat", n=2)).images] == [PIXEL] * 2
    chat, stream, complete, embed, image = (call.operation for call in answers.calls)
    assert (chat.kind, chat.models, chat.temperature) == ("chat", ("a", "b"), 0)
    assert (stream.kind, stream.max_tokens) == ("stream", 5)
    assert (complete.kind, complete.prompt, complete.echo) == ("complete", "Once", True)
    assert (embed.kind, embed.texts, embed.normalize) == ("embed", ("a", "b"), True)
    assert (image.kind, image.prompt, image.n) == ("image", "a boat", 2)


async def test_leaving_a_stream_closes_it(clock):
    """The block of `stream` frees the connection however it is left."""
    ai, _ = client(clock=clock)
    with pytest.raises(LookupError):
        async with ai.stream("m", "hi") as stream:
            raise LookupError
    assert stream.ended == "closed"


class Port(BaseModel):
    name: str


async def test_an_answer_may_be_read_into_a_type(clock):
    """`output` gives the answer as the type that was asked for."""
    ai, answers = client(chat_result('{"name": "Kiel"}'), clock=clock)
    assert (await ai.chat("m", "Which port?", output=Port)).output == Port(name="Kiel")
    assert answers.calls[0].operation.response_format.name == "Port"


async def test_tools_are_run(clock):
    """`run_tools` calls functions until the model asks for none, within its rounds."""
    asking = chat_result(choices=(Choice(tool_calls=(ToolCall(id="1", name="tides"),)),))

    def tides() -> str:
        return "high"

    ai, _ = client(asking, chat_result("At noon."), clock=clock)
    run = await ai.run_tools("m", "When?", tools=[tides])
    assert (run.answer.text, [step.output for step in run.steps]) == ("At noon.", ["high"])
    ai, answers = client(*[asking] * 2, clock=clock)
    with pytest.raises(ToolLoopUnfinished):
        await ai.run_tools("m", "When?", tools=[tides], max_rounds=1)
    assert len(answers.calls) == 2


async def test_progress_hears_of_batches_alone(clock):
    """The callback gets texts done and texts to send; other events are not its business."""

    async def batched(call):
        call.emit(BatchDone(call_id=call.id, model=call.model, done=2, total=3))
        return "done"

    ai, _ = client(batched, clock=clock)
    seen = []
    await ai.embed("m", ["a"], progress=lambda *numbers: seen.append(numbers))
    assert seen == [(2, 3)]


async def test_views_share_everything_but_their_defaults(clock):
    """Tags add up, the nearest timeout and cache mode count, and the client itself is unchanged."""
    ai, answers = client(clock=clock)
    view = ai.with_options(tags={"tenant": "a", "user": "u"}, timeout=5, cache="off")
    inner = view.with_options(tags={"user": "v"}, cache="refresh")
    await ai.chat("m", "hi")
    await view.chat("m", "hi")
    await inner.chat("m", "hi")
    await inner.send(Chat(model="m", messages="hi"), tags={"user": "w"}, timeout=9, cache="on")
    assert [(dict(call.tags), call.timeout, call.cache and call.cache.mode) for call in answers.calls] == [
        ({}, None, None),
        ({"tenant": "a", "user": "u"}, 5, "off"),
        ({"tenant": "a", "user": "v"}, 5, "refresh"),
        ({"tenant": "a", "user": "w"}, 9, "on"),
    ]
    assert view.describe() == ai.describe()
    assert type(inner) is AsyncClient


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ("acme", "tags: a dict such as {'tenant': 'acme'}, got 'acme'"),
        ({"tenant": 3}, "tags: names and values are text, got 'tenant': 3"),
    ],
)
async def test_tags_that_are_none_are_refused_at_once(tags, sentence, clock):
    """By a view when it is made, as by a call."""
    ai, answers = client(clock=clock)
    with pytest.raises(InvalidInput, match=re.escape(sentence)):
        ai.with_options(tags=tags)
    with pytest.raises(InvalidInput, match=re.escape(sentence)):
        await ai.send(Chat(model="m", messages="hi"), tags=tags)
    assert answers.calls == []


async def test_closing_a_view_closes_nothing(clock):
    """Only the client that was built closes the stack; a closed client refuses calls, its views too."""
    ai, answers = client(clock=clock)
    async with ai.with_options(timeout=5) as view:
        await view.chat("m", "hi")
    assert not answers.provider.closed
    async with ai:
        pass
    assert answers.provider.closed
    for closed in (ai, view):
        with pytest.raises(ClientClosed):
            await closed.chat("m", "hi")


async def test_events_are_heard_through_every_view(clock):
    """A subscription at the client hears the calls of its views, until it ends."""
    ai, _ = client(clock=clock)
    heard = []
    stop = ai.with_options(timeout=5).subscribe(heard.append)
    await ai.chat("m", "hi")
    stop()
    await ai.chat("m", "hi")
    assert [type(event) for event in heard] == [SendStarted]


async def test_wrong_input_is_found_before_anything_is_sent(clock):
    """A mistake of the caller never reaches the stack."""
    ai, answers = client(clock=clock)
    with pytest.raises(InvalidInput):
        await ai.chat("m", "", temperature=3)
    assert answers.calls == []


async def test_the_default_stack_is_described(tmp_path):
    """Without a stack of one's own there is the default one, with the ledger of the settings' folder."""
    async with AsyncClient("k", settings=Settings(home=tmp_path, timeout=7, attempts=2)) as ai:
        lines = {layer.name: layer.settings for layer in ai.describe()}
        assert list(lines)[:5] == ["Tracing", "Metrics", "Logging", "Deadline", "Coalesce"]
        assert list(lines)[-1] == "DeepInfraProvider"
        assert lines["Deadline"] == "total=7.0"
        assert lines["Retry"].startswith("attempts=2")
        assert (await ai.ledger.total()).sends == 0
    assert json.dumps(lines)


def test_a_stack_of_one_s_own_has_its_own_ledger():
    """Where the stack keeps no book, asking for it says so."""
    with pytest.raises(ConfigurationError, match="no CostAccounting with a ledger that can be asked"):
        _ = client()[0].ledger


class MyLedger:
    """A ledger of one's own that can be asked one thing."""

    def opened(self, row):
        """Keep nothing."""

    def closed(self, row):
        """Keep nothing."""

    async def total(self, *, since=None, until=None, tags=None):
        return tags

    async def aclose(self):
        """Nothing is open."""

    by = sends = calls = saved = scan = total


async def test_any_ledger_that_can_be_asked_is_one():
    """It need not be of a class that is known here."""
    ledger = MyLedger()
    async with AsyncClient("k", stack=[CostAccounting(ledger)]) as ai:
        assert ai.ledger is ledger
        assert await ai.costs.total(tenant="a") == {"tenant": "a"}


# Resilience, as a caller sees it


def refusing(status=200):
    """A transport that counts its requests and answers them."""
    seen = []

    def handle(request):
        seen.append(request)
        return httpx.Response(status, json=REPLY)

    return httpx.MockTransport(handle), seen


async def test_the_priority_of_a_call_is_the_nearest_one(clock):
    """Interactive, unless the view or the call says otherwise."""
    ai, answers = client(clock=clock)
    view = ai.with_options(priority="batch")
    for sender, options in (
        (ai, {}),
        (view, {}),
        (view.with_options(timeout=5), {}),
        (view, {"priority": "interactive"}),
        (ai, {"priority": "batch"}),
    ):
        await sender.send(Chat(model="m", messages="hi"), **options)
    assert [call.priority for call in answers.calls] == ["interactive", "batch", "batch", "interactive", "batch"]


async def test_a_misspelled_priority_is_refused(clock):
    """It is named, and nothing is sent, whichever way it was given."""
    ai, answers = client(clock=clock)
    for send in (
        lambda: ai.send(Chat(model="m", messages="hi"), priority="low"),
        lambda: ai.with_options(priority="low").chat("m", "hi"),
    ):
        with pytest.raises(InvalidInput, match="priority: 'interactive' or 'batch', got 'low'") as caught:
            await send()
        assert (caught.value.field, caught.value.value) == ("priority", "low")
    assert answers.calls == []


async def test_health_shows_what_was_used(clock):
    """Nothing before the first call; then a breaker, a limit, a rate and a budget of its model."""
    stack = [Retry(), CircuitBreaker(), RateLimit(requests=60), ConcurrencyLimit()]
    provider = ScriptedProvider(ServerFailed("boom", status=500))
    ai = AsyncClient(stack=stack, provider=provider, clock=clock)
    assert (ai.health().ok, str(ai.health())) == (True, "")
    await ai.chat("m", "hi")
    health = ai.with_options(tags={"tenant": "a"}).health()
    assert (health.breakers[0].failures, health.breakers[0].throughput, health.ok) == (1, 2, True)
    assert (health.limits[0].in_use, health.rates[0].unit) == (0, "requests")
    assert 99 < health.send_budgets[0].left < 100
    assert [line.split()[:2] for line in str(health).splitlines()] == [
        ["breaker", "m"],
        ["limit", "m"],
        ["rate", "m"],
        ["retries", "m"],
    ]


async def test_the_worst_case_is_told_for_any_number_of_models(tmp_path):
    """Three tries of one model, six of two and of three, and one of each beyond that."""
    async with AsyncClient("k", settings=Settings(home=tmp_path, timeout=7)) as ai:
        told = [ai.describe(models=models).worst_case for models in (1, 2, 3, 8)]
        assert [(case.sends, case.seconds) for case in told] == [(3, 7), (6, 7), (6, 7), (8, 7)]
        assert str(ai.describe(models=2)).endswith("worst case of a call to 2 models: 6 requests, 7 s")
        for models in (0, -1):
            with pytest.raises(InvalidInput, match=f"models: must be >= 1, got {models}"):
                ai.describe(models=models)


async def test_a_middleware_is_found_by_its_class(clock):
    """The outermost of its class, through views too; what is not there is named."""
    outer, inner = CircuitBreaker(consecutive_failures=3), CircuitBreaker()
    provider = ScriptedProvider()
    ai = AsyncClient(stack=[Retry(), outer, inner], provider=provider, clock=clock)
    found = ai.with_options(tags={"tenant": "a"}).middleware(CircuitBreaker)
    assert found is outer
    found.isolate("m")
    with pytest.raises(CircuitOpen):
        await ai.chat("m", "hi")
    assert provider.calls == []
    assert not ai.health().ok
    found.reset("m")
    assert (await ai.chat("m", "hi")).text == "Hello."
    with pytest.raises(ConfigurationError, match="the stack of this client has no Routing"):
        ai.middleware(Routing)


@pytest.mark.parametrize("how", ["restart", "continue"])
async def test_a_stream_cannot_be_repaired_without_resume(how):
    """It is refused before anything is sent, rather than found out where it breaks."""
    http, seen = refusing()
    async with AsyncClient(api_key="k", stack=[], http=http) as ai:
        with pytest.raises(InvalidInput, match=f"on_interrupt: '{how}' needs Resume in the stack") as caught:
            async with ai.stream("m", "hi", on_interrupt=how):
                pass
    assert (caught.value.field, seen) == ("on_interrupt", [])


async def test_a_list_of_models_needs_routing():
    """It is refused before anything is sent."""
    http, seen = refusing()
    async with AsyncClient(api_key="k", stack=[], http=http) as ai:
        with pytest.raises(InvalidInput, match="a list of models needs Routing in the stack"):
            await ai.chat(["a", "b"], "hi")
    assert seen == []


async def test_an_answer_tells_who_could_not_serve_and_what_may_be_billed(clock):
    """The failures on the way are on the answer, not only in the log."""
    script = (ServerFailed("boom", status=500), AttemptTimeout(timer="attempt", elapsed=1.0, model="a"))
    stack = [Deadline(), Routing(), Retry(attempts=2), CostAccounting(), Timeout()]
    ai = AsyncClient(stack=stack, provider=ScriptedProvider(*script), clock=clock)
    answer = await ai.chat(["a", "b"], "hi")
    assert (answer.served_by, answer.attempts, answer.maybe_billed) == ("b", 3, 1)
    assert list(answer.refused) == ["a"]
    assert answer.refused["a"].startswith("AttemptTimeout: ")
    plain = await ai.chat(["a", "b"], "hi")
    assert (plain.served_by, plain.attempts, plain.maybe_billed, dict(plain.refused)) == ("a", 1, 0, {})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"priority": "low"}, "priority: 'interactive' or 'batch', got 'low'"),
        ({"timeout": -1}, "timeout: must be a positive number of seconds, got -1"),
        ({"cache": "maybe"}, r"cache: must be one of .* or a CacheControl, got 'maybe'"),
    ],
)
async def test_a_view_is_checked_when_it_is_made(options, sentence):
    """Not by the first call that somebody makes with it."""
    ai = AsyncClient(stack=[Deadline()], provider=ScriptedProvider())
    with pytest.raises(InvalidInput, match=sentence):
        ai.with_options(**options)


async def test_a_priority_in_the_wrong_place_is_told_where_to_go():
    """It is an option of the call and not of the operation."""
    with pytest.raises(InvalidInput, match=r"use with_options\(priority=...\)"):
        await AsyncClient(stack=[], provider=ScriptedProvider()).chat("m", "hi", priority="batch")


async def test_what_is_explained_is_the_call_that_would_be_sent(clock):
    """With the priority and the timeout of the client, by which a limit may take it or not."""
    asked = []

    class Limit:
        def stands_against(self, call):
            asked.append((call.priority, call.timeout, dict(call.tags)))

        async def __call__(self, call, proceed):
            return await proceed(call)

    stack = [Deadline(), Routing(models=["a", "b"], prefer="cheapest"), Limit()]
    async with AsyncClient(provider=ScriptedProvider(), stack=stack, clock=clock) as ai:
        view = ai.with_options(priority="batch", timeout=5.0, tags={"tenant": "a"})
        view.explain(Chat(model="auto", messages="hi"))
    assert asked == [("batch", 5.0, {"tenant": "a"})] * 2


def test_building_a_client_reads_no_list_of_models(tmp_path):
    """It is read when a price or an ability is asked for; before that a process that has no need of it pays nothing."""
    program = (
        "import sys; opened = []; sys.addaudithook(lambda name, given: opened.append(str(given[0])) if name == 'open' else None)\n"
        "from resilient_ai import AsyncClient\n"
        "ai = AsyncClient('k')\n"
        "read = [path for path in opened if path.endswith(('models.json', '.json'))]\n"
        "print(len(opened) > 0, read, len(list(ai.catalogue)) > 300, any(path.endswith('models.json') for path in opened))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "RESILIENT_AI_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["True", "[]", "True", "True"]


def listened(*script, clock):
    return AsyncClient(provider=ScriptedProvider(*script), stack=[], clock=clock)


class Awaited:
    async def __call__(self, event):
        """Nobody awaits it."""


class TestOn:
    """`ai.on`."""

    async def test_events_of_one_class_in_order(self, clock):
        """Whoever asked first is told first, of that class alone, and of nothing more once it has ended that."""
        told = []
        async with listened(chat_result("a"), chat_result("b"), clock=clock) as ai:
            stop = ai.on(SendStarted, lambda event: told.append(("first", event.number)))
            ai.on(SendStarted, lambda event: told.append(("second", event.number)))
            ai.on(Event, lambda event: told.append(("all", type(event).__name__)))
            ai.on(BatchDone, lambda event: told.append(("never", event)))
            await ai.chat("m", "hi")
            assert told == [("first", 1), ("second", 1), ("all", "SendStarted")]
            stop()
            await ai.with_options(tags={"tenant": "a"}).chat("m", "hi")
            assert told[3:] == [("second", 1), ("all", "SendStarted")]

    async def test_a_callback_may_end_its_own_subscription(self, clock):
        """It hears nothing more, of the call that is under way either; of two subscriptions of one callback the other goes on."""
        told = []

        def once(event):
            told.append(type(event).__name__)
            stop()

        async with listened(chat_result("a"), chat_result("b"), clock=clock) as ai:
            stop = ai.on(Event, once)
            ends = [ai.on(Event, told.append) for _ in range(2)]
            ends[0]()
            await ai.send(Chat(model="m", messages="hi"))
            await ai.chat("m", "ho")
        assert told[0] == "SendStarted"
        assert [type(event).__name__ for event in told[1:]] == ["SendStarted"] * 2

    async def test_a_callback_that_raises_breaks_nothing(self, clock, caplog):
        """Neither the call nor the next callback; the log names it without what it said."""
        told = []

        def broken(event):
            raise KeyError("secret")

        async with listened(chat_result("a"), clock=clock) as ai:
            ai.on(SendStarted, broken)
            ai.on(SendStarted, told.append)
            assert (await ai.chat("m", "hi")).text == "a"
        assert len(told) == 1
        assert "KeyError" in caplog.text
        assert "secret" not in caplog.text

    @pytest.mark.parametrize(
        ("kind", "callback", "sentence"),
        [
            ("CircuitOpened", print, "kind: a class of events such as CircuitOpened, got 'CircuitOpened'"),
            (int, print, "kind: a class of events"),
            (SendStarted, "print", "callback: a plain function, got 'print'"),
            (SendStarted, asyncio.sleep, "callback: a plain function, got an async one, <function sleep"),
            (SendStarted, Awaited(), "callback: a plain function, got an async one, <tests.test_client.Awaited"),
        ],
    )
    async def test_what_cannot_be_told(self, kind, callback, sentence, clock):
        """It is said at once, and not at the first event."""
        async with listened(clock=clock) as ai:
            with pytest.raises(ConfigurationError, match=re.escape(sentence)):
                ai.on(kind, callback)
