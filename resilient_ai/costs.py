"""What the ledger of a client knows: sums, calls, waste, savings, and files of them."""

import math
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TypedDict, cast

from typing_extensions import override

from resilient_ai._cost_files import FORMATS, NotExactError, in_thread, write_sends
from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.kinds import check_filter
from resilient_ai.core.ledger import (
    Column,
    CostBook,
    LedgerCall,
    LedgerRow,
    LedgerSend,
    LedgerTotal,
    SavedTotal,
    check_period,
)

Moment = float | datetime | date | str


class _Which(TypedDict):
    since: float | None
    until: float | None
    tags: Mapping[str, str]


class ClientCosts:
    """The costs of a client's requests, as its ledger has them.

    Every question sees what was reported before it. `since` and `until` say which requests count: those that were sent from one
    moment on, and before the other. Each is a number of seconds since 1970-01-01 UTC, a `datetime` with a time zone, a `date`,
    which begins at midnight UTC, or the ISO text of one of the two, such as "2026-11-01" or "2026-11-01T08:00+01:00".

    Tags narrow further: only requests with all of them count, and `model` and `kind` may be named as if they were tags. They are
    keywords of a question, `tenant="a"`, or a mapping, `tags={"tenant": "a"}`, which can also hold names that are no keywords or
    that a question has for itself, such as `since`. Those of the costs of a view narrow every question and file; a question that
    names another value for one of them is refused, so that a view tells nothing about others.

    Sums are exact, and hold what is known. What is not known is counted apart as `unknown`, never as zero: where no cost is known
    the sum is None.

    Args:
        book: The ledger.
        tags: What all questions are about; for everything where there are none.

    Raises:
        InvalidInput: By every question, if a moment or a tag is of the wrong type, `since` comes after `until`, there is no such
            `kind`, or a tag has two values.

    >>> import asyncio
    >>> from resilient_ai.core.ledger import SendClosed, SendOpened
    >>> from resilient_ai.stores import SQLiteLedger
    >>> async def main():
    ...     book = SQLiteLedger(":memory:")
    ...     book.opened(SendOpened(send_id="s", call_id="c", at=60.0, kind="chat", model="m", attempt=1, tags={"tenant": "a"}))
    ...     book.closed(SendClosed(send_id="s", state="settled", cost=Decimal("0.0000097")))
    ...     costs = ClientCosts(book)
    ...     for row in await costs.by("tenant", day=True, since=date(1970, 1, 1), model="m"):
    ...         print(row.key, row.cost)
    ...     await book.aclose()
    >>> asyncio.run(main())
    ('a', '1970-01-01') 0.0000097
    """

    def __init__(self, book: CostBook, tags: Mapping[str, str] | None = None) -> None:
        self._book = book
        self._tags = _checked(tags)

    async def total(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        tags: Mapping[str, str] | None = None,
        **named: str,
    ) -> LedgerTotal:
        """Add up requests.

        Args:
            since: Requests from that moment on.
            until: Requests before that moment.
            tags: Only requests with all of these tags.
            named: The same as keywords, such as `tenant="a"` or `model="m"`.

        Raises:
            InvalidInput: If a moment or a tag is of the wrong kind.
        """
        return await self._book.total(**self._which(since, until, tags, named))

    async def by(
        self,
        *columns: Column,
        day: bool = False,
        since: Moment | None = None,
        until: Moment | None = None,
        tags: Mapping[str, str] | None = None,
        **named: str,
    ) -> list[LedgerRow]:
        """Add up requests in groups.

        Args:
            columns: What makes a group: "model", "kind", "day", "tenant", "user", "feature", "environment", "state".
            day: Whether each day in UTC is a group of its own; it is then the last part of each key.
            since: Requests from that moment on.
            until: Requests before that moment.
            tags: Only requests with all of these tags.
            named: The same as keywords.

        Returns:
            One row per group, sorted by their keys. A request without a tag has None in its place, which comes first.

        Raises:
            InvalidInput: If a moment or a tag is of the wrong kind, there is no column, or one is not known or named twice.
        """
        keys: tuple[Column, ...] = (*columns, "day") if day and "day" not in columns else columns
        return await self._book.by(*keys, **self._which(since, until, tags, named))

    async def sends(
        self,
        *,
        limit: int | None = 100,
        call_id: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        tags: Mapping[str, str] | None = None,
        **named: str,
    ) -> list[LedgerSend]:
        """Return the latest requests, the newest first.

        Args:
            limit: How many at most. At least 1; None for all of them, which must fit into memory: `export` needs not.
            call_id: Only requests of this call.
            since: Requests from that moment on.
            until: Requests before that moment.
            tags: Only requests with all of these tags.
            named: The same as keywords.

        Raises:
            InvalidInput: If a moment or a tag is of the wrong kind, or `limit` is less than 1, or no whole number.
        """
        check_filter(None if call_id is None else {"call_id": call_id})
        return await self._book.sends(
            limit=limit,
            call_id=call_id,
            **self._which(since, until, tags, named),
        )

    async def calls(
        self,
        *,
        limit: int | None = 100,
        since: Moment | None = None,
        until: Moment | None = None,
        tags: Mapping[str, str] | None = None,
        **named: str,
    ) -> list[LedgerCall]:
        """Return what the latest calls came to, the newest first, over all tries, batches and models of each.

        Args:
            limit: How many at most. At least 1; None for all of them.
            since: Only what was sent from that moment on counts.
            until: Only what was sent before that moment counts.
            tags: Only requests with all of these tags count.
            named: The same as keywords.

        Raises:
            InvalidInput: If a moment or a tag is of the wrong kind, or `limit` is less than 1, or no whole number.
        """
        return await self._book.calls(limit=limit, **self._which(since, until, tags, named))

    async def wasted(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        tags: Mapping[str, str] | None = None,
        **named: str,
    ) -> Decimal:
        """Return US dollars that were spent on requests whose answer nobody got, as far as that is known.

        Such are tries that failed after they were billed, the slower one of two that were hedged, and answers that came when
        nobody waited any more. Arguments and errors are those of `total`.
        """
        return (await self.total(since=since, until=until, tags=tags, **named)).wasted

    async def saved_by_cache(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        tags: Mapping[str, str] | None = None,
        **named: str,
    ) -> SavedTotal:
        """Add up what was not sent, as its answer was in the cache or on its way; arguments and errors are those of `total`."""
        return await self._book.saved(**self._which(since, until, tags, named))

    async def export(
        self,
        path: str | PathLike[str],
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        tags: Mapping[str, str] | None = None,
        **named: str,
    ) -> int:
        """Write all requests to a file, the oldest first, one row each.

        The file appears when it is complete, in place of one that was there; until then it is written beside it under another
        name. However many requests there are, memory is bounded. Times are in UTC. Tags other than tenant, user, feature and
        environment are one column of JSON.

        In a .parquet file, which needs the extra `parquet`, amounts are decimal128(38, 18). Where one of them has more digits
        than that, which no known price gives, both columns of amounts are text in the whole file, so that none is rounded.

        Args:
            path: A file whose name ends in .csv or .parquet, in a folder that is there.
            since: Requests from that moment on.
            until: Requests before that moment.
            tags: Only requests with all of these tags.
            named: The same as keywords.

        Returns:
            How many rows were written.

        Raises:
            InvalidInput: If the name has another ending, its folder is not there, or a moment or a tag is of the wrong kind.
            ConfigurationError: If a package is missing.
            OSError: If the file cannot be written; it names the file that was asked for.
        """
        target = Path(path)
        kind = FORMATS.get(target.suffix.lower())
        if kind is None:
            raise InvalidInput(
                f"path: the file must end in {' or '.join(FORMATS)}, got {target.name!r}", field="path", value=path
            )
        if not target.parent.is_dir():
            raise InvalidInput(f"path: there is no folder {str(target.parent)!r}", field="path", value=path)
        kind.check()
        scan = partial(self._book.scan, **self._which(since, until, tags, named))
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            try:
                rows = await write_sends(scan(), kind(draft))
            except NotExactError:
                await in_thread(draft.unlink)
                rows = await write_sends(scan(), kind(draft, exact=False))
            await in_thread(partial(draft.replace, target))
        except OSError as error:
            if error.filename not in {draft, str(draft)}:
                raise
            raise OSError(error.errno, error.strerror, str(target)) from None
        finally:
            draft.unlink(missing_ok=True)
        return rows

    def _which(
        self, since: Moment | None, until: Moment | None, tags: Mapping[str, str] | None, named: Mapping[str, str]
    ) -> _Which:
        begin, end = _seconds("since", since), _seconds("until", until)
        check_period(begin, end, given=(since, until))
        return {"since": begin, "until": end, "tags": narrowed(self._tags, tags, named)}

    @override
    def __repr__(self) -> str:
        return f"ClientCosts({self._book!r}{f', {self._tags!r}' if self._tags else ''})"


