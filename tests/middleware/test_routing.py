"""Routing: which model is asked next, and when none is."""

import asyncio
import contextlib
import gc
import math
import weakref

import pytest

from resilient_ai.core.errors import (
    AttemptTimeout,
    AuthenticationFailed,
    BadRequest,
    BudgetExceeded,
    BudgetUnavailable,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    ContextLengthExceeded,
    DeadlineExceeded,
    FeatureNotSupported,
    InsufficientBalance,
    InvalidInput,
    InvalidResponse,
    LimitReached,
    ModelNotFound,
    ModelUnfit,
    NoModelAvailable,
    PermissionDenied,
    RateLimited,
    RequestTooLarge,
    ServerFailed,
    StreamInterrupted,
)
from resilient_ai.core.events import ModelSkipped
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Stream
from resilient_ai.core.pipeline import Pipeline, WorstCase
from resilient_ai.core.results import EmbedResult
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware.circuit_breaker import CircuitBreaker
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Routing
from resilient_ai.testing import ScriptedProvider, stream_of

pytestmark = pytest.mark.anyio

LIST = Chat(model=["a", "b", "c"], messages="hi")


class Book:
    """Abilities of models as a test wants them."""

    def __init__(self, *, lacks=(), dimensions=()):
        self._lacks = dict(lacks)
        self._dimensions = dict(dimensions)

    def lacks(self, operation):
        return self._lacks.get(operation.model)

    def dimensions(self, operation):
        return self._dimensions.get(operation.model)


class Broken:
    """Abilities that cannot be asked."""

    def lacks(self, operation):
        raise RuntimeError

    def dimensions(self, operation):
        raise RuntimeError


def vectors(dimensions):
    """Return an answer of one vector of so many dimensions."""
    return EmbedResult(model="m", vectors=Vectors.pack([[0.5] * dimensions]))


def opens(**seconds):
    """Return a breaker whose circuits are open for these models, and the calls that reached it."""
    seen = []

    async def breaker(call, proceed):
        seen.append(call)
        if call.model in seconds:
            raise CircuitOpen(model=call.model, retry_after=seconds[call.model])
        return await proceed(call)

    return breaker, seen


async def send(clock, script, operation=LIST, *, inner=(), outer=(), listener=None, **options):
    """Send through a Routing; return the models that were asked and the outcome."""
    provider = ScriptedProvider(*script)
    pipeline = Pipeline(provider, [*outer, Routing(**options), *inner], clock=clock)
    try:
        outcome = await pipeline.send(operation, listener=listener)
    except Exception as error:  # noqa: BLE001 - the outcome is what the test is about
        outcome = error
    return [call.model for call in provider.calls], outcome


def test_defaults():
    """No models stand for "auto", nothing is known of models, and vectors of several models are not mixed."""
    assert repr(Routing()) == (
        "Routing(models=(), abilities=None, max_sends=6, embed_across_models=False, prefer=None, prices=None, "
        "explore=0.02, rules=(), pin=None)"
    )
    assert Routing(models=["a", "b"]) == Routing(models=("a", "b"))


@pytest.mark.parametrize(
    ("models", "sentence"),
    [(["a", "a"], "models must name each model once"), (["a", "auto"], "models must not name 'auto'")],
)
def test_senseless_options_are_refused(models, sentence):
    """Each model once, and "auto" does not stand for itself."""
    with pytest.raises(ValueError, match=sentence):
        Routing(models=models)


@pytest.mark.parametrize("sends", [0, -1, float("nan")])
def test_a_call_may_send_at_least_once(sends):
    """A ceiling below one request is refused."""
    with pytest.raises(ValueError, match="max_sends must be a whole number >= 1"):
        Routing(max_sends=sends)


def test_a_cache_stands_outside():
    """Inside of Routing the key would hold the model that happened to serve."""

    class Cache:
        async def __call__(self, call, proceed):
            return await proceed(call)

    with pytest.raises(ConfigurationError, match="Routing must stand after Cache"):
        Pipeline(ScriptedProvider(), [Routing(), Cache()])


async def test_one_model_passes_through_untouched(clock):
    """A call without fallbacks is not even copied, and its error stays its own."""
    operation = Chat(model="a", messages="hi")
    seen = []

    async def look(call, proceed):
        seen.append(call.operation)
        return await proceed(call)

    error = ServerFailed("boom", status=500)
    assert await send(clock, [error], operation, inner=[look]) == (["a"], error)
    assert seen[0] is operation


