"""The default stack."""

import asyncio
import os
import warnings
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import platformdirs
import pytest

from resilient_ai.client import AsyncClient
from resilient_ai.core.errors import BudgetUnavailable, ConfigurationError
from resilient_ai.core.operations import Chat, Embed
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.deepinfra.catalogue import Catalogue, ModelInfo, ModelQuery
from resilient_ai.middleware import (
    Batching,
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
from resilient_ai.middleware.budget import Budget
from resilient_ai.middleware.routing import Rule
from resilient_ai.presets import ResilientAIWarning, default_stack, home_of, home_trouble, writable_home
from resilient_ai.settings import PREFIX, Settings
from resilient_ai.stores import DiskStore, EncryptedStore, MemoryStore, RedisFleet, RedisStore, TieredStore
from resilient_ai.testing import ScriptedProvider, chat_result

ORDER = [
    Tracing,
    Metrics,
    Logging,
    Deadline,
    Coalesce,
    Cache,
    Resume,
    Routing,
    Batching,
    Retry,
    CircuitBreaker,
    ConcurrencyLimit,
    CostAccounting,
    Timeout,
]


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path):
    """No setting of the machine reaches these tests, and they leave nothing in its home."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)


@pytest.fixture
def settings(tmp_path):
    return lambda **values: Settings(**({"home": tmp_path / "home"} | values))


@pytest.fixture
def blocked(tmp_path):
    """A home that cannot be made."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "home"


def part(stack, kind):
    return next(middleware for middleware in stack if isinstance(middleware, kind))


def test_the_order(settings):
    """It is the documented one, and a pipeline accepts it."""
    stack = default_stack(settings())
    assert [type(middleware) for middleware in stack] == ORDER
    Pipeline(ScriptedProvider(), stack)


def test_settings_reach_their_places(settings):
    """Each where it belongs."""
    chosen = {"timeout": 7, "attempts": 5, "concurrency": 6, "batch_size": 8, "batches_in_flight": 9}
    stack = default_stack(settings(**chosen))
    assert part(stack, Deadline).total == 7
    assert part(stack, Retry).attempts == 5
    assert part(stack, ConcurrencyLimit).limit == 6
    assert (part(stack, Batching).size, part(stack, Batching).in_flight) == (8, 9)


def test_what_is_off_until_it_is_asked_for(settings):
    """Hedging, rates, a fleet and another policy for broken streams each come with their setting."""
    stack = default_stack(settings())
    assert not [layer for layer in stack if isinstance(layer, RateLimit)]
    assert (part(stack, Retry).hedge, part(stack, ConcurrencyLimit).fleet, part(stack, Resume).on_interrupt) == (
        None,
        None,
        "raise",
    )

    chosen = {
        "hedge": "on",
        "on_interrupt": "restart",
        "requests_per_minute": 60,
        "tokens_per_minute": 9000,
        "redis_url": "redis://user:secret@127.0.0.1:1/0",
    }
    stack = default_stack(settings(**chosen))
    rate, permits = part(stack, RateLimit), part(stack, ConcurrencyLimit)
    assert (part(stack, Retry).hedge, part(stack, Resume).on_interrupt) == (Hedge(), "restart")
    assert (rate.requests, rate.tokens, rate.per) == (60, 9000, 60)
    assert isinstance(rate.fleet, RedisFleet)
    assert rate.fleet is permits.fleet
    assert stack.index(rate) == stack.index(permits) - 1
    assert "secret" not in repr(stack)
    Pipeline(ScriptedProvider(), stack)


def test_a_list_of_models_is_checked_against_the_catalogue(settings):
    """A model that is known to lack what a request needs is not asked."""
    assert part(default_stack(settings()), Routing).abilities.lacks(Embed(model="BAAI/bge-m3", texts="a")) is None
    chat = Chat(model="BAAI/bge-m3", messages="hi")
    assert part(default_stack(settings()), Routing).abilities.lacks(chat) is not None


def test_settings_come_from_the_environment_where_none_are_given(monkeypatch, tmp_path):
    """A stack may be built without a word."""
    monkeypatch.setenv("RESILIENT_AI_ATTEMPTS", "9")
    monkeypatch.setenv("RESILIENT_AI_HOME", str(tmp_path / "set"))
    stack = default_stack()
    assert part(stack, Retry).attempts == 9
    assert part(stack, CostAccounting).ledger.path == str(tmp_path / "set" / "ledger.sqlite")


