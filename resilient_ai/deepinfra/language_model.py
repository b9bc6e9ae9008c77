"""Language models: whole answers, streams and text completions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from typing_extensions import override

from resilient_ai.core.call import Call
from resilient_ai.core.deltas import StreamEvent
from resilient_ai.core.errors import ProviderError
from resilient_ai.core.messages import MessagesInput
from resilient_ai.core.operations import Chat, Complete, Stream
from resilient_ai.core.options import ChatOptions, CompleteOptions
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import ChatResult
from resilient_ai.core.streams import StreamResult
from resilient_ai.deepinfra.exchange import JSON_LIMIT, exchange, hide_secret
from resilient_ai.deepinfra.wire.chat import chat_body, read_chat
from resilient_ai.deepinfra.wire.chat_stream import ChatEvents
from resilient_ai.deepinfra.wire.completions import completion_body, read_completion

if TYPE_CHECKING:
    from resilient_ai.core.pipeline import Provider
    from resilient_ai.deepinfra.reply import Reply
    from resilient_ai.deepinfra.transport import Transport


class DeepInfraLanguageModel:
    """One language model without any middleware: no retry, no cache, no cost accounting.

    >>> from resilient_ai.testing import ScriptedProvider, run
    >>> run(DeepInfraLanguageModel("meta-llama/Llama-3.3-70B-Instruct-Turbo", ScriptedProvider()).chat("hi")).text
    'Hello.'
    """

    def __init__(self, model: str, provider: "Provider") -> None:
        self.model = model
        self._pipeline = Pipeline(provider)

    async def chat(self, messages: MessagesInput, **options: Unpack[ChatOptions]) -> ChatResult:
        """Return a whole answer."""
        return await self._pipeline.send(Chat(model=self.model, messages=messages, **options))

    async def stream(self, messages: MessagesInput, **options: Unpack[ChatOptions]) -> StreamResult:
        """Return an answer that is still arriving; use it as `async with`."""
        return await self._pipeline.send(Stream(model=self.model, messages=messages, **options))

    async def complete(self, prompt: str, **options: Unpack[CompleteOptions]) -> ChatResult:
        """Return the continuation of a raw text."""
        return await self._pipeline.send(Complete(model=self.model, prompt=prompt, **options))

    @override
    def __repr__(self) -> str:
        return f"DeepInfraLanguageModel({self.model!r})"


async def send_chat(transport: "Transport", call: Call[Any], operation: Chat) -> ChatResult:
    """Send a `Chat` and read its answer."""
    async with exchange(transport, call, "/openai/chat/completions", chat_body(operation, stream=False)) as reply:
        return read_chat(await reply.read(JSON_LIMIT), model=call.model, headers=reply.headers)


async def send_complete(transport: "Transport", call: Call[Any], operation: Complete) -> ChatResult:
    """Send a `Complete` and read its answer."""
    async with exchange(transport, call, "/openai/completions", completion_body(operation)) as reply:
        return read_completion(await reply.read(JSON_LIMIT), model=call.model, headers=reply.headers)


async def send_stream(transport: "Transport", call: Call[Any], operation: Stream) -> StreamResult:
    """Send a `Stream` and return it once its first content has arrived."""
    body = chat_body(operation, stream=True)
    async with exchange(transport, call, "/openai/chat/completions", body, compressed=False) as reply:
        source = _ChatSource(reply, operation, transport.secret)
        first = await source.read()
        if first is None:
            first = source.conclude()
        return StreamResult(source, model=call.model, first=first, clock=call.clock)


class _ChatSource:
    """The events of a streamed chat, read off its connection."""

    def __init__(self, reply: "Reply", operation: Stream, secret: str) -> None:
        self._reply = reply
        self._secret = secret
        self._events = ChatEvents(model=operation.model, headers=reply.headers, n=operation.n)

    @property
    def finishing(self) -> bool:
        return self._events.finishing

    async def read(self) -> Sequence[StreamEvent] | None:
        events = self._events
        try:
            while not events.done:
                chunk = await self._reply.chunk()
                if not chunk:
                    return None
                if delivered := events.feed(chunk):
                    return delivered
        except ProviderError as error:
            self._reply.abort()
            hide_secret(error, self._secret)
            raise
        return None

    def conclude(self) -> Sequence[StreamEvent]:
        try:
            closing = self._events.conclude()
        except ProviderError as error:
            hide_secret(error, self._secret)
            raise
        self._reply.finish()
        return closing

    def abort(self) -> None:
        self._reply.abort()