async def test_the_first_that_can_serve_serves(clock):
    """Models are asked in their order, and the result says who answered."""
    models, result = await send(clock, [ServerFailed("boom", status=500), ModelNotFound("gone", status=404)])
    assert (models, result.served_by, result.attempts) == (["a", "b", "c"], "c", 3)


async def test_what_a_model_gets_names_no_other(clock):
    """Below, an operation has one model and no fallbacks."""
    seen = []

    async def look(call, proceed):
        seen.append((call.operation.model, call.operation.fallbacks))
        return await proceed(call)

    await send(clock, [], inner=[look])
    assert seen == [("a", ())]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailed("reset", phase="receive"),
        AttemptTimeout(timer="first_token", elapsed=60.0),
        InvalidResponse("html"),
        RateLimited("busy", status=429),
        InvalidResponse("too long", retryable=False),
        ServerFailed("boom", status=500),
        ServerFailed("not here", status=501),
        ModelNotFound("gone", status=404),
        FeatureNotSupported("no tools", status=405),
        CircuitOpen(model="a", retry_after=2.0),
        LimitReached("full", limit=200),
        BudgetExceeded("spent", spent=1, limit=1),
    ],
)
async def test_where_another_model_may_do_better_it_is_asked(clock, error):
    """Passing failures, models that are gone, and our own refusals lead to the next model, which is told."""
    events = []
    models, result = await send(clock, [error], listener=events.append)
    assert (models, result.served_by) == (["a", "b"], "b")
    assert [(event.model, event.next_model, event.error) for event in events if isinstance(event, ModelSkipped)] == [
        ("a", "b", error)
    ]


async def test_a_model_the_key_may_not_use_is_passed_over(clock):
    """Permissions are about one model; another one may be allowed."""
    models, answer = await send(clock, [PermissionDenied("no", status=403)])
    assert (models, answer.served_by, list(answer.refused)) == (["a", "b"], "b", ["a"])


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("no", status=400),
        BadRequest("no", status=422),
        ContextLengthExceeded("long", status=400),
        RequestTooLarge("large", status=413),
        AuthenticationFailed("key", status=401),
        InsufficientBalance("money", status=402),
        ConnectionFailed("bad certificate", phase="tls", retryable=False),
        StreamInterrupted("broke", partial=None),
        DeadlineExceeded(timeout=1.0, elapsed=1.0, sent=True),
        BudgetUnavailable("no book", budget="all"),
        KeyError("bug"),
    ],
)
async def test_where_another_model_would_refuse_as_well_none_is_asked(clock, error):
    """Requests, keys, balance, deadline and bugs are the call's own; also after another model was skipped."""
    assert await send(clock, [error]) == (["a"], error)
    assert await send(clock, [ServerFailed("boom", status=500), error]) == (["a", "b"], error)


async def test_when_all_fail_the_error_names_each(clock):
    """The caller sees why every model could not serve, the last as the cause."""
    errors = [ServerFailed("boom", status=500), ModelNotFound("gone", status=404), RateLimited("busy", status=429)]
    events = []
    _, outcome = await send(clock, errors, listener=events.append)
    assert isinstance(outcome, NoModelAvailable)
    assert outcome.refused == dict(zip("abc", errors, strict=True))
    assert list(outcome.refused) == ["a", "b", "c"]
    assert outcome.__cause__ is errors[2]
    assert sum(isinstance(event, ModelSkipped) for event in events) == 2


def spent(retry_after=None):
    return BudgetExceeded("spent", spent=1, limit=1, retry_after=retry_after)


@pytest.mark.parametrize("lacks", [{}, {"c": "tools"}])
async def test_where_budgets_alone_refused_the_last_of_them_says_so(clock, lacks):
    """The caller sees a budget, whatever models that were passed over lack; the record names all."""
    errors = [spent() for _ in range(3 - len(lacks))]
    models, outcome = await send(clock, errors, abilities=Book(lacks=lacks))
    assert (models, outcome) == (list("abc")[: len(errors)], errors[-1])


