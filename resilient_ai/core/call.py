"""One trip of an operation through the pipeline, and what a middleware is."""

import itertools
import os
from collections.abc import Awaitable, Callable, Container, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, cast

from resilient_ai.core.cache_control import CacheControl
from resilient_ai.core.clock import Clock, time_of
from resilient_ai.core.collector import outside_of_collector
from resilient_ai.core.errors import CallRejected, ProviderError
from resilient_ai.core.events import Event, SendStarted
from resilient_ai.core.faults import FAULTS
from resilient_ai.core.ledger import SendClosed
from resilient_ai.core.log import Log
from resilient_ai.core.money import total
from resilient_ai.core.operations import Operation
from resilient_ai.core.results import (
    CacheStatus,
    ChatResult,
    Considered,
    Cost,
    CostSource,
    EmbedResult,
    ImageResult,
    Result,
)
from resilient_ai.core.streams import StreamResult

R = TypeVar("R")
ResultT = TypeVar("ResultT", bound=Result)
Priority = Literal["interactive", "batch"]
Listener = Callable[[Event], None]

# How the cache answers where nothing was sent for this call.
FOR_NOTHING: frozenset[CacheStatus] = frozenset({"hit", "stale", "joined"})

# Timers may ring a little early.
_RESOLUTION = 1e-4  # seconds

# Of what other kind an attribute is that means something else.
_SETS = (frozenset, set, dict)

_log = Log()
_serial = itertools.count()


def new_id() -> str:
    """Return a name for a call or a send that no other process, thread or fork gives out."""
    return f"{_prefix}{next(_serial) & 0xFFFFFF:06x}"


def given_out_here(name: str) -> bool:
    """Return whether `new_id` gave out this name in this process, and not in one that it was forked from."""
    return name.startswith(_prefix)


def _new_prefix() -> None:
    global _prefix  # noqa: PLW0603 - one per process: a system call for every id would cost more than the rest of it
    _prefix = os.urandom(6).hex()


_prefix = ""
_new_prefix()
if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows does not fork
    os.register_at_fork(after_in_child=_new_prefix)


@dataclass(slots=True)
class CallRecord:
    """What happened during one call, over all tries, batches and models. All copies of a call share it.

    Attributes:
        sends: Requests that were sent, or were about to be when their connection failed.
        cache: How the cache answered.
        age: Seconds since the answer that the cache gave was made, for vectors the oldest; None where it gave none.
        saved: US dollars that what was not sent would have cost, None where not known.
        costs: One entry per send that ended: the cost (None where not known), its source, and whether its answer was used.
        refused: The models that could not serve, and why; None where all could.
        considered: The models among which the route was chosen.
    """

    sends: int = 0
    cache: CacheStatus = "off"
    age: float | None = None
    saved: Decimal | None = None
    costs: list[tuple[Decimal | None, CostSource, bool]] = field(
        default_factory=list[tuple[Decimal | None, CostSource, bool]]
    )
    refused: dict[str, str] | None = None
    considered: tuple[Considered, ...] = ()

    def cost(self) -> Cost | None:
        """Return what the call cost so far; None where an answer that was used has no known cost."""
        if self.cache in FOR_NOTHING and not self.costs:
            return Cost(amount=Decimal(0), source="cache")
        if any(amount is None for amount, _, used in self.costs if used):
            return None
        known: list[tuple[Decimal, CostSource, bool]] = [
            (amount, source, used) for amount, source, used in self.costs if amount is not None
        ]
        if not known:
            return None
        sources: set[CostSource] = {source for _, source, _ in known}
        return Cost(
            amount=total(amount for amount, _, _ in known),
            wasted=total(amount for amount, _, used in known if not used),
            source=sources.pop() if len(sources) == 1 else "mixed",
            complete=len(known) == len(self.costs),
        )

    def cost_of(self, result: Result | None) -> Cost | None:
        """Return what the call cost that brought `result`; where nobody accounts for sends, what the result says itself."""
        own = None if result is None else result.cost
        if self._is_told_by(own):
            return own
        return self.cost() if self.costs or own is None else self.cost() or own

    def stamp(self, result: ResultT) -> ResultT:
        """Return `result` with the facts of this call."""
        update: dict[str, Any] = {"attempts": self.sends, "cache": self.cache}
        if self.age is not None or self.saved is not None:
            update |= {"cache_age": self.age, "saved": self.saved}
        if (self.costs or self.cache in FOR_NOTHING) and not self._is_told_by(result.cost):
            update["cost"] = self.cost()
            update["maybe_billed"] = sum(amount is None and not used for amount, _, used in self.costs)
        if self.refused:
            update["refused"] = self.refused
        if self.considered:
            update["considered"] = self.considered
        return result.model_copy(update=update)

    def _is_told_by(self, own: Cost | None) -> bool:
        """Whether there is nothing to add to what an answer says, as it is nearly always: one send, which told its cost."""
        if own is None or own.wasted or not own.complete:
            return False
        return self.costs == [(own.amount, own.source, True)]

    def adopt(self, other: "CallRecord") -> None:
        """Take over what happened to a call that was sent in place of this one."""
        self.sends, self.cache, self.age, self.saved = other.sends, other.cache, other.age, other.saved
        self.costs, self.refused, self.considered = other.costs, other.refused, other.considered


