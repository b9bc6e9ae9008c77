"""The asynchronous client: one method per operation, all of them a `send` through one pipeline."""

import copy
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast, overload

from typing_extensions import override

from resilient_ai.caching import ClientCache
from resilient_ai.core.cache_control import CacheControl, CacheMode
from resilient_ai.core.call import Call, Listener, Middleware, Priority
from resilient_ai.core.clock import Clock
from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.events import BatchDone, Event
from resilient_ai.core.health import BudgetState, Health
from resilient_ai.core.ledger import CostLedger
from resilient_ai.core.messages import MessagesInput
from resilient_ai.core.operations import Chat, Complete, Embed, Image, Operation, Stream
from resilient_ai.core.options import ChatOptions, CompleteOptions, EmbedOptions, ImageOptions, StreamOptions
from resilient_ai.core.pipeline import Description, Pipeline, Provider, checked_tags, tagged
from resilient_ai.core.results import ChatResult, Considered, EmbedResult, ImageResult, StructuredResult
from resilient_ai.core.streams import StreamResult
from resilient_ai.costs import ClientCosts, narrowed
from resilient_ai.deepinfra.catalogue import ClientCatalogue, LiveCatalogue
from resilient_ai.deepinfra.provider import DeepInfraProvider
from resilient_ai.middleware import Budget, Budgets, Cache, CostAccounting, Routing
from resilient_ai.presets import default_stack, live_catalogue_of
from resilient_ai.settings import Settings
from resilient_ai.structured_output import ask_for
from resilient_ai.tool_loop import ToolRun, run_tools

if TYPE_CHECKING:
    import httpx

    from resilient_ai.deepinfra.catalogue._live_fetch import Fetch
    from resilient_ai.deepinfra.catalogue.ids import ChatModel, CompletionModel, EmbeddingModel, ImageModel
    from resilient_ai.deepinfra.transport import Transport

E = TypeVar("E", bound=Event)
R = TypeVar("R")
T = TypeVar("T")


