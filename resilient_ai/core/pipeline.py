"""The pipeline: a fold of middleware around a provider."""

import inspect
import math
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self, TypeVar, cast

from typing_extensions import override

from resilient_ai.core.cache_control import CacheControl, CacheMode
from resilient_ai.core.call import Call, CallRecord, Departures, Listener, Middleware, Next, Priority, new_id
from resilient_ai.core.checks import is_unicode
from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.errors import ClientClosed, ConfigurationError, InvalidInput
from resilient_ai.core.events import Event
from resilient_ai.core.health import Health
from resilient_ai.core.operations import Operation
from resilient_ai.core.results import Result
from resilient_ai.core.streams import StreamResult

R = TypeVar("R")
E = TypeVar("E", bound=Event)
_PRIORITIES: frozenset[Priority] = frozenset({"interactive", "batch"})
_NO_TAGS: Mapping[str, str] = MappingProxyType({})


class Provider(Protocol):
    """The leaf of the pipeline: sends one request and reads its answer.

    It calls `call.send_started()` before bytes leave. The attempts of a result, what may be billed and the `sent` of a timeout
    or deadline come from that alone; whoever does not call it seems never to have sent anything.

    Where it sends with a key, it may also have an attribute `account`: a fingerprint of the key, by which what was refused to
    one key, and the limits that a fleet shares, are told apart from those of others.
    """

    @property
    def origin(self) -> str:
        """Where it sends to, such as "https://api.deepinfra.com/v1"."""
        ...

    async def __call__(self, call: Call[R], /) -> R:
        """Send the operation of `call` once."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """One line of a described stack: the name of a middleware and its settings."""

    name: str
    settings: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """What one call can come to before it fails, were everything to go as badly as it can.

    A middleware that changes it has a method `worst_case(inner)`, which is given what is inside of it.

    Args:
        models: How many models the call names.
        sends: Requests. A list of texts that is embedded in several requests counts as one.
        seconds: Time until the caller has an answer or an error, infinite where nothing bounds it.
    """

    models: int = 1
    sends: int = 1
    seconds: float = math.inf

    @override
    def __str__(self) -> str:
        return f"{self.sends} {'request' if self.sends == 1 else 'requests'}, {self.seconds:g} s"


class Description(tuple[Layer, ...]):  # noqa: SLOT001 - a tuple with slots takes no further attributes
    """The effective stack, outermost first; as text, a line per middleware and the worst case of a call.

    Attributes:
        worst_case: What a call can come to before it fails.
    """

    worst_case: WorstCase = WorstCase()

    @override
    def __str__(self) -> str:
        width = max((len(layer.name) for layer in self), default=0)
        if not self:
            return ""
        lines = [f"{layer.name:<{width}}  {layer.settings}".rstrip() for layer in self]
        models = self.worst_case.models
        asked = "one model" if models == 1 else f"{models} models"
        return "\n".join([*lines, f"worst case of a call to {asked}: {self.worst_case}"])


class Pipeline:
    """Sends operations through middleware to a provider and their results back.

    First in the list is outermost: it sees the call first and the result last. `[Retry(attempts=3), Timeout(attempt=2)]` gives
    each of three tries two seconds, six in all; `[Timeout(attempt=2), Retry(attempts=3)]` gives all three together two seconds.

    Args:
        provider: The leaf.
        stack: Functions or objects, outermost first. Built-in ones refuse an order that cannot work.
        clock: Time and chance for everything in the stack; the machine's own by default.

    Raises:
        ConfigurationError: If the stack cannot work; the message says why.
    """

    def __init__(self, provider: Provider, stack: Sequence[Middleware] = (), *, clock: Clock | None = None) -> None:
        self.provider = provider
        _check_order(stack)
        inner = [half for layer in stack if (half := getattr(layer, "inner_half", None)) is not None]
        innermost = [layer for layer in stack if getattr(layer, "stands_for_provider", False)]
        outer = [layer for layer in stack if not getattr(layer, "stands_for_provider", False)]
        self.stack: tuple[Middleware, ...] = (*outer, *inner, *innermost)
        self.clock = clock or SystemClock()
        self._listeners: tuple[Listener, ...] = ()
        self._closed = False
        self._has_deadline = any(getattr(layer, "sets_deadline", False) for layer in self.stack)
        objections = (getattr(layer, "stands_against", None) for layer in self.stack)
        hooks = {name: _first_hook(self.stack, name) for name in ("would_ask", "ruled_by")}
        # What all calls begin with: a changed copy of it takes a third of the time that filling in every field does.
        self._blank: Call[Any] = Call(
            cast("Any", None),
            self.clock,
            account=getattr(provider, "account", ""),
            objections=tuple(objection for objection in objections if objection is not None),
            **{name: hook for name, hook in hooks.items() if hook is not None},
        )
        self._run = _fold(provider, self.stack)
        for layer in stack:
            watch = getattr(layer, "watch", None)
            if watch is not None:
                watch(_health_of(self))

    async def send(
        self,
        operation: Operation[R],
        *,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cache: CacheMode | CacheControl | None = None,
        priority: Priority = "interactive",
        listener: Listener | None = None,
    ) -> R:
        """Send one operation and return its result.

        Args:
            operation: What is asked; its class fixes the type of the result.
            tags: Tenant, user, feature and the like; they reach the ledger, the cache key ("tenant") and the logs.
            timeout: Seconds for everything together: queueing, tries, waits, fallbacks, body. None for the stack's default.
            cache: A mode, "on", "off", "read", "write" or "refresh", or a `CacheControl`; None leaves it to the stack.
            priority: Who goes first where calls wait in line: "interactive", or "batch" for work that nobody waits for.
            listener: Told of every event of this call.

        Raises:
            ConfigurationError: If `listener` cannot be called, or is an `async def`.
            ResilientAIError: See `resilient_ai.core.errors`.
        """
        if self._closed:
            raise ClientClosed
        if listener is not None:
            _check_plain("listener", listener)
        call = self.call(operation, tags=tags, timeout=timeout, cache=cache, priority=priority, listener=listener)
        return cast("R", _stamped(await self._run(call), call.record))

    def call(
        self,
        operation: Operation[R],
        *,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cache: CacheMode | CacheControl | None = None,
        priority: Priority = "interactive",
        listener: Listener | None = None,
    ) -> Call[R]:
        """Return the call that `send` would begin with, for whoever wants to know what would become of it."""
        given = cast("object", operation)
        if not isinstance(given, Operation):
            raise InvalidInput(
                f"operation: a Chat, Embed or the like, got {given!r:.60}", field="operation", value=given
            )
        control = self.check_options(timeout, cache, priority)
        return self._blank.replace(
            operation=operation,
            origin=self.provider.origin,
            id=new_id(),
            timeout=timeout,
            started=self.clock.monotonic(),
            tags=_NO_TAGS if tags is None else checked_tags(tags),
            cache=control,
            priority=priority,
            record=CallRecord(),
            listeners=self._listeners if listener is None else (*self._listeners, listener),
            departed=Departures(),
        )

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` told of every event of every call that begins from now on; return what ends the subscription.

        Once it has ended nothing more is told, also of calls that are under way.

        Raises:
            ConfigurationError: If `listener` cannot be called, or is an `async def`.
        """
        _check_plain("listener", listener)
        subscribed = True

        def told(event: Event) -> None:
            if subscribed:
                listener(event)

        def unsubscribe() -> None:
            nonlocal subscribed
            subscribed = False
            self._listeners = tuple(known for known in self._listeners if known is not told)

        self._listeners = (*self._listeners, told)
        return unsubscribe

    def on(self, kind: type[E], callback: Callable[[E], None]) -> Callable[[], None]:
        """Have `callback` told of every event of one class, of calls that begin from now on; return what ends the subscription.

        Callbacks are told of events in the order in which these happen, each in the order in which they were subscribed. One
        that raises is logged by name, and neither the call nor the next callback notices.

        Args:
            kind: A class of `resilient_ai.core.events`, such as `CircuitOpened`; `Event` is all of them.
            callback: A plain function that is quick: it is called in the middle of the call, and cannot be awaited.

        Raises:
            ConfigurationError: If `kind` is no class of events, or `callback` cannot be called, or is an `async def`.
        """
        given = cast("object", kind)
        if not (isinstance(given, type) and issubclass(given, Event)):
            raise ConfigurationError(f"kind: a class of events such as CircuitOpened, got {given!r:.60}")
        _check_plain("callback", callback)

        def listener(event: Event) -> None:
            if isinstance(event, kind):
                callback(event)

        return self.subscribe(listener)

    def describe(self, *, models: int = 1) -> Description:
        """Return the effective stack, outermost first, with settings and the worst case of a call.

        Args:
            models: How many models the call names, at least 1; with several, the next is asked where one cannot serve.

        >>> from resilient_ai.testing import ScriptedProvider
        >>> from resilient_ai.middleware import Deadline, Timeout
        >>> print(Pipeline(ScriptedProvider(), [Deadline(total=9.0)]).describe())
        Deadline          total=9.0
        ScriptedProvider
        worst case of a call to one model: 1 request, 9 s
        """
        if models < 1:
            raise InvalidInput(f"models: must be >= 1, got {models!r}", field="models", value=models)
        description = Description(_layer(part) for part in (*self.stack, self.provider))
        case = WorstCase(models=models)
        for middleware in reversed(self.stack):
            change = getattr(middleware, "worst_case", None)
            case = case if change is None else change(case)
        description.worst_case = case
        return description

    def health(self) -> Health:
        """Return what every breaker, limit and budget of the stack knows now."""
        reports = [getattr(middleware, "health", None) for middleware in self.stack]
        return Health.of(part for report in reports if report is not None for part in report())

    async def aclose(self) -> None:
        """Close every middleware that holds something, outermost first, then the provider; one that fails stops no other."""
        if self._closed:
            return
        self._closed = True
        async with AsyncExitStack() as parts:
            parts.push_async_callback(self.provider.aclose)
            for part in reversed(self.stack):
                close = getattr(part, "aclose", None)
                if close is not None:
                    parts.push_async_callback(close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def check_options(
        self, timeout: float | None, cache: CacheMode | CacheControl | None, priority: Priority
    ) -> CacheControl | None:
        """Return what a call asks of the cache, after a look at all options.

        Raises:
            InvalidInput: If one is out of range.
            ConfigurationError: If the stack cannot keep it.
        """
        if timeout is not None and not 0 < timeout <= sys.float_info.max:
            raise InvalidInput(
                f"timeout: must be a positive number of seconds, got {timeout!r}", field="timeout", value=timeout
            )
        if timeout is not None and not self._has_deadline:
            raise ConfigurationError("timeout= needs a Deadline in the stack, which this pipeline does not have")
        if priority not in _PRIORITIES:
            raise InvalidInput(
                f"priority: 'interactive' or 'batch', got {priority!r}", field="priority", value=priority
            )
        try:
            return CacheControl.of(cache)
        except ValueError as error:
            raise InvalidInput(f"cache: {error}", field="cache", value=cache) from None


def _health_of(pipeline: Pipeline) -> Callable[[], Health | None]:
    """Return what asks a pipeline for its health, and does not keep it alive."""
    known = weakref.ref(pipeline)

    def health() -> Health | None:
        alive = known()
        return None if alive is None else alive.health()

    return health


def _stamped(result: object, record: CallRecord) -> object:
    if isinstance(result, Result):
        return record.stamp(result)
    if isinstance(result, StreamResult):
        result.stamp_with(record.stamp)
    return result


def _fold(provider: Provider, stack: Sequence[Middleware]) -> Next[Any]:
    step: Next[Any] = provider
    for middleware in reversed(stack):
        step = _bind(middleware, step)
    return step


def _bind(middleware: Middleware, proceed: Next[Any]) -> Next[Any]:
    # Found once, as looking it up on every call takes longer than calling it.
    run = middleware if inspect.isroutine(middleware) else middleware.__call__
    return lambda call: run(call, proceed)


def _check_plain(name: str, function: object) -> None:
    if not callable(function) or any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):
        given = f"{'an async one, ' if callable(function) else ''}{function!r:.60}"
        raise ConfigurationError(f"{name}: a plain function, got {given}")