def narrowed(own: Mapping[str, str], *more: Mapping[str, str] | None) -> dict[str, str]:
    """Return the tags of a question to a view that has tags of its own.

    Raises:
        InvalidInput: If the question has another value for one of them, or two for one tag, or "kind" is one that there is not;
            or if something is no text.

    >>> narrowed({"tenant": "a"}, {"tenant": "a"}, {"user": "u"})
    {'tenant': 'a', 'user': 'u'}
    """
    found = dict(own)
    for tags in more:
        for name, value in _checked(tags).items():
            known = found.setdefault(name, value)
            if known != value:
                whose = "this view is about" if name in own else "the same question is about"
                raise InvalidInput(f"{name}: {whose} {known!r} alone, got {value!r}", field=name, value=value)
    check_filter(found)
    return found


def _seconds(name: str, moment: Moment | None) -> float | None:
    """Return seconds since 1970-01-01 UTC.

    >>> _seconds("since", date(1970, 1, 2)), _seconds("since", "1970-01-02T01:00+01:00")
    (86400.0, 86400.0)
    """
    if moment is None:
        return None
    given = _read(moment) if isinstance(moment, str) else moment
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise InvalidInput(f"{name}: a datetime needs a time zone, got {moment!r}", field=name, value=moment)
        return given.timestamp()
    if isinstance(given, date):
        return datetime(given.year, given.month, given.day, tzinfo=UTC).timestamp()
    number = cast("object", given)
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise InvalidInput(
            f'{name}: seconds since 1970, a datetime with a time zone, a date, or an ISO text such as "2026-11-01" or '
            f'"2026-11-01T08:00Z", got {moment!r}',
            field=name,
            value=moment,
        )
    return float(number)


def _read(text: str) -> date | None:
    """Return the date or the datetime of an ISO text, None where it is none."""
    for kind in (date, datetime):
        with suppress(ValueError):
            return kind.fromisoformat(text)
    return None


def _checked(tags: Mapping[str, str] | None) -> dict[str, str]:
    given = cast("object", {} if tags is None else tags)
    if not isinstance(given, Mapping):
        raise InvalidInput(f"tags: a mapping of names to texts, got {given!r}", field="tags", value=given)
    for name, value in cast("Mapping[object, object]", given).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidInput(f"{name}: a text, got {value!r}", field=str(name), value=value)
    return dict(cast("Mapping[str, str]", given))