class AsyncClient:
    """DeepInfra's models behind one pipeline of middleware.

    Use it as `async with`, or call `aclose()`: that writes what is pending and closes connections.

    Args:
        api_key: The key; by default DEEPINFRA_API_KEY, DEEPINFRA_TOKEN or DEEPINFRA_API_TOKEN.
        base_url: The server; by default `https://api.deepinfra.com/v1`.
        stack: Middleware of your own, outermost first, instead of the default stack.
        budgets: What may be spent, in place of the settings' `budgets`; for the default stack.
        routing: How the model is chosen, in place of the settings' `auto_models` and `auto_prefer`; for the default stack.
        http: An `httpx.AsyncClient` or `httpx.AsyncBaseTransport` of your own; you close it.
        settings: What the default stack is built with; by default from the environment. With `stack` only `api_key`, `base_url`,
            `connect_timeout` and `catalogue_refresh` count, and the others by `stack=[..., *default_stack(settings)]`. With
            `provider` and `stack` the last of these alone counts.
        provider: A leaf of your own instead of DeepInfra, such as `resilient_ai.testing.ScriptedProvider`; needs no key.
        clock: Time and chance, for tests.

    Raises:
        ConfigurationError: If there is no key, a setting is wrong, or the stack cannot work.

    >>> AsyncClient(api_key="secret", stack=[])
    AsyncClient(base_url='https://api.deepinfra.com/v1')
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        stack: Sequence[Middleware] | None = None,
        budgets: Sequence[Budget] | None = None,
        routing: Routing | None = None,
        http: "httpx.AsyncClient | httpx.AsyncBaseTransport | None" = None,
        settings: Settings | None = None,
        provider: Provider | None = None,
        clock: Clock | None = None,
    ) -> None:
        settings = _with_budgets(_checked(settings), budgets)
        if routing is not None and not isinstance(cast("object", routing), Routing):
            raise ConfigurationError(f"routing: a Routing, got {routing!r:.60}")
        if stack is not None and (budgets is not None or routing is not None):
            raise ConfigurationError(
                "budgets, routing: a stack of your own holds its own Budgets and Routing; give it alone"
            )
        if provider is None:
            if api_key is None and settings.api_key is not None:
                api_key = settings.api_key.get_secret_value()
            provider = DeepInfraProvider(
                api_key, base_url=base_url or settings.base_url, http=http, connect_timeout=settings.connect_timeout
            )
        elif (api_key, base_url, http) != (None, None, None):
            raise ConfigurationError("provider: has a key, an address and connections of its own; give it alone")
        stack = default_stack(settings, routing=routing) if stack is None else stack
        self._pipeline = Pipeline(provider, stack, clock=clock)
        live = live_catalogue_of(stack)
        self._catalogue = ClientCatalogue(
            LiveCatalogue() if live is None else live,
            _source_of(provider),
            every=settings.catalogue_refresh,
            clock=self._pipeline.clock,
        )
        self._keep_fresh = None if settings.catalogue_refresh is None else self._catalogue.keep_fresh
        self._tags: Mapping[str, str] = {}
        self._timeout: float | None = None
        self._cache: CacheMode | CacheControl | None = None
        self._priority: Priority = "interactive"
        self._owner = True

    # One method per operation

    @overload
    async def chat(
        self, model: "ChatModel | str | Sequence[str]", messages: MessagesInput, **options: Unpack[ChatOptions]
    ) -> ChatResult: ...
    @overload
    async def chat(
        self,
        model: "ChatModel | str | Sequence[str]",
        messages: MessagesInput,
        *,
        output: type[T],
        **options: Unpack[ChatOptions],
    ) -> StructuredResult[T]: ...
    async def chat(
        self,
        model: "ChatModel | str | Sequence[str]",
        messages: MessagesInput,
        *,
        output: type[Any] | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatResult:
        """Ask a language model for a whole answer.

        Args:
            model: An id, or several: the next one serves when one is down, and `answer.served_by` says which did.
            messages: A text, or a list of messages.
            output: A pydantic model, or another type, that the answer shall fit; it comes as `answer.output`.
            **options: The fields of `Chat`: `temperature`, `max_tokens`, `tools`, ...

        Raises:
            InvalidInput: If something is wrong with the arguments; nothing was sent.
            OutputInvalid: If the answer does not fit `output` after one more try.
            ResilientAIError: See `resilient_ai.core.errors`.
        """
        chat = Chat(model=model, messages=messages, **options)
        return await self.send(chat) if output is None else await ask_for(self.send, chat, output)

    @asynccontextmanager
    async def stream(
        self, model: "ChatModel | str | Sequence[str]", messages: MessagesInput, **options: Unpack[StreamOptions]
    ) -> AsyncGenerator[StreamResult]:
        """Ask a language model for an answer in pieces; leaving the block frees the connection.

        async with ai.stream(model, "Name three tides.") as stream:
            async for event in stream: ...
            answer = await stream.result()
        """
        async with await self.send(Stream(model=model, messages=messages, **options)) as stream:
            yield stream

    async def complete(
        self, model: "CompletionModel | str | Sequence[str]", prompt: str, **options: Unpack[CompleteOptions]
    ) -> ChatResult:
        """Ask a language model to continue a raw text, without a chat template."""
        return await self.send(Complete(model=model, prompt=prompt, **options))

    async def embed(
        self,
        model: "EmbeddingModel | str | Sequence[str]",
        texts: str | Sequence[str],
        *,
        progress: Callable[[int, int], None] | None = None,
        **options: Unpack[EmbedOptions],
    ) -> EmbedResult:
        """Ask an embedding model for one vector per text: `result.vectors[i]` belongs to `texts[i]`.

        Any number of texts is split into requests, and texts that are cached are not sent.

        Args:
            model: An id.
            texts: One text or many, none of them empty.
            progress: Called with (texts done, texts to send) after each request; texts from the cache are not counted.
            **options: The fields of `Embed`: `dimensions`, `normalize`, ...
        """
        operation = Embed(model=model, texts=texts, **options)
        return await self.send(operation, listener=None if progress is None else _progress(progress))

    async def image(
        self, model: "ImageModel | str | Sequence[str]", prompt: str = "", **options: Unpack[ImageOptions]
    ) -> ImageResult:
        """Ask an image model for pictures."""
        return await self.send(Image(model=model, prompt=prompt, **options))

    async def run_tools(
        self,
        model: "ChatModel | str | Sequence[str]",
        messages: MessagesInput,
        *,
        max_rounds: int = 8,
        **options: Unpack[ChatOptions],
    ) -> ToolRun:
        """Chat, call the functions the model asks for, and go on until it asks for none; see `ToolRun`.

        Raises:
            ToolLoopUnfinished: If the model still asks for tools after `max_rounds` rounds.
            ResilientAIError: See `resilient_ai.core.errors`. After the first answer its `so_far` has the answers, the messages
                and what they cost: tools that ran are not to be run again.
        """
        chat, clock = Chat(model=model, messages=messages, **options), self._pipeline.clock
        hooks = [hook for layer in self._pipeline.stack if (hook := getattr(layer, "around_tool", None)) is not None]
        around = [partial(hook, clock=clock) for hook in hooks]
        return await run_tools(self.send, chat, max_rounds=max_rounds, around=around)

    async def send(
        self,
        operation: Operation[R],
        *,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cache: CacheMode | CacheControl | None = None,
        priority: Priority | None = None,
        listener: Listener | None = None,
    ) -> R:
        """Send any operation; what all methods do underneath. See `Pipeline.send`."""
        if self._keep_fresh is not None:
            self._keep_fresh()
        return await self._pipeline.send(
            operation,
            tags={**self._tags, **tagged(tags)} if tags else self._tags or None,
            timeout=self._timeout if timeout is None else timeout,
            cache=self._cache if cache is None else cache,
            priority=self._priority if priority is None else priority,
            listener=listener,
        )

    # The client itself

    def with_options(
        self,
        *,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cache: CacheMode | CacheControl | None = None,
        priority: Priority | None = None,
    ) -> Self:
        """Return a cheap view with other defaults; it shares connections, breakers, limits, cache and ledger.

        Args:
            tags: Added to the tags of this client.
            timeout: Seconds for each call.
            cache: A mode, "on", "off", "read", "write" or "refresh", or a `CacheControl`.
            priority: "interactive", or "batch" for work that nobody waits for, which others overtake in a queue.

        Raises:
            InvalidInput: If one is out of its range.
            ConfigurationError: If the stack has no `Deadline` to keep a timeout.
        """
        timeout = self._timeout if timeout is None else timeout
        cache = self._cache if cache is None else cache
        priority = self._priority if priority is None else priority
        self._pipeline.check_options(timeout, cache, priority)
        view = copy.copy(self)
        view.__dict__.update(
            _tags=self._tags if tags is None else {**self._tags, **checked_tags(tags)},
            _timeout=timeout,
            _cache=cache,
            _priority=priority,
            _owner=False,
        )
        return view

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` told of every event of every call; return what ends the subscription."""
        return self._pipeline.subscribe(listener)

    def on(self, kind: type[E], callback: Callable[[E], None]) -> Callable[[], None]:
        """Have `callback` told of every event of one class; return what ends the subscription. See `Pipeline.on`.

        >>> from resilient_ai import CircuitOpened
        >>> ai = AsyncClient(api_key="secret", stack=[])
        >>> stop = ai.on(CircuitOpened, lambda opened: print(opened.model, "rests for", opened.retry_after))
        >>> stop()
        """
        return self._pipeline.on(kind, callback)

    def describe(self, *, models: int = 1) -> Description:
        """Return the effective stack, outermost first, with settings, and the worst case of a call that names `models` models."""
        return self._pipeline.describe(models=models)

    def health(self) -> Health:
        """Return what every breaker, limit and budget knows now; as text, a line for each."""
        return self._pipeline.health()

    def middleware(self, kind: type[T]) -> T:
        """Return the outermost middleware of a class, such as `CircuitBreaker`, whose methods act on all calls.

        Raises:
            ConfigurationError: If the stack has none.

        >>> from resilient_ai.middleware import CircuitBreaker
        >>> ai = AsyncClient(api_key="secret", stack=[CircuitBreaker()])
        >>> ai.middleware(CircuitBreaker).isolate("some/model")
        """
        for layer in self._pipeline.stack:
            if isinstance(layer, kind):
                return layer
        raise ConfigurationError(f"the stack of this client has no {kind.__name__}")

    @property
    def cache(self) -> ClientCache:
        """What the cache knows: the key of an operation, why it is not answered from it, figures, and forgetting.

        Raises:
            ConfigurationError: If the stack has no `Cache`.
        """
        return ClientCache(self.middleware(Cache), self._tags, self._call)

    def _call(self, operation: Operation[Any]) -> Call[Any]:
        """Return the call as which this client, with its options, would send an operation."""
        return self._pipeline.call(
            operation,
            tags=self._tags or None,
            timeout=self._timeout,
            cache=self._cache,
            priority=self._priority,
        )

    @property
    def ledger(self) -> CostLedger:
        """The book of all sends; `costs` asks it the usual questions.

        Raises:
            ConfigurationError: If the stack has no `CostAccounting` with a ledger that can be asked, such as `SQLiteLedger`.
        """
        ledger = self._ledger
        if ledger is None:
            raise ConfigurationError("the stack of this client has no CostAccounting with a ledger that can be asked")
        return ledger

    @property
    def _ledger(self) -> CostLedger | None:
        for layer in self._pipeline.stack:
            ledger = layer.ledger if isinstance(layer, CostAccounting) else None
            if all(hasattr(ledger, question) for question in ("total", "by", "sends", "calls", "saved", "scan")):
                return cast("CostLedger", ledger)
        return None

    @property
    def costs(self) -> ClientCosts:
        """What was spent, wasted and saved, by model, tenant, day and more; and files of it.

        Of a view with tags it is what calls with these tags have cost.

        Raises:
            ConfigurationError: As `ledger` does.
        """
        return ClientCosts(self.ledger, self._tags)

    async def budgets(self, **tags: str) -> tuple[BudgetState, ...]:
        """Return what was spent of each budget, asked for now; nothing where there are none.

        Args:
            tags: Only budgets against which a call with exactly these tags may count, such as `tenant="a"`; those of a view are
                added. Without any, all budgets.

        Raises:
            BookUnavailable: If it cannot be asked what was spent.
            InvalidInput: If a tag of the view has another value, or there is no such `kind`.
        """
        asked = narrowed(self._tags, tags)
        found: list[BudgetState] = []
        for layer in self._pipeline.stack:
            if isinstance(layer, Budgets):
                found += await layer.state(asked, clock=self._pipeline.clock, costs=self._ledger)
        return tuple(found)

    @property
    def catalogue(self) -> ClientCatalogue:
        """The models, what they can do and what they cost; `await ai.catalogue.refresh()` asks the provider for news.

        It is the one in which the stack looks up prices and abilities, if that is a `LiveCatalogue`.
        """
        return self._catalogue

    def explain(self, operation: Operation[Any]) -> tuple[Considered, ...]:
        """Return which models would be considered for an operation if it were sent now, and why; nothing is sent.

        Raises:
            ConfigurationError: If the stack has no `Routing`.
            InvalidInput: As the call would.
        """
        return self.middleware(Routing).explain(self._call(operation))

    async def aclose(self) -> None:
        """Write what is pending and close connections; a view closes nothing."""
        if self._owner:
            await self._catalogue.aclose()
            await self._pipeline.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @override
    def __repr__(self) -> str:
        return f"AsyncClient(base_url={self._pipeline.provider.origin!r})"


def _checked(settings: object) -> Settings:
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        given = type(settings).__name__
        raise ConfigurationError(f"settings: a Settings object, got {given}; use Settings(timeout=...)")
    return settings


def _with_budgets(settings: Settings, budgets: Sequence[Budget] | None) -> Settings:
    if budgets is None:
        return settings
    if not isinstance(cast("object", budgets), list | tuple):
        raise ConfigurationError(f"budgets: a list of Budget, got {budgets!r:.60}")
    for budget in budgets:
        if not isinstance(cast("object", budget), Budget):
            raise ConfigurationError(f"budgets: each must be a Budget, got {budget!r:.60}")
    return settings.model_copy(update={"budgets": tuple(budgets)})


def _source_of(provider: Provider) -> "Transport | Fetch":
    if isinstance(provider, DeepInfraProvider):
        return provider.transport

    async def nowhere(_path: str) -> bytes:
        raise ConfigurationError(f"{type(provider).__name__} has no lists of models; only DeepInfraProvider has")

    return nowhere


def _progress(progress: Callable[[int, int], None]) -> Listener:
    def listener(event: Event) -> None:
        if isinstance(event, BatchDone):
            progress(event.done, event.total)

    return listener
