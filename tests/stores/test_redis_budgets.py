"""The book of budgets in Redis: what only it has; the rest is in test_budget_conformance.py."""

import asyncio
import gc
import logging
import sys
import threading
import time
from dataclasses import replace
from decimal import Decimal

import pytest

from resilient_ai.core.budgets import Admission, Charge, units
from resilient_ai.core.errors import BookUnavailable, ConfigurationError
from resilient_ai.stores import RedisBudgets

from .redis_server import Proxy, saying, start_redis

pytestmark = pytest.mark.anyio

NOW = int(time.time()) // 3_600 * 3_600


def charge(amount=1, limit=None, *, key="a", start=NOW, first=None, life=7_200):
    return Charge(
        key=key, slice=start, first=start if first is None else first, amount=amount, limit=limit, until=start + life
    )


@pytest.fixture
def server(tmp_path):
    server = start_redis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def open_book(server):
    books = []

    def make(url=None, **options):
        books.append(RedisBudgets(url or server.url, **options))
        return books[-1]

    yield make
    for book in books:
        await book.aclose()


async def patiently(ask, answer, seconds=15.0):
    """Ask until Redis can be asked again, or the answer is the one."""
    until = time.monotonic() + seconds
    while True:
        try:
            found = await ask()
        except BookUnavailable:
            found = None
        if found == answer or time.monotonic() > until:
            return found
        await asyncio.sleep(0.05)


async def test_counters_live_as_long_as_their_window(server, open_book):
    """By the clock of Redis: to the end of the window, and its length at least where the process's clock is behind."""
    book = open_book()
    later = NOW + 86_400
    await book.charge([charge(key="now"), charge(key="late", start=1_000), charge(key="early", start=later)])
    left = {name: server.command("TTL", f"resilient_ai:budget:{name}") for name in ("now", "late", "early")}
    assert 7_200 - 3_600 < left["now"] <= 7_200 + 3_600
    assert 7_190 < left["late"] <= 7_200
    assert left["early"] > 86_400
    await book.charge([Charge(key="total", slice=0, first=0, amount=1, limit=5, until=253_402_300_799)])
    assert server.command("TTL", "resilient_ai:budget:total") > 10**11


async def test_slices_that_are_over_are_forgotten(server, open_book):
    """A budget of a minute that is used for a day holds some of its slices."""
    book = open_book()
    for minute in range(400):
        await book.charge([charge(start=NOW + 60 * (minute - 400), life=120)])
    assert server.command("HLEN", "resilient_ai:budget:a") <= 129
    assert await book.spent([charge(start=NOW - 60)]) == (1,)


async def test_a_counter_is_never_below_zero(open_book):
    """What is given back after Redis has lost a counter must not raise the limit."""
    book = open_book()
    book.settle([charge(-5)])
    assert await book.charge([charge(11, 10)]) == Admission(admitted=False, spent=(0,))


async def test_the_same_counter_twice_in_one_charge(open_book):
    """Each part counts for the next one, and if they do not fit together none is added."""
    book = open_book()
    assert not (await book.charge([charge(6, 10), charge(6, 10)])).admitted
    assert (await book.charge([charge(5, 10), charge(5, 10)])).admitted
    assert await book.spent([charge()]) == (10,)
    assert not (await book.charge([charge(0, None), charge(-2, None), charge(5, 10)])).admitted
    assert await book.spent([charge()]) == (10,)


@pytest.mark.parametrize(
    "amount", [0, 1, 999_999_999, 10**9, 10**9 + 1, 2**53 + 1, 10**18 + 1, 4 * 10**18], ids=lambda amount: f"{amount:,}"
)
async def test_numbers_are_exact_on_both_sides_of_every_limit(open_book, amount):
    """Where Lua's own numbers would be rounded, too, and where a sum has slices of many sizes."""
    book = open_book()
    one = charge(amount, amount)
    assert await book.charge([one]) == Admission(admitted=True, spent=(0,))
    assert await book.charge([charge(1, amount)]) == Admission(admitted=False, spent=(amount,))
    later = charge(7, amount + 7, start=NOW + 60, first=NOW)
    assert await book.charge([later]) == Admission(admitted=True, spent=(amount,))
    assert await book.spent([later]) == (amount + 7,)