@pytest.mark.parametrize("waits", [[None, 60.0, 30.0], [30.0, 60.0, None], [60.0, 30.0, None], [30.0, None, 60.0]])
async def test_where_budgets_alone_refused_the_soonest_wait_counts(clock, waits):
    """When the call may be sent again is no matter of the order of its models."""
    errors = [spent(wait) for wait in waits]
    models, outcome = await send(clock, errors)
    assert (models, outcome) == (["a", "b", "c"], errors[waits.index(30.0)])


async def test_where_a_budget_was_one_reason_of_several_all_are_named(clock):
    """A model that failed may serve later, which a budget alone does not say."""
    errors = [BOOM, spent(60.0), spent(60.0)]
    models, outcome = await send(clock, errors)
    assert (models, type(outcome), outcome.__cause__) == (["a", "b", "c"], NoModelAvailable, errors[-1])
    assert (outcome.refused, outcome.retry_after) == (dict(zip("abc", errors, strict=True)), 60.0)


async def test_a_budget_that_ends_among_batches_ends_the_call(clock):
    """What was embedded is paid, and another model would be paid for it once more."""
    error = spent()
    error.sent = True
    assert await send(clock, [error]) == (["a"], error)


async def test_the_error_of_a_budget_dies_with_its_call(clock):
    """No cycle keeps it, and with it the prompt, until the garbage collector comes."""
    errors = []

    async def fail(call):
        error = spent()
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    async def refused():
        try:
            await Pipeline(ScriptedProvider(*[fail] * 3), [Routing()], clock=clock).send(LIST)
        except BudgetExceeded:
            return len(errors)

    gc.disable()
    try:
        assert await refused() == 3
        assert [error() for error in errors] == [None] * 3
    finally:
        gc.enable()


async def test_auto_comes_first_or_not_at_all(clock):
    """Behind other models it would be asked as if it were one."""
    models, outcome = await send(clock, [], Chat(model=["a", "auto"], messages="hi"), models=["b"])
    assert (models, type(outcome), outcome.field) == ([], InvalidInput, "model")
    assert str(outcome) == "model: 'auto' stands for the models of the stack and comes first, got ['a', 'auto']"


async def test_auto_stands_for_the_models_of_the_stack(clock):
    """The caller who names no model gets the configured ones, and own fallbacks after them."""
    script = [ServerFailed("boom", status=500)] * 2
    models, result = await send(
        clock, script, Chat(model="auto", fallbacks=("c", "a"), messages="hi"), models=["a", "b"]
    )
    assert (models, result.served_by) == (["a", "b", "c"], "c")


async def test_auto_may_stand_for_one_model(clock):
    """With one configured model its error stays its own."""
    error = ServerFailed("boom", status=500)
    operation = Chat(model="auto", messages="hi")
    assert await send(clock, [error], operation, models=["a"]) == (["a"], error)
    models, result = await send(clock, [], operation, models=["a"])
    assert (models, result.served_by) == (["a"], "a")


async def test_auto_without_models_is_refused(clock):
    """The sentence says what is missing, and nothing is sent."""
    models, outcome = await send(clock, [], Chat(model="auto", messages="hi"))
    assert (models, type(outcome), outcome.field) == ([], InvalidInput, "model")


EMBED = Embed(model=["a", "b"], texts="x")


@pytest.mark.parametrize("operation", [EMBED, Embed(model="auto", texts="x")])
@pytest.mark.parametrize(
    ("abilities", "told"),
    [
        (None, "'a' gives unknown dimensions, 'b' gives unknown dimensions"),
        (Book(dimensions={"a": 4}), "'a' gives 4 dimensions, 'b' gives unknown dimensions"),
        (Book(dimensions={"a": 4, "b": 8}), "'a' gives 4 dimensions, 'b' gives 8 dimensions"),
    ],
)
async def test_vectors_of_several_models_are_not_mixed(clock, operation, abilities, told):
    """An Embed with fallbacks of another or an unknown length is refused before anything is sent, unless it was allowed."""
    options = {"models": ["a", "b"], "abilities": abilities}
    models, outcome = await send(clock, [], operation, **options)
    assert (models, type(outcome), outcome.field) == (
        [],
        InvalidInput,
        "model" if operation.model == "auto" else "fallbacks",
    )
    assert told in str(outcome)
    script = [ServerFailed("boom", status=500), vectors(8)]
    models, result = await send(clock, script, operation, embed_across_models=True, **options)
    assert (models, result.served_by, result.dimensions) == (["a", "b"], "b", 8)


