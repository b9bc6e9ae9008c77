"""The blocking client: the asynchronous one, run on an event loop in the background."""

import copy
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from typing_extensions import override

from resilient_ai.blocking_views import (
    BlockingCache,
    BlockingCatalogue,
    BlockingCosts,
    BlockingLedger,
    BlockingStream,
    soon,
)
from resilient_ai.client import AsyncClient
from resilient_ai.core.cache_control import CacheControl, CacheMode
from resilient_ai.core.call import Listener, Middleware, Priority
from resilient_ai.core.events import Event
from resilient_ai.core.health import BudgetState, Health
from resilient_ai.core.messages import MessagesInput
from resilient_ai.core.operations import Chat, Operation, Stream
from resilient_ai.core.options import ChatOptions, CompleteOptions, EmbedOptions, ImageOptions, StreamOptions
from resilient_ai.core.pipeline import Description
from resilient_ai.core.results import ChatResult, Considered, EmbedResult, ImageResult, StructuredResult
from resilient_ai.core.streams import StreamResult
from resilient_ai.middleware import Budget, Routing
from resilient_ai.portal import Portal
from resilient_ai.settings import Settings
from resilient_ai.tool_loop import ToolRun

if TYPE_CHECKING:
    import httpx

    from resilient_ai.deepinfra.catalogue.ids import ChatModel, CompletionModel, EmbeddingModel, ImageModel

E = TypeVar("E", bound=Event)
R = TypeVar("R")
T = TypeVar("T")


