"""Where the time of a read goes: the event loop's thread, and the threads it hands work to, by own time."""

import cProfile
import io
import pstats
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

_LINES = 22


class Profiler:
    """Watches this thread while it reads, and all of the threads that begin after `watch_new_threads`."""

    def __init__(self) -> None:
        self._loop = cProfile.Profile()
        self._others: list[cProfile.Profile] = []

    def watch_new_threads(self) -> None:
        """Give each thread a profile of its own when it begins."""

        def begin(*_: Any) -> None:
            profile = cProfile.Profile()
            self._others.append(profile)
            with suppress(ValueError):  # from Python 3.12 on there is one profile at a time, and it sees all threads
                profile.enable()

        threading.setprofile(begin)

    async def watch(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """Read under observation."""
        self._loop.enable()
        try:
            return await read()
        finally:
            self._loop.disable()

    def report(self) -> str:
        """Return what was seen, most expensive first. Times are of all reads together."""
        threading.setprofile(None)
        for profile in self._others:
            profile.create_stats()
        seen = [profile for profile in self._others if getattr(profile, "stats", None)]
        return _table("the event loop", [self._loop]) + _table("other threads", seen)


def _table(title: str, profiles: list[cProfile.Profile]) -> str:
    if not profiles:
        return f"{title}: nothing was seen\n"
    out = io.StringIO()
    stats = pstats.Stats(profiles[0], stream=out)
    for profile in profiles[1:]:
        stats.add(profile)
    stats.sort_stats("tottime").print_stats(_LINES)
    return f"{title}\n{out.getvalue().strip()}\n\n"
