"""A catalogue that can be brought up to date from the provider's own lists."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from typing_extensions import override

from resilient_ai.core.checks import check_kind, check_seconds
from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.errors import InvalidResponse, ProviderError
from resilient_ai.core.log import Log
from resilient_ai.deepinfra.catalogue._data import Snapshot
from resilient_ai.deepinfra.catalogue._live_fetch import NATIVE_LIST, OPENAI_LIST, Fetch, both, fetch_with
from resilient_ai.deepinfra.catalogue._live_file import Kept, load, save
from resilient_ai.deepinfra.catalogue._live_merge import merge
from resilient_ai.deepinfra.catalogue._live_rows import ReadList, read_native, read_openai
from resilient_ai.deepinfra.catalogue.changes import CatalogueChanges, Suspicion, diff
from resilient_ai.deepinfra.catalogue.lookup import Catalogue, catalogue
from resilient_ai.deepinfra.catalogue.overrides import Overrides

if TYPE_CHECKING:
    from resilient_ai.deepinfra.transport import Transport

_log = Log()


class LiveCatalogue(Catalogue):
    """The models of DeepInfra as they stand now, or stood when the provider was last asked.

    Prices move within weeks, and a package does not. It begins as the packaged data, or as what an earlier refresh has left in
    the file where that is newer; `refresh` puts what the provider's lists say over it, field by field. Whoever reads meanwhile
    sees all of the old data or all of the new. Nothing is ever fetched that was not asked for.

    Args:
        base: What is known without the provider; the packaged data by default.
        path: The file that keeps what was fetched; None keeps it in memory alone. It is read when the first question is asked.
        overrides: Prices of your own, over whatever was packaged or fetched; see `load_overrides`.
        clock: Time, which threads may ask for too; a file that is not from the past is ignored.

    Raises:
        ConfigurationError: If the overrides name an unknown model and not its kind.

    >>> live = LiveCatalogue()
    >>> live.get("BAAI/bge-m3").dimensions, live.fetched_at
    (1024, None)
    """

    def __init__(
        self,
        base: Catalogue = catalogue,
        *,
        path: str | Path | None = None,
        overrides: Overrides | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_kind("base", base, Catalogue)
        check_kind("overrides", overrides, Overrides, None)
        super().__init__((), as_of=date.min)
        self._base = base
        self._path = None if path is None else Path(path)
        self._overrides = overrides
        self._clock = SystemClock() if clock is None else clock
        self._state: _State | None = None
        self._lock = threading.RLock()
        self._process = os.getpid()
        if overrides is not None:
            self._state = self._state_of(self._kept())

    @override
    def __repr__(self) -> str:
        return f"LiveCatalogue({self._base!r}, path={None if self._path is None else str(self._path)!r})"

    @property
    def fetched_at(self) -> float | None:
        """Seconds since 1970 of the last refresh, here or in the process that left the file; None for packaged data."""
        return self._now.fetched_at

    async def refresh(
        self, source: "Transport | Fetch", *, clock: Clock | None = None, timeout: float = 30.0
    ) -> CatalogueChanges:
        """Read the provider's lists, and return what has changed.

        What they do not say stays as it is known, and what cannot be right is left out and told of. If one of the lists cannot be
        read, the other one does. A model that is no longer listed is told of, and stays known as
        `presumed_removed` until it is listed again, unless more models are missing on the list than are on it.

        Args:
            source: The connections of a client, or a function that returns the body at a path below the base address.
            clock: Time; by default the catalogue's own.
            timeout: Seconds for each of the lists, which are asked for at once.

        Raises:
            ProviderError: If neither list can be read; nothing has changed then.
        """
        check_seconds("timeout", timeout)
        clock = self._clock if clock is None else clock
        fetch = source if callable(source) else fetch_with(source)
        bodies = await both(fetch, clock, timeout)
        # In a thread, as neither the sums nor the disk may hold up the calls of the loop.
        return await asyncio.to_thread(self._take, bodies, clock.wall())

    def changes(self) -> CatalogueChanges:
        """Return what is different from the data that it began with, which is that of the package, and what is not believed.

        Overrides are left aside.
        """
        now = self._now
        return replace(diff(self._base, now.known.models), suspicious=now.doubts)

    def reload(self) -> bool:
        """Take over what another process has left in the file; return whether that was newer. Reads the disk."""
        kept = self._kept()
        with self._alone():
            if kept is None or kept.fetched_at <= (self._now.fetched_at or 0):
                return False
            self._state = self._state_of(kept)
        return True

    @property
    @override
    def _snapshot(self) -> Snapshot:
        return self._now.shown

    @property
    def _now(self) -> "_State":
        state = self._state
        if state is None:
            with self._alone():
                state = self._state = self._state or self._state_of(self._kept())
        return state

    def _kept(self) -> Kept | None:
        if self._path is None:
            return None
        # What was fetched by a clock that is behind has the day of the package.
        return load(self._path, max(self._clock.wall(), _start_of(self._base.as_of)))

    def _state_of(self, kept: Kept | None) -> "_State":
        by_id, as_of = {model.id: model for model in self._base}, self._base.as_of
        fetched_at: float | None = None
        doubts: tuple[Suspicion, ...] = ()
        if kept is not None and _day(kept.fetched_at) >= as_of:
            by_id, as_of = {**by_id, **kept.by_id}, _day(kept.fetched_at)
            fetched_at, doubts = kept.fetched_at, kept.doubts
        known = Snapshot(as_of, dict(sorted(by_id.items())))
        shown = known if self._overrides is None else Snapshot(as_of, self._overrides.over(known.by_id))
        return _State(known, shown, fetched_at, doubts)

    def _take(self, bodies: tuple[bytes | Exception, bytes | Exception], now: float) -> CatalogueChanges:
        openai, native = _read(read_openai, bodies[0]), _read(read_native, bodies[1])
        if isinstance(openai, Exception) and isinstance(native, Exception):
            raise openai
        failed = {OPENAI_LIST: openai, NATIVE_LIST: native}
        with self._alone():
            before = self._now
            # A clock that is behind must not make what was read today older than the package.
            now = max(now, before.fetched_at or 0, _start_of(self._base.as_of))
            merged = merge(
                before.known.by_id,
                {model.id: model for model in self._base},
                None if isinstance(openai, Exception) else openai,
                None if isinstance(native, Exception) else native,
                _day(now),
            )
            kept = Kept(now, merged.by_id, _standing(before.doubts, merged.doubts, openai, native))
            self._state = self._state_of(kept)
            self._save(kept)
        return replace(
            diff(before.known.models, self._state.known.models),
            suspicious=merged.doubts,
            failed=tuple(
                f"{path.removeprefix('/..')}: {type(error).__name__}: {error}"
                for path, error in failed.items()
                if isinstance(error, Exception)
            ),
        )

    def _save(self, kept: Kept) -> None:
        if self._path is None:
            return
        try:
            save(self._path, kept)
        except OSError as error:
            _log.warning("the catalogue cannot be kept in %s: %s", self._path, error)

    def _alone(self) -> "AbstractContextManager[object]":
        """Return a lock under which the state changes; a child process may have been forked while a thread held the parent's."""
        if self._process != os.getpid():
            self._process, self._lock = os.getpid(), threading.RLock()
        return self._lock


class _State(NamedTuple):
    """What is known without the overrides, what is shown with them, when it was fetched, and what was not believed."""

    known: Snapshot
    shown: Snapshot
    fetched_at: float | None
    doubts: tuple[Suspicion, ...]


def _read(reader: Callable[[bytes], ReadList], body: bytes | Exception) -> ReadList | Exception:
    if isinstance(body, ProviderError):
        return body
    if isinstance(body, Exception):
        raise body
    try:
        return reader(body)
    except InvalidResponse as error:
        return error


def _standing(
    before: tuple[Suspicion, ...], now: tuple[Suspicion, ...], *lists: ReadList | Exception
) -> tuple[Suspicion, ...]:
    """Return what is not believed after a refresh; of models that are on no list that could be read it is what was not before."""
    if not any(isinstance(one, Exception) for one in lists):
        return now
    read = set[str]().union(*(one.rows for one in lists if isinstance(one, ReadList)))
    return (*now, *(doubt for doubt in before if doubt.model and doubt.model not in read))


def _day(moment: float) -> date:
    return datetime.fromtimestamp(moment, UTC).date()


def _start_of(day: date) -> float:
    return datetime.combine(day, time(), tzinfo=UTC).timestamp()
