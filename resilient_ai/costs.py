"""What the ledger of a client knows: sums, calls, waste, savings, and files of them."""

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TypeVar, cast

from typing_extensions import override

from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.ledger import Column, CostBook, LedgerCall, LedgerRow, LedgerSend, LedgerTotal, SavedTotal
from resilient_ai.stores._ledger_files import FORMATS, NotExactError, SendsFile

T = TypeVar("T")
Moment = float | datetime | date


class ClientCosts:
    """The costs of a client's requests, as its ledger has them.

    Every question sees what was reported before it. `since` and `until` say which requests count: those that were sent from one
    moment on, and before the other. Each is a number of seconds since 1970-01-01 UTC, a `datetime` with a time zone, or a `date`,
    which begins at midnight UTC. Tags narrow further: only requests with all of them count, and `model` and `kind` may be named
    as if they were tags.

    Sums are exact, and hold what is known. What is not known is counted apart as `unknown`, never as zero.

    Args:
        book: The ledger.

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

    def __init__(self, book: CostBook) -> None:
        self._book = book

    async def total(self, *, since: Moment | None = None, until: Moment | None = None, **tags: str) -> LedgerTotal:
        """Add up requests.

        Args:
            since: Requests from that moment on.
            until: Requests before that moment.
            tags: Only requests with all of these tags, such as `tenant="a"` or `model="m"`.

        Raises:
            InvalidInput: If a moment or a tag is of the wrong kind.
        """
        return await self._book.total(
            since=_seconds("since", since), until=_seconds("until", until), tags=_checked(tags)
        )

    async def by(
        self,
        *columns: Column,
        day: bool = False,
        since: Moment | None = None,
        until: Moment | None = None,
        **tags: str,
    ) -> list[LedgerRow]:
        """Add up requests in groups.

        Args:
            columns: What makes a group: "model", "kind", "day", "tenant", "user", "feature", "environment", "state".
            day: Whether each day in UTC is a group of its own; it is then the last part of each key.
            since: Requests from that moment on.
            until: Requests before that moment.
            tags: Only requests with all of these tags.

        Returns:
            One row per group, sorted by their keys. A request without a tag has None in its place, which comes first.

        Raises:
            InvalidInput: If a moment or a tag is of the wrong kind.
            ValueError: If there is no column, or one is not known.
        """
        keys: tuple[Column, ...] = (*columns, "day") if day and "day" not in columns else columns
        return await self._book.by(
            *keys, since=_seconds("since", since), until=_seconds("until", until), tags=_checked(tags)
        )

    async def sends(
        self,
        *,
        limit: int | None = 100,
        call_id: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        **tags: str,
    ) -> list[LedgerSend]:
        """Return the latest requests, the newest first.

        Args:
            limit: How many at most. At least 1; None for all of them, which must fit into memory: `export` needs not.
            call_id: Only requests of this call.
            since: Requests from that moment on.
            until: Requests before that moment.
            tags: Only requests with all of these tags.

        Raises:
            InvalidInput: If a moment or a tag is of the wrong kind.
            ValueError: If `limit` is less than 1.
        """
        return await self._book.sends(
            limit=limit,
            call_id=call_id,
            since=_seconds("since", since),
            until=_seconds("until", until),
            tags=_checked(tags),
        )

    async def calls(
        self, *, limit: int | None = 100, since: Moment | None = None, until: Moment | None = None, **tags: str
    ) -> list[LedgerCall]:
        """Return what the latest calls came to, the newest first, over all tries, batches and models of each.

        Args:
            limit: How many at most. At least 1; None for all of them.
            since: Only what was sent from that moment on counts.
            until: Only what was sent before that moment counts.
            tags: Only requests with all of these tags count.

        Raises:
            InvalidInput: If a moment or a tag is of the wrong kind.
            ValueError: If `limit` is less than 1.
        """
        return await self._book.calls(
            limit=limit, since=_seconds("since", since), until=_seconds("until", until), tags=_checked(tags)
        )

    async def wasted(self, *, since: Moment | None = None, until: Moment | None = None, **tags: str) -> Decimal:
        """Return US dollars that were spent on requests whose answer nobody got, as far as that is known.

        Such are tries that failed after they were billed, the slower one of two that were hedged, and answers that came when
        nobody waited any more. Arguments and errors are those of `total`.
        """
        return (await self.total(since=since, until=until, **tags)).wasted

    async def saved_by_cache(
        self, *, since: Moment | None = None, until: Moment | None = None, **tags: str
    ) -> SavedTotal:
        """Add up what was not sent, as its answer was in the cache or on its way; arguments and errors are those of `total`."""
        return await self._book.saved(
            since=_seconds("since", since), until=_seconds("until", until), tags=_checked(tags)
        )

    async def export(
        self,
        path: str | PathLike[str],
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        **tags: str,
    ) -> int:
        """Write all requests to a file, the oldest first, one row each.

        The file appears when it is complete, in place of one that was there; until then it is written beside it under another
        name. However many requests there are, memory is bounded. Times are in UTC. Tags other than tenant, user, feature and
        environment are one column of JSON.

        In a .parquet file, which needs the extra `parquet`, amounts are decimal128(38, 18). Where one of them has more digits
        than that, which no known price gives, both columns of amounts are text in the whole file, so that none is rounded.

        Args:
            path: A file whose name ends in .csv or .parquet.
            since: Requests from that moment on.
            until: Requests before that moment.
            tags: Only requests with all of these tags.

        Returns:
            How many rows were written.

        Raises:
            InvalidInput: If the name has another ending, or a moment or a tag is of the wrong kind.
            ConfigurationError: If a package is missing.
            OSError: If the file cannot be written.
        """
        target = Path(path)
        kind = FORMATS.get(target.suffix.lower())
        if kind is None:
            raise InvalidInput(
                f"path: the file must end in {' or '.join(FORMATS)}, got {target.name!r}", field="path", value=path
            )
        kind.check()
        scan = partial(
            self._book.scan, since=_seconds("since", since), until=_seconds("until", until), tags=_checked(tags)
        )
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            try:
                rows = await _write(scan(), kind(draft))
            except NotExactError:
                await _in_thread(draft.unlink)
                rows = await _write(scan(), kind(draft, exact=False))
            await _in_thread(partial(draft.replace, target))
        finally:
            draft.unlink(missing_ok=True)
        return rows

    @override
    def __repr__(self) -> str:
        return f"ClientCosts({self._book!r})"


async def _write(scan: AsyncIterator[Sequence[LedgerSend]], file: SendsFile) -> int:
    rows = 0
    try:
        await _in_thread(file.open)
        async for sends in scan:
            await _in_thread(partial(file.write, sends))
            rows += len(sends)
        await _in_thread(file.close)
    except BaseException:
        file.abandon()
        raise
    return rows


async def _in_thread(work: Callable[[], T]) -> T:
    """Do something in a thread, and wait for its end also where whoever asked is cancelled: its file is closed then."""
    done = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        while not done.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([done])
        raise


def _seconds(name: str, moment: Moment | None) -> float | None:
    """Return seconds since 1970-01-01 UTC.

    >>> _seconds("since", date(1970, 1, 2))
    86400.0
    """
    if moment is None:
        return None
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise InvalidInput(f"{name}: a datetime needs a time zone, got {moment!r}", field=name, value=moment)
        return moment.timestamp()
    if isinstance(moment, date):
        return datetime(moment.year, moment.month, moment.day, tzinfo=UTC).timestamp()
    given = cast("object", moment)
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise InvalidInput(
            f"{name}: seconds since 1970, a datetime with a time zone, or a date, got {given!r}",
            field=name,
            value=given,
        )
    return float(given)


def _checked(tags: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in tags.items():
        given = cast("object", value)
        if not isinstance(given, str):
            raise InvalidInput(f"{name}: a text, got {given!r}", field=name, value=given)
    return tags