def _check_order(stack: Sequence[Middleware]) -> None:
    names = [{part.__name__ for part in type(middleware).__mro__} for middleware in stack]
    for position, middleware in enumerate(stack):
        if isinstance(middleware, type) or not callable(middleware):
            raise ConfigurationError(f"a middleware is a function or an object with __call__, got {middleware!r}")
        inside_of: Mapping[str, str] = getattr(middleware, "inside_of", {})
        for outer, reason in inside_of.items():
            if any(outer in later for later in names[position + 1 :]):
                raise ConfigurationError(f"{_name(middleware)} must stand after {outer} in the stack: {reason}")


def _first_hook(stack: Sequence[Middleware], name: str) -> Any:
    return next((hook for layer in stack if (hook := getattr(layer, name, None)) is not None), None)


def tagged(tags: Mapping[str, str]) -> Mapping[str, str]:
    """Return what was given as tags; raise `InvalidInput` where it is no mapping."""
    # Asked first, as it is what most are and takes a fraction of the time.
    if isinstance(tags, dict) or isinstance(cast("object", tags), Mapping):
        return tags
    raise InvalidInput(f"tags: a dict such as {{'tenant': 'acme'}}, got {tags!r:.60}", field="tags", value=tags)


def checked_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    """Return a copy that nobody changes; raise `InvalidInput` where a name or value can be in no tag."""
    for key, value in cast("Mapping[object, object]", tagged(tags)).items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise _bad_tag("names and values are text", key, value)
        # Neither a database nor a cache can hold it, and there it would be found when the call is paid for.
        if not (is_unicode(key) and is_unicode(value)):
            raise _bad_tag("half of a surrogate pair is no text", key, value)
    return MappingProxyType(dict(tags))


def _bad_tag(rule: str, key: object, value: object) -> InvalidInput:
    return InvalidInput(f"tags: {rule}, got {key!r}: {value!r}", field=f"tags.{key}", value=value)


def _name(part: object) -> str:
    if inspect.isfunction(part) or inspect.ismethod(part):
        return part.__qualname__
    return type(part).__name__


def _layer(part: object) -> Layer:
    name = _name(part)
    text = "" if inspect.isroutine(part) or type(part).__repr__ is object.__repr__ else repr(part)
    # A class inside of a function shows itself with the whole path.
    head = next((head for head in (f"{name}(", f"{type(part).__qualname__}(") if text.startswith(head)), None)
    return Layer(name, "" if head is None else text.removeprefix(head).removesuffix(")"))
