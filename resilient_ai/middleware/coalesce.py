"""Identical calls under way share one send."""

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar
from weakref import WeakValueDictionary

from resilient_ai.core.call import Call, Next
from resilient_ai.core.checks import check_able, check_kind
from resilient_ai.core.events import CallJoined
from resilient_ai.core.ledger import Savings
from resilient_ai.core.operations import Embed
from resilient_ai.middleware._cache_key import canonical
from resilient_ai.middleware._cache_policy import is_shared
from resilient_ai.middleware._flight import Flight

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Coalesce:
    """Let calls that ask the same at the same time share one send.

    When a popular question, or a list of texts, is not in the cache, all who ask for it miss at once. The first call goes on;
    those that come while it is under way wait for its answer and send nothing. A stream is handed to all of them, to late
    ones from its beginning.

    What is shared goes on for as long as anybody waits: a caller that is cancelled, or whose deadline passes, takes nothing from
    the others, whether it came first or not; when the last one leaves, the send is cancelled. Each keeps its own deadline, and
    gets its own copy of an error. The cost is counted once, with the first of those that are still there at the end.

    Only calls of one tenant are shared, and only those whose answers would be the same if each were sent: with `temperature=0`
    or a `seed`, vectors, and whatever names a mode of the cache. Those with the mode "off" or "refresh" are left alone, and a
    call of priority "interactive" never waits for one of priority "batch".

    Processes share nothing by this; for that `Cache` has `leases`.

    Args:
        always: Whether calls are shared whose answers would differ.
        savings: Where it is written down what was not sent, such as the ledger; None writes nothing.

    Raises:
        ValueError: If an option is of another type.

    >>> from resilient_ai.core.operations import Chat
    >>> from resilient_ai.core.pipeline import Pipeline
    >>> from resilient_ai.testing import ScriptedProvider, run
    >>> provider = ScriptedProvider()
    >>> pipeline = Pipeline(provider, [Coalesce()])
    >>> question = Chat(model="m", messages="hi", temperature=0)
    >>> async def ask_twice():
    ...     return await asyncio.gather(pipeline.send(question), pipeline.send(question))
    >>> [answer.cache for answer in run(ask_twice())], len(provider.calls)
    (['off', 'joined'], 1)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Deadline": "every one of the callers that share a send has a deadline of its own",
        "Tracing": "every one of the callers that share a send has a span of its own",
        "Logging": "every one of the callers that share a send has a line of its own",
    }

    always: bool = False
    savings: Savings | None = None
    # Whoever waits for a flight keeps it. It is not kept here, or those of a loop that was closed in the middle would never end.
    _flights: "WeakValueDictionary[Hashable, Flight[Any]]" = field(
        init=False, repr=False, compare=False, default_factory=WeakValueDictionary["Hashable", "Flight[Any]"]
    )

    def __post_init__(self) -> None:
        """Check the options."""
        check_kind("always", self.always, bool)
        check_able("savings", self.savings, "spared")

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Send the call, or wait for the identical one that is under way."""
        key = self._key(call)
        if key is None:
            return await proceed(call)
        flight: Flight[R] | None = self._flights.get(key)
        if flight is None or not flight.is_open:
            flight = self._flights[key] = Flight(call, proceed, lambda over: self._forget(key, over), self.savings)
        else:
            leader, span = flight.leader, flight.leader_span
            call.emit(CallJoined(call_id=call.id, model=call.model, leader=leader, leader_span=span))
        return await flight.wait(call)

    def _key(self, call: Call[R]) -> Hashable | None:
        if (call.cache is not None and call.cache.mode == "refresh") or not is_shared(call, always=self.always):
            return None
        body = canonical(call)
        if body is None:
            return None
        operation = call.operation
        texts = operation.texts if isinstance(operation, Embed) else None
        # A loop cannot wait for what another one does, and what a call asks of the cache is part of what it asks.
        loop = asyncio.get_running_loop()
        interrupted = getattr(operation, "on_interrupt", None)
        return loop, body, texts, operation.kind, interrupted, call.account, call.priority, call.cache

    def _forget(self, key: Hashable, flight: Flight[Any]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
