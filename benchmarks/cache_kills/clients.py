"""The client of each process: a stack around a store that all of them share, and a witness of what is sent."""

from collections.abc import Callable
from typing import Any

from benchmarks.cache_kills.questions import names_of
from resilient_ai import AsyncClient
from resilient_ai.core.call import Call, Middleware, Next
from resilient_ai.middleware import Batching, Cache, Coalesce, Deadline, Retry, Timeout
from resilient_ai.stores import DiskStore, RedisStore

Store = DiskStore | RedisStore
Place = dict[str, str]


def store_of(place: Place, timeout: float = 5.0) -> Store:
    """Return a store in a place, which is `{"directory": ...}` or `{"redis": ...}`."""
    if "redis" in place:
        return RedisStore(place["redis"], timeout=timeout)
    return DiskStore(place["directory"], timeout=timeout, lock_timeout=timeout)


def client_of(store: Store, url: str, *, lease_time: float = 30.0, witness: Middleware | None = None) -> AsyncClient:
    """Return a client of the service at `url` whose processes agree on who sends."""
    stack: list[Middleware] = [
        Deadline(total=60.0),
        Coalesce(),
        Cache(store, leases=store, lease_time=lease_time),
        Batching(),
        Retry(attempts=3),
        Timeout(),
    ]
    return AsyncClient("k", base_url=url, stack=stack if witness is None else [*stack, witness])


class Witness:
    """Tells what is about to be sent, before it is, so that it is told even where the process is killed meanwhile."""

    def __init__(self, tell: Callable[[list[str]], None]) -> None:
        self._tell = tell

    async def __call__(self, call: Call[Any], proceed: Next[Any], /) -> Any:
        self._tell(names_of(call.operation))
        return await proceed(call)
