"""Write middleware of your own: as a function, as a class with options, and for some operations alone.

A middleware is a callable that takes a call and `proceed`, and calls `proceed(call)` once, several times or not at all.

    python examples/own_middleware.py

The key is taken from DEEPINFRA_API_KEY, the server from RESILIENT_AI_BASE_URL if it is set.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import TypeVar

from resilient_ai import (
    AsyncClient,
    Call,
    CallRejected,
    Chat,
    ChatResult,
    Middleware,
    Next,
    OperationMiddleware,
    Stream,
    StreamResult,
    UserMessage,
    default_stack,
)

R = TypeVar("R")
MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


async def announce(call: Call[R], proceed: Next[R], /) -> R:
    """Say what is asked and how long it took, for any operation."""
    started = call.clock.monotonic()
    try:
        return await proceed(call)
    finally:
        took = call.clock.monotonic() - started
        print(f"announce: {call.operation.kind} of {call.tags.get('user', 'nobody')} took {took * 1000:.0f} ms")


@dataclass(frozen=True, kw_only=True)
class OnlyModels:
    """Refuse every model that is not on the list."""

    allowed: tuple[str, ...]

    async def __call__(self, call: Call[R], proceed: Next[R], /) -> R:
        """Let the call pass or refuse it; nothing has been sent then."""
        if call.model not in self.allowed:
            raise CallRejected(f"{call.model!r} is not among the models of this service")
        return await proceed(call)


class HideAddresses(OperationMiddleware):
    """Take mail addresses out of chats before they leave, streamed or not; everything else passes through unchanged."""

    async def chat(self, call: Call[ChatResult], proceed: Next[ChatResult]) -> ChatResult:
        """Send the same chat with the addresses masked."""
        return await proceed(masked(call))

    async def stream(self, call: Call[StreamResult], proceed: Next[StreamResult]) -> StreamResult:
        """Send the same chat with the addresses masked; a stream is an operation of its own."""
        return await proceed(masked(call))


def masked(call: Call[R]) -> Call[R]:
    """Return the call with the addresses of its user messages masked."""
    operation = call.operation
    if not isinstance(operation, Chat | Stream):
        return call
    messages = tuple(
        message.model_copy(update={"content": re.sub(r"\S+@\S+", "<address>", message.content)})
        if isinstance(message, UserMessage) and isinstance(message.content, str)
        else message
        for message in operation.messages
    )
    return call.replace(operation=operation.model_copy(update={"messages": messages}))


async def main() -> None:
    """Put the three outside of the default stack, and see them at work."""
    own: list[Middleware] = [announce, OnlyModels(allowed=(MODEL,)), HideAddresses()]
    async with AsyncClient(stack=[*own, *default_stack()]) as ai:
        print(f"outermost: {', '.join(layer.name for layer in ai.describe()[:3])}")
        anna = ai.with_options(tags={"user": "anna"})
        answer = await anna.chat(MODEL, "Repeat exactly: write to anna@example.org", max_tokens=40)
        print(f"answer: {answer.text.strip()}")
        try:
            await anna.chat("Qwen/Qwen3-32B", "hi")
        except CallRejected as error:
            print(f"refused: {error}")


if __name__ == "__main__":
    asyncio.run(main())
