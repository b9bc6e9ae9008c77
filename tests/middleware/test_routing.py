"""Routing: which model is asked next, and when none is."""

import asyncio

import pytest

from resilient_ai.core.errors import (
    AttemptTimeout,
    AuthenticationFailed,
    BadRequest,
    BudgetExceeded,
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
    NoModelAvailable,
    PermissionDenied,
    RateLimited,
    RequestTooLarge,
    ServerFailed,
    StreamInterrupted,
)
from resilient_ai.core.events import ModelSkipped
from resilient_ai.core.operations import Chat, Embed, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware.circuit_breaker import CircuitBreaker
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Routing
from resilient_ai.testing import ScriptedProvider, stream_of

pytestmark = pytest.mark.anyio

LIST = Chat(model=["a", "b", "c"], messages="hi")


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
    """No models stand for "auto", and vectors of several models are not mixed."""
    assert repr(Routing()) == "Routing(models=(), embed_across_models=False)"
    assert Routing(models=["a", "b"]) == Routing(models=("a", "b"))


@pytest.mark.parametrize(
    ("models", "sentence"),
    [(["a", "a"], "models must name each model once"), (["a", "auto"], "models must not name 'auto'")],
)
def test_senseless_options_are_refused(models, sentence):
    """Each model once, and "auto" does not stand for itself."""
    with pytest.raises(ValueError, match=sentence):
        Routing(models=models)


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
        ServerFailed("boom", status=500),
        ModelNotFound("gone", status=404),
        FeatureNotSupported("no tools", status=405),
        CircuitOpen(model="a", retry_after=2.0),
        LimitReached("full", limit=200),
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


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("no", status=400),
        BadRequest("no", status=422),
        ContextLengthExceeded("long", status=400),
        RequestTooLarge("large", status=413),
        AuthenticationFailed("key", status=401),
        InsufficientBalance("money", status=402),
        PermissionDenied("no", status=403),
        ConnectionFailed("bad certificate", phase="tls", retryable=False),
        StreamInterrupted("broke", partial=None),
        DeadlineExceeded(timeout=1.0, elapsed=1.0, sent=True),
        BudgetExceeded("spent", spent=1, limit=1),
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


@pytest.mark.parametrize("operation", [Embed(model=["a", "b"], texts="x"), Embed(model="auto", texts="x")])
async def test_vectors_of_several_models_are_not_mixed(clock, operation):
    """An Embed with fallbacks is refused before anything is sent, unless it was allowed."""
    models, outcome = await send(clock, [], operation, models=["a", "b"])
    assert (models, type(outcome), outcome.field) == ([], InvalidInput, "fallbacks")
    models, result = await send(
        clock, [ServerFailed("boom", status=500)], operation, models=["a", "b"], embed_across_models=True
    )
    assert (models, result.served_by) == (["a", "b"], "b")


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
    assert {state.key[1]: state.state for state in breaker.snapshot()} == {"a": "open", "b": "closed"}


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
