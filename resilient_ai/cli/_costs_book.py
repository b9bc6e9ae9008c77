"""The book that the commands about money read, and the times and tags of a question to it."""

import re
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, TypedDict

import typer

from resilient_ai.cli.failures import WrongUseError

if TYPE_CHECKING:
    from resilient_ai.core.ledger import Column, LedgerRow
    from resilient_ai.inspection import Book
    from resilient_ai.settings import Settings


_PERIOD = re.compile(r"^(\d{1,6})([smhdw])$")
_DAY = 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NOUNS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week"}


class Which(TypedDict):
    """The sends that a question is about, as `CostBook` takes them."""

    since: float | None
    until: float | None
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of the book.

    Args:
        columns: What makes a group.
        since: Seconds since 1970-01-01 UTC, None for all that was.
        until: Seconds since 1970-01-01 UTC, None for now.
        last: What `since` was given as, where that was a period; see `period_of`.
        tags: What all sends have in common.
    """

    columns: "tuple[Column, ...]"
    since: float | None = None
    until: float | None = None
    last: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def which(self) -> Which:
        """The sends it is about."""
        return {"since": self.since, "until": self.until, "tags": self.tags}

    @property
    def period(self) -> str:
        """Of which time the sends are, and which days of it are not whole; empty where it is all time."""
        cut = [
            which
            for which, bound in (("first", self.since), ("last", self.until))
            if bound is not None and bound % _DAY
        ]
        if "day" not in self.columns or not cut:
            return f"sent {self._bounds}" if self._bounds else ""
        days = f"the {' and the '.join(cut)} day {'are' if len(cut) > 1 else 'is'} not whole"
        return f"sent {self._bounds}, so {days}"

    @property
    def limits(self) -> str:
        """What it leaves out, in words that follow a verb."""
        during = f" in {self.last}" if self.last and self.until is None else f" {self._bounds}".rstrip()
        return f"{during} with {'this tag' if len(self.tags) == 1 else 'these tags'}" if self.tags else during

    @property
    def _bounds(self) -> str:
        bounds = (("since", self.since), ("until", self.until))
        return " and ".join(f"{word} {_moment(bound)}" for word, bound in bounds if bound is not None)


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


@asynccontextmanager
async def opened(*, though_off: bool = False) -> "AsyncGenerator[tuple[Book, str]]":
    """Open the book of the settings for the time of a question, and say where it is.

    Where there is no file yet, the book is an empty one, and none is made.

    Args:
        though_off: Whether to open what a book that is off still holds, for names that are counted elsewhere.

    Raises:
        WrongUseError: If processes keep no book, as it is off or the home cannot be used.
    """
    from resilient_ai.settings import Settings  # noqa: PLC0415 - slow to import, and only needed by some commands

    settings = Settings()
    if settings.ledger == "off" and settings.ledger_url is None and not though_off:
        raise WrongUseError(
            'ledger: is "off", so no process writes down what calls cost, and each counts budgets by itself; with'
            " RESILIENT_AI_LEDGER=on this command shows what was written before"
        )
    ledger, place = _book(settings)
    try:
        yield ledger, place
    finally:
        await ledger.aclose()


def _book(settings: "Settings") -> "tuple[Book, str]":
    from resilient_ai.presets import home_of, home_trouble, ledger_of  # noqa: PLC0415 - as above
    from resilient_ai.stores import PostgresLedger, SQLiteLedger  # noqa: PLC0415 - as above

    home = home_of(settings.home)
    path = home / "ledger.sqlite"
    if settings.ledger_url is None and not path.is_file() and (trouble := home_trouble(settings.home)) is not None:
        raise WrongUseError(
            f"home: {home} cannot be used ({trouble}), so there is no book of costs: processes keep it in memory"
        )
    if settings.ledger_url is None and not path.is_file():
        return SQLiteLedger(":memory:"), str(path)  # a client with budgets would make the file, and a question must not
    ledger = ledger_of(settings.model_copy(update={"ledger": "on"}), home if path.is_file() else None)
    return ledger, ledger.place if isinstance(ledger, PostgresLedger) else str(path)


def merged(rows: "Iterable[LedgerRow]") -> "list[LedgerRow]":
    """Return rows in which a tag without a value is none, those that are one then added up, in the order of their first."""
    found: dict[tuple[str | None, ...], LedgerRow] = {}
    for row in rows:
        key = tuple(name or None for name in row.key)
        found[key] = replace(row, key=key) if key not in found else _together(found[key], row)
    return list(found.values())


def _together(one: "LedgerRow", other: "LedgerRow") -> "LedgerRow":
    known = [cost for cost in (one.cost, other.cost) if cost is not None]
    return replace(
        one,
        cost=sum(known, Decimal(0)) if known else None,
        **{
            name: getattr(one, name) + getattr(other, name)
            for name in ("sends", "wasted", "unknown", "input_tokens", "output_tokens")
        },
    )


def period_of(text: str | None) -> str:
    """Return what was given as a period until now in words, empty where it was none.

    >>> period_of("1m"), period_of("7d"), period_of("2026-11-01")
    ('the last minute', 'the last 7 days', '')
    """
    period = _PERIOD.match(text or "")
    if period is None:
        return ""
    count, noun = int(period[1]), _NOUNS[period[2]]
    return f"the last {noun}" if count == 1 else f"the last {count:,} {noun}s"


def moment(option: str, text: str) -> float:
    """Return seconds since 1970.

    >>> moment("--since", "2026-11-01")
    1793491200.0
    """
    period = _PERIOD.match(text)
    if period:
        return max(0.0, time.time() - int(period[1]) * _UNITS[period[2]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"must be a period such as 7d or 24h, or a date such as 2026-11-01, got {text!r}", param_hint=f"'{option}'"
        ) from None
    return max(0.0, (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