async def test_models_whose_vectors_are_of_one_length_may_follow_one_another(clock):
    """Where all are known to fit the same column, a list is allowed, and the answer says whose vectors they are."""
    options = {"abilities": Book(dimensions={"a": 4, "b": 4})}
    models, result = await send(clock, [ServerFailed("boom", status=500)], EMBED, **options)
    assert (models, result.served_by, result.dimensions) == (["a", "b"], "b", 4)


@pytest.mark.parametrize(
    ("operation", "options"),
    [
        (EMBED, {"abilities": Book(dimensions={"a": 4, "b": 4})}),
        (EMBED.model_copy(update={"dimensions": 64}), {"abilities": Book(dimensions={"a": 64, "b": 64})}),
        (EMBED.model_copy(update={"dimensions": 64}), {"embed_across_models": True}),
    ],
)
async def test_a_fallback_with_vectors_of_another_length_serves_nothing(clock, operation, options):
    """What a model was known to give is checked against what it gave."""
    models, outcome = await send(clock, [ServerFailed("boom", status=500), vectors(8)], operation, **options)
    assert (models, type(outcome), type(outcome.refused["b"])) == (["a", "b"], NoModelAvailable, InvalidResponse)
    assert "vectors of 8 dimensions in place of" in str(outcome.refused["b"])


async def test_the_first_model_is_what_others_are_compared_with(clock):
    """Its own answer is not doubted, as the book may be behind."""
    _, result = await send(clock, [vectors(8)], EMBED, abilities=Book(dimensions={"a": 4, "b": 4}))
    assert (result.served_by, result.dimensions) == ("a", 8)


async def test_an_embed_of_one_model_needs_no_permission(clock):
    """The usual case is untouched."""
    models, _ = await send(clock, [], Embed(model="a", texts="x"))
    assert models == ["a"]


async def test_each_model_has_its_own_tries_and_circuit(clock):
    """Retry and breaker inside of Routing begin anew with the next model."""
    breaker = CircuitBreaker(consecutive_failures=2)
    script = [ServerFailed("boom", status=500)] * 2
    models, result = await send(clock, script, inner=[Retry(attempts=2), breaker])
    assert (models, result.served_by) == (["a", "a", "b"], "b")
    assert {state.key[1]: state.state for state in breaker.health() if state.key[1]} == {"a": "open", "b": "closed"}


async def test_the_deadline_covers_all_models(clock):
    """When the time is over no further model is asked."""
    models, outcome = await send(clock, [6.0, ServerFailed("boom", status=500), 6.0], outer=[Deadline(total=10.0)])
    assert (models, type(outcome)) == (["a", "b"], DeadlineExceeded)


async def test_cancellation_asks_no_other_model(clock):
    """Cancelled, the call ends."""
    provider = ScriptedProvider(1000.0)
    task = asyncio.ensure_future(Pipeline(provider, [Routing()], clock=clock).send(LIST))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(provider.calls) == 1


async def test_a_stream_falls_back_until_it_is_handed_over(clock):
    """A failure before the first token leads to the next model."""
    script = [ServerFailed("boom", status=500), stream_of("x", "y", model="b")]
    models, stream = await send(clock, script, Stream(model=["a", "b"], messages="hi"))
    assert models == ["a", "b"]
    assert (await stream.result()).text == "xy"


BOOM = ServerFailed("boom", status=500)


@pytest.mark.parametrize(
    "operation",
    [
        Chat(model=["a", "b"], messages="hi"),
        Stream(model=["a", "b"], messages="hi"),
        Complete(model=["a", "b"], prompt="once"),
        EMBED,
        Image(model=["a", "b"], prompt="a lighthouse"),
    ],
    ids=lambda operation: operation.kind,
)
async def test_every_kind_of_operation_falls_back(clock, operation):
    """What served and what could not is in the answer, whatever was asked for."""
    _, outcome = await send(clock, [BOOM], operation, abilities=Book(dimensions={"a": 4, "b": 4}))
    answer = await outcome.result() if operation.kind == "stream" else outcome
    assert (answer.attempts, answer.refused) == (2, {"a": "ServerFailed: boom"})
    assert (outcome.model if operation.kind == "stream" else outcome.served_by) == "b"