async def test_many_calls_travel_together(server, open_book):
    """A thousand charges at once take few scripts."""
    book = open_book()
    await book.charge([charge(0)])
    before = server.command("INFO", "commandstats")
    admitted = await asyncio.gather(*(book.charge([charge(1, 700)]) for _ in range(1_000)))
    after = server.command("INFO", "commandstats")
    calls = [info["cmdstat_evalsha"]["calls"] for info in (before, after)]
    assert sum(one.admitted for one in admitted) == 700
    assert calls[1] - calls[0] < 100


async def test_prefixes_are_apart(open_book):
    """Those with the same one share."""
    one, two = open_book(prefix="one"), open_book(prefix="two")
    await one.charge([charge(5)])
    assert await two.spent([charge()]) == (0,)


async def test_a_unix_socket_will_do(server, open_book):
    """An address of a file."""
    book = open_book(f"unix://{server.socket}")
    assert (await book.charge([charge(5, 10)])).admitted


# While Redis cannot be asked


async def test_a_redis_that_is_down_is_told_at_once(server, open_book, caplog):
    """In the second after a fault nobody waits; there is one warning, and no password anywhere."""
    server.stop()
    book = open_book(server.url.replace("//", "//:secret@"))
    with pytest.raises(BookUnavailable):
        await book.charge([charge()])
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(BookUnavailable) as caught:
            await book.spent([charge()])
        assert "secret" not in str(caught.value)
    assert time.monotonic() - began < 0.5
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "secret" not in caplog.text


async def test_a_silent_redis_is_not_waited_for_long(server, open_book):
    """Twice the timeout at most, and what it does later all the same is taken back."""
    book = open_book(timeout=0.2)
    await book.charge([charge(5, 10)])
    server.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(BookUnavailable):
            await book.charge([charge(5, 10)])
        assert time.monotonic() - began < 2.0
    finally:
        server.thaw()
    assert await patiently(lambda: book.spent([charge()]), (5,)) == (5,)


async def test_a_thread_that_is_held_up_is_not_waited_for_long(open_book):
    """What no socket can time, such as the look-up of a name; a charge that is admitted afterwards is taken back."""
    book = open_book(timeout=0.1)
    connect = book._connect

    def slowly():
        time.sleep(0.6)
        return connect()

    book._connect = slowly
    with pytest.raises(BookUnavailable, match="has not answered in time"):
        await book.charge([charge(5, 10)])
    book._connect = connect
    assert await patiently(lambda: book.spent([charge()]), (0,)) == (0,)


@pytest.mark.parametrize("wait", [0.0, 0.3])
async def test_a_charge_whose_answer_was_lost_is_taken_back(server, open_book, wait):
    """Redis has admitted it, and the caller was told that nobody knows."""
    async with Proxy(server.port) as proxy:
        book = open_book(proxy.url, timeout=0.3)
        await book.charge([charge(3, 10)])
        proxy.flowing.clear()
        task = asyncio.create_task(book.charge([charge(5, 10)]))
        await proxy.holding.wait()
        assert server.command("HGET", "resilient_ai:budget:a", str(NOW)) == b"8"
        await asyncio.sleep(wait)
        with pytest.raises(BookUnavailable):
            await task
        proxy.flowing.set()
        assert await patiently(lambda: book.spent([charge()]), (3,)) == (3,)
        assert await book.spent([charge()]) == (3,)


async def test_what_was_settled_is_settled_once(server, open_book):
    """Also where Redis has done it and only its answer was lost, or where it never came to it."""
    async with Proxy(server.port) as proxy:
        book = open_book(proxy.url, timeout=0.3)
        await book.charge([charge(100, 1_000)])
        proxy.flowing.clear()
        book.settle([charge(-30)])
        await proxy.holding.wait()
        book.settle([charge(-20)])
        book.settle([charge(7)])
        assert server.command("HGET", "resilient_ai:budget:a", str(NOW)) == b"70"
        await asyncio.sleep(0.5)
        proxy.flowing.set()
        assert await patiently(lambda: book.spent([charge()]), (57,)) == (57,)
        await asyncio.sleep(1.2)
        assert await book.spent([charge()]) == (57,)


