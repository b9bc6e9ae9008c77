"""RedisStore against a real Redis: what is a miss, what is never somebody else's, and what is never shown."""

import asyncio
import contextlib
import gc
import logging
import random
import ssl
import sys
import threading
import time
import traceback

import pytest
import trustme

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.stores import RedisStore, _forks
from resilient_ai.stores._redis_links import NoneFree
from resilient_ai.testing import ManualClock

from .redis_server import Proxy, saying, start_redis

pytestmark = pytest.mark.anyio
ROW = "resilient_ai:cache:v1:"
NOWHERE = "redis://:hunter2@127.0.0.1:1/0"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis(running):
    """The server, with nothing in it."""
    running.command("FLUSHALL")
    return running


@pytest.fixture
def own_redis(tmp_path):
    """A server that the test may kill."""
    server = start_redis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def store_at():
    """Make stores that are patient where a test does not say otherwise, and close them after it."""
    stores = []

    def make(url, **options):
        stores.append(RedisStore(url, **({"timeout": 10.0} | options)))
        return stores[-1]

    yield make
    for store in stores:
        await store.aclose()


@pytest.fixture
def clock():
    return ManualClock()


def test_defaults():
    """A twentieth of a second for an answer, and a prefix of its own."""
    store = RedisStore("redis://127.0.0.1:6379/0")
    assert (store.prefix, store.timeout, store.faults) == ("resilient_ai:cache:", 0.05, 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"timeout": 0.0}, "timeout must be a positive number of seconds, got 0.0"),
        ({"prefix": ""}, "prefix must not be empty"),
        ({"secret": ""}, "secret must not be empty"),
        ({"secret": b""}, "secret must not be empty"),
    ],
)
def test_senseless_options_are_refused(options, sentence):
    """The sentence names the option."""
    with pytest.raises(ValueError, match=sentence):
        RedisStore("redis://127.0.0.1:6379/0", **options)


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@127.0.0.1",
        "redis://user:hun/ter2@127.0.0.1",
        "redis://:hunter2@127.0.0.1:hunter2/0",
        "redis://[:hunter2@127.0.0.1",
        "redis://user/hunter2@127.0.0.1",
        "redis://127.0.0.1/0?socket_timeout=hunter2",
    ],
)
def test_an_address_that_is_none_is_refused_without_being_shown(url):
    """Neither the sentence nor its cause quotes it, as a password may be in it."""
    with pytest.raises(ConfigurationError, match="url:") as caught:
        RedisStore(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_missing_package_is_named(monkeypatch):
    """The sentence says what to install."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'resilient-ai\[redis\]'"):
        RedisStore("redis://127.0.0.1:6379/0")


async def test_secrets_are_never_shown(caplog, store_at):
    """Not by the object, the log or its account of itself."""
    caplog.set_level(logging.DEBUG)
    store = store_at(NOWHERE, secret="hunter2")
    for _ in range(5):
        assert await store.get_many(["a"]) == {}
    assert repr(store) == "RedisStore('redis://127.0.0.1:1/0', prefix='resilient_ai:cache:', timeout=10.0)"
    assert "left alone for a minute: ConnectionError" in caplog.text
    assert "hunter2" not in f"{caplog.text} {store!r} {await store.usage()}"


async def test_after_five_faults_redis_is_left_alone_for_a_minute(caplog, store_at, clock):
    """Reads, writes, leases and counting answer at once, with one warning; a minute later Redis is asked again."""
    store = store_at(NOWHERE, clock=clock)
    await store.get_many(["a"])
    await store.set_many({"a": b"1"})
    await store.delete_many(["a"])
    assert await store.acquire_lease("a", holder="me", seconds=1) is None
    await store.release_lease("a", holder="me")
    assert store.faults == 5
    assert await store.get_many(["a"]) == {}
    await store.set_many({"a": b"1", "b": b"2"})
    assert await store.delete_matching("*") == 0
    assert [page async for page in store.scan()] == []
    (line,) = await store.usage()
    assert (line.entries, line.size, line.faults, line.dropped) == (None, None, 5, 3)
    assert line.trouble == "it cannot be asked (ConnectionError)"
    assert len([record for record in caplog.records if record.name == "resilient_ai.stores"]) == 1
    clock.now += 60.0
    await store.get_many(["a"])
    assert store.faults == 6


async def test_a_redis_that_hangs_costs_the_timeout_once(own_redis, store_at):
    """However many keys are asked for; the connection is given up, and a new one serves once Redis goes on."""
    entries = {str(n): b"x" * 100 for n in range(2_000)}
    store = store_at(own_redis.url, timeout=0.5)
    await store.set_many(entries)
    own_redis.freeze()
    try:
        began = time.monotonic()
        assert await store.get_many(list(entries)) == {}
        assert 0.4 < time.monotonic() - began < 1.4
        assert store.faults == 1
    finally:
        own_redis.thaw()
    assert await store.get_many(list(entries)) == entries
    assert store.faults == 1


async def test_a_busy_loop_is_not_taken_for_a_redis_that_hangs(redis, store_at):
    """It finds the answers late, and at the same time the end of the patience; who waited for a connection is served too."""
    store = store_at(redis.url)
    entries = {str(n): b"x" * 100 for n in range(40)}
    await store.set_many(entries)
    await asyncio.gather(*(store.get_many([key]) for key in entries))
    store.timeout = 0.1
    asking = [asyncio.create_task(store.get_many([key])) for key in entries]
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - something else that the loop does
    assert await asyncio.gather(*asking) == [{key: value} for key, value in entries.items()]
    assert store.faults == 0


async def test_a_long_list_that_comes_slowly_is_waited_for(redis, store_at):
    """Each answer is a sign of life, though all together take longer than Redis may be silent."""
    async with Proxy(redis.port, pause=0.02) as proxy:
        store = store_at(proxy.url)
        entries = {str(n): b"x" * 10_000 for n in range(220)}
        await store.set_many(entries)
        store.timeout = 0.25
        began = time.monotonic()
        assert await store.get_many(list(entries)) == entries
        assert time.monotonic() - began > 0.5
        assert store.faults == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n",
        b"$-1\r\n",
        b"*1\r\n:7\r\n",
        b"*2\r\n:7\r\n:7\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-ERR max number of clients reached\r\n",
        b"+OK\r\n+OK\r\n",
        b"$5\r\nhello",
        b"\xff" * 100_000,
        b"*1\r\n" * 10_000,
        b":" + b"9" * 10_000 + b"\r\n",
        b"*2\r\n$1\r\n0\r\n*1\r\n:7\r\n",
    ],
)
async def test_whatever_stands_at_the_other_end_nothing_raises(answer, store_at, clock):
    """Everything is a miss or nothing, and is counted."""
    async with saying(answer) as url:
        store = store_at(url, timeout=0.1, clock=clock)
        assert await store.get_many(["a"]) == {}
        assert await store.delete_matching("*") == 0
        await store.set_many({"a": b"1"})
        assert [page async for page in store.scan()] == []
        assert await store.acquire_lease("a", holder="me", seconds=1) in {None, False}
        await store.release_lease("a", holder="me")
        await store.clear()
        assert store.faults > 0
        await store.aclose()


async def test_a_new_connection_that_breaks_is_not_replaced(store_at):
    """Only one that may have died while it lay idle is."""
    async with saying(b"+OK\r\n", hang_up_at=b"MGET") as url:
        store = store_at(url)
        assert await store.get_many(["a"]) == {}
        assert store.faults == 1


async def test_a_row_of_another_type_is_a_miss_and_is_overwritten(redis, store_at):
    """Redis gives nothing for it."""
    redis.command("RPUSH", f"{ROW}a", "x")
    store = store_at(redis.url)
    assert await store.get_many(["a"]) == {}
    assert (await store.usage())[0].size == 0
    await store.set_many({"a": b"1"})
    assert await store.get_many(["a"]) == {"a": b"1"}


@pytest.mark.parametrize("break_it", [("CONFIG", "SET", "maxmemory", "1"), ("REPLICAOF", "127.0.0.1", "1")])
async def test_a_redis_that_takes_no_writes_still_serves_reads(own_redis, store_at, break_it):
    """The writes are dropped; all of one trip are one fault, and the connection goes on."""
    store = store_at(own_redis.url)
    await store.set_many({"a": b"1"})
    own_redis.command(*break_it)
    await store.set_many({"b": b"2", "c": b"3"})
    assert await store.get_many(["a", "b", "c"]) == {"a": b"1"}
    assert (store.faults, store.dropped) == (1, 2)


async def test_an_answer_that_comes_late_is_nobodys(redis, store_at):
    """The caller is cancelled before the answer comes; the next one, of the same store, gets its own and not that."""
    async with Proxy(redis.port) as proxy:
        store = store_at(proxy.url)
        await store.set_many({"a": b"of a", "b": b"of b"})
        proxy.flowing.clear()
        asking = asyncio.create_task(store.get_many(["a"]))
        async with asyncio.timeout(10):
            await proxy.holding.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        proxy.flowing.set()
        assert await store.get_many(["b"]) == {"b": b"of b"}
        assert await store.acquire_lease("b", holder="me", seconds=5) is True
        assert await store.get_many(["a"]) == {"a": b"of a"}
        assert (proxy.connections, store.faults, store.refused) == (2, 0, 0)


async def test_an_answer_after_the_timeout_is_nobodys(redis, store_at):
    """As above, where the store itself lost patience."""
    async with Proxy(redis.port) as proxy:
        store = store_at(proxy.url)
        await store.set_many({"a": b"of a", "b": b"of b"})
        store.timeout = 0.05
        proxy.flowing.clear()
        assert await store.get_many(["a"]) == {}
        proxy.flowing.set()
        store.timeout = 10.0
        assert await store.get_many(["b"]) == {"b": b"of b"}
        assert (proxy.connections, store.faults, store.refused) == (2, 1, 0)


async def test_callers_that_are_cancelled_at_any_moment_disturb_nobody(redis, store_at):
    """Of 400 callers half are cancelled somewhere; whoever gets an answer gets its own, and no connection is lost."""
    chance = random.Random(7)
    store = store_at(redis.url)
    entries = {str(n): bytes([n % 256]) * n for n in range(400)}
    await store.set_many(entries)

    async def ask(key):
        async with asyncio.timeout(chance.random() * 0.02 if int(key) % 2 else None):
            return key, await store.get_many([key])

    answers = await asyncio.gather(*map(ask, entries), return_exceptions=True)
    given = [answer for answer in answers if not isinstance(answer, TimeoutError)]
    assert len(given) >= 200
    assert all(found == {key: entries[key]} for key, found in given)
    assert (store.faults, store.refused) == (0, 0)
    (links,) = store._links.values()
    assert links._count == len(links._idle) <= 16


async def test_at_most_sixteen_connections_and_no_fault_of_redis_where_all_are_in_use(redis, store_at, clock):
    """Who finds none free in time has a miss, but Redis is not left alone for it."""
    async with Proxy(redis.port) as proxy:
        store = store_at(proxy.url, clock=clock)
        await store.set_many({"a": b"1"})
        await asyncio.gather(*(store.get_many(["a"]) for _ in range(50)))
        assert proxy.connections <= 16
        proxy.flowing.clear()
        patient = [asyncio.create_task(store.get_many(["a"])) for _ in range(16)]
        await asyncio.sleep(0)
        store.timeout = 0.05
        assert await asyncio.gather(*(store.get_many(["a"]) for _ in range(10))) == [{}] * 10
        assert store.faults == 10
        proxy.flowing.set()
        assert await asyncio.gather(*patient) == [{"a": b"1"}] * 16
        store.timeout = 10.0
        assert await store.get_many(["a"]) == {"a": b"1"}


async def test_a_slow_handshake_ends_in_a_connection(redis, store_at):
    """Though whoever asked first did not wait for it."""
    async with Proxy(redis.port) as proxy:
        proxy.flowing.clear()
        url = proxy.url.removesuffix("0") + "1"  # a database to be selected makes the handshake wait for an answer
        store = store_at(url, timeout=0.05)
        assert await store.get_many(["a"]) == {}
        proxy.flowing.set()
        store.timeout = 10.0
        await store.set_many({"a": b"1"})
        assert await store.get_many(["a"]) == {"a": b"1"}
        assert (proxy.connections, store.faults) == (1, 1)


async def test_open_connects_ahead_and_never_raises(redis, store_at):
    """For a longer time than a read may take."""
    async with Proxy(redis.port) as proxy:
        store = store_at(proxy.url)
        await store.open()
        assert await store.get_many(["a"]) == {}
        assert proxy.connections == 1
    nowhere = store_at(NOWHERE)
    await nowhere.open()
    assert nowhere.faults == 0


async def test_a_restart_of_redis_is_not_noticed(own_redis, store_at):
    """Connections that died while they lay idle are replaced without a fault."""
    store = store_at(own_redis.url)
    await asyncio.gather(*(store.get_many(["a"]) for _ in range(5)))
    own_redis.stop()
    own_redis.start()
    await store.set_many({"a": b"1"})
    assert await store.get_many(["a"]) == {"a": b"1"}
    assert store.faults == 0


async def test_where_no_connection_can_be_made_nobody_waits_for_one(store_at, caplog):
    """A hundred callers at once are told at once, with one warning."""
    store = store_at(NOWHERE)
    assert await asyncio.gather(*(store.get_many(["a"]) for _ in range(100))) == [{}] * 100
    assert store.faults == 100
    assert len([record for record in caplog.records if record.name == "resilient_ai.stores"]) == 1


async def test_what_does_not_fit_its_seal_is_refused(redis, store_at):
    """A changed value, one under another key, one of another prefix, and foreign bytes; the genuine one stays."""
    store, other = store_at(redis.url), store_at(redis.url, prefix="other:")
    await store.set_many({"good": b"1", "changed": b"2", "moved": b"3"})
    await other.set_many({"elsewhere": b"4"})
    row = redis.command("GET", f"{ROW}changed")
    redis.command("SET", f"{ROW}changed", row[:-1] + b"x")
    redis.command("RENAME", f"{ROW}moved", f"{ROW}to")
    redis.command("RENAME", "other:v1:elsewhere", f"{ROW}elsewhere")
    redis.command("SET", f"{ROW}foreign", b"hello")
    keys = ["good", "changed", "moved", "to", "elsewhere", "foreign"]
    assert await store.get_many(keys) == {"good": b"1"}
    assert (store.refused, store.faults) == (4, 0)
    assert (await store.usage())[0].refused == 4
    await store.set_many(dict.fromkeys(keys, b"new"))
    assert await store.get_many(keys) == dict.fromkeys(keys, b"new")


async def test_another_secret_is_refused(redis, store_at, caplog):
    """Only those with the same believe each other; the log says once why nothing is found, and never the secret."""
    one, same, other = (store_at(redis.url, secret=secret) for secret in ("hunter2", b"hunter2", "hunter3"))
    await one.set_many({"a": b"value", "b": b"value"})
    assert await same.get_many(["a"]) == {"a": b"value"}
    assert caplog.records == []
    for key in ("a", "b"):
        assert await other.get_many([key]) == {}
    assert other.refused == 2
    assert [page async for page in other.scan()] == []
    assert await same.get_many(["a", "b"]) == {"a": b"value", "b": b"value"}
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("resilient_ai.stores", "WARNING")
    assert "resilient_ai:cache:*: an entry does not fit its seal" in record.getMessage()
    assert "need the same secret" in record.getMessage()
    assert not any(shown in caplog.text for shown in ("hunter", "value"))


async def test_a_value_that_is_too_large_leaves_no_earlier_one(redis, store_at):
    """It is dropped and counted; what was there before is gone."""
    store = store_at(redis.url)
    await store.set_many({"a": b"old", "b": b"old"})
    await store.set_many({"a": b"x" * (4 * 2**20 + 1), "b": b"new"})
    assert await store.get_many(["a", "b"]) == {"b": b"new"}
    assert (store.dropped, store.faults) == (1, 0)


async def test_redis_ends_entries_by_itself(redis, store_at):
    """It is told when, in milliseconds; for ever where nothing is said or it is too long to be counted."""
    store = store_at(redis.url)
    await store.set_many({"a": b"1"}, ttl=12.3456)
    await store.set_many({"b": b"1"})
    await store.set_many({"c": b"1"}, ttl=1e300)
    assert 11_000 < redis.command("PTTL", f"{ROW}a") <= 12_346
    assert [redis.command("PTTL", f"{ROW}{key}") for key in "bc"] == [-1, -1]
    await store.set_many({"b": b"2"}, ttl=0)
    assert await store.get_many(["a", "b", "c"]) == {"a": b"1", "c": b"1"}


async def test_only_what_is_under_the_prefix_is_forgotten(redis, store_at):
    """Also where the prefix has characters that mean something in a pattern; leases and other prefixes stay."""
    prefix = r"a[b-c]*?\^:"
    store = store_at(redis.url, prefix=prefix)
    near = [store_at(redis.url, prefix=one) for one in ("ab*?:", r"a[b-c]xx\^:", r"a[b-c]*?\^", "abxx^:")]
    for one in (store, *near):
        await one.set_many({"k": b"1", "l": b"2"})
    assert await store.acquire_lease("k", holder="me", seconds=60) is True
    redis.command("SET", prefix.encode() + b"v1:\xff\xfe", "not of ours")
    assert [page async for page in store.scan()] == [{"k": b"1", "l": b"2"}]
    assert (await store.usage())[0].entries == 3
    await store.clear()
    assert (await store.usage())[0].entries == 0
    assert await store.acquire_lease("k", holder="you", seconds=60) is False
    for one in near:
        assert await one.get_many(["k", "l"]) == {"k": b"1", "l": b"2"}


async def test_a_lease_ends_by_itself(redis, store_at):
    """Who has it can prolong it; who has not cannot, nor give it back."""
    store = store_at(redis.url)
    assert await store.acquire_lease("k", holder="a", seconds=60) is True
    assert await store.acquire_lease("k", holder="a", seconds=0.05) is True
    await store.release_lease("k", holder="b")
    give_up = time.monotonic() + 5
    while not await store.acquire_lease("k", holder="b", seconds=60):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)
    await store.release_lease("k", holder="a")
    assert await store.acquire_lease("k", holder="a", seconds=60) is False
    redis.command("DEL", "resilient_ai:cache:lease:k")
    redis.command("RPUSH", "resilient_ai:cache:lease:k", "x")
    assert await store.acquire_lease("k", holder="a", seconds=60) is None


async def test_unix_sockets(redis, store_at):
    """By their path."""
    store = store_at(f"unix://{redis.socket}")
    await store.set_many({"a": b"1"})
    assert await store.get_many(["a"]) == {"a": b"1"}


async def test_tls(redis, store_at, tmp_path):
    """By the scheme `rediss`, and the server must be who it says."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with Proxy(redis.port, tls=context) as proxy:
        store = store_at(f"{proxy.url}?ssl_ca_certs={tmp_path / 'ca.pem'}")
        await store.set_many({"a": b"1"})
        assert await store.get_many(["a"]) == {"a": b"1"}
        asyncio.get_running_loop().set_debug(False)  # the server's own account of a refused handshake is no fault
        distrustful = store_at(proxy.url)
        assert await distrustful.get_many(["a"]) == {}
        assert distrustful.faults == 1
        await store.aclose()


async def test_closing_while_others_ask(redis):
    """Who waits has a miss, who was served is served, and the store opens again."""
    store = RedisStore(redis.url, timeout=10.0)
    await store.set_many({"a": b"1"})
    asking = [asyncio.create_task(store.get_many(["a"])) for _ in range(40)]
    await asyncio.sleep(0)
    await store.aclose()
    assert all(found in ({}, {"a": b"1"}) for found in await asyncio.gather(*asking))
    assert await store.get_many(["a"]) == {"a": b"1"}
    await store.aclose()
    await store.aclose()


def test_connections_end_with_their_loop(redis):
    """Several loops, one after another and at once in threads, none of which closes the store; no socket is left open."""
    store = RedisStore(redis.url, timeout=10.0)

    async def use(name):
        entries = {f"{name}{n}": name.encode() for n in range(20)}
        await asyncio.gather(*(store.set_many({key: value}) for key, value in entries.items()))
        assert await store.get_many(list(entries)) == entries

    for name in ("a", "b"):
        asyncio.run(use(name))
    threads = [threading.Thread(target=lambda n=n: asyncio.run(use(str(n)))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.faults == 0
    gc.collect()
    give_up = time.monotonic() + 5
    while redis.command("INFO", "clients")["connected_clients"] > 1:
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_forked_child_uses_connections_of_its_own(redis, in_child):
    """What the parent has stays open and unused."""
    store = RedisStore(redis.url, timeout=10.0)

    async def child():
        found = await store.get_many(["a"])
        await store.aclose()
        return found == {"a": b"1"}

    async def parent():
        await store.set_many({"a": b"1"})
        (mine,) = store._links.values()
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, lambda: in_child(lambda: asyncio.run(child()))) == 0
        assert await store.get_many(["a"]) == {"a": b"1"}
        assert [*store._links.values()] == [mine]
        await store.aclose()

    asyncio.run(parent())


async def test_what_a_child_inherits_is_left_alone(redis, monkeypatch):
    """It keeps the connections, unused and open, and begins afresh."""
    kept = []
    monkeypatch.setattr(_forks, "abandoned", kept)
    store = RedisStore(redis.url, timeout=10.0)
    await store.set_many({"a": b"1"})
    store.after_fork()
    assert await store.get_many(["a"]) == {"a": b"1"}
    await store.aclose()
    ((links,),) = (one.values() for one in kept)
    assert await links.ask([("PING",)], within=5.0) == [b"PONG"]
    await links.aclose()


async def test_a_caller_given_a_connection_as_it_is_cancelled_passes_it_on(redis, store_at):
    """It is not lost, and not closed."""
    store = store_at(redis.url)
    await store.open()
    (links,) = store._links.values()
    connection, _ = await links._take()
    waiting = asyncio.create_task(links._take())
    await asyncio.sleep(0)
    links._give(connection)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert connection in links._idle


async def test_a_caller_that_is_cancelled_is_told_nothing_more(redis, store_at):
    """Where the connections are closed in the same turn of the loop; and then nobody is given one."""
    store = store_at(redis.url)
    await store.open()
    (links,) = store._links.values()
    connection, _ = await links._take()
    waiting = asyncio.create_task(links._take())
    await asyncio.sleep(0)
    waiting.cancel()
    await links.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await links._drop(connection)
    with pytest.raises(NoneFree):
        await links.ask([("PING",)], within=5.0)


async def test_pages_without_anything_are_gone_through(redis, store_at):
    """Among thousands of keys of somebody else, and where nothing on a page is genuine or matches to the letter."""
    redis.command("EVAL", "for n = 1, 5000 do redis.call('SET', 'foreign:' .. n, '') end", "0")
    store = store_at(redis.url)
    await store.set_many({"ä": b"1"})
    assert await store.delete_matching("??") == 0
    assert [page async for page in store.scan()] == [{"ä": b"1"}]
    redis.command("SET", f"{ROW}ä", "")
    assert [page async for page in store.scan()] == []
    assert redis.command("DBSIZE") == 5_001
