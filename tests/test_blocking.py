"""The blocking client and its event loop in the background."""

import asyncio
import contextvars
import gc
import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import BaseModel

from resilient_ai.blocking import Client, Portal
from resilient_ai.blocking_views import BlockingLedger
from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.errors import (
    CircuitOpen,
    ClientClosed,
    ConfigurationError,
    InvalidInput,
    ServerFailed,
    StreamInterrupted,
    StreamMisused,
)
from resilient_ai.core.events import SendStarted
from resilient_ai.core.ledger import CostBook
from resilient_ai.core.messages import ToolCall
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.core.results import Choice
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import CircuitBreaker, ConcurrencyLimit, CostAccounting, Deadline, Retry, Routing
from resilient_ai.stores import SQLiteLedger
from resilient_ai.testing import PIXEL, ScriptedProvider, ScriptedSource, chat_result, vector_of

DONE = [Finished(("stop",))]


class Answers:
    """A stack of one that answers every call from a script."""

    def __init__(self, *script, closing=None):
        self.provider = ScriptedProvider(*script)
        self.closing = closing

    async def __call__(self, call, proceed):
        return await self.provider(call)

    async def aclose(self):
        await self.provider.aclose()
        if self.closing:
            raise self.closing

    @property
    def calls(self):
        return self.provider.calls


@pytest.fixture
def portal():
    made = Portal()
    yield made
    made.close()


@pytest.fixture
def scripted():
    clients = []

    def make(*script):
        answers = Answers(*script)
        clients.append(Client("k", stack=[Deadline(), answers]))
        return clients[-1], answers

    yield make
    for client in clients:
        client.close()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "resilient-ai-client"]


async def echo(value):
    await asyncio.sleep(0.001)
    return value


# The portal


def test_sixty_four_threads_at_once(portal):
    """All of them get their own answer from one loop."""
    ready = threading.Barrier(64)

    def ask(number):
        ready.wait()
        return portal.run(echo, number)

    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(ask, range(64))) == list(range(64))
    assert len(threads()) == 1


def test_it_works_inside_of_a_running_loop(portal):
    """A notebook or a web handler may call it while its own loop is running."""

    async def main():
        return portal.run(echo, 5)

    assert asyncio.run(main()) == 5


def test_errors_reach_the_caller(portal):
    """What the coroutine raises is raised here, and the loop lives on."""

    async def broken():
        raise LookupError("x")

    with pytest.raises(LookupError):
        portal.run(broken)
    assert portal.run(echo, 5) == 5


def test_context_variables_reach_the_coroutine(portal):
    """The context of the calling thread, and so its trace, is that of the coroutine."""
    user = contextvars.ContextVar("user")
    user.set("eva")

    async def who():
        return user.get()

    assert portal.run(who) == "eva"


def test_waiting_in_its_own_thread_is_refused(portal):
    """A callback of the loop that asked the loop to wait for it would wait for ever."""

    async def inner():
        return portal.run(echo, 5)

    with pytest.raises(RuntimeError, match="event loop thread"):
        portal.run(inner)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="Windows has no signals for threads")
@pytest.mark.parametrize("pause", [0.0, 0.02])
def test_ctrl_c_cancels_what_is_waited_for(portal, pause):
    """An interrupt is raised at once and ends the coroutine, also when it comes just as the waiting begins."""
    main = threading.main_thread().ident

    async def forever():
        waiting.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    def interrupt():
        waiting.wait(5)
        time.sleep(pause)
        signal.pthread_kill(main, signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for _ in range(10):
            waiting, cancelled = threading.Event(), threading.Event()
            helper = threading.Thread(target=interrupt)
            helper.start()
            with pytest.raises(KeyboardInterrupt):
                portal.run(forever)
            helper.join()
            assert cancelled.wait(5)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert portal.run(echo, 5) == 5


def test_closing_ends_the_thread():
    """No thread is left, closing again does nothing, and closing what never ran does nothing either."""
    portal = Portal()
    portal.close()
    assert portal.run(echo, 5) == 5
    portal.close()
    portal.close()
    assert threads() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_child_has_a_loop_of_its_own(portal):
    """The child answers although its parent's thread is not there, even with the parent's lock held, and may close."""

    def child(end):
        end.send(portal.run(echo, os.getpid()))
        portal.close()
        end.send("closed")

    assert portal.run(echo, 1) == 1
    near, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(far,))
    with portal._slots[os.getpid()].lock:
        process.start()
    try:
        assert near.poll(10)
        assert (near.recv(), near.recv()) == (process.pid, "closed")
    finally:
        process.kill()
        process.join()
        near.close()
        far.close()
    assert portal.run(echo, 2) == 2


def test_a_program_that_forgets_to_close_ends():
    """The thread in the background keeps no interpreter from ending."""
    program = "from resilient_ai.blocking import Portal\nimport asyncio\nPortal().run(asyncio.sleep, 0)\nprint('end')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("end\n", "")


# The client


