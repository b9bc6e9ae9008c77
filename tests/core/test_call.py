"""One trip of an operation: the call, its record, and the middleware that know operations."""

import asyncio
import dataclasses
import logging
import multiprocessing
import os
import threading
from decimal import Decimal
from unittest.mock import MagicMock

import pytest

from resilient_ai.core import events
from resilient_ai.core.call import Call, CallRecord, OperationMiddleware, new_id
from resilient_ai.core.errors import ConnectionFailed, ServerFailed
from resilient_ai.core.events import Event, SendSettled, SendStarted
from resilient_ai.core.ledger import SendClosed, SendOpened
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Cost
from resilient_ai.testing import ManualClock, ScriptedProvider, chat_result

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")


def call(**fields):
    return Call(CHAT, ManualClock(), **fields)


def test_names_are_unique_over_threads():
    """Eight threads never get the same name."""
    names = []
    threads = [threading.Thread(target=lambda: names.extend(new_id() for _ in range(500))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 8 * 500
    assert {len(name) for name in names} == {18}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_names_are_unique_over_forks():
    """A child that was forked gives out other names than its parent."""

    def child(end):
        end.send([new_id() for _ in range(50)])

    near, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(far,))
    process.start()
    theirs = near.recv()
    process.join()
    near.close()
    far.close()
    assert not set(theirs) & {new_id() for _ in range(50)}


def test_replace_changes_a_copy():
    """The copy has the changes, the original has not, and both share the record."""
    one = call(tags={"tenant": "a"}, deadline=5.0)
    two = one.replace(attempt=2, operation=CHAT.on("n"))
    assert (one.attempt, two.attempt, one.model, two.model) == (1, 2, "m", "n")
    assert (two.id, two.tags, two.deadline) == (one.id, one.tags, one.deadline)
    assert two.record is one.record
    with pytest.raises(TypeError, match=r"a call has no field \['attempts'\]"):
        one.replace(attempts=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.attempt = 3


def test_the_remaining_time_is_never_negative():
    """It counts down to the deadline, stops at 0, and is None without one."""
    one = call(deadline=1_010.0)
    assert (one.remaining(), call().remaining()) == (10.0, None)
    one.clock.now += 30
    assert one.remaining() == 0.0


@pytest.mark.parametrize("fault", [LookupError, asyncio.CancelledError])
def test_a_listener_that_raises_changes_nothing(caplog, fault):
    """The others are told, and the fault is logged by name without its text; that nobody cancels a call in this way."""
    told = []

    def broken(event):
        raise fault("secret")

    with caplog.at_level(logging.WARNING, logger="resilient_ai"):
        call(listeners=(broken, told.append)).emit(event := Event(call_id="c", model="m"))
    assert told == [event]
    assert [record.getMessage() for record in caplog.records] == [f"a listener of Event raised {fault.__name__}"]


def test_sends_are_counted_and_told():
    """Each request is numbered from 1 over all copies of a call; without listeners it is only counted."""
    told = []
    one = call(listeners=(told.append,))
    one.send_started()
    one.replace(operation=CHAT.on("n"), attempt=2).send_started()
    one.replace(listeners=()).send_started()
    assert told == [SendStarted(call_id=one.id, model=model, number=number) for model, number in (("m", 1), ("n", 2))]
    assert one.record.sends == 3


class Choosy:
    """A listener that wants events of one class alone."""

    hears = frozenset({SendSettled})

    def __init__(self):
        self.told = []

    def __call__(self, event):
        self.told.append(event)


def test_what_nobody_listens_for_is_not_told():
    """A listener may say what it wants; one that says nothing wants everything."""
    choosy = Choosy()
    one = call(listeners=(choosy,))
    assert (one.is_heard(SendStarted), one.is_heard(SendSettled), call().is_heard(SendSettled)) == (False, True, False)
    one.send_started()
    assert (choosy.told, one.record.sends) == ([], 1)
    told = []
    both = call(listeners=(choosy, told.append))
    assert both.is_heard(SendStarted)
    both.send_started()
    assert (choosy.told, len(told)) == ([], 1)


class Odd:
    """A listener whose attribute of that name means something else."""

    def __init__(self):
        self.told = []

    def __call__(self, event):
        self.told.append(event)


class Method(Odd):
    def hears(self, kind):
        raise AssertionError


class Broken(Odd):
    @property
    def hears(self):
        raise RuntimeError


class Anything(Odd):
    hears = MagicMock()


@pytest.mark.parametrize("kind", [Method, Broken, Anything])
def test_an_attribute_that_is_no_set_says_nothing(kind):
    """Such a listener is told of everything."""
    odd = kind()
    one = call(listeners=(odd,))
    one.send_started()
    one.emit(Event(call_id="c", model="m"))
    assert len(odd.told) == 2


def cost(*entries, cache="off"):
    return CallRecord(cache=cache, costs=list(entries)).cost()


def test_the_cost_of_a_call_is_that_of_its_sends():
    """Known costs add up, waste is told apart, and unknown is never zero."""
    one, two = Decimal("0.1"), Decimal("0.02")
    assert cost() is None
    assert cost((None, "provider", True)) is None
    assert cost((one, "provider", False), (None, "provider", True)) is None
    assert cost((None, "provider", False)) is None
    assert cost((one, "provider", True)) == Cost(amount=one, source="provider")
    assert cost((one, "provider", False), (two, "table", True)) == Cost(
        amount=Decimal("0.12"), wasted=one, source="mixed"
    )
    assert cost((None, "provider", False), (two, "table", True)) == Cost(amount=two, source="table", complete=False)
    assert cost((two, "estimate", True)) == Cost(amount=two, source="estimate")
    assert cost((two, "estimate", False), (one, "table", True)).source == "mixed"


def test_a_hit_costs_nothing():
    """An answer from the cache costs 0, unless something was sent as well."""
    assert cost(cache="hit") == Cost(amount=Decimal(0), source="cache")
    assert cost((Decimal(1), "provider", True), cache="hit") == Cost(amount=Decimal(1), source="provider")


def test_the_stamp_tells_the_facts_of_the_call():
    """Attempts, cache and cost are put on the result; a cost nobody accounted for is left as it came."""
    own = Cost(amount=Decimal(3), source="provider")
    plain = CallRecord(sends=2, cache="miss").stamp(chat_result(cost=own))
    assert (plain.attempts, plain.cache, plain.cost) == (2, "miss", own)
    assert CallRecord().stamp(chat_result(served_by="kept")).served_by == "kept"
    assert CallRecord(costs=[(None, "provider", True)]).stamp(chat_result(cost=own)).cost is None
    sent = [(Decimal(1), "table", False), (Decimal(3), "provider", True)]
    assert CallRecord(costs=sent[1:]).stamp(chat_result(cost=own)).cost is own
    assert CallRecord(costs=sent).stamp(chat_result(cost=own)).cost == Cost(
        amount=Decimal(4), wasted=Decimal(1), source="mixed"
    )
    partial = own.model_copy(update={"complete": False})
    assert CallRecord(costs=sent[1:]).stamp(chat_result(cost=partial)).cost == own
    assert CallRecord(cache="hit").stamp(chat_result()).cost == Cost(amount=Decimal(0), source="cache")


OPERATIONS = [
    CHAT,
    Stream(model="m", messages="hi"),
    Complete(model="m", prompt="hi"),
    Embed(model="m", texts="hi"),
    Image(model="m", prompt="hi"),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.kind)
async def test_operations_pass_a_middleware_that_is_not_about_them(operation, clock):
    """What a middleware does not override goes through unchanged."""
    provider = ScriptedProvider(answer := object())
    assert await Pipeline(provider, [OperationMiddleware()], clock=clock).send(operation) is answer
    assert [one.operation for one in provider.calls] == [operation]


@pytest.mark.parametrize("kind", [operation.kind for operation in OPERATIONS])
async def test_a_middleware_may_be_about_one_operation(kind, clock):
    """An overridden method sees the calls of its kind alone."""
    seen = []

    async def handle(self, call, proceed):
        seen.append(call.operation.kind)
        return await proceed(call)

    middleware = type("Curious", (OperationMiddleware,), {kind: handle})()
    pipe = Pipeline(ScriptedProvider(*[object()] * len(OPERATIONS)), [middleware], clock=clock)
    for operation in OPERATIONS:
        await pipe.send(operation)
    assert seen == [kind]


@pytest.mark.parametrize(
    "cls",
    [cls for cls in vars(events).values() if isinstance(cls, type) and issubclass(cls, Event)],
    ids=lambda cls: cls.__name__,
)
def test_facts_are_frozen(cls):
    """A fact that listeners are told of cannot be changed."""
    fields = dataclasses.fields(cls)
    fact = cls(**{field.name: None for field in fields})
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(fact, fields[0].name, 1)


EVENTS = [cls for cls in vars(events).values() if isinstance(cls, type) and issubclass(cls, Event)]


@pytest.mark.parametrize("cls", EVENTS, ids=lambda cls: cls.__name__)
def test_facts_are_said_by_name(cls):
    """They take their fields by keyword only."""
    with pytest.raises(TypeError):
        cls(*[None] * len(dataclasses.fields(cls)))


@pytest.mark.parametrize("cls", [SendOpened, SendClosed, *EVENTS], ids=lambda cls: cls.__name__)
def test_facts_and_rows_have_no_room_for_more(cls):
    """Two rows and several facts are made for every send."""
    fact = cls(**{field.name: None for field in dataclasses.fields(cls)})
    assert not hasattr(fact, "__dict__")
    assert cls.__doc__


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        (ConnectionFailed("no", phase="connect"), False, False),
        (ServerFailed("no", status=500), True, True),
        (asyncio.CancelledError(), False, True),
        (LookupError("ours"), False, True),
    ],
    ids=lambda given: type(given).__name__,
)
def test_whether_a_request_that_failed_may_be_billed(error, before, after):
    """Errors of the service know it; of all others it is so where bytes have left since."""
    one = call()
    since = one.departed.count
    assert one.may_have_left(error, since) is before
    one.send_started()
    assert one.may_have_left(error, since) is after
    assert one.may_have_left(error, one.departed.count) is before