async def test_what_is_settled_while_redis_is_away_is_handed_in(server, open_book):
    """It is added up meanwhile, and nobody has to ask for it."""
    book, other = open_book(timeout=0.2), open_book()
    await book.charge([charge(100)])
    server.freeze()
    for _ in range(50):
        book.settle([charge(-1)])
        await asyncio.sleep(0.01)
    server.thaw()
    assert await patiently(lambda: other.spent([charge()]), (50,)) == (50,)


async def test_a_redis_that_was_restarted_empty(server, open_book):
    """Budgets begin anew, and what is given back does not make them larger."""
    book = open_book()
    (life,) = (await book.charge([charge(8, 10)])).lives
    server.stop()
    server.start()
    book.settle([replace(charge(-8), held=8, life=life)])
    assert await patiently(lambda: book.spent([charge()]), (0,)) == (0,)
    assert await book.charge([charge(11, 10)]) == Admission(admitted=False, spent=(0,))


async def test_a_redis_that_evicts_is_warned_of(server, open_book, caplog):
    """Once, when it is connected to: what it throws away are counters as well."""
    unbounded, book = open_book(), open_book(timeout=0.2)
    assert book.may_forget is None
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    await unbounded.charge([charge()])
    assert (unbounded.may_forget, caplog.text) == (None, "")
    server.command("CONFIG", "SET", "maxmemory", "100mb")
    await book.charge([charge()])
    server.freeze()
    with pytest.raises(BookUnavailable):
        await book.spent([charge()])
    server.thaw()
    assert await patiently(lambda: book.spent([charge()]), (2,)) == (2,)
    assert book.may_forget.startswith("throws keys away where its memory is full (maxmemory-policy allkeys-random)")
    warned = [record.getMessage() for record in caplog.records if "throws keys away" in record.getMessage()]
    assert warned == [f"Redis at {server.url} {book.may_forget}"]


async def test_a_redis_that_does_not_say_what_it_evicts(server, open_book):
    """It may be a good one, and is used."""
    server.command("ACL", "SETUSER", "clerk", "on", ">secret", "~*", "+@all", "-info")
    book = open_book(server.url.replace("//", "//clerk:secret@"))
    assert (await book.charge([charge()])).admitted
    assert book.may_forget is None


async def test_what_a_killed_redis_has_not_come_to_is_settled_by_the_next(server, open_book):
    """It was sent, and nobody took it: neither the settlement is lost, nor is a charge kept whose caller heard of nothing."""
    book = open_book(timeout=0.2)
    await book.charge([charge(1)])
    server.freeze()
    book.settle([charge(5)])
    with pytest.raises(BookUnavailable):
        await book.charge([charge(20)])
    server.stop()
    server.start()
    assert await patiently(lambda: book.spent([charge()]), (5,)) == (5,)


async def test_a_redis_that_has_forgotten_its_scripts(server, open_book):
    """They are loaded again."""
    book = open_book()
    await book.charge([charge(1)])
    server.command("SCRIPT", "FLUSH")
    assert (await book.charge([charge(1)])).spent == (1,)


async def test_a_key_that_holds_something_else(server, open_book):
    """Whoever asks for it is told that nobody knows, and the next second serves the others."""
    server.command("SET", "resilient_ai:budget:odd", "text")
    book = open_book()
    with pytest.raises(BookUnavailable):
        await book.charge([charge(1, key="odd")])
    book.settle([charge(1, key="odd")])
    assert await patiently(lambda: book.spent([charge()]), (0,)) == (0,)


@pytest.mark.parametrize(
    "answer", [b"+OK\r\n", b"$3\r\nabc\r\n", b"*1\r\n$4\r\nlate\r\n", b"*2\r\n$4\r\ndone\r\n*1\r\n$1\r\nx\r\n"]
)
async def test_an_answer_that_is_none(open_book, answer):
    """Something else than Redis is there."""
    async with saying(answer) as url:
        book = open_book(url, timeout=0.5)
        with pytest.raises(BookUnavailable):
            await book.charge([charge()])


