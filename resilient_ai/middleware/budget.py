"""One budget: how much may be spent, in which time, by which calls."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Annotated, cast, get_args

from pydantic import BeforeValidator

from resilient_ai.core.budgets import PER_DOLLAR
from resilient_ai.core.checks import check_kind, is_unicode
from resilient_ai.core.kinds import KINDS, counted_as
from resilient_ai.core.money import EXACT
from resilient_ai.middleware._machines.budget_window import Period

ANY = "*"
# Tags whose values show in figures and traces where a budget names them; those of others may be the names of people.
_SHOWN = frozenset({"tenant", "feature", "environment", "model", "kind"})

_AMOUNT = re.compile(r"\s*([0-9_.]+)\s*(?:USD)?\s*", re.IGNORECASE)
# A counter of all databases holds up to 9.2 million dollars.
_MOST_DOLLARS = 9_000_000
_LEAST = Decimal(1) / PER_DOLLAR
_MOST_THRESHOLD = 2


def refuse_float(name: str, given: object, unit: str = "") -> None:
    """Refuse an amount that is a float; for whoever would turn it into a Decimal without a word.

    Raises:
        ValueError: If it is one; the message says what to write.
    """
    if isinstance(given, float):
        sentence = f"{name} must not be a float, which is hardly ever exact: write '{given}{unit}', got {given!r}"
        raise ValueError(sentence)  # noqa: TRY004 - as every option that is out of range


def _exact(given: object) -> object:
    refuse_float("limit", given, " USD")
    return given


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Let the calls of a scope spend so much, and no more, in a stretch of time.

    A hard budget refuses the call that could exceed it, before anything is sent. A soft one lets everything go and tells at each
    threshold. What is reserved for requests under way counts as spent until it is known what they cost; thresholds look at what
    is known.

    Calendar windows begin with the minute, hour, day, Monday or month in UTC. With `rolling` the last 60 seconds, 60 minutes, 24
    hours, 7 days or 30 days count, in sixty slices of which each counts as a whole.

    Any number of budgets may stand side by side, and a call counts against all whose scope it is in.

    Args:
        limit: US dollars, above 0, such as "25 USD", `Decimal("0.5")` or 25. A float is refused, in settings as well, as it is
            hardly ever the number that was written.
        per: "minute", "hour", "day", "week", "month", or "total" for one that never begins anew.
        scope: Tags that a call must have to count, such as {"tenant": "a"}; empty for all calls. The value "*" makes one budget
            of this size for each value of the tag, and calls without the tag do not count. There are no patterns: a value with
            "*" in it is refused. "model" and "kind" may be named as if they were tags. The kinds are "chat", "stream",
            "complete", "embed" and "image"; a chat that is streamed counts as "chat" as well, and with "*" as that alone.
        hard: Whether calls are refused beyond the limit.
        rolling: Whether the window moves with time. Not for "total".
        thresholds: Parts of the limit, each above 0 and up to 2, at which a `BudgetThresholdReached` is told: 0.8 for 80 percent.
        name: What it is called in errors and reports; by default it is made of limit and window.

    Raises:
        ValueError: If a value is out of its range; the message says which and what was given.

    >>> Budget(limit="25 USD", per="day", scope={"tenant": "a"})
    Budget(limit=Decimal('25'), per='day', scope={'tenant': 'a'}, hard=True, rolling=False, thresholds=(0.5, 0.8, 1.0), name='')
    """

    limit: Annotated[Decimal | int | str, BeforeValidator(_exact)]
    per: Period
    scope: Mapping[str, str] = field(default_factory=dict[str, str])
    hard: bool = True
    rolling: bool = False
    thresholds: tuple[float, ...] = (0.5, 0.8, 1.0)
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", _amount_of(self.limit))
        if self.per not in get_args(Period):
            raise ValueError(f"per must be one of {', '.join(get_args(Period))}, got {self.per!r}")
        object.__setattr__(self, "scope", _checked_scope(self.scope))
        check_kind("hard", self.hard, bool)
        check_kind("rolling", self.rolling, bool)
        if self.rolling and self.per == "total":
            raise ValueError("rolling must be False for a budget in total, which has no window that could move")
        object.__setattr__(self, "thresholds", _checked_thresholds(self.thresholds))
        check_kind("name", self.name, str)

    @property
    def dollars(self) -> Decimal:
        """The limit in US dollars."""
        return cast("Decimal", self.limit)

    @property
    def units(self) -> int:
        """The limit as counters hold it."""
        return int(EXACT.multiply(self.dollars, PER_DOLLAR))

    @property
    def title(self) -> str:
        """What it is called: its name, or limit and window.

        >>> Budget(limit=25, per="day").title, Budget(limit=25, per="day", rolling=True).title
        ('25 USD per day', '25 USD per rolling day')
        """
        if self.name:
            return self.name
        window = "in total" if self.per == "total" else f"per {'rolling ' if self.rolling else ''}{self.per}"
        return f"{self.dollars:f} USD {window}"

    @property
    def shown_as(self) -> str:
        """What it is called in figures and traces, where nothing may stand that a caller has given.

        Its title, and its scope as it is written here: the values of tenants, features, environments, models and kinds, of
        other tags their names alone.

        >>> Budget(limit=25, per="day", scope={"tenant": "*", "feature": "search", "user": "ada"}).shown_as
        '25 USD per day tenant=* feature=search user'
        """
        parts = (tag if tag not in _SHOWN and value != ANY else f"{tag}={value}" for tag, value in self.scope.items())
        return " ".join((self.title, *parts))


