"""What a blocking client hands out: streams, the ledger, costs, the cache and the catalogue, for code that does not await."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from typing_extensions import override

from resilient_ai.caching import ClientCache
from resilient_ai.core.cache_stats import CacheStats
from resilient_ai.core.deltas import StreamEvent
from resilient_ai.core.operations import Operation
from resilient_ai.core.results import ChatResult
from resilient_ai.core.streams import Ending, StreamResult
from resilient_ai.portal import Portal

if TYPE_CHECKING:
    from datetime import date

    from resilient_ai.core.ledger import Column, CostLedger, LedgerCall, LedgerRow, LedgerSend, LedgerTotal, SavedTotal
    from resilient_ai.costs import ClientCosts, Moment
    from resilient_ai.deepinfra.catalogue import CatalogueChanges, ClientCatalogue, ModelInfo

R = TypeVar("R")
T = TypeVar("T")


class BlockingStream:
    """A `StreamResult` for code that does not await: iterate over its events, then ask for the result."""

    def __init__(self, stream: StreamResult, portal: Portal) -> None:
        self._stream = stream
        self._portal = portal
        self._ready: deque[StreamEvent] = deque()

    def __iter__(self) -> Iterator[StreamEvent]:
        """Yield the events that have not been read yet."""
        if not self._ready:
            aiter(self._stream)  # refuses a stream that holds no more events
        while self._ready or self._fill():
            yield self._ready.popleft()

    def _fill(self) -> bool:
        self._ready.extend(self._portal.run(self._stream.next_events))
        return bool(self._ready)

    def result(self) -> ChatResult:
        """Read to the end and return the whole answer; raises as `StreamResult.result` does."""
        return self._portal.run(self._stream.result)

    @property
    def ended(self) -> Ending | None:
        """How the stream ended, None while it has not."""
        return self._stream.ended

    def close(self) -> None:
        """Stop reading and free the connection."""
        self._portal.run(self._stream.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @override
    def __repr__(self) -> str:
        return f"BlockingStream(model={self._stream.model!r}, ended={self._stream.ended!r})"


class BlockingLedger:
    """A ledger for code that does not await; its questions are the same."""

    def __init__(self, ledger: "CostLedger", portal: Portal) -> None:
        self._ledger = ledger
        self._portal = portal

    def total(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> "LedgerTotal":
        """Add up sends; see `CostBook.total`."""
        return self._portal.run(lambda: self._ledger.total(since=since, until=until, tags=tags))

    def by(
        self,
        *columns: "Column",
        since: float | None = None,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> "list[LedgerRow]":
        """Add up sends in groups; see `CostBook.by`."""
        return self._portal.run(lambda: self._ledger.by(*columns, since=since, until=until, tags=tags))

    def sends(
        self,
        *,
        limit: int | None = 100,
        call_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> "list[LedgerSend]":
        """Return the latest sends, the newest first; see `CostBook.sends`."""
        return self._portal.run(
            lambda: self._ledger.sends(limit=limit, call_id=call_id, since=since, until=until, tags=tags)
        )

    def calls(
        self,
        *,
        limit: int | None = 100,
        since: float | None = None,
        until: float | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> "list[LedgerCall]":
        """Return what the latest calls came to, the newest first; see `CostBook.calls`."""
        return self._portal.run(lambda: self._ledger.calls(limit=limit, since=since, until=until, tags=tags))

    def saved(
        self, *, since: float | None = None, until: float | None = None, tags: Mapping[str, str] | None = None
    ) -> "SavedTotal":
        """Add up what was not sent; see `CostBook.saved`."""
        return self._portal.run(lambda: self._ledger.saved(since=since, until=until, tags=tags))

    def flush(self) -> None:
        """Wait until everything that was reported is written."""
        self._portal.run(self._ledger.flush)

    @override
    def __repr__(self) -> str:
        return f"BlockingLedger({self._ledger!r})"


class BlockingCache:
    """A `ClientCache` for code that does not await; the methods are the same."""

    def __init__(self, cache: ClientCache, portal: Portal) -> None:
        self._cache = cache
        self._portal = portal

    def key(self, operation: Operation[Any]) -> str | None:
        """Return the name of the entry of an operation; see `ClientCache.key`."""
        return self._portal.run(lambda: soon(self._cache.key, operation))

    def keys(self, operation: Operation[Any]) -> list[str] | None:
        """Return the names of all entries of an operation; see `ClientCache.keys`."""
        return self._portal.run(lambda: soon(self._cache.keys, operation))

    def why_miss(self, operation: Operation[Any]) -> str | None:
        """Return why an operation would not be answered from the cache; see `ClientCache.why_miss`."""
        return self._portal.run(lambda: self._cache.why_miss(operation))

    def stats(self) -> CacheStats:
        """Return what was found and missed; see `ClientCache.stats`."""
        return self._portal.run(self._cache.stats)

    def forget(self, *, tenant: str | None = None, model: str | None = None) -> int:
        """Delete the entries of a tenant, of a model, or of both; see `ClientCache.forget`."""
        return self._portal.run(lambda: self._cache.forget(tenant=tenant, model=model))

    @override
    def __repr__(self) -> str:
        return f"BlockingCache({self._cache!r})"


class BlockingCosts:
    """A `ClientCosts` for code that does not await; the methods are the same."""

    def __init__(self, costs: "ClientCosts", portal: Portal) -> None:
        self._costs = costs
        self._portal = portal

    def total(
        self,
        *,
        since: "Moment | None" = None,
        until: "Moment | None" = None,
        tags: "Mapping[str, str] | None" = None,
        **named: str,
    ) -> "LedgerTotal":
        """Add up requests; see `ClientCosts.total`."""
        return self._portal.run(lambda: self._costs.total(since=since, until=until, tags=tags, **named))

    def by(
        self,
        *columns: "Column",
        day: bool = False,
        since: "Moment | None" = None,
        until: "Moment | None" = None,
        tags: "Mapping[str, str] | None" = None,
        **named: str,
    ) -> "list[LedgerRow]":
        """Add up requests in groups; see `ClientCosts.by`."""
        return self._portal.run(lambda: self._costs.by(*columns, day=day, since=since, until=until, tags=tags, **named))

    def sends(
        self,
        *,
        limit: int | None = 100,
        call_id: str | None = None,
        since: "Moment | None" = None,
        until: "Moment | None" = None,
        tags: "Mapping[str, str] | None" = None,
        **named: str,
    ) -> "list[LedgerSend]":
        """Return the latest requests, the newest first; see `ClientCosts.sends`."""
        return self._portal.run(
            lambda: self._costs.sends(limit=limit, call_id=call_id, since=since, until=until, tags=tags, **named)
        )

    def calls(
        self,
        *,
        limit: int | None = 100,
        since: "Moment | None" = None,
        until: "Moment | None" = None,
        tags: "Mapping[str, str] | None" = None,
        **named: str,
    ) -> "list[LedgerCall]":
        """Return what the latest calls came to, the newest first; see `ClientCosts.calls`."""
        return self._portal.run(lambda: self._costs.calls(limit=limit, since=since, until=until, tags=tags, **named))

    def wasted(
        self,
        *,
        since: "Moment | None" = None,
        until: "Moment | None" = None,
        tags: "Mapping[str, str] | None" = None,
        **named: str,
    ) -> Decimal:
        """Return US dollars that were spent on requests whose answer nobody got; see `ClientCosts.wasted`."""
        return self._portal.run(lambda: self._costs.wasted(since=since, until=until, tags=tags, **named))

    def saved_by_cache(
        self,
        *,
        since: "Moment | None" = None,
        until: "Moment | None" = None,
        tags: "Mapping[str, str] | None" = None,
        **named: str,
    ) -> "SavedTotal":
        """Add up what was not sent; see `ClientCosts.saved_by_cache`."""
        return self._portal.run(lambda: self._costs.saved_by_cache(since=since, until=until, tags=tags, **named))

    def export(
        self,
        path: str | PathLike[str],
        *,
        since: "Moment | None" = None,
        until: "Moment | None" = None,
        tags: "Mapping[str, str] | None" = None,
        **named: str,
    ) -> int:
        """Write all requests to a .csv or .parquet file and return how many; see `ClientCosts.export`."""
        return self._portal.run(lambda: self._costs.export(path, since=since, until=until, tags=tags, **named))

    @override
    def __repr__(self) -> str:
        return f"BlockingCosts({self._costs!r})"


class BlockingCatalogue:
    """A `ClientCatalogue` for code that does not await."""

    def __init__(self, catalogue: "ClientCatalogue", portal: Portal) -> None:
        self._catalogue = catalogue
        self._portal = portal

    @property
    def as_of(self) -> "date":
        """Day on which the data as a whole held."""
        return self._catalogue.as_of

    @property
    def models(self) -> "tuple[ModelInfo, ...]":
        """Every record, retired ones included, in the order of the ids."""
        return self._catalogue.models

    def get(self, id: str) -> "ModelInfo | None":
        """Look one model up by its exact id; see `Catalogue.get`."""
        return self._catalogue.get(id)

    def find(self, *args: Any, **conditions: Any) -> "tuple[ModelInfo, ...]":
        """Find the models that meet every condition given, the cheapest first; see `Catalogue.find`."""
        return self._catalogue.find(*args, **conditions)

    def changes(self) -> "CatalogueChanges":
        """Return what is different from the packaged data."""
        return self._catalogue.changes()

    def refresh(self, *, timeout: float = 30.0) -> "CatalogueChanges":
        """Read the provider's lists, and return what has changed; see `LiveCatalogue.refresh`."""
        return self._portal.run(lambda: self._catalogue.refresh(timeout=timeout))

    @override
    def __repr__(self) -> str:
        return f"BlockingCatalogue({self._catalogue!r})"


async def soon(function: Callable[[Operation[Any]], T], operation: Operation[Any]) -> T:
    """Call a function on the loop."""
    return function(operation)
