"""A book of costs with rows of our own choice, for the commands that read it."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal

from resilient_ai.core.ledger import CallSpared, SendClosed, SendOpened
from resilient_ai.core.results import Usage
from resilient_ai.stores import SQLiteLedger


def at(text):
    """Return seconds since 1970 of a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class Rows:
    """Writes sends and hits into a ledger, each with the next number as its name."""

    def __init__(self, ledger):
        self.ledger = ledger
        self._count = 0

    def send(self, when, cost, model="m", *, used=True, state=None, tokens=(10, 5), **tags):
        """Write down a send; a cost of None is unknown."""
        self.tagged(when, cost, model, tags, used=used, state=state, tokens=tokens)

    def tagged(self, when, cost, model, tags, *, used=True, state=None, tokens=(10, 5)):
        """Write down a send whose tags may have any name."""
        self._count += 1
        name = f"s{self._count}"
        moment = at(when) if isinstance(when, str) else when
        self.ledger.opened(
            SendOpened(send_id=name, call_id=name, at=moment, kind="chat", model=model, attempt=1, tags=tags)
        )
        self.ledger.closed(
            SendClosed(
                send_id=name,
                state=state or ("unknown" if cost is None else "settled"),
                cost=None if cost is None else Decimal(cost),
                used=used,
                usage=Usage(input_tokens=tokens[0], output_tokens=tokens[1]),
            )
        )

    def hit(self, when, saved, model="m", **tags):
        """Write down an answer from the cache."""
        self._count += 1
        self.ledger.spared(
            CallSpared(
                call_id=f"h{self._count}",
                at=at(when) if isinstance(when, str) else when,
                kind="chat",
                model=model,
                outcome="hit",
                hits=1,
                saved=None if saved is None else Decimal(saved),
                tags=tags,
            )
        )


@asynccontextmanager
async def book(path=":memory:"):
    """Open a ledger, and write rows into it."""
    ledger = SQLiteLedger(path)
    try:
        yield Rows(ledger)
    finally:
        await ledger.aclose()


def write(path, *sends, hits=()):
    """Make a book with sends and hits in it, each the arguments of `Rows.send` or `Rows.hit`, the last of which are options."""

    async def fill():
        async with book(path) as rows:
            for *values, options in sends:
                rows.send(*values, **options)
            for *values, options in hits:
                rows.hit(*values, **options)

    path.parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(fill())