class Departures:
    """Counts how often bytes have left: those of one branch of a call, and with them those of the branches it grew from.

    Requests of one branch follow each other, so whoever compares two counts knows whether its own request has left.

    Attributes:
        begun: Requests of this branch that were begun; one that waits in a queue is not.
        count: Those of which bytes may have left, and with them those of the branches that grew from this one.
    """

    __slots__ = ("_trunk", "begun", "count")

    def __init__(self, trunk: "Departures | None" = None) -> None:
        self.begun = 0
        self.count = 0
        self._trunk = trunk

    def add(self) -> None:
        """Count one."""
        self.count += 1
        if self._trunk is not None:
            self._trunk.add()


def _nothing_stands_against_it() -> None:
    pass


def _nobody_competes() -> bool:
    return True


def _whom_it_names(call: "Call[Any]") -> str:
    return call.model


def _by_nothing(call: "Call[Any]") -> str:
    del call
    return ""


def _nobody_keeps(texts: Sequence[str], result: EmbedResult) -> None:
    pass


@dataclass(frozen=True)
class Call(Generic[R]):
    """An operation under way, with everything middleware share about it. `replace` makes a changed copy.

    Args:
        operation: What is asked.
        clock: The only way to know time.
        origin: Where the provider is, such as "https://api.deepinfra.com/v1".
        account: A fingerprint of the key it is sent with, "" where there is none.
        id: Unique name of the call.
        timeout: Seconds the caller gave it, None for the stack's default.
        deadline: Point of `clock.monotonic()` after which nothing may be waited for, None without one.
        attempt_deadline: Point of `clock.monotonic()` at which this attempt is cut off, None where only `deadline` bounds it.
        started: Point of `clock.monotonic()` at which the call began.
        attempt: Which try this is, from 1.
        tags: Tenant, user, feature and whatever else the caller named.
        cache: What it asks of the cache; None leaves everything to the stack.
        priority: Who goes first where calls wait in line.
        record: What has happened so far.
        listeners: Who is told of events.
        departed: How often bytes of it have left: of the whole call, or of the branch that this copy is sent on.
        part: Names the body among those of one call: a batch, another model, the rest of a broken stream; "" for the first.
        sends_left: Sends that may be made of this body, None for as many as the stack allows.
        has_alternative: Whether another model may be asked where this one fails.
        insist: Whether a circuit that is open shall let it through ahead of time, where no other probe is under way.
        recheck: Called by whoever has let the call wait; raises where it would be refused by now.
        arrived: Told of vectors as soon as they are there, with their texts, by whoever sends a list in several requests.
        on_send_closed: Told how each send of it ended and what it cost, by whoever accounts for it; they never wait, and take no
            locks, as they may run in the garbage collector.
        claim: Called once by whoever accounts for it, as soon as there is an answer; returns whether that is the one to be used,
            and not the second of two that were asked for side by side.
        objections: Each tells in a few words what stands against a call, by what a part of the stack knows; None for nothing.
        would_ask: Returns the model that the stack would ask first for a call: the one it names, unless a route is chosen.
        ruled_by: Returns what decides which models may serve a call, beside what it names; empty where nothing does. Calls that
            differ in it may not have each other's answers.
        waited_for: Where several callers share the call, returns the last of their deadlines, None if one has none.
        headers: Further headers of the request, such as those of its trace.
        span: The span of the whole call, for links to it and for lines of a log; None where it is not traced.
        hedge: Whether it is the second of two requests for one answer.
    """

    operation: Operation[R]
    clock: Clock
    origin: str = ""
    account: str = ""
    id: str = field(default_factory=new_id)
    timeout: float | None = None
    deadline: float | None = None
    attempt_deadline: float | None = None
    started: float = 0.0
    attempt: int = 1
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    cache: CacheControl | None = None
    priority: Priority = "interactive"
    record: CallRecord = field(default_factory=CallRecord)
    listeners: tuple[Listener, ...] = ()
    departed: Departures = field(default_factory=Departures)
    part: str = ""
    sends_left: int | None = None
    has_alternative: bool = False
    insist: bool = False
    recheck: Callable[[], None] = _nothing_stands_against_it
    arrived: Callable[[Sequence[str], EmbedResult], None] = _nobody_keeps
    on_send_closed: tuple[Callable[[SendClosed], None], ...] = ()
    objections: "tuple[Callable[[Call[Any]], str | None], ...]" = ()
    would_ask: "Callable[[Call[Any]], str]" = _whom_it_names
    ruled_by: "Callable[[Call[Any]], str]" = _by_nothing
    claim: Callable[[], bool] = _nobody_competes
    waited_for: Callable[[], float | None] | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    span: object | None = None
    hedge: bool = False

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed; the record stays the same object.

        Raises:
            TypeError: If a call has no such field.
        """
        known = self.__dict__
        fields = known | changes
        if len(fields) > len(known):
            raise TypeError(f"a call has no field {sorted(changes.keys() - known.keys())!r}")
        copy = object.__new__(type(self))
        object.__setattr__(copy, "__dict__", fields)  # every part of the stack makes one, so this counts
        return copy

    @property
    def model(self) -> str:
        """The model that is asked."""
        return self.operation.model

    @property
    def idempotency_key(self) -> str:
        """The name that every send of the same body carries, so that a server can tell a repeat from a new request."""
        return f"{self.id}-{self.part}" if self.part else self.id

    def with_body(self, operation: Operation[R], part: str) -> Self:
        """Return a copy that sends another body of the same call; `part` names it among the bodies of this one."""
        return self.replace(operation=operation, part=f"{self.part}-{part}" if self.part else part)

    def branch(self) -> Self:
        """Return a copy that is sent beside others of the same call, and knows by itself whether its bytes have left."""
        return self.replace(departed=Departures(self.departed))

    def remaining(self) -> float | None:
        """Return the seconds until the deadline, at least 0; None without a deadline."""
        deadline = self.deadline if self.waited_for is None else self.waited_for()
        return None if deadline is None else max(0.0, deadline - self.clock.monotonic())

    def is_heard(self, kind: type[Event]) -> bool:
        """Whether anybody listens for facts of a class, so that what happens in every call need not become one for nobody.

        A listener with a set of classes, or a dict of them, named `hears` is told of no others.
        """
        for listener in self.listeners:  # noqa: SIM110 - twice as quick, and asked for every request
            if _hears(listener, kind):
                return True
        return False

    def is_cut_off(self) -> bool:
        """Whether a timer of the stack has ended the attempt: the call's, or that of the attempt."""
        now = time_of(self.clock)
        return any(point is not None and now >= point - _RESOLUTION for point in (self.deadline, self.attempt_deadline))

    def emit(self, event: Event) -> None:
        """Tell every listener. A listener that raises is logged by name and changes nothing."""
        if self.listeners:
            outside_of_collector(self._tell, event)

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            try:
                if _hears(listener, type(event)):
                    listener(event)
            except FAULTS as error:  # a listener's fault must never become the call's
                _log.warning("a listener of %s raised %s", type(event).__name__, type(error).__name__)

    def send_started(self, *, leaving: bool = True) -> None:
        """Count a request that is about to leave, and tell the listeners.

        Args:
            leaving: Whether bytes leave from now on; a provider that has yet to connect calls `bytes_leave` when they do.
        """
        self.record.sends += 1
        self.departed.begun += 1
        if leaving:
            self.bytes_leave()
        if self.is_heard(SendStarted):
            self.emit(SendStarted(call_id=self.id, model=self.model, number=self.record.sends))

    def may_have_left(self, error: BaseException, since: int) -> bool:
        """Return whether bytes of a request that failed may have reached the service, so that it may be billed.

        Args:
            error: What it failed with. What knows says so; a cancellation, or a fault of ours, does not.
            since: What `departed.count` was before it.
        """
        if isinstance(error, ProviderError | CallRejected):
            return error.sent
        return self.departed.count > since

    def bytes_leave(self) -> None:
        """Take note that the request that was started is on its way from now on."""
        self.departed.add()


