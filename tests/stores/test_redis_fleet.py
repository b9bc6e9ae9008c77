"""RedisFleet against a real Redis: what is shared, what is lost with a process or a server, and what is never shown."""

import asyncio
import contextlib
import gc
import logging
import subprocess
import sys
import threading
import time
import traceback

import pytest

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import ConcurrencyLimit, RateLimit
from resilient_ai.stores import RedisFleet
from resilient_ai.stores import _fleet_scripts as scripts
from resilient_ai.stores._fleet_worker import Job
from resilient_ai.testing import ScriptedProvider

from .redis_server import start_redis

pytestmark = pytest.mark.anyio
CHAT = Chat(model="m", messages="hi")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis(running):
    """The server, with nothing in it."""
    command(running, "FLUSHALL")
    return running


@pytest.fixture
def own_redis(tmp_path):
    """A server that the test may kill."""
    server = start_redis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
async def fleet_of():
    """Make fleets, and close them after the test."""
    fleets = []

    def make(server, **options):
        fleets.append(RedisFleet(server.url, **({"timeout": 2.0} | options)))
        return fleets[-1]

    yield make
    for fleet in fleets:
        await fleet.aclose()


def command(server, *words):
    from redis import Redis

    with contextlib.closing(Redis(port=server.port, protocol=2)) as client:
        return client.execute_command(*words)


async def until(claim, seconds=10.0):
    """Wait until `claim()` holds."""
    give_up = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.005)


def keys_of(name):
    return tuple(f"resilient_ai:{kind}:{name}" for kind in ("permits", "line", "seen"))


def held(server, name="m"):
    return command(server, "ZCARD", f"resilient_ai:permits:{name}")