def value_in(tag: str, given: str, wanted: str) -> str | None:
    """Return the value of a tag as which a call counts in a scope that wants a value, or any; None where it does not.

    A tag that is empty is none.

    >>> value_in("tenant", "a", "*"), value_in("tenant", "a", "b"), value_in("kind", "stream", "chat")
    ('a', None, 'chat')
    """
    value = counted_as(given, wanted) if tag == "kind" else given
    return value if value and wanted in {value, ANY} else None


def _amount_of(given: object) -> Decimal:
    _exact(given)
    if isinstance(given, int) and given > _MOST_DOLLARS:
        given = "a larger number"  # which may have thousands of digits, and Python then refuses to print it
    amount = _number_of(given)
    if isinstance(given, str) and amount is None and "," in given:
        raise ValueError(f"limit must be written without commas, such as '1000 USD', got {given!r:.60}")
    if amount is not None and amount.is_finite() and 0 < amount < _LEAST:
        raise ValueError(f"limit must be at least {_LEAST:f} USD, the least that is counted, got {given!r:.60}")
    if amount is None or not amount.is_finite() or not _LEAST <= amount <= _MOST_DOLLARS:
        raise ValueError(
            f"limit must be US dollars above 0 and up to {_MOST_DOLLARS}, such as '25 USD', got {given!r:.60}"
        )
    return amount


def _number_of(given: object) -> Decimal | None:
    if isinstance(given, str):
        found = _AMOUNT.fullmatch(given)
        given = None if found is None else found[1]
    if not isinstance(given, Decimal | int | str) or isinstance(given, bool):
        return None
    try:
        return Decimal(given)
    except InvalidOperation:
        return None


def _checked_scope(given: object) -> dict[str, str]:
    pairs = dict(cast("Mapping[object, object]", given)) if isinstance(given, Mapping) else None
    if pairs is None or not all(isinstance(text, str) and text for pair in pairs.items() for text in pair):
        raise ValueError(f"scope must be names of tags with their values, such as {{'tenant': 'a'}}, got {given!r}")
    scope = cast("dict[str, str]", pairs)
    for tag, value in scope.items():
        if not (is_unicode(tag) and is_unicode(value)):
            raise ValueError(f"scope must be text, which half of a surrogate pair is not, got {value!r} for {tag!r}")
        if ANY in value and value != ANY:
            raise ValueError(
                f"scope must name a value as it is, or '*' for each value, as there are no patterns, got {value!r} for {tag!r}"
            )
    if scope.get("kind", ANY) not in {*KINDS, ANY}:
        raise ValueError(f"scope must name a kind out of {', '.join(KINDS)} or {ANY!r}, got {scope['kind']!r}")
    return scope


def _checked_thresholds(given: object) -> tuple[float, ...]:
    sentence = (
        f"thresholds must be parts of the limit up to {_MOST_THRESHOLD}, such as 0.8 for 80 percent, got {given!r}"
    )
    if not isinstance(given, tuple | list | set | frozenset):
        raise ValueError(sentence)  # noqa: TRY004 - as every option that is out of range
    for part in cast("tuple[object, ...]", given):
        if not isinstance(part, int | float) or isinstance(part, bool) or not 0 < part <= _MOST_THRESHOLD:
            raise ValueError(sentence)
    return tuple(sorted(set(cast("tuple[float, ...]", given))))