class TestCache:
    """Where answers and vectors are kept."""

    def test_answers_stay_in_memory_and_vectors_reach_the_disk(self, settings, tmp_path):
        """Answers hold what users wrote."""
        cache = part(default_stack(settings(cache_memory=2**21, cache_disk=2**22, cache_ttl=60)), Cache)
        assert isinstance(cache.answers, MemoryStore)
        assert isinstance(cache.embeddings, TieredStore)
        memory, disk = cache.embeddings.first, cache.embeddings.second
        assert (cache.answers.max_bytes, memory.max_bytes, disk.max_bytes) == (2**21, 2**21, 2**22)
        assert disk.directory == tmp_path / "home" / "cache"
        assert cache.answers is not memory
        assert (cache.ttl, cache.always) == (60, False)

    def test_answers_may_reach_the_disk(self, settings):
        """Both share the file then, and neither's memory is the other's."""
        cache = part(default_stack(settings(cache_answers_on_disk=True, cache_answers="all")), Cache)
        assert isinstance(cache.answers.second, DiskStore)
        assert cache.answers.second is cache.embeddings.second
        assert cache.answers.first is not cache.embeddings.first
        assert cache.always

    def test_off(self, settings):
        """There is no cache in the stack."""
        stack = default_stack(settings(cache="off"))
        assert [type(middleware) for middleware in stack] == [kind for kind in ORDER if kind is not Cache]
        alone = default_stack(settings(coalesce="off"))
        assert [type(middleware) for middleware in alone] == [kind for kind in ORDER if kind is not Coalesce]

    def test_what_a_call_may_find_is_said_by_settings(self, settings):
        """Each setting is an option of the cache, and answers that may differ are shared as well as kept."""
        chosen = {"max_age": 5, "stale_while_revalidate": 6, "stale_if_error": 7, "replay": "recorded"}
        stack = default_stack(
            settings(cache="read", cache_answers="all", **{f"cache_{name}": value for name, value in chosen.items()})
        )
        cache = part(stack, Cache)
        assert {name: getattr(cache, name) for name in chosen} == chosen
        assert (cache.mode, cache.leases, part(stack, Coalesce).always) == ("read", None, True)

    @pytest.mark.parametrize("writable", [True, False])
    def test_a_redis_takes_the_place_of_the_disk(self, settings, blocked, writable):
        """For vectors and answers, with leases, also where there is no folder; its secrets are not shown."""
        chosen = {"cache_redis_url": "redis://:hunter2@127.0.0.1:1/0", "cache_secret": "hunter3"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if not writable else "error", ResilientAIWarning)
            cache = part(default_stack(settings(**chosen) if writable else settings(home=blocked, **chosen)), Cache)
        assert isinstance(cache.answers.second, RedisStore)
        assert cache.answers.second is cache.embeddings.second is cache.leases
        assert "hunter" not in repr(cache)

    @pytest.mark.parametrize("setting", ["cache_redis_url", "cache_encryption_keys"])
    def test_a_complaint_names_its_setting(self, settings, setting):
        """And not what stood there, which may be a secret."""
        with pytest.raises(ConfigurationError, match=f"^{setting}: ") as caught:
            default_stack(settings(**{setting: "hunter2"}))
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("url", [None, "redis://127.0.0.1:1/0"])
    def test_what_leaves_the_process_may_be_encrypted(self, settings, url):
        """With one or several keys, which are not shown; leases hold nothing to hide."""
        keys = [EncryptedStore.new_key() for _ in range(2)]
        chosen = {"cache_encryption_keys": ", ".join(keys), "cache_redis_url": url}
        cache = part(default_stack(settings(**chosen)), Cache)
        assert isinstance(cache.embeddings.second, EncryptedStore)
        assert isinstance(cache.leases, RedisStore if url else type(None))
        assert not any(key in repr(cache) for key in keys)


class TestLedger:
    """Where the book of costs is kept."""

    def test_in_the_home(self, settings, tmp_path):
        """As a file."""
        ledger = part(default_stack(settings()), CostAccounting).ledger
        assert (ledger.path, ledger.in_memory) == (str(tmp_path / "home" / "ledger.sqlite"), False)

    def test_off(self, settings, tmp_path):
        """It is kept in memory, and no file is made."""
        ledger = part(default_stack(settings(ledger="off")), CostAccounting).ledger
        asyncio.run(ledger.flush())
        asyncio.run(ledger.aclose())
        assert ledger.in_memory
        assert list((tmp_path / "home").iterdir()) == []