def test_each_method_sends_its_operation(scripted):
    """Models, content and options reach the operation, and the result comes back."""
    ai, answers = scripted()
    assert ai.chat(["a", "b"], "hi", temperature=0).text == "Hello."
    with ai.stream("m", "hi", max_tokens=5) as stream:
        assert stream.result().text == "Hello."
    assert ai.complete("m", "Once", echo=True).text == "Hello."
    assert list(ai.embed("m", ["a", "b"]).vectors) == [vector_of("a"), vector_of("b")]
    assert [image.data for image in ai.image("m", "a boat", n=2).images] == [PIXEL] * 2
    assert [call.operation.kind for call in answers.calls] == ["chat", "stream", "complete", "embed", "image"]
    assert (answers.calls[0].operation.models, answers.calls[1].operation.max_tokens) == (("a", "b"), 5)


class Port(BaseModel):
    name: str


def test_types_and_tools(scripted):
    """Answers are read into types and functions are called as by the asynchronous client."""

    def tides() -> str:
        return "high"

    asking = chat_result(choices=(Choice(tool_calls=(ToolCall(id="1", name="tides"),)),))
    ai, _ = scripted(chat_result('{"name": "Kiel"}'), asking, chat_result("At noon."))
    assert ai.chat("m", "Which port?", output=Port).output == Port(name="Kiel")
    run = ai.run_tools("m", "When?", tools=[tides], max_rounds=2)
    assert (run.answer.text, run.steps[0].output) == ("At noon.", "high")


def test_errors_and_options_pass(scripted):
    """An error is the same one, and what `send` is given reaches the call."""
    error, heard = ServerFailed("boom", status=500), []
    ai, answers = scripted(error)
    with pytest.raises(ServerFailed) as caught:
        ai.chat("m", "hi")
    assert caught.value is error
    ai.send(Chat(model="m", messages="hi"), tags={"user": "u"}, timeout=5, cache="off", listener=heard.append)
    call = answers.calls[-1]
    assert (dict(call.tags), call.timeout, call.cache.mode) == ({"user": "u"}, 5, "off")
    assert [type(event) for event in heard] == [SendStarted]


def test_views_share_the_loop(scripted):
    """A view has other defaults and the same stack; closing it closes nothing."""
    ai, answers = scripted()
    heard = []
    stop = ai.on(SendStarted, heard.append)
    with ai.with_options(tags={"user": "u"}, timeout=5, cache="off") as view:
        view.chat("m", "hi")
    stop()
    ai.chat("m", "hi")
    assert [(dict(call.tags), call.timeout) for call in answers.calls] == [({"user": "u"}, 5), ({}, None)]
    assert (len(heard), answers.provider.closed, len(threads())) == (1, False, 1)
    assert view.describe() == ai.describe()


def test_closing_closes_the_stack_and_the_thread():
    """A closed client refuses calls, and closing it again does nothing."""
    answers = Answers()
    with Client("k", stack=[answers]) as ai:
        ai.chat("m", "hi")
    ai.close()
    assert (answers.provider.closed, threads()) == (True, [])
    with pytest.raises(ClientClosed):
        ai.chat("m", "hi")
    ai.close()
    assert threads() == []


def test_a_stack_that_fails_to_close_leaves_no_thread():
    """The failure is raised, and the thread has ended all the same."""
    ai = Client("k", stack=[Answers(closing=OSError("full"))])
    with pytest.raises(OSError, match="full"):
        ai.close()
    assert threads() == []


def test_repr_shows_the_address_alone():
    """No key in logs."""
    assert repr(Client("secret", stack=[])) == "Client(base_url='https://api.deepinfra.com/v1')"


def test_the_book_of_costs_is_read_without_await():
    """Sums, rows and single sends come from the ledger of the stack."""
    with Client("k", stack=[CostAccounting(SQLiteLedger(":memory:")), Answers()]) as ai:
        ai.chat("m", "hi")
        ledger = ai.ledger
        ledger.flush()
        assert ledger.total().sends == 1
        assert [row.key for row in ledger.by("model")] == [("m",)]
        assert [send.model for send in ledger.sends(limit=5)] == ["m"]
        assert [(call.models, call.sends) for call in ledger.calls()] == [(("m",), 1)]
        assert ledger.saved().calls == 0
        others = {"tags": {"tenant": "none"}}
        assert (ledger.total(**others).sends, ledger.by("model", **others), ledger.sends(**others)) == (0, [], [])
        assert (ledger.calls(**others), ledger.saved(**others).hits) == ([], 0)
        assert repr(ledger).startswith("BlockingLedger(SQLiteLedger(")


@pytest.mark.parametrize("name", ["total", "by", "sends", "calls", "saved"])
def test_the_book_is_asked_as_any_other(name):
    """The questions take what those of a ledger take."""
    asked = [inspect.signature(getattr(kind, name)).parameters.values() for kind in (BlockingLedger, CostBook)]
    ours, theirs = ([(each.name, each.kind, each.default) for each in parameters] for parameters in asked)
    assert ours == theirs


# Streams


def streaming(*script):
    return StreamResult(ScriptedSource(script), model="m", first=[TextDelta("Hel")])