async def test_closing_while_redis_is_away(server, open_book, caplog):
    """It takes no longer than 2 s, and says what is lost."""
    book = open_book(timeout=0.2)
    await book.charge([charge(5)])
    server.stop()
    book.settle([charge(-5)])
    began = time.monotonic()
    await book.aclose()
    assert time.monotonic() - began < 2.5
    assert "has not got what was settled at last" in caplog.text


# Threads, forks, the garbage collector


async def test_settling_after_the_end(server, open_book):
    """A stream may end after its client was closed; what it gives back arrives."""
    book, other = open_book(), open_book()
    await book.charge([charge(5)])
    await book.aclose()
    book.settle([charge(-2)])
    assert await patiently(lambda: other.spent([charge()]), (3,)) == (3,)


async def test_settling_from_the_garbage_collector_never_waits(server, open_book):
    """It may have interrupted whoever is about to start the thread."""
    book = open_book()

    class Left:
        def __del__(self):
            book.settle([charge(4)])

    left = Left()
    left.itself = left
    with book._lock:
        del left
        gc.collect()
    assert await book.spent([charge()]) == (4,)


async def test_a_book_that_nobody_has_any_more_ends_its_thread(server):
    """Its connection goes with it, and what was settled is handed in."""
    book = RedisBudgets(server.url)
    await book.charge([charge(5)])
    book.settle([charge(-1)])
    ended = book._worker.ended
    del book
    gc.collect()
    await asyncio.wait_for(asyncio.wrap_future(ended), 5)
    assert server.command("HGET", "resilient_ai:budget:a", str(NOW)) == b"4"


async def test_a_forked_child_opens_afresh(server, open_book, in_child):
    """It shares the budgets, and leaves the parent's connection alone."""
    book = open_book()
    await book.charge([charge(6, 10)])
    gc.collect()

    def child():
        done = []

        async def ask():
            found = await book.charge([charge(5, 10)])
            book.settle([charge(1)])
            await book.aclose()
            return found == Admission(admitted=False, spent=(6,))

        thread = threading.Thread(target=lambda: done.append(asyncio.run(ask())))
        thread.start()
        thread.join(10)
        return done == [True]

    assert await asyncio.to_thread(in_child, child) == 0
    assert await book.spent([charge()]) == (7,)


# Options


def test_it_is_shown_without_its_password():
    """In its text and nowhere else."""
    book = RedisBudgets("redis://user:secret@10.0.0.5:6379/0", prefix="p", timeout=0.5)
    assert repr(book) == "RedisBudgets('redis://10.0.0.5:6379/0', prefix='p', timeout=0.5)"
    assert (RedisBudgets("redis://host").prefix, RedisBudgets("redis://host").timeout) == ("resilient_ai", 1.0)


@pytest.mark.parametrize(
    ("url", "options", "kind"),
    [
        ("http://host", {}, ConfigurationError),
        ("redis://:secret@host:port", {}, ConfigurationError),
        ("redis://host/0?socket_timeout=secret", {}, ConfigurationError),
        ("redis://host", {"timeout": 0}, ValueError),
    ],
)
def test_options_that_cannot_work_are_refused(url, options, kind):
    """Without the secret."""
    with pytest.raises(kind) as caught:
        RedisBudgets(url, **options)
    assert "secret" not in str(caught.value)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    """And with which command."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"resilient-ai\[redis\]"):
        RedisBudgets("redis://host")


async def test_the_example_of_the_issue(open_book):
    """A budget of 0.003 USD has room for one of 20 calls of 0.0025 USD, whichever of four books asks."""
    books = [open_book() for _ in range(4)]
    cost, limit = units(Decimal("0.0025")), units(Decimal("0.003"))
    found = await asyncio.gather(*(books[n % 4].charge([charge(cost, limit)]) for n in range(20)))
    assert sum(one.admitted for one in found) == 1