async def test_an_answer_of_the_first_model_names_no_refusal(clock):
    """There is nothing to tell where all goes well."""
    _, result = await send(clock, [])
    assert (result.served_by, result.refused) == ("a", {})


async def test_an_answer_that_names_no_model_gets_the_name_of_the_one_that_was_asked(clock):
    """A cache outside must not take the vectors of a fallback for those of the first model."""

    class Leaf(ScriptedProvider):
        async def __call__(self, call):
            return (await super().__call__(call)).model_copy(update={"served_by": ""})

    pipeline = Pipeline(Leaf(BOOM), [Routing(embed_across_models=True)], clock=clock)
    assert (await pipeline.send(EMBED)).served_by == "b"


async def test_the_errors_of_models_before_die_with_the_call(clock):
    """Once another model has served, no cycle keeps them, and with them the prompt, until the garbage collector comes."""
    errors = []

    async def fail(call):
        error = ServerFailed("boom", status=500)
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.disable()
    try:
        await send(clock, [fail])
        assert [error() for error in errors] == [None]
    finally:
        gc.enable()


# What models lack


async def test_a_model_that_lacks_something_is_not_asked(clock):
    """Nothing is sent to it, and the answer says why."""
    events = []
    book = Book(lacks={"a": "tools"})
    models, result = await send(clock, [], abilities=book, listener=events.append)
    assert (models, result.served_by, result.attempts) == (["b"], "b", 1)
    assert result.refused == {"a": "ModelUnfit: 'a' was not asked, because it lacks what the call needs: tools"}
    skipped = [event for event in events if isinstance(event, ModelSkipped)]
    assert [(event.model, event.next_model, event.error.lacks) for event in skipped] == [("a", "b", "tools")]


async def test_a_model_that_is_named_alone_is_asked_whatever_it_lacks(clock):
    """The service decides."""
    models, _ = await send(clock, [], LIST.on("a"), abilities=Book(lacks={"a": "tools"}), models=["a"])
    assert models == ["a"]


async def test_the_only_model_of_auto_is_not_asked_where_it_lacks_something(clock):
    """As one of many: nobody has named it, so nothing is sent and the error says what it lacks."""
    book, auto = Book(lacks={"a": "tools"}), Chat(model="auto", messages="hi")
    models, outcome = await send(clock, [], auto, abilities=book, models=["a"])
    assert (models, str(outcome)) == ([], "no model could serve the call (a: lacks tools)")
    assert (type(outcome.refused["a"]), outcome.refused["a"].lacks, outcome.sent) == (ModelUnfit, "tools", False)
    assert (await send(clock, [], auto, abilities=book, models=["b"]))[0] == ["b"]
    assert (await send(clock, [], auto, abilities=Broken(), models=["a"]))[0] == ["a"]


async def test_where_all_lack_something_nothing_is_sent(clock):
    """The error names what each lacks."""
    models, outcome = await send(clock, [], abilities=Book(lacks=dict.fromkeys("abc", "vision")))
    assert (models, type(outcome), outcome.sent, outcome.retry_after) == ([], NoModelAvailable, False, None)
    assert [type(error) for error in outcome.refused.values()] == [ModelUnfit] * 3
    assert [error.model for error in outcome.refused.values()] == ["a", "b", "c"]


async def test_abilities_that_cannot_be_asked_pass_over_none(clock, caplog):
    """What a helper does wrong does not fail the call, and is logged by name."""
    models, _ = await send(clock, [BOOM], abilities=Broken())
    assert models == ["a", "b"]
    assert "abilities raised RuntimeError" in caplog.text
    _, outcome = await send(clock, [], EMBED, abilities=Broken())
    assert type(outcome) is InvalidInput


# The ceiling


def facts(call):
    return call.model, call.part, call.sends_left, call.has_alternative