class TestHome:
    """The folder for state."""

    def test_the_platform_s_own_is_the_default(self):
        """Where applications keep their data."""
        assert home_of() == platformdirs.user_data_path("resilient_ai", appauthor=False)
        assert writable_home() == home_of()

    def test_it_is_made_for_its_owner_alone(self, tmp_path):
        """With the folders above it, and left as it is where it exists; trying it out leaves nothing behind."""
        home = tmp_path / "deep" / "home"
        assert writable_home(home) == home == writable_home(home)
        assert home.stat().st_mode & 0o777 == 0o700
        assert list(home.iterdir()) == []

    def test_what_stands_against_a_home_is_told_without_making_it(self, blocked, tmp_path):
        """A folder that is not there yet can be used where it could be made; nothing is left behind."""
        before = sorted(tmp_path.rglob("*"))
        assert home_trouble(tmp_path / "deep" / "home") is None
        assert home_trouble(tmp_path) is None
        assert home_trouble(blocked) == "Not a directory"
        assert home_trouble(Path("/proc/nowhere")) == "No such file or directory"
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_home_that_cannot_be_written(self, blocked):
        """One warning names it and the reason, and everything works in memory."""
        with pytest.warns(ResilientAIWarning) as caught:
            stack = default_stack(Settings(home=blocked, cache_answers_on_disk=True))
        assert [str(warning.message) for warning in caught] == [
            f"{blocked} cannot be written (Not a directory), so cache and costs are kept in memory only"
        ]
        assert [type(middleware) for middleware in stack] == ORDER
        cache = part(stack, Cache)
        assert (type(cache.answers), type(cache.embeddings)) == (MemoryStore, MemoryStore)
        assert part(stack, CostAccounting).ledger.in_memory

    @pytest.mark.anyio
    @pytest.mark.parametrize(("unreachable", "goes"), [("refuse", False), ("allow", True)])
    @pytest.mark.filterwarnings("ignore::resilient_ai.ResilientAIWarning")
    async def test_hard_budgets_in_a_home_that_cannot_be_written(self, blocked, unreachable, goes):
        """Every process would begin them anew, so calls are refused unless that is allowed; a soft one lets them go."""
        provider = ScriptedProvider(chat_result(), chat_result())
        for hard in (True, False):
            budgets = [Budget(limit="1 USD", per="day", hard=hard)]
            settings = Settings(home=blocked, budgets=budgets, budget_unreachable=unreachable, budget_unpriced="0.1")
            async with AsyncClient(provider=provider, settings=settings) as ai:
                with nullcontext() if goes or not hard else pytest.raises(BudgetUnavailable):
                    await ai.chat("m", "hi")
        assert len(provider.calls) == (2 if goes else 1)

    def test_a_folder_without_the_right_to_write(self, tmp_path):
        """It is found out by writing; a file in its place cannot hold one."""
        (tmp_path / "taken").touch()
        with pytest.warns(ResilientAIWarning, match=r"taken cannot be written \(File exists\)"):
            assert writable_home(tmp_path / "taken") is None

    def test_a_warning_can_be_silenced_by_its_class(self, blocked):
        """As any other."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore", ResilientAIWarning)
            assert writable_home(blocked) is None
        assert caught == []


def test_telemetry_is_told_what_the_settings_say(tmp_path):
    """Who else reads spans, where content goes, which tags show, and how many tenants figures tell apart."""
    settings = Settings(
        home=tmp_path, trace_backends=["langfuse"], trace_capture="events", trace_tags=["feature"], metric_tenants=7
    )
    tracing, metrics, *_ = default_stack(settings)
    assert (tracing.backends, tracing.capture, tracing.tags) == (("langfuse",), "events", ("feature",))
    assert metrics.tenants == 7
    tracing, metrics, *_ = default_stack(Settings(home=tmp_path))
    assert (tracing.backends, tracing.capture, tracing.tags, metrics.tenants) == (None, None, (), 0)


def test_a_query_follows_the_catalogue_of_the_client(tmp_path):
    """What "auto" and rules stand for is looked up where prices are, unless the query names another catalogue."""
    mine = ModelInfo(id="me/mine", org="me", kind="chat", status="active", tools=True)
    models, other = Catalogue().with_models(mine), Catalogue([mine], as_of=date(2026, 1, 1))
    asked = Routing(
        models=ModelQuery(kind="chat", org="me"),
        rules=[Rule(models=ModelQuery(kind="chat", org="me", catalogue=other)), Rule(models=["a"])],
    )
    stack = default_stack(Settings(home=tmp_path), routing=asked, models=models)
    (routing,) = [layer for layer in stack if isinstance(layer, Routing)]
    chat = Chat(model="auto", messages="hi")
    assert routing.models(chat) == ("me/mine",)
    assert routing.rules[0].models.catalogue is other
    assert routing.rules[1].models == ("a",)
    assert routing.abilities.models is models


@pytest.mark.anyio
async def test_the_catalogue_of_a_client_is_that_of_its_stack(tmp_path):
    """What is refreshed is what prices and routes are looked up in, also in a stack that was put together by hand."""
    settings = Settings(home=tmp_path)
    stack = default_stack(settings)
    async with AsyncClient("k", stack=stack, settings=settings) as ai:
        assert ai.catalogue.live is ai.middleware(CostAccounting).prices.models
        assert ai.catalogue.live is ai.middleware(Routing).abilities.models
    async with AsyncClient("k", stack=[], settings=Settings(price_file=tmp_path / "no.toml")) as ai:
        assert ai.catalogue.get("BAAI/bge-m3").dimensions == 1024
