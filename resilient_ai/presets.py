"""The default stack, in order, with reasons."""

import os
import tempfile
import warnings
from pathlib import Path

import platformdirs

from resilient_ai.core.call import Middleware
from resilient_ai.core.protocols import CacheStore
from resilient_ai.deepinfra.catalogue import CatalogueAbilities, PriceTable
from resilient_ai.middleware import (
    Batching,
    Cache,
    CircuitBreaker,
    ConcurrencyLimit,
    CostAccounting,
    Deadline,
    Hedge,
    Logging,
    RateLimit,
    Resume,
    Retry,
    Routing,
    Timeout,
    Tracing,
)
from resilient_ai.settings import Settings
from resilient_ai.stores import DiskStore, MemoryStore, RedisFleet, SQLiteLedger, TieredStore


class ResilientAIWarning(UserWarning):
    """Something works less well than it could, and says so once."""


def default_stack(settings: Settings | None = None) -> list[Middleware]:
    """Build the stack that a client has by default.

    Outermost first, with the reason for each place:

    1. `Tracing`, `Logging`: one span and one line per call of the user, whatever happens below.
    2. `Deadline`: everything below asks how much time is left.
    3. `Cache`: a hit costs nothing, waits for nothing and trips nothing.
    4. `Resume`: a stream that broke is asked for again through everything below.
    5. `Routing`: the next model has a breaker and permits of its own.
    6. `Batching`: each batch of texts is tried again, limited and billed alone.
    7. `Retry`: a new try of everything below; waiting, it holds no permit.
    8. `CircuitBreaker`: fails at once, before anything queues.
    9. `RateLimit`, where a rate is set: requests and tokens per minute.
    10. `ConcurrencyLimit`: a permit per send, held to the end of a stream.
    11. `CostAccounting`: one row per send, begun before bytes leave.
    12. `Timeout`: its timers run while a request is under way, not while it queues.
    """
    settings = settings or Settings()
    home = writable_home(settings.home)
    ledger = SQLiteLedger(home / "ledger.sqlite" if home and settings.ledger == "on" else ":memory:")
    stack: list[Middleware] = [Tracing(), Logging(), Deadline(total=settings.timeout)]
    if settings.cache == "on":
        stack.append(_cache(settings, home))
    stack += [
        Resume(on_interrupt=settings.on_interrupt),
        Routing(abilities=CatalogueAbilities()),
        Batching(size=settings.batch_size, in_flight=settings.batches_in_flight),
        Retry(attempts=settings.attempts, hedge=Hedge() if settings.hedge == "on" else None),
        CircuitBreaker(),
        *_limits(settings),
        CostAccounting(ledger, PriceTable()),
        Timeout(first_token=settings.first_token_timeout, idle=settings.idle_timeout, attempt=settings.attempt_timeout),
    ]
    return stack


def _limits(settings: Settings) -> list[Middleware]:
    fleet = None if settings.redis_url is None else RedisFleet(settings.redis_url.get_secret_value())
    limits: list[Middleware] = []
    if settings.requests_per_minute is not None or settings.tokens_per_minute is not None:
        limits.append(RateLimit(requests=settings.requests_per_minute, tokens=settings.tokens_per_minute, fleet=fleet))
    return [*limits, ConcurrencyLimit(limit=settings.concurrency, fleet=fleet)]


def _cache(settings: Settings, home: Path | None) -> Cache:
    answers: CacheStore = MemoryStore(max_bytes=settings.cache_memory)
    embeddings: CacheStore = MemoryStore(max_bytes=settings.cache_memory)
    if home:
        disk = DiskStore(home / "cache", max_bytes=settings.cache_disk)
        embeddings = TieredStore(embeddings, disk)
        if settings.cache_answers_on_disk:
            answers = TieredStore(answers, disk)
    return Cache(answers, embeddings, ttl=settings.cache_ttl, always=settings.cache_answers == "all")


def home_of(home: Path | None = None) -> Path:
    """Return the folder for state: the one that was set, else the platform's own for application data."""
    return home or Path(platformdirs.user_data_path("resilient_ai", appauthor=False))


def writable_home(home: Path | None = None) -> Path | None:
    """Return the folder for state, made if need be; None, with one warning, where it cannot be written."""
    folder = home_of(home)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        warnings.warn(
            f"{folder} cannot be written ({os.strerror(error.errno or 0)}), so cache and costs are kept in memory only",
            ResilientAIWarning,
            stacklevel=4,
        )
        return None
    return folder
