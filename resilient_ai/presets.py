"""The default stack, in order, with reasons."""

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import platformdirs

from resilient_ai.core.budgets import BudgetBook
from resilient_ai.core.call import Middleware
from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.ledger import Savings
from resilient_ai.core.protocols import Abilities, CacheStore, PriceBook
from resilient_ai.deepinfra.catalogue import (
    Catalogue,
    CatalogueAbilities,
    LiveCatalogue,
    ModelQuery,
    PriceTable,
    catalogue,
    load_overrides,
)
from resilient_ai.middleware import (
    Batching,
    Budgets,
    Cache,
    CircuitBreaker,
    Coalesce,
    ConcurrencyLimit,
    CostAccounting,
    Deadline,
    Hedge,
    Logging,
    Metrics,
    RateLimit,
    Resume,
    Retry,
    Routing,
    Timeout,
    Tracing,
)
from resilient_ai.middleware.routing import Models
from resilient_ai.settings import Settings
from resilient_ai.stores import (
    DiskStore,
    EncryptedStore,
    MemoryStore,
    PostgresLedger,
    RedisBudgets,
    RedisFleet,
    RedisStore,
    SQLiteLedger,
    TieredStore,
)

T = TypeVar("T")


class ResilientAIWarning(UserWarning):
    """Something works less well than it could, and says so once."""


def default_stack(
    settings: Settings | None = None, *, routing: Routing | None = None, models: Catalogue | None = None
) -> list[Middleware]:
    """Build the stack that a client has by default.

    Args:
        settings: What it is built with; by default from the environment.
        routing: A `Routing` of your own, which gets what the catalogue knows where it has no abilities or prices; by default
            one of the settings' `auto_models`.
        models: Where prices and abilities of models are looked up; by default a `LiveCatalogue` of the settings.

    Outermost first, with the reason for each place:

    1. `Tracing`, `Metrics`, `Logging`: one span, one set of figures and one line per call of the user, whatever happens below.
    2. `Deadline`: everything below asks how much time is left.
    3. `Coalesce`: identical calls under way share one look into the cache, one send, and one entry.
    4. `Cache`: a hit costs nothing, waits for nothing and trips nothing.
    5. `Resume`: a stream that broke is asked for again through everything below.
    6. `Routing`: the next model has a breaker and permits of its own.
    7. `Batching`: each batch of texts is tried again, limited and billed alone.
    8. `Retry`: a new try of everything below; waiting, it holds no permit.
    9. `CircuitBreaker`: fails at once, before anything queues.
    10. `RateLimit`, where a rate is set: requests and tokens per minute.
    11. `ConcurrencyLimit`: a permit per send, held to the end of a stream.
    12. `Budgets`, where there are any: the worst case of a send is reserved once nothing else can hold it up.
    13. `CostAccounting`: one row per send, begun before bytes leave.
    14. `Timeout`: its timers run while a request is under way, not while it queues.
    """
    settings = settings or Settings()
    home = writable_home(settings.home)
    models = live_catalogue(settings) if models is None else models
    ledger, prices, abilities = ledger_of(settings, home), PriceTable(models), CatalogueAbilities(models)
    stack: list[Middleware] = [
        Tracing(capture=settings.trace_capture, backends=settings.trace_backends, tags=settings.trace_tags),
        Metrics(tenants=settings.metric_tenants, backends=settings.trace_backends),
        Logging(),
        Deadline(total=settings.timeout),
    ]
    if settings.coalesce == "on":
        stack.append(Coalesce(always=settings.cache_answers == "all", savings=ledger))
    if settings.cache != "off":
        stack.append(_cache(settings, home, ledger))
    routing = routing or Routing(models=settings.auto_models, prefer=settings.auto_prefer)
    stack += [
        Resume(on_interrupt=settings.on_interrupt),
        _informed(routing, models, abilities, prices),
        Batching(size=settings.batch_size, in_flight=settings.batches_in_flight),
        Retry(attempts=settings.attempts, hedge=Hedge() if settings.hedge == "on" else None),
        CircuitBreaker(),
        *_limits(settings),
        *_budgets(settings, ledger, prices, abilities),
        CostAccounting(ledger, prices),
        Timeout(first_token=settings.first_token_timeout, idle=settings.idle_timeout, attempt=settings.attempt_timeout),
    ]
    return stack


def live_catalogue(settings: Settings) -> LiveCatalogue:
    """Return the models and prices of the settings: those of the package, those that were fetched, and those of `price_file`."""
    overrides = None if settings.price_file is None else load_overrides(settings.price_file)
    return LiveCatalogue(path=home_of(settings.home) / "catalogue.json", overrides=overrides)


def live_catalogue_of(stack: Sequence[Middleware]) -> LiveCatalogue | None:
    """Return where a stack looks up prices or abilities, if that can be brought up to date."""
    for layer in stack:
        for name in ("prices", "abilities"):
            models: object = getattr(getattr(layer, name, None), "models", None)
            if isinstance(models, LiveCatalogue):
                return models
    return None