class Client:
    """DeepInfra's models behind one pipeline of middleware, for code that does not await.

    The pipeline is the one of `AsyncClient`, on an event loop in a background thread: it may be used from many threads at once,
    inside of a running event loop, and after a fork.

    Args:
        api_key: As for `AsyncClient`, like everything else. A `provider` or a `clock` of your own lives on one event loop, so
            only `AsyncClient` takes them.

    >>> Client(api_key="secret", stack=[])
    Client(base_url='https://api.deepinfra.com/v1')
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
    ) -> None:
        self._client = AsyncClient(
            api_key, base_url=base_url, stack=stack, budgets=budgets, routing=routing, http=http, settings=settings
        )
        self._portal = Portal()
        self._owner = True

    # One method per operation

    @overload
    def chat(
        self, model: "ChatModel | str | Sequence[str]", messages: MessagesInput, **options: Unpack[ChatOptions]
    ) -> ChatResult: ...
    @overload
    def chat(
        self,
        model: "ChatModel | str | Sequence[str]",
        messages: MessagesInput,
        *,
        output: type[T],
        **options: Unpack[ChatOptions],
    ) -> StructuredResult[T]: ...
    def chat(
        self,
        model: "ChatModel | str | Sequence[str]",
        messages: MessagesInput,
        *,
        output: type[Any] | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatResult:
        """Ask a language model for a whole answer; see `AsyncClient.chat`."""
        if output is None:
            return self.send(Chat(model=model, messages=messages, **options))
        return self._portal.run(lambda: self._client.chat(model, messages, output=output, **options))

    def stream(
        self, model: "ChatModel | str | Sequence[str]", messages: MessagesInput, **options: Unpack[StreamOptions]
    ) -> BlockingStream:
        """Ask a language model for an answer in pieces; use it as `with`, which frees the connection."""
        return self.send(Stream(model=model, messages=messages, **options))

    def complete(
        self, model: "CompletionModel | str | Sequence[str]", prompt: str, **options: Unpack[CompleteOptions]
    ) -> ChatResult:
        """Ask a language model to continue a raw text, without a chat template."""
        return self._portal.run(lambda: self._client.complete(model, prompt, **options))

    def embed(
        self,
        model: "EmbeddingModel | str | Sequence[str]",
        texts: str | Sequence[str],
        *,
        progress: Callable[[int, int], None] | None = None,
        **options: Unpack[EmbedOptions],
    ) -> EmbedResult:
        """Ask an embedding model for one vector per text; see `AsyncClient.embed`. `progress` is called in another thread."""
        return self._portal.run(lambda: self._client.embed(model, texts, progress=progress, **options))

    def image(
        self, model: "ImageModel | str | Sequence[str]", prompt: str = "", **options: Unpack[ImageOptions]
    ) -> ImageResult:
        """Ask an image model for pictures."""
        return self._portal.run(lambda: self._client.image(model, prompt, **options))

    def run_tools(
        self,
        model: "ChatModel | str | Sequence[str]",
        messages: MessagesInput,
        *,
        max_rounds: int = 8,
        **options: Unpack[ChatOptions],
    ) -> ToolRun:
        """Chat, call the functions the model asks for, and go on until it asks for none; see `AsyncClient.run_tools`."""
        return self._portal.run(lambda: self._client.run_tools(model, messages, max_rounds=max_rounds, **options))

    @overload
    def send(
        self,
        operation: Stream,
        *,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cache: CacheMode | CacheControl | None = None,
        priority: Priority | None = None,
        listener: Listener | None = None,
    ) -> BlockingStream: ...
    @overload
    def send(
        self,
        operation: Operation[R],
        *,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cache: CacheMode | CacheControl | None = None,
        priority: Priority | None = None,
        listener: Listener | None = None,
    ) -> R: ...
    def send(
        self,
        operation: Operation[Any],
        *,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cache: CacheMode | CacheControl | None = None,
        priority: Priority | None = None,
        listener: Listener | None = None,
    ) -> object:
        """Send any operation; see `Pipeline.send`. A `Stream` gives a `BlockingStream`."""
        result: object = self._portal.run(
            lambda: self._client.send(
                operation, tags=tags, timeout=timeout, cache=cache, priority=priority, listener=listener
            )
        )
        return BlockingStream(result, self._portal) if isinstance(result, StreamResult) else result

    # The client itself

    def with_options(
        self,
        *,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cache: CacheMode | CacheControl | None = None,
        priority: Priority | None = None,
    ) -> Self:
        """Return a cheap view with other defaults; see `AsyncClient.with_options`."""
        view = copy.copy(self)
        client = self._client.with_options(tags=tags, timeout=timeout, cache=cache, priority=priority)
        view.__dict__.update(_client=client, _owner=False)
        return view

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` told of every event of every call, in the background thread; return what ends the subscription."""
        return self._client.subscribe(listener)

    def on(self, kind: type[E], callback: Callable[[E], None]) -> Callable[[], None]:
        """Have `callback` told of every event of one class, in the background thread; return what ends the subscription.

        See `Pipeline.on`.
        """
        return self._client.on(kind, callback)

    def describe(self, *, models: int = 1) -> Description:
        """Return the effective stack, outermost first, with settings, and the worst case of a call that names `models` models."""
        return self._client.describe(models=models)

    def health(self) -> Health:
        """Return what every breaker, limit and budget knows now; as text, a line for each."""
        return self._portal.run(self._health)

    async def _health(self) -> Health:
        return self._client.health()

    def middleware(self, kind: type[T]) -> T:
        """Return the outermost middleware of a class; see `AsyncClient.middleware`."""
        return self._client.middleware(kind)

    @property
    def cache(self) -> BlockingCache:
        """What the cache knows; raises as `AsyncClient.cache` does."""
        return BlockingCache(self._client.cache, self._portal)

    @property
    def ledger(self) -> "BlockingLedger":
        """The book of all sends and what they cost; raises as `AsyncClient.ledger` does."""
        return BlockingLedger(self._client.ledger, self._portal)

    @property
    def costs(self) -> BlockingCosts:
        """What was spent, wasted and saved; raises as `AsyncClient.costs` does."""
        return BlockingCosts(self._client.costs, self._portal)

    def budgets(self, **tags: str) -> tuple[BudgetState, ...]:
        """Return what was spent of each budget, asked for now; see `AsyncClient.budgets`."""
        return self._portal.run(lambda: self._client.budgets(**tags))

    @property
    def catalogue(self) -> BlockingCatalogue:
        """The models, what they can do and what they cost."""
        return BlockingCatalogue(self._client.catalogue, self._portal)

    def explain(self, operation: Operation[Any]) -> tuple[Considered, ...]:
        """Return which models would be considered for an operation, and why; see `AsyncClient.explain`."""
        return self._portal.run(lambda: soon(self._client.explain, operation))

    def close(self) -> None:
        """Write what is pending, close connections and stop the background thread; a view closes nothing."""
        if self._owner:
            try:
                self._portal.run(self._client.aclose)
            finally:
                self._portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @override
    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", "Client", 1)
