"""What `resilient-ai doctor` looks at of money: prices of one's own, the book of costs, and where budgets are counted."""

import asyncio
import time
from collections.abc import Callable
from typing import Literal

from resilient_ai.cli._costs_book import opened
from resilient_ai.cli._price_file import day_of
from resilient_ai.cli.terminal import counted, seconds
from resilient_ai.core.budgets import Charge
from resilient_ai.core.errors import ResilientAIError
from resilient_ai.deepinfra.catalogue import load_overrides
from resilient_ai.presets import home_trouble
from resilient_ai.settings import Settings
from resilient_ai.stores import RedisBudgets

Note = Callable[[str, Literal["good", "doubtful", "wrong"], str], None]

_PATIENCE = 8.0  # a server that does not answer is given up by the driver after 5
_PATIENCE_REDIS = 2.0
# What is asked for is a counter that no budget has.
_NOTHING = Charge(key="doctor", slice=0, first=0, amount=0, limit=None, until=1)


async def examine_money(settings: Settings, note: Note) -> None:
    """Look at all that is set, each in bounded time."""
    if settings.price_file is not None:
        _prices(settings, note)
    await _ledger(settings, note)
    if settings.budget_redis_url is not None or settings.budgets:
        await _budgets(settings, note)


def _prices(settings: Settings, note: Note) -> None:
    try:
        overrides = load_overrides(str(settings.price_file))
    except ResilientAIError as error:
        note("prices", "wrong", f"price_file: {error}")
        return
    models = counted(len(overrides.models), "model")
    note("prices", "good", f"{settings.price_file} has those of {models}, {day_of(overrides)}")


async def _ledger(settings: Settings, note: Note) -> None:
    if settings.ledger == "off" and settings.ledger_url is None:
        note("ledger", "good", "off, as the settings say")
        return
    if _in_memory(settings):
        note(
            "ledger",
            "doubtful",
            "in memory only, as the home cannot be used: what calls cost is forgotten with the process",
        )
        return
    started = time.monotonic()
    try:
        async with asyncio.timeout(_PATIENCE), opened() as (book, place):
            await book.total(since=time.time())
    except (ResilientAIError, TimeoutError) as error:
        note("ledger", "wrong", f"{_why(error, 'the ledger')}: what calls cost is not written down")
        return
    note("ledger", "good", f"{place} answers after {seconds(time.monotonic() - started)}")


async def _budgets(settings: Settings, note: Note) -> None:
    url = settings.budget_redis_url
    if url is None and (_in_memory(settings) or (settings.ledger == "off" and settings.ledger_url is None)):
        note(
            "budgets",
            "doubtful",
            f"{counted(len(settings.budgets), 'budget')} counted in memory, by each process for itself",
        )
        return
    started, may_forget = time.monotonic(), None
    try:
        async with asyncio.timeout(_PATIENCE):
            if url is None:
                async with opened() as (book, place):
                    await book.spent([_NOTHING])
            else:
                place, may_forget = await _asked(RedisBudgets(url.get_secret_value(), timeout=_PATIENCE_REDIS))
    except (ResilientAIError, TimeoutError) as error:
        refused = settings.budget_unreachable == "refuse" and any(budget.hard for budget in settings.budgets)
        advice = "calls that hard budgets count are refused" if refused else "budgets count nothing"
        note("budgets", "wrong", f"{_why(error, 'what counts them')}: {advice}")
        return
    counts = f"{counted(len(settings.budgets), 'budget')} counted in"
    if may_forget is not None:
        note("budgets", "doubtful", f"{counts} {place}, which {may_forget}")
        return
    note("budgets", "good", f"{counts} {place}, which answers after {seconds(time.monotonic() - started)}")


def _in_memory(settings: Settings) -> bool:
    return settings.ledger_url is None and home_trouble(settings.home) is not None


async def _asked(book: RedisBudgets) -> tuple[str, str | None]:
    try:
        await book.spent([_NOTHING])
        return book.place, book.may_forget
    finally:
        await book.aclose()


def _why(error: Exception, what: str) -> str:
    if isinstance(error, TimeoutError):
        return f"{what} gave no answer within {_PATIENCE:g} s"
    return str(error)