def test_events_come_one_by_one_and_none_twice(scripted):
    """Breaking off and going on loses no event, and a stream that has been read is not read again."""
    ai, _ = scripted(streaming([TextDelta("l"), TextDelta("o")], DONE))
    stream = ai.stream("m", "hi")
    seen = []
    for _ in range(2):
        for event in stream:
            seen.append(event)
            if len(seen) == 2:
                break
    assert seen == [TextDelta("Hel"), TextDelta("l"), TextDelta("o"), *DONE]
    assert (stream.result().text, stream.ended) == ("Hello", "completed")
    with pytest.raises(StreamMisused):
        next(iter(stream))


def test_leaving_a_stream_closes_it(scripted):
    """The block frees the connection however it is left."""
    ai, _ = scripted(result := streaming(DONE))
    with pytest.raises(LookupError), ai.send(Stream(model="m", messages="hi")) as stream:
        raise LookupError
    assert (stream.ended, result.ended) == ("closed", "closed")
    assert repr(stream) == "BlockingStream(model='m', ended='closed')"
    with pytest.raises(StreamMisused):
        stream.result()


def test_a_break_is_raised_where_it_is_read(scripted):
    """A stream that breaks raises with what had arrived."""
    ai, _ = scripted(streaming([TextDelta("lo")]))
    with ai.stream("m", "hi") as stream, pytest.raises(StreamInterrupted) as caught:
        list(stream)
    assert caught.value.partial.text == "Hello"


def test_a_dropped_stream_is_let_go(scripted):
    """A stream that nobody closes ends when its last name goes."""
    ai, answers = scripted(result := streaming(DONE))
    ends = []
    result.on_end(lambda end: ends.append(end.how))
    stream = ai.stream("m", "hi")
    answers.calls.clear()
    del result, stream
    deadline = time.monotonic() + 5
    while not ends and time.monotonic() < deadline:
        gc.collect()
    assert ends == ["abandoned"]


# Resilience, as a caller sees it


@pytest.fixture
def routed():
    """A client with the parts that know something, before a model "a" that is down and others that answer."""

    async def answer(call):
        if call.model == "a":
            raise ServerFailed("boom", status=500)
        return chat_result()

    answers = Answers(*[answer] * 20)
    stack = [Deadline(), Routing(), Retry(attempts=1), CircuitBreaker(), ConcurrencyLimit(), CostAccounting(), answers]
    with Client("k", stack=stack) as ai:
        yield ai, answers


def test_the_priority_of_a_call(scripted):
    """It is that of the view unless the call says otherwise, and a misspelled one is refused before anything is sent."""
    ai, answers = scripted()
    view = ai.with_options(priority="batch")
    view.chat("m", "hi")
    view.send(Chat(model="m", messages="hi"), priority="interactive")
    ai.send(Chat(model="m", messages="hi"), priority="batch")
    assert [call.priority for call in answers.calls] == ["batch", "interactive", "batch"]
    for send in (
        lambda: ai.send(Chat(model="m", messages="hi"), priority="low"),
        lambda: ai.with_options(priority="low").chat("m", "hi"),
    ):
        with pytest.raises(InvalidInput, match="priority: 'interactive' or 'batch', got 'low'"):
            send()
    assert len(answers.calls) == 3


def test_health_and_refusals(routed):
    """What the parts know is read from any thread, and the answer tells who could not serve."""
    ai, _ = routed
    assert str(ai.health()) == ""
    answer = ai.chat(["a", "b"], "hi")
    assert (answer.served_by, list(answer.refused), answer.maybe_billed) == ("b", ["a"], 0)
    breakers = {state.key[1]: state.failures for state in ai.health().breakers}
    assert breakers == {"a": 1, "b": 0}
    assert ai.health().limits[0].in_use == 0


def test_a_middleware_is_found_by_its_class(routed):
    """Its methods act on the calls of the client; what is not there is named."""
    ai, answers = routed
    ai.with_options(timeout=5).middleware(CircuitBreaker).isolate("m")
    with pytest.raises(CircuitOpen):
        ai.chat("m", "hi")
    assert answers.calls == []
    ai.middleware(CircuitBreaker).reset()
    assert ai.chat("m", "hi").text == "Hello."
    with pytest.raises(ConfigurationError, match="the stack of this client has no SQLiteLedger"):
        ai.middleware(SQLiteLedger)


def test_the_worst_case_is_told(routed):
    """As the asynchronous client tells it; no models at all are refused."""
    ai, _ = routed
    assert [str(ai.describe(models=models).worst_case) for models in (1, 2)] == [
        "1 request, 600 s",
        "2 requests, 600 s",
    ]
    with pytest.raises(InvalidInput, match="models: must be >= 1, got 0"):
        ai.describe(models=0)


def test_a_stream_cannot_be_repaired_without_resume():
    """It is refused before a connection is made."""
    with Client("k", base_url="http://127.0.0.1:9/v1", stack=[]) as ai:
        for how in ("restart", "continue"):
            with pytest.raises(InvalidInput, match=f"on_interrupt: '{how}' needs Resume in the stack"):
                ai.stream("m", "hi", on_interrupt=how)