def _hears(listener: Listener, kind: type[Event]) -> bool:
    try:
        hears: object = getattr(listener, "hears", None)
    except FAULTS:  # it is somebody else's attribute
        return True
    return type(hears) not in _SETS or kind in cast("Container[object]", hears)


Next = Callable[[Call[R]], Awaitable[R]]


class Middleware(Protocol):
    """What stands around a call: a function, or an object with this `__call__`.

    It calls `proceed(call)` once, several times or not at all, and returns a result or raises:

        async def timed(call, proceed):
            started = call.clock.monotonic()
            try:
                return await proceed(call)
            finally:
                print(call.model, call.clock.monotonic() - started)

    It may also have:

    - `inside_of`: maps names of middleware to reasons. A stack in which one of them stands further in is refused.
    - `inner_half`: a second middleware, which is put at the end of the stack, next to the provider.
    - `stands_for_provider`: True where it plays the part of a provider, as `Chaos` does: it is put inside of all inner halves.
    - `sets_deadline`: True where it gives calls their deadline. Without one in the stack `timeout=` is refused.
    - `worst_case(inner)`: returns the `WorstCase` with it from the one of all that is inside; `inner.models` says how many
      models a call names.
    - `stands_against(call)`: returns in a few words why it would refuse the call now, or let it wait; None where nothing does.
      It never waits and changes nothing. Every call knows those of its stack as its `objections`.
    - `would_ask(call)`: where it chooses models, returns the name of the one it would ask first. It never waits and changes
      nothing. Every call knows the outermost one of its stack as its `would_ask`.
    - `ruled_by(call)`: where it does so by rules, returns a text for the rule that is about a call, empty where none is.
    - `around_tool(call, tool, clock)`: returns a context that stands around a function which the model asked for, or None. It
      gives a function that is told of the output and the error.
    - `health()`: returns what its parts know now, such as a `BreakerState` for each model.
    - `watch(health)`: is given, when the pipeline is built, a function that returns the `Health` of the whole stack, and None
      once the pipeline is gone, which it does not keep alive.
    - `aclose()`: lets go of what it holds, asynchronously; the pipeline awaits it when it is closed.
    """

    def __call__(self, call: Call[R], proceed: Next[R], /) -> Awaitable[R]:
        """Handle one call; as a rule an `async def`."""
        ...


