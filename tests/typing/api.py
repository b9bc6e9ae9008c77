"""Typical code of a user, never run: mypy and pyright, both strict, must agree on what everything is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar, assert_type

from pydantic import BaseModel
from typing_extensions import override

from resilient_ai import (
    AsyncClient,
    BlockingStream,
    BudgetState,
    CacheControl,
    CacheStats,
    Call,
    CatalogueChanges,
    Chat,
    ChatResult,
    CircuitOpened,
    Client,
    Complete,
    Considered,
    Cost,
    CostLedger,
    DeepInfraProvider,
    Embed,
    EmbedResult,
    Event,
    Finished,
    Image,
    ImageResult,
    LedgerRow,
    Middleware,
    ModelInfo,
    Next,
    OperationMiddleware,
    Pipeline,
    ReasoningDelta,
    Restarted,
    Stream,
    StreamResult,
    StructuredResult,
    TextDelta,
    ToolCallDelta,
    ToolRun,
    Usage,
    Vectors,
    assistant,
    catalogue,
    default_stack,
    system,
    user,
)
from resilient_ai.middleware import (
    Batching,
    Cache,
    CircuitBreaker,
    ConcurrencyLimit,
    CostAccounting,
    Deadline,
    Logging,
    Retry,
    Routing,
    Timeout,
    Tracing,
)
from resilient_ai.stores import MemoryStore

R = TypeVar("R")
MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


class Invoice(BaseModel):
    """What a user reads answers into."""

    number: str
    total: Decimal


async def timed(call: Call[R], proceed: Next[R], /) -> R:
    """A middleware that is a function."""
    return await proceed(call)


@dataclass(frozen=True, kw_only=True)
class Named:
    """A middleware that is a class."""

    name: str

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        assert_type(call.model, str)
        assert_type(call.remaining(), float | None)
        return await proceed(call.replace(tags={**call.tags, "name": self.name}))


class Short(OperationMiddleware):
    """A middleware that knows one operation."""

    @override
    async def chat(self, call: Call[ChatResult], proceed: Next[ChatResult]) -> ChatResult:
        answer = await proceed(call)
        assert_type(answer, ChatResult)
        return answer

    @override
    async def embed(self, call: Call[EmbedResult], proceed: Next[EmbedResult]) -> EmbedResult:
        if isinstance(call.operation, Embed):
            assert_type(call.operation.texts, tuple[str, ...])
        return await proceed(call)


async def sending(ai: AsyncClient) -> None:
    """The class of an operation fixes the type of its result."""
    assert_type(await ai.send(Chat(model=MODEL, messages="hi")), ChatResult)
    assert_type(await ai.send(Stream(model=MODEL, messages="hi")), StreamResult)
    assert_type(await ai.send(Complete(model=MODEL, prompt="Once")), ChatResult)
    assert_type(await ai.send(Embed(model="BAAI/bge-m3", texts=["a", "b"])), EmbedResult)
    assert_type(await ai.send(Image(model="m", prompt="a tree"), tags={"tenant": "a"}, timeout=5), ImageResult)


async def chatting(ai: AsyncClient) -> None:
    """Whole answers, also read into a type."""
    answer = await ai.chat(MODEL, [system("Be brief."), user("hi", b"\x89PNG"), assistant("Hello")], temperature=0.2)
    assert_type(answer, ChatResult)
    assert_type(answer.text, str)
    assert_type(answer.usage, Usage | None)
    assert_type(answer.cost, Cost | None)
    await ai.chat([MODEL, "Qwen/Qwen3-32B"], [{"role": "user", "content": "hi"}, answer.message])

    invoice = await ai.chat(MODEL, "Read this invoice.", output=Invoice, max_tokens=200)
    assert_type(invoice, StructuredResult[Invoice])
    assert_type(invoice.output.total, Decimal)
    assert_type(await ai.chat(MODEL, "Three primes.", output=list[int]), StructuredResult[list[int]])


async def streaming(ai: AsyncClient) -> None:
    """The events of a stream are a closed union."""
    async with ai.stream(MODEL, "hi", max_tokens=10, on_interrupt="restart") as stream:
        assert_type(stream, StreamResult)
        async for event in stream:
            assert_type(event, TextDelta | ReasoningDelta | ToolCallDelta | Restarted | Finished)
            if isinstance(event, TextDelta):
                assert_type(event.text, str)
        assert_type(await stream.result(), ChatResult)


async def everything_else(ai: AsyncClient) -> None:
    """Completion, vectors, pictures, tools, views and events."""

    def tides(port: str, days: int = 1) -> list[str]:
        return [port] * days

    def progress(done: int, total: int) -> None:
        assert_type((done, total), tuple[int, int])

    def listen(event: Event) -> None:
        assert_type(event.call_id, str)

    assert_type(await ai.complete(MODEL, "Once upon a time"), ChatResult)
    result = await ai.embed("BAAI/bge-m3", ["a"], dimensions=64, progress=progress)
    assert_type(result.vectors, Vectors)
    assert_type(result.vectors[0], list[float])
    pictures = await ai.image("black-forest-labs/FLUX-1-schnell", "a tree", size="512x512", n=2)
    assert_type(pictures.images[0].data, bytes)
    run = await ai.run_tools(MODEL, "When is high tide?", tools=[tides], max_rounds=3)
    assert_type(run, ToolRun)
    assert_type(run.answer, ChatResult)
    assert_type(ai.with_options(tags={"tenant": "a"}, timeout=5, cache="refresh"), AsyncClient)
    assert_type(ai.with_options(cache=CacheControl(mode="read", max_age=60)), AsyncClient)
    assert_type(ai.cache.key(Embed(model="m", texts="a")), str | None)
    assert_type(await ai.cache.why_miss(Embed(model="m", texts="a")), str | None)
    assert_type(await ai.cache.stats(), CacheStats)
    assert_type(await ai.cache.forget(tenant="a"), int)
    stop = ai.subscribe(listen)
    assert_type(stop(), None)
    assert_type(ai.on(CircuitOpened, listen), Callable[[], None])
    assert_type(ai.ledger, CostLedger)
    assert_type(await ai.costs.wasted(tenant="a"), Decimal)
    assert_type(await ai.costs.by("model", day=True), list[LedgerRow])
    assert_type(await ai.budgets(tenant="a"), tuple[BudgetState, ...])
    assert_type(ai.explain(Chat(model="auto", messages="hi")), tuple[Considered, ...])
    assert_type(await ai.catalogue.refresh(), CatalogueChanges)
    assert_type(catalogue.get(MODEL), ModelInfo | None)
    assert_type(catalogue.find("chat", tools=True), tuple[ModelInfo, ...])


async def pipelines() -> None:
    """Own middleware and built-in ones stand in one list."""
    provider = DeepInfraProvider(api_key="secret")
    stack: Sequence[Middleware] = [
        timed,
        Named(name="mine"),
        Short(),
        Tracing(),
        Logging(),
        Deadline(total=60),
        Cache(MemoryStore(), ttl=60),
        Routing(models=("a", "b")),
        Batching(size=64),
        Retry(attempts=2),
        CircuitBreaker(),
        ConcurrencyLimit(limit=10),
        CostAccounting(),
        Timeout(attempt=30),
    ]
    pipeline = Pipeline(provider, stack)
    assert_type(await pipeline.send(Embed(model="m", texts="a")), EmbedResult)
    Pipeline(provider, [timed, Named(name="mine"), Retry()])
    AsyncClient(api_key="secret", stack=[timed, *default_stack()])
    assert_type(await provider.language_model(MODEL).chat("hi"), ChatResult)
    assert_type(await provider.embedding_model("BAAI/bge-m3").embed(["a"]), EmbedResult)
    assert_type(await provider.image_model("black-forest-labs/FLUX-1-schnell").image("a tree"), ImageResult)


def blocking() -> None:
    """The client for code that does not await has the same types."""
    with Client(api_key="secret") as ai:
        assert_type(ai.chat(MODEL, "hi", seed=1), ChatResult)
        assert_type(ai.chat(MODEL, "hi", output=Invoice).output, Invoice)
        assert_type(ai.send(Embed(model="m", texts="a")), EmbedResult)
        assert_type(ai.embed("BAAI/bge-m3", "a").vectors.dimensions, int)
        assert_type(ai.image("m", "a tree"), ImageResult)
        assert_type(ai.complete(MODEL, "Once"), ChatResult)
        assert_type(ai.with_options(timeout=3), Client)
        with ai.stream(MODEL, "hi", on_interrupt="continue") as stream:
            assert_type(stream, BlockingStream)
            for event in stream:
                assert_type(event, TextDelta | ReasoningDelta | ToolCallDelta | Restarted | Finished)
            assert_type(stream.result(), ChatResult)