async def test_each_model_is_told_what_is_left_of_the_ceiling(clock):
    """Every model has at least one request, and the ones behind it are thought of."""
    seen = []

    async def twice(call, proceed):
        seen.append(facts(call))
        for _ in range(min(2, call.sends_left) - 1):
            with contextlib.suppress(ServerFailed):
                return await proceed(call)
        return await proceed(call)

    models, outcome = await send(clock, [BOOM] * 5, inner=[twice], max_sends=4)
    assert type(outcome) is NoModelAvailable
    assert models == ["a", "a", "b", "c"]
    assert seen == [("a", "", 2, True), ("b", "m1", 1, True), ("c", "m2", 1, False)]


async def test_retry_obeys_the_ceiling(clock):
    """Three tries a model would be nine requests; the last model keeps one of the six there are."""
    models, outcome = await send(clock, [BOOM] * 9, inner=[Retry(attempts=3)])
    assert type(outcome) is NoModelAvailable
    assert models == ["a", "a", "a", "b", "b", "c"]


async def test_a_ceiling_below_the_number_of_models_asks_each_once(clock):
    """A list is a promise to ask all of it."""
    breaker, seen = opens()
    models, _ = await send(clock, [BOOM] * 3, inner=[breaker], max_sends=1)
    assert models == ["a", "b", "c"]
    assert [call.sends_left for call in seen] == [1, 1, 1]


async def test_models_that_will_not_be_asked_are_not_thought_of(clock):
    """They leave their requests to the others, and are no alternative."""
    breaker, seen = opens()
    await send(clock, [BOOM], inner=[breaker], abilities=Book(lacks={"b": "tools"}))
    assert [facts(call) for call in seen] == [("a", "", 5, True), ("c", "m2", 5, False)]


async def test_a_call_that_may_send_less_is_not_given_more(clock):
    """What somebody outside allows goes before the own ceiling."""
    breaker, seen = opens()

    async def frugal(call, proceed):
        return await proceed(call.replace(sends_left=4, part="p"))

    await send(clock, [BOOM], inner=[breaker], outer=[frugal])
    assert [facts(call) for call in seen] == [("a", "p", 2, True), ("b", "p-m1", 2, True)]


async def test_a_list_of_texts_has_a_ceiling_in_each_of_its_batches(clock):
    """Many texts may need more requests than a call may send in tries."""
    breaker, seen = opens()
    options = {"abilities": Book(dimensions={"a": 4, "b": 4}), "inner": [breaker]}
    await send(clock, [BOOM], Embed(model=["a", "b"], texts=["x", "y"]), **options)
    assert [facts(call) for call in seen] == [("a", "", None, 1), ("b", "m1", None, 0)]
    seen.clear()
    await send(clock, [BOOM], EMBED, **options)
    assert [facts(call) for call in seen] == [("a", "", 5, 1), ("b", "m1", 5, 0)]


async def test_another_model_is_asked_under_another_name(clock):
    """A server that knows a request by its name must not take one body for the other."""
    breaker, seen = opens()
    await send(clock, [BOOM], inner=[breaker])
    first, second = (call.idempotency_key for call in seen)
    assert second == f"{first}-m1"


@pytest.mark.parametrize(
    ("models", "sends", "expected"),
    [
        (1, 3, (3, 60.0)),
        (2, 3, (6, 120.0)),
        (3, 3, (6, 180.0)),
        (2, 1, (2, 120.0)),
        (8, 3, (8, 480.0)),
    ],
)
def test_the_worst_case_is_bounded_by_the_ceiling(models, sends, expected):
    """Each model takes its time, and the requests of all stay below the ceiling unless there are more models."""
    worst = Routing().worst_case(WorstCase(models=models, sends=sends, seconds=60.0))
    assert (worst.sends, worst.seconds) == expected


# When all circuits are open


async def test_where_all_circuits_are_open_the_nearest_is_asked_once_more(clock):
    """The one whose probe is due first is asked with the wish to be let through ahead of time."""
    seen = []

    async def breaker(call, proceed):
        seen.append((call.model, call.insist, call.has_alternative, call.sends_left))
        if not call.insist:
            raise CircuitOpen(model=call.model, retry_after={"a": 9.0, "b": 2.0, "c": 5.0}[call.model])
        return await proceed(call)

    models, result = await send(clock, [], inner=[breaker])
    assert (models, result.served_by) == (["b"], "b")
    # The last one is no last resort as long as another may be insisted on.
    assert seen == [("a", False, True, 4), ("b", False, True, 5), ("c", False, True, 6), ("b", True, False, 6)]
    assert list(result.refused) == ["a", "c"]


