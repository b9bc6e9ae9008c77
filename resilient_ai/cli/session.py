"""A client for the time of one command."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from resilient_ai.cli import terminal
from resilient_ai.cli.failures import WrongUseError

if TYPE_CHECKING:
    from resilient_ai.client import AsyncClient
    from resilient_ai.core.ledger import CostLedger
    from resilient_ai.core.results import Result

T = TypeVar("T")


def with_client(
    work: "Callable[[AsyncClient], Awaitable[T]]",
    *,
    base_url: str | None = None,
    timeout: float | None = None,
    tags: Mapping[str, str] | None = None,
    cache: bool = True,
) -> T:
    """Run `work` with a client that is closed afterwards, also after Ctrl-C, which cancels what is under way."""
    from resilient_ai.client import AsyncClient  # noqa: PLC0415 - half a second that other commands need not wait for

    async def run() -> T:
        client = AsyncClient(base_url=base_url)
        try:
            async with client:
                view = client.with_options(tags=tags, timeout=timeout, cache=None if cache else "off")
                return await work(view)
        finally:
            _tell_lost(client.ledger)

    return asyncio.run(run())


def _tell_lost(ledger: "CostLedger") -> None:
    """Say so where what a command has cost is missing in the book: only once the client is closed that is certain."""
    if getattr(ledger, "lost", 0):
        place = getattr(ledger, "place", None) or "its file"
        terminal.say(
            f"what this has cost could not be written into the ledger, {place}; `resilient-ai doctor` looks closer",
            "yellow",
        )


def text_of(prompt: str | None) -> str:
    """Return the prompt, or what standard input holds where it is `-` or left out.

    Raises:
        WrongUseError: If there is nothing.
    """
    if prompt is None and sys.stdin.isatty():
        raise WrongUseError("there is no prompt: give it as an argument, or `-` and standard input")
    text = standard_input() if prompt in {None, "-"} else checked(str(prompt))
    if not text.strip():
        raise WrongUseError("the prompt is empty: give it as an argument, or `-` and standard input")
    return text


def checked(argument: str) -> str:
    """Return an argument that is text.

    Raises:
        WrongUseError: If it holds bytes that are none.
    """
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise WrongUseError("an argument is not UTF-8 text") from None
    return argument


def standard_input() -> str:
    """Return all of standard input.

    Raises:
        WrongUseError: If it is not text.
    """
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise WrongUseError("standard input is not UTF-8 text") from None


def facts_of(result: "Result") -> dict[str, object]:
    """Return what every result has, for JSON."""
    usage = result.usage
    return {
        "model": result.model,
        "served_by": result.served_by,
        "usage": None if usage is None else usage.model_dump(exclude={"raw"}),
        "cost": None if result.cost is None else result.cost.amount,
        "cost_source": None if result.cost is None else result.cost.source,
        "cache": result.cache,
        "attempts": result.attempts,
        "request_id": result.request_id,
    }