def _informed(routing: Routing, models: Catalogue, abilities: Abilities, prices: PriceBook) -> Routing:
    """Give a routing what the client knows of models, where it says nothing else."""

    def bound(candidates: Models) -> Models:
        if isinstance(candidates, ModelQuery) and candidates.catalogue is catalogue:
            return candidates.at(models)
        return candidates

    return replace(
        routing,
        models=bound(routing.models),
        rules=[replace(rule, models=bound(rule.models)) for rule in routing.rules],
        abilities=routing.abilities or abilities,
        prices=routing.prices or prices,
    )


def ledger_of(settings: Settings, home: Path | None) -> SQLiteLedger | PostgresLedger:
    """Return the book of the settings: the one of `ledger_url`, or a file in `home`, or one in memory where there is neither.

    Where budgets that shall refuse are counted in it, a home that cannot be written does not make it one in memory: each process
    would begin them anew. Then it is the file that cannot be written, which hard budgets refuse for.
    """
    if settings.ledger_url is not None:
        url = settings.ledger_url.get_secret_value()
        return _named("ledger_url", lambda: PostgresLedger(url, folder=home))
    refuses = settings.budget_unreachable == "refuse" and any(budget.hard for budget in settings.budgets)
    if home is None and refuses and settings.budget_redis_url is None:
        home = home_of(settings.home)
    return SQLiteLedger(home / "ledger.sqlite" if home and settings.ledger == "on" else ":memory:")


def budget_book_of(settings: Settings, ledger: BudgetBook) -> BudgetBook:
    """Return where the budgets of the settings are counted: in the Redis of `budget_redis_url`, or else in the ledger."""
    url = settings.budget_redis_url
    if url is None:
        return ledger
    return _named("budget_redis_url", lambda: RedisBudgets(url.get_secret_value()))


def _budgets(
    settings: Settings, ledger: SQLiteLedger | PostgresLedger, prices: PriceBook, abilities: Abilities
) -> list[Middleware]:
    if not settings.budgets:
        return []
    return [
        Budgets(
            budgets=settings.budgets,
            book=budget_book_of(settings, ledger),
            prices=prices,
            abilities=abilities,
            unpriced=settings.budget_unpriced,
            unreachable=settings.budget_unreachable,
        )
    ]


def _limits(settings: Settings) -> list[Middleware]:
    fleet = None if settings.redis_url is None else RedisFleet(settings.redis_url.get_secret_value())
    limits: list[Middleware] = []
    if settings.requests_per_minute is not None or settings.tokens_per_minute is not None:
        limits.append(RateLimit(requests=settings.requests_per_minute, tokens=settings.tokens_per_minute, fleet=fleet))
    return [*limits, ConcurrencyLimit(limit=settings.concurrency, fleet=fleet)]


def _cache(settings: Settings, home: Path | None, savings: Savings) -> Cache:
    answers: CacheStore = MemoryStore(max_bytes=settings.cache_memory)
    embeddings: CacheStore = MemoryStore(max_bytes=settings.cache_memory)
    shared = _shared_store(settings, home)
    is_redis = isinstance(shared, RedisStore)
    if shared is not None:
        lasting = _encrypted(shared, settings)
        embeddings = TieredStore(embeddings, lasting)
        if is_redis or settings.cache_answers_on_disk:
            answers = TieredStore(answers, lasting)
    return Cache(
        answers,
        embeddings,
        mode=settings.cache,
        ttl=settings.cache_ttl,
        max_age=settings.cache_max_age,
        stale_while_revalidate=settings.cache_stale_while_revalidate,
        stale_if_error=settings.cache_stale_if_error,
        always=settings.cache_answers == "all",
        replay=settings.cache_replay,
        leases=shared if is_redis else None,
        savings=savings,
    )


def lasting_store(settings: Settings, home: Path | None) -> "DiskStore | RedisStore | EncryptedStore | None":
    """Return the store in which entries outlive the process: a Redis, or a folder in `home`; None where there is neither."""
    shared = _shared_store(settings, home)
    return None if shared is None else _encrypted(shared, settings)


def _shared_store(settings: Settings, home: Path | None) -> DiskStore | RedisStore | None:
    if settings.cache_redis_url is not None:
        secret = None if settings.cache_secret is None else settings.cache_secret.get_secret_value()
        url = settings.cache_redis_url.get_secret_value()
        return _named("cache_redis_url", lambda: RedisStore(url, secret=secret))
    return None if home is None else DiskStore(home / "cache", max_bytes=settings.cache_disk)


def _encrypted(store: DiskStore | RedisStore, settings: Settings) -> DiskStore | RedisStore | EncryptedStore:
    if settings.cache_encryption_keys is None:
        return store
    keys = settings.cache_encryption_keys.get_secret_value().split(",")
    return _named("cache_encryption_keys", lambda: EncryptedStore(store, [key.strip() for key in keys]))


def _named(setting: str, make: Callable[[], T]) -> T:
    """Return what `make` returns; a complaint of it names the setting."""
    try:
        return make()
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}") from None


def home_of(home: Path | None = None) -> Path:
    """Return the folder for state: the one that was set, else the platform's own for application data."""
    return home or Path(platformdirs.user_data_path("resilient_ai", appauthor=False))


def home_trouble(home: Path | None = None) -> str | None:
    """Return why the folder for state cannot be used, None where it can; it is not made."""
    folder = home_of(home)
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryDirectory(dir=nearest):
            pass
    except OSError as error:
        return os.strerror(error.errno or 0)
    return None


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