async def test_a_probe_ahead_of_time_is_asked_for_once(clock):
    """Refused again, the call fails and says when it may come back."""
    breaker, seen = opens(a=9.0, b=2.0, c=5.0)
    models, outcome = await send(clock, [], inner=[breaker])
    assert (models, [call.model for call in seen]) == ([], ["a", "b", "c", "b"])
    assert (type(outcome), outcome.retry_after, outcome.sent) == (NoModelAvailable, 2.0, False)
    assert outcome.__cause__ is outcome.refused["b"]
    assert list(outcome.refused) == ["a", "b", "c"]


async def test_the_error_of_a_probe_that_no_other_model_could_help_is_its_own(clock):
    """A bad request stays one."""
    error = BadRequest("no", status=400)

    async def breaker(call, proceed):
        if not call.insist:
            raise CircuitOpen(model=call.model, retry_after=2.0)
        return await proceed(call)

    assert await send(clock, [error], inner=[breaker]) == (["a"], error)


async def test_a_real_breaker_lets_an_insistent_call_through(clock):
    """With every circuit open a call reaches the nearest model, whose success is the answer."""
    breaker = CircuitBreaker(consecutive_failures=1, break_duration=30.0, break_duration_max=30.0)
    pipeline = Pipeline(ScriptedProvider(*[BOOM] * 3), [Routing(), Retry(attempts=3), breaker], clock=clock)
    with pytest.raises(NoModelAvailable):
        await pipeline.send(LIST)
    await asyncio.sleep(2.0)
    clock.slept.clear()
    result = await pipeline.send(LIST)
    assert (result.attempts, len(result.refused), clock.slept) == (1, 2, [])


@pytest.mark.parametrize(
    ("circuits", "lacks", "script"),
    [
        ({"a": 2.0, "b": 2.0}, {}, [BOOM]),
        ({"a": 2.0, "b": 2.0}, {}, [LimitReached("full", limit=1, retry_after=0.5)]),
        ({"a": math.inf, "b": math.inf, "c": math.inf}, {}, []),
        ({}, {"a": "tools", "b": "tools", "c": "tools"}, []),
    ],
    ids=["one failed", "one is full", "isolated by hand", "all unfit"],
)
async def test_where_not_all_are_open_none_is_insisted_on(clock, circuits, lacks, script):
    """A model that failed is not asked again, nor one that somebody took out of service."""
    breaker, seen = opens(**circuits)
    _, outcome = await send(clock, script, inner=[breaker], abilities=Book(lacks=lacks))
    assert type(outcome) is NoModelAvailable
    assert not any(call.insist for call in seen)


async def test_a_model_that_failed_before_its_circuit_opened_is_not_asked_again(clock):
    """What counts is that nothing was sent, not the last error."""

    async def tries(call, proceed):
        with contextlib.suppress(ServerFailed):
            return await proceed(call)
        raise CircuitOpen(model=call.model, retry_after=2.0)

    models, outcome = await send(clock, [BOOM] * 3, inner=[tries])
    assert (models, type(outcome)) == (["a", "b", "c"], NoModelAvailable)


async def test_models_that_were_not_asked_stand_in_the_way_of_no_probe(clock):
    """Unfit and isolated ones are no alternative to the one that is open."""
    breaker, seen = opens(a=math.inf, c=2.0)
    _, outcome = await send(clock, [], inner=[breaker], abilities=Book(lacks={"b": "tools"}))
    assert [(call.model, call.insist) for call in seen] == [("a", False), ("c", False), ("c", True)]
    assert outcome.retry_after == 2.0


@pytest.mark.parametrize(
    ("refused", "seconds"),
    [
        ({"a": RateLimited("busy", status=429, retry_after=3.0), "b": CircuitOpen(model="b", retry_after=7.0)}, 3.0),
        ({"a": CircuitOpen(model="a", retry_after=math.inf), "b": LimitReached("full", limit=1)}, None),
        ({"a": ValueError("bug")}, None),
    ],
)
def test_the_error_says_when_the_first_model_may_serve_again(refused, seconds):
    """The shortest of the waits that are known, and None where there is none."""
    assert NoModelAvailable(refused).retry_after == seconds