def test_defaults():
    """A quarter of the limit alone, a quarter of a second for an answer, half a minute of lease."""
    fleet = RedisFleet("redis://127.0.0.1:6379/0")
    assert (fleet.prefix, fleet.share, fleet.timeout, fleet.lease) == ("resilient_ai", 0.25, 0.25, 30.0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"share": 0.0}, "share must be above 0 and at most 1, got 0.0"),
        ({"share": 1.1}, "share must be above 0 and at most 1, got 1.1"),
        ({"share": "1"}, "share must be above 0 and at most 1, got '1'"),
        ({"timeout": 0.0}, "timeout must be a positive number of seconds, got 0.0"),
        ({"timeout": float("inf")}, "timeout must be a positive number of seconds, got inf"),
        ({"lease": 0.0}, "lease must be >= 0.001, got 0.0"),
        ({"lease": float("nan")}, "lease must be >= 0.001, got nan"),
    ],
)
def test_senseless_options_are_refused(options, sentence):
    """The sentence names the option and what was given."""
    with pytest.raises(ValueError, match=sentence):
        RedisFleet("redis://127.0.0.1:6379/0", **options)


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@127.0.0.1",
        "redis://user:hun/ter2@127.0.0.1",
        "redis://:hunter2@127.0.0.1:hunter2/0",
        "redis://:hunter2@127.0.0.1/0?socket_timeout=hunter2",
    ],
)
def test_an_address_that_is_none_is_refused_without_being_shown(url):
    """Neither the sentence nor its cause quotes it, as a password may be in it."""
    with pytest.raises(ConfigurationError, match="url:") as caught:
        RedisFleet(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_password_is_never_shown():
    """Neither as part of the address nor as its parameter."""
    for url in ("redis://user:hunter2@host:6379/1", "rediss://host:6379/1?password=hunter2"):
        assert "hunter2" not in repr(RedisFleet(url))
        assert "//host:6379/1'" in repr(RedisFleet(url))
    assert repr(RedisFleet("unix:///run/redis.sock?password=hunter2")).startswith("RedisFleet('unix:///run/redis.sock'")


def test_a_missing_package_is_named(monkeypatch):
    """The sentence says what to install; importing the stores needed nothing."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'resilient-ai\[redis\]'"):
        RedisFleet("redis://host")


def test_the_stores_are_imported_without_the_package():
    """Who shares nothing does not pay for it."""
    program = "import sys, resilient_ai.stores; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=50).returncode == 0


async def test_two_processes_share_permits(redis, fleet_of):
    """What one holds the other cannot take, until it is given back; taking it twice is taking it once."""
    one, other = fleet_of(redis), fleet_of(redis)
    assert await one.acquire("m", limit=2, holder="a") == 0
    assert await one.acquire("m", limit=2, holder="a") == 0
    assert await other.acquire("m", limit=2, holder="b") == 0
    assert await other.acquire("m", limit=2, holder="c") == 1
    assert await other.acquire("n", limit=2, holder="c") == 0
    one.release("m", holder="a")
    await until(lambda: held(redis) == 1)
    assert await other.acquire("m", limit=2, holder="c") == 0


async def test_permits_go_in_the_order_of_the_line(redis, fleet_of):
    """Whoever asks, a permit that came back is for who asked first; each is told how many must come back before."""
    one, other = fleet_of(redis), fleet_of(redis)
    for holder in "ab":
        assert await one.acquire("m", limit=2, holder=holder) == 0
    assert [await one.acquire("m", limit=2, holder="c"), await other.acquire("m", limit=2, holder="d")] == [1, 2]
    one.release("m", holder="a")
    await until(lambda: held(redis) == 1)
    assert [await other.acquire("m", limit=2, holder="d"), await other.acquire("m", limit=2, holder="e")] == [1, 2]
    assert await one.acquire("m", limit=2, holder="c") == 0
    assert await one.acquire("m", limit=1, holder="e") == 3
    assert 0 < command(redis, "PTTL", "resilient_ai:line:m") <= 2_000
    assert 0 < command(redis, "PTTL", "resilient_ai:seen:m") <= 2_000


async def test_who_leaves_the_line_or_is_silent_does_not_hold_it_up(redis, fleet_of):
    """One that gives up makes room at once, one that died after a second; what waits in Redis is gone with them."""
    fleet = fleet_of(redis)
    assert [await fleet.acquire("m", limit=1, holder=holder) for holder in "abcd"] == [0, 1, 2, 3]
    fleet.release("m", holder="b")
    assert await fleet.acquire("m", limit=1, holder="d") == 2
    fleet.release("m", holder="a")
    for _ in range(4):
        assert await fleet.acquire("m", limit=1, holder="d") == 1
        await asyncio.sleep(0.2)
    await asyncio.sleep(0.3)
    assert await fleet.acquire("m", limit=1, holder="d") == 0
    assert command(redis, "EXISTS", "resilient_ai:line:m", "resilient_ai:seen:m") == 0


async def test_two_pipelines_get_the_same_part_of_a_limit(redis, fleet_of):
    """Eight callers each, four permits: both are served alike, and the permits are hardly ever idle."""
    served, pause = [0, 0], 0.1

    async def call(number, pipeline, give_up):
        while time.monotonic() < give_up:
            await pipeline.send(CHAT)
            served[number] += 1

    class Slow(ScriptedProvider):
        async def __call__(self, call):
            await asyncio.sleep(pause)
            return await super().__call__(call)

    pipelines = [Pipeline(Slow(), [ConcurrencyLimit(limit=4, adaptive=False, fleet=fleet_of(redis))]) for _ in range(2)]
    began = time.monotonic()
    calls = (call(number, pipelines[number], began + 3.0) for number in range(2) for _ in range(8))
    await asyncio.gather(*calls)
    took = time.monotonic() - began
    assert min(served) >= 0.8 * max(served)
    assert sum(served) >= 0.6 * took * 4 / pause


async def test_another_prefix_is_another_fleet(redis, fleet_of):
    """Those with different prefixes share nothing."""
    assert await fleet_of(redis).acquire("m", limit=1, holder="a") == 0
    assert await fleet_of(redis, prefix="other").acquire("m", limit=1, holder="b") == 0


async def test_everything_in_redis_has_a_lifetime(redis, fleet_of):
    """A fleet that is gone leaves nothing behind for ever, and a full bucket leaves nothing at all."""
    fleet = fleet_of(redis, lease=5.0)
    await fleet.acquire("m", limit=1, holder="a")
    await fleet.reserve("m", amount=4.0, rate=2.0, burst=1.0)
    assert 0 < command(redis, "PTTL", "resilient_ai:permits:m") <= 5_000
    assert 0 < command(redis, "PTTL", "resilient_ai:rate:m") <= 2_001
    fleet.settle("m", amount=-4.0, rate=2.0, burst=1.0)
    await until(lambda: not command(redis, "EXISTS", "resilient_ai:rate:m"))


async def test_a_rate_over_two_clients_is_one_rate(redis, fleet_of):
    """Forty reservations at once, half by each: three at once and then one each fiftieth of a second, for both together."""
    fleets = [fleet_of(redis), fleet_of(redis)]
    began = time.monotonic()
    asked = [fleet.reserve("m", amount=1.0, rate=50.0, burst=3.0) for _ in range(20) for fleet in fleets]
    waits = sorted(await asyncio.gather(*asked))
    took = time.monotonic() - began
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert 37 / 50 - took - 0.001 <= waits[-1] <= 37 / 50


async def test_a_limit_over_two_pipelines_is_one_limit(redis, fleet_of):
    """Two clients with 600 a minute send ten a second together, in real time."""
    limits = [RateLimit(requests=600, burst=0.001, fleet=fleet_of(redis)) for _ in range(2)]
    pipelines = [Pipeline(ScriptedProvider(), [limit]) for limit in limits]
    began = time.monotonic()
    await asyncio.gather(*(pipeline.send(CHAT) for _ in range(4) for pipeline in pipelines))
    assert 0.69 <= time.monotonic() - began <= 3.0


async def test_what_is_settled_counts_for_all(redis, fleet_of):
    """A debt of one delays the other, a refund is there for both, and a large amount goes and leaves the rest."""
    one, other = fleet_of(redis), fleet_of(redis)
    assert await one.reserve("m", amount=50.0, rate=1.0, burst=10.0) == 0.0
    assert await other.reserve("m", amount=1.0, rate=1.0, burst=10.0) == pytest.approx(41.0, abs=0.5)
    one.settle("m", amount=20.0, rate=1.0, burst=10.0)
    assert await one.reserve("m", amount=1.0, rate=1.0, burst=10.0) == pytest.approx(62.0, abs=0.5)
    one.settle("m", amount=-72.0, rate=1.0, burst=10.0)
    assert await one.reserve("m", amount=10.0, rate=1.0, burst=10.0) == 0.0


async def test_permits_are_kept_alive_while_they_are_held(redis, fleet_of):
    """Three leases later the permit is still taken."""
    one, other = fleet_of(redis, lease=0.3), fleet_of(redis, lease=0.3)
    await one.acquire("m", limit=1, holder="a")
    for _ in range(18):
        await asyncio.sleep(0.05)
        assert await other.acquire("m", limit=1, holder="b") == 1
    one.release("m", holder="a")
    await until(lambda: held(redis) == 0)
    assert await other.acquire("m", limit=1, holder="b") == 0


HOLD = """
import asyncio, sys
from resilient_ai.stores import RedisFleet
async def main():
    fleet = RedisFleet(sys.argv[1], lease=1.0, timeout=5.0)
    taken = [await fleet.acquire("m", limit=3, holder=sys.argv[2] + str(n)) for n in range(3)]
    print(taken.count(0), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def holding(url, name):
    return subprocess.Popen([sys.executable, "-c", HOLD, url, name], stdout=subprocess.PIPE, text=True)


async def test_processes_never_hold_more_than_the_limit_and_the_dead_lose_theirs(redis, fleet_of):
    """Two processes that want three of three get three; killed, they lose them after the lease and not before."""
    children = [holding(redis.url, name) for name in "xy"]
    try:
        taken = [int(await asyncio.to_thread(child.stdout.readline)) for child in children]
        assert sum(taken) == held(redis) == 3
        here = fleet_of(redis, lease=1.0)
        await asyncio.sleep(1.2)
        assert await here.acquire("m", limit=3, holder="z") == 1
    finally:
        for child in children:
            child.kill()
            await asyncio.to_thread(child.wait, 10)
            child.stdout.close()
    assert await here.acquire("m", limit=3, holder="z") == 1
    began = time.monotonic()
    while await here.acquire("m", limit=3, holder="z"):
        assert time.monotonic() - began < 5.0
        await asyncio.sleep(0.02)
    assert time.monotonic() - began <= 2.0


async def test_closing_gives_everything_back_and_use_opens_again(redis):
    """More permits than one script may take, and twice over."""
    fleet = RedisFleet(redis.url, timeout=5.0)
    for _ in range(2):
        await asyncio.gather(*(fleet.acquire("m", limit=3_000, holder=str(n)) for n in range(2_100)))
        assert held(redis) == 2_100
        await fleet.aclose()
        assert held(redis) == 0
    await fleet.aclose()
    fleet.release("m", holder="1")
    fleet.settle("m", amount=1.0, rate=1.0, burst=1.0)


async def test_a_fleet_that_nobody_has_any_more_gives_its_permits_back(redis):
    """The garbage collector ends its thread."""
    fleet = RedisFleet(redis.url, timeout=5.0)
    await fleet.acquire("m", limit=1, holder="a")
    del fleet
    gc.collect()
    await until(lambda: held(redis) == 0)


async def test_what_is_asked_while_it_closes_has_no_answer(redis):
    """Whoever comes too late is told None, not left waiting."""
    fleet = RedisFleet(redis.url, timeout=5.0)
    await fleet.acquire("m", limit=1, holder="a")
    worker = fleet._worker
    redis.freeze()
    try:
        first = asyncio.ensure_future(fleet.acquire("m", limit=2, holder="b"))
        await asyncio.sleep(0.05)
        worker.end()
        late = asyncio.ensure_future(fleet.acquire("m", limit=2, holder="c"))
        await asyncio.sleep(0.05)
    finally:
        redis.thaw()
    assert (await first, await late) == (0, None)
    await fleet.aclose()
    assert held(redis) == 0


async def test_a_call_that_is_cancelled_holds_nothing(redis, fleet_of):
    """Whether it had not begun, was under way, or had been granted in the same moment; and so for rates."""
    fleet = fleet_of(redis, timeout=5.0)
    await fleet.acquire("other", limit=1, holder="warm")
    for pause in (0.0, 0.0, 0.0001, 0.0003, 0.0005, 0.001, 0.002) * 20:
        tasks = [asyncio.ensure_future(fleet.acquire("m", limit=100, holder=f"h{n}")) for n in range(10)]
        tasks += [asyncio.ensure_future(fleet.reserve("r", amount=1.0, rate=1e-3, burst=1.0)) for n in range(10)]
        await asyncio.sleep(0)
        time.sleep(pause)  # noqa: ASYNC251 - the thread gets on while this loop cannot see its answers
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
    await until(lambda: held(redis) == 0)
    await until(lambda: fleet._worker._held == {keys_of("other"): {"warm": None}})
    assert await fleet.reserve("r", amount=1.0, rate=1e-3, burst=1.0) == pytest.approx(0.0, abs=0.01)


async def test_a_call_that_is_cancelled_while_redis_stands_still_holds_nothing(redis, fleet_of):
    """The answer comes when nobody waits for it any more."""
    fleet = fleet_of(redis, timeout=5.0)
    await fleet.acquire("other", limit=1, holder="warm")
    redis.freeze()
    try:
        tasks = [asyncio.ensure_future(fleet.acquire("m", limit=9, holder="a"))]
        await asyncio.sleep(0.05)
        tasks.append(asyncio.ensure_future(fleet.acquire("m", limit=9, holder="b")))
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    finally:
        redis.thaw()
    await fleet.acquire("other", limit=1, holder="warm")
    await until(lambda: held(redis) == 0)
    await until(lambda: fleet._worker._held == {keys_of("other"): {"warm": None}})


async def test_a_slow_redis_is_given_up_in_time_and_costs_the_next_call_nothing(redis, fleet_of, caplog):
    """None within `timeout`, None at once for the next second, and one warning; then it is asked again."""
    fleet = fleet_of(redis, timeout=0.2)
    await fleet.acquire("other", limit=1, holder="warm")
    redis.freeze()
    try:
        began = time.monotonic()
        answers = await asyncio.gather(*(fleet.acquire("m", limit=99, holder=str(n)) for n in range(20)))
        took = time.monotonic() - began
        again = time.monotonic()
        assert await fleet.reserve("m", amount=1.0, rate=1.0, burst=1.0) is None
        at_once = time.monotonic() - again
    finally:
        redis.thaw()
    assert answers == [None] * 20
    assert 0.15 <= took <= 1.0
    assert at_once < 0.1
    await until(lambda: caplog.records)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    answered = await asked_until_answered(fleet)
    assert answered == 0


async def asked_until_answered(fleet):
    give_up = time.monotonic() + 10.0
    while (answer := await fleet.acquire("again", limit=1, holder="a")) is None:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)
    return answer


async def test_a_loop_that_was_busy_takes_the_answer_that_came_in_time(redis, fleet_of, caplog):
    """What was late is the loop, not Redis."""
    fleet = fleet_of(redis, timeout=0.3)
    await fleet.acquire("other", limit=1, holder="warm")
    task = asyncio.ensure_future(fleet.acquire("m", limit=1, holder="a"))
    await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251 - it is the point
    assert await task == 0
    assert caplog.records == []


async def test_a_dead_redis_leaves_the_share_and_one_that_is_back_is_shared_again(own_redis, fleet_of, caplog):
    """Killed in the midst of it: half of the limit alone, one warning without the password; restarted: one limit again."""
    caplog.set_level(logging.INFO, logger="resilient_ai")
    one, other = fleet_of(own_redis, share=0.5, lease=3.0), fleet_of(own_redis)
    assert await one.acquire("m", limit=2, holder="a") == 0
    limit = RateLimit(requests=600, burst=0.1, fleet=one)
    pipeline = Pipeline(ScriptedProvider(), [limit])
    own_redis.stop()
    began = time.monotonic()
    await asyncio.gather(*(pipeline.send(CHAT) for _ in range(31)))
    assert 0.15 <= time.monotonic() - began <= 2.0
    assert limit.health()[0].limit == 300.0
    for _ in range(12):
        await asyncio.sleep(0.1)
        assert await one.acquire("m", limit=2, holder="b") is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    one.release("m", holder="nobody")
    own_redis.start()
    assert await asked_until_answered(one) == 0
    await until(lambda: held(own_redis) == 1)
    assert await other.acquire("m", limit=1, holder="z") == 1
    assert [record.levelname for record in caplog.records][:2] == ["WARNING", "INFO"]


async def test_what_is_under_way_is_registered_before_anything_new_is_shared(own_redis, fleet_of):
    """A Redis that comes back empty is told what was held, and what went ahead alone, though nobody asks; then it shares."""
    one, other = fleet_of(own_redis), fleet_of(own_redis)
    assert await one.acquire("m", limit=3, holder="a") == 0
    assert await other.acquire("m", limit=3, holder="b") == 0
    assert (one.reachable, other.reachable) == (True, True)
    own_redis.stop()
    assert await one.acquire("m", limit=3, holder="c") is None
    assert await other.acquire("m", limit=3, holder="d") is None
    one.hold("m", holder="c")
    assert (one.reachable, other.reachable) == (False, False)
    own_redis.start()
    await until(lambda: held(own_redis) == 3)
    assert set(command(own_redis, "ZRANGE", "resilient_ai:permits:m", "0", "-1")) == {b"a", b"b", b"c"}
    assert await one.acquire("m", limit=9, holder="e") is None
    one.hold("m", holder="e")
    await until(lambda: held(own_redis) == 4)
    await until(lambda: one.reachable and other.reachable)
    assert await other.acquire("m", limit=4, holder="f") == 1
    one.release("m", holder="c")
    await until(lambda: held(own_redis) == 3)
    assert await other.acquire("m", limit=4, holder="f") == 0


@pytest.mark.parametrize(("share", "part"), [(0.25, "a quarter"), (0.5, "half"), (1.0, "all"), (0.1, "10%")])
async def test_the_log_says_what_a_process_uses_without_redis(caplog, share, part):
    """Where Redis is, what went wrong, what follows, and for how long; once."""
    fleet = RedisFleet("redis://:secret@127.0.0.1:1/0", share=share, timeout=2.0)
    assert [await fleet.acquire("m", limit=1, holder="a") for _ in range(3)] == [None] * 3
    assert await fleet.trouble() == "cannot be reached (ConnectionError)"
    await fleet.aclose()
    (record,) = caplog.records
    assert record.getMessage() == (
        "Redis at redis://127.0.0.1:1/0 cannot be reached (ConnectionError): limits are not shared now, "
        f"this process uses {part} of them until it is back"
    )


async def test_a_redis_that_answers_is_no_trouble(redis, fleet_of):
    """Neither before nor after it was used."""
    fleet = fleet_of(redis)
    assert fleet.reachable is True
    assert await fleet.trouble() is None
    assert (await fleet.acquire("m", limit=1, holder="a"), await fleet.trouble()) == (0, None)


async def test_what_is_given_back_while_redis_is_away_is_not_kept_alive(own_redis, fleet_of):
    """Otherwise it would be held for ever once Redis is back."""
    fleet = fleet_of(own_redis, lease=0.3)
    await fleet.acquire("m", limit=2, holder="a")
    await fleet.acquire("m", limit=2, holder="b")
    own_redis.stop()
    assert await fleet.acquire("m", limit=2, holder="c") is None
    fleet.release("m", holder="a")
    await until(lambda: fleet._worker._held == {keys_of("m"): {"b": None}})
    own_redis.start()
    await until(lambda: held(own_redis) == 1)
    assert command(own_redis, "ZRANGE", "resilient_ai:permits:m", "0", "-1") == [b"b"]


async def test_a_server_that_forgot_the_scripts_is_told_them_again(redis, fleet_of, caplog):
    """Nobody notices."""
    fleet = fleet_of(redis)
    assert await fleet.acquire("m", limit=2, holder="a") == 0
    command(redis, "SCRIPT", "FLUSH")
    assert await fleet.acquire("m", limit=2, holder="b") == 0
    assert caplog.records == []


@pytest.mark.parametrize("kind", ["permits", "rate"])
async def test_nonsense_in_redis_is_no_answer(redis, fleet_of, caplog, kind):
    """A key that holds something else gives None and a warning; the other keys of the same trip are served."""
    fleet = fleet_of(redis)
    command(redis, "SET", f"resilient_ai:{kind}:m", "not a number")
    answers = await asyncio.gather(
        fleet.acquire("good", limit=1, holder="a"),
        fleet.acquire("m", limit=1, holder="a"),
        fleet.reserve("m", amount=1.0, rate=1.0, burst=1.0),
        fleet.acquire("good", limit=2, holder="b"),
    )
    assert answers == ([0, None, 0.0, 0] if kind == "permits" else [0, 0, None, 0])
    assert "ResponseError" in caplog.text


async def test_an_answer_that_cannot_be_read_is_no_answer(redis, fleet_of, caplog):
    """Whatever stands at the other end, no call fails by it."""
    fleet = fleet_of(redis)
    assert await fleet.acquire("m", limit=1, holder="warm") == 0
    answer = fleet._worker.put(Job(scripts.PING, ("m",), (), lambda _: int("not a number")))
    assert await asyncio.wrap_future(answer) is None
    assert "no answer that can be used (it cannot be read)" in caplog.text


async def test_a_wrong_password_is_no_answer_and_is_not_shown(own_redis, caplog):
    """The warning names the place and the kind of error."""
    command(own_redis, "CONFIG", "SET", "requirepass", "correct")
    fleet = RedisFleet(own_redis.url.replace("//", "//:hunter2@"), timeout=2.0)
    assert await fleet.acquire("m", limit=1, holder="a") is None
    assert "AuthenticationError" in caplog.text
    assert "hunter2" not in caplog.text
    await fleet.aclose()
    fleet = RedisFleet(own_redis.url.replace("//", "//:correct@"), timeout=2.0)
    assert await fleet.acquire("m", limit=1, holder="a") == 0
    await fleet.aclose()


def test_several_loops_and_threads_share_one_fleet(redis):
    """Four loops with one object never hold more than the limit together, and nothing is left."""
    fleet = RedisFleet(redis.url, timeout=10.0)
    now, most, lock = [0], [0], threading.Lock()

    async def one(holder):
        while await fleet.acquire("m", limit=3, holder=holder):
            pass
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        await asyncio.sleep(0)
        with lock:
            now[0] -= 1
        fleet.release("m", holder=holder)

    async def many(name):
        await asyncio.gather(*(one(f"{name}-{n}") for n in range(20)))

    threads = [threading.Thread(target=lambda name=name: asyncio.run(many(name))) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(fleet.aclose())
    assert 1 <= most[0] <= 3
    assert held(redis) == 0


async def test_what_a_child_inherits_is_left_alone(redis):
    """It keeps the connection, unused and open, and begins afresh."""
    fleet = RedisFleet(redis.url, timeout=5.0)
    await fleet.acquire("m", limit=2, holder="a")
    parent = fleet._worker
    fleet.after_fork()
    assert await fleet.acquire("m", limit=2, holder="b") == 0
    await fleet.aclose()
    assert held(redis) == 1
    parent.end()
    await until(lambda: held(redis) == 0)


def test_a_forked_child_asks_for_itself(redis, in_child):
    """It opens a connection of its own, and what the parent holds stays the parent's."""
    fleet = RedisFleet(redis.url, timeout=5.0)

    async def parent():
        return await fleet.acquire("m", limit=2, holder="parent")

    async def child():
        taken = [await fleet.acquire("m", limit=2, holder=name) for name in ("b", "c")]
        await fleet.aclose()
        return taken == [0, 1]

    assert asyncio.run(parent()) == 0
    assert in_child(lambda: asyncio.run(child())) == 0
    assert held(redis) == 1
    asyncio.run(fleet.aclose())
    assert held(redis) == 0