class OperationMiddleware:
    """A middleware that knows operations: override the ones it is about, the others pass through unchanged."""

    def __call__(self, call: Call[R], proceed: Next[R], /) -> Coroutine[Any, Any, R]:
        """Hand the call to the method of its operation."""
        # The kind of an operation fixes its result type, which no type checker can follow through a lookup by name.
        handle = cast("Callable[[Call[R], Next[R]], Coroutine[Any, Any, R]]", getattr(self, call.operation.kind))
        return handle(call, proceed)

    async def chat(self, call: Call[ChatResult], proceed: Next[ChatResult]) -> ChatResult:
        """Handle a `Chat`."""
        return await proceed(call)

    async def stream(self, call: Call[StreamResult], proceed: Next[StreamResult]) -> StreamResult:
        """Handle a `Stream`."""
        return await proceed(call)

    async def complete(self, call: Call[ChatResult], proceed: Next[ChatResult]) -> ChatResult:
        """Handle a `Complete`."""
        return await proceed(call)

    async def embed(self, call: Call[EmbedResult], proceed: Next[EmbedResult]) -> EmbedResult:
        """Handle an `Embed`."""
        return await proceed(call)

    async def image(self, call: Call[ImageResult], proceed: Next[ImageResult]) -> ImageResult:
        """Handle an `Image`."""
        return await proceed(call)
