"""A catalogue that is brought up to date; time and lists are scripted, the disk is real."""

import asyncio
import logging
import os
import threading
from dataclasses import replace
from datetime import date
from decimal import Decimal

import orjson
import pytest

from resilient_ai.core.clock import SystemClock
from resilient_ai.core.errors import AttemptTimeout, ConnectionFailed, InvalidResponse
from resilient_ai.deepinfra.catalogue import (
    Catalogue,
    CatalogueAbilities,
    LiveCatalogue,
    ModelQuery,
    PriceTable,
    catalogue,
    load_overrides,
)
from resilient_ai.deepinfra.catalogue._live_fetch import NATIVE_LIST, OPENAI_LIST

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


class LaterClock(SystemClock):
    """A machine of a later day than that of the fake clock; threads may ask it too."""

    wall = staticmethod(lambda: 1_900_000_000.0)


LATER = LaterClock()
pytestmark = pytest.mark.anyio


class Lists:
    """The provider's two lists; a body may be an error to raise or a number of seconds to wait."""

    def __init__(self, openai=None, native=None):
        self.bodies = {OPENAI_LIST: openai, NATIVE_LIST: native}
        self.asked = []

    async def __call__(self, path):
        self.asked.append(path)
        body = self.bodies[path]
        if isinstance(body, Exception):
            raise body
        if isinstance(body, int):
            await asyncio.sleep(body)
        return body


def openai_of(id=LLAMA, **pricing):
    return orjson.dumps({"data": [{"id": id, "metadata": {"tags": ["chat"], "pricing": pricing}}]})


def native_of(id=LLAMA, **fields):
    return orjson.dumps([{"model_name": id, "type": "text-generation", **fields}])


DEARER = Lists(openai_of(input_tokens=0.2, output_tokens=0.64), native_of())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "catalogue.json"


async def test_it_begins_as_the_packaged_data(path):
    """And asks nobody."""
    live = LiveCatalogue(path=path)

    assert live.models == catalogue.models
    assert (live.as_of, live.fetched_at, len(live)) == (catalogue.as_of, None, len(catalogue))
    assert LLAMA in live
    assert live.find("chat", tools=True) == catalogue.find("chat", tools=True)
    assert live.replacement("Qwen/QwQ-32B") == "Qwen/Qwen3-32B"
    assert not live.changes()
    assert repr(live) == f"LiveCatalogue(Catalogue(), path={str(path)!r})"
    assert repr(LiveCatalogue()) == "LiveCatalogue(Catalogue(), path=None)"


async def test_a_refresh_changes_what_everybody_reads(clock):
    """Prices, abilities, queries and copies; the changes are returned, and told of since the package."""
    live = LiveCatalogue()
    prices, query = PriceTable(live), ModelQuery(max_input_price=0.15, text="llama-3.3", catalogue=live)
    assert query.models() == (LLAMA,)

    changes = await live.refresh(DEARER, clock=clock)

    assert [(change.field, change.new) for change in changes.prices] == [
        ("input_per_1m", Decimal("0.2")),
        ("output_per_1m", Decimal("0.64")),
    ]
    assert prices.chat_cost(LLAMA, input_tokens=1_000_000, output_tokens=0) == Decimal("0.2")
    assert CatalogueAbilities(live).models.get(LLAMA).pricing.input_per_1m == Decimal("0.2")
    assert query.models() == ()
    assert live.changes().prices == changes.prices
    assert (live.as_of, live.get(LLAMA).price_as_of) == (date(2027, 1, 15), "2027-01-15")
    assert live.fetched_at == clock.wall()
    assert catalogue.get(LLAMA).pricing.input_per_1m == Decimal("0.1")
    assert live.with_models(replace(live.get(LLAMA), id="me/x")).get(LLAMA).pricing.input_per_1m == Decimal("0.2")


async def test_the_next_process_begins_where_this_one_ended(clock, path):
    """What was fetched is on disk, and newer than the package."""
    live = LiveCatalogue(path=path, clock=LATER)
    await live.refresh(DEARER, clock=clock)

    other = LiveCatalogue(path=path, clock=LATER)

    assert other.models == live.models
    assert (other.as_of, other.fetched_at) == (live.as_of, live.fetched_at)


async def test_a_file_that_is_older_than_the_package_is_left_aside(clock, path):
    """A new release of the package knows more than an old fetch."""
    await LiveCatalogue(path=path).refresh(DEARER, clock=clock)
    newer = Catalogue(catalogue.models, as_of=date(2030, 1, 1))

    live = LiveCatalogue(newer, path=path)

    assert (live.as_of, live.fetched_at) == (date(2030, 1, 1), None)
    assert live.get(LLAMA) == catalogue.get(LLAMA)


async def test_what_is_fetched_by_a_clock_that_is_behind_counts_all_the_same(clock, path):
    """It is not taken for older than the package, now or later."""
    clock.offset = 0
    live = LiveCatalogue(path=path)
    await live.refresh(DEARER, clock=clock)

    assert live.get(LLAMA).pricing.input_per_1m == Decimal("0.2")
    assert live.as_of == catalogue.as_of
    assert LiveCatalogue(path=path).models == live.models


async def test_a_damaged_file_is_ignored_with_one_warning(path, caplog):
    """However often the catalogue is asked."""
    path.write_bytes(b"{")
    live = LiveCatalogue(path=path)

    assert live.get(LLAMA) == live.get(LLAMA) == catalogue.get(LLAMA)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("moment", [1e18, 4_000_000_000.0])
async def test_a_file_from_the_future_is_ignored_with_one_warning(clock, path, caplog, moment):
    """A refresh puts a true one in its place."""
    await LiveCatalogue(path=path).refresh(DEARER, clock=clock)
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"fetched_at": moment}))
    live = LiveCatalogue(path=path, clock=LATER)

    assert live.get(LLAMA) == live.get(LLAMA) == catalogue.get(LLAMA)
    assert live.fetched_at is None
    assert len(caplog.records) == 1

    await live.refresh(DEARER)
    assert LiveCatalogue(path=path, clock=LATER).fetched_at == LATER.wall()


async def test_refreshes_do_not_wander_off_from_the_package(clock):
    """Three steps of forty times are two too many, and each is told of."""
    live = LiveCatalogue()
    doubts = []
    for price in (4.0, 160.0, 6400.0):
        changes = await live.refresh(Lists(openai_of(input_tokens=price), native_of()), clock=clock)
        doubts.append(sum(doubt.model == LLAMA for doubt in changes.suspicious))

    assert (doubts, live.get(LLAMA).pricing.input_per_1m) == ([0, 1, 1], Decimal(4))


async def test_one_list_is_enough(clock):
    """The other one is named with its reason."""
    live = LiveCatalogue()
    refused = ConnectionFailed("refused", phase="connect")

    first = await live.refresh(Lists(refused, native_of(deprecated=1_790_856_000)), clock=clock)
    second = await live.refresh(Lists(openai_of(input_tokens=0.2), b"<html>"), clock=clock)

    assert first.failed == ("/openai/models: ConnectionFailed: refused",)
    assert first.retired == (LLAMA,)
    assert second.failed == ("/models/list: InvalidResponse: the list of models is not JSON",)
    assert [change.new for change in second.prices] == [Decimal("0.2")]


@pytest.mark.parametrize(
    ("lists", "error"),
    [
        (Lists(ConnectionFailed("x", phase="dns"), ConnectionFailed("y", phase="dns")), ConnectionFailed),
        (Lists(b"<html>", b"{}"), InvalidResponse),
        (Lists(b" " * ((16 << 20) + 1), b"[]"), InvalidResponse),
        (Lists(60, 60), AttemptTimeout),
    ],
    ids=["refused", "no lists", "endless", "silent"],
)
async def test_where_both_lists_fail_nothing_has_changed(clock, path, lists, error):
    """The error of the first is raised, and the old data stays, in memory and on disk."""
    live = LiveCatalogue(path=path)
    await live.refresh(DEARER, clock=clock)
    before = live.models, live.fetched_at, path.read_bytes()

    with pytest.raises(error):
        await live.refresh(lists, clock=clock)

    assert before == (live.models, live.fetched_at, path.read_bytes())


async def test_the_lists_are_asked_for_at_once_and_for_so_long(clock):
    """Two that hang take the time of one."""
    began = clock.monotonic()

    with pytest.raises(AttemptTimeout) as caught:
        await LiveCatalogue().refresh(Lists(60, 60), clock=clock, timeout=7)

    assert (clock.monotonic() - began, caught.value.elapsed) == (7, 7)
    with pytest.raises(ValueError, match="timeout must be a positive number of seconds, got 0"):
        await LiveCatalogue().refresh(DEARER, clock=clock, timeout=0)


async def test_an_error_in_a_function_of_the_user_is_raised_as_it_is(clock):
    """It says nothing of the service, so the other list is not asked to make up for it."""
    for lists, error in ((Lists(native_of(), KeyError("mine")), KeyError), (Lists("text", native_of()), TypeError)):
        with pytest.raises(error):
            await LiveCatalogue().refresh(lists, clock=clock)


THREE = Catalogue(
    [replace(catalogue.get(LLAMA), id=name) for name in ("a/gone", "a/here", LLAMA)], as_of=date(2026, 1, 1)
)


def lists_of(*ids, **pricing):
    rows = [{"id": name, "metadata": {"tags": ["chat"], "pricing": pricing}} for name in ids]
    native = [{"model_name": name, "type": "text-generation"} for name in ids]
    return Lists(orjson.dumps({"data": rows}), orjson.dumps(native))


async def test_a_model_that_is_listed_no_more_is_told_of_and_kept(clock, path):
    """It is told of once as news and always as a change, in other processes too; nobody chooses it until it is listed again."""
    live = LiveCatalogue(THREE, path=path, clock=LATER)
    everything = live.models

    first = await live.refresh(lists_of("a/here", LLAMA), clock=clock)
    second = await live.refresh(lists_of("a/here", LLAMA), clock=clock)

    assert (first.removed, second.removed) == (("a/gone",), ())
    assert first.retired == ()
    for known in (live, LiveCatalogue(THREE, path=path, clock=LATER)):
        assert known.changes().removed == ("a/gone",)
        assert [model.id for model in known.find()] == ["a/here", LLAMA]
        assert known.get("a/gone").pricing == THREE.get("a/gone").pricing
    again = await live.refresh(lists_of("a/gone", "a/here", LLAMA), clock=clock)
    assert [(change.model, change.new) for change in again.facts] == [("a/gone", "active")]
    assert not live.changes()
    assert live.models == everything


async def test_a_list_that_lacks_most_models_removes_none(clock):
    """It is cut short, or of a server that has few models: routes must not be left without any."""
    live = LiveCatalogue(THREE)

    changes = await live.refresh(lists_of("a/here"), clock=clock)

    assert (changes.removed, len(live.find())) == ((), 3)
    assert [str(doubt) for doubt in changes.suspicious] == [
        "(the list): models 2 of 3: are missing on it, so that it cannot be whole"
    ]


async def test_what_is_not_believed_stays_in_sight(clock, path):
    """Until the lists say something else, also in other processes, and where a list fails that may have said it."""
    live = LiveCatalogue(THREE, path=path, clock=LATER)
    await live.refresh(lists_of("a/gone", "a/here", LLAMA, input_tokens=1000), clock=clock)
    doubts = [("a/gone", "1000"), ("a/here", "1000"), (LLAMA, "1000")]

    other = LiveCatalogue(THREE, path=path, clock=LATER)
    assert [(doubt.model, doubt.value) for doubt in other.changes().suspicious] == doubts
    half = lists_of("a/here", input_tokens=0.1)
    half.bodies[NATIVE_LIST] = ConnectionFailed("refused", phase="connect")
    assert (await other.refresh(half, clock=clock)).suspicious == ()
    assert [doubt.model for doubt in other.changes().suspicious] == ["a/gone", LLAMA]
    await other.refresh(lists_of("a/gone", "a/here", LLAMA, input_tokens=0.1), clock=clock)
    assert LiveCatalogue(THREE, path=path, clock=LATER).changes().suspicious == ()


async def test_what_is_not_believed_is_told_of_and_not_applied(clock):
    """A price in cents for one in dollars, and an id with a control character."""
    native = orjson.dumps([{"model_name": LLAMA, "type": "text-generation"}, {"model_name": "a/\x1b[2J"}])
    live = LiveCatalogue()

    changes = await live.refresh(Lists(openai_of(input_tokens=10), native), clock=clock)

    assert changes.prices == ()
    assert {doubt.model for doubt in changes.suspicious} == {"", LLAMA}
    assert live.get(LLAMA).pricing == catalogue.get(LLAMA).pricing


async def test_overrides_go_before_what_is_fetched(clock, path, tmp_path):
    """Before and after a refresh; they are no change of the provider's, and are not kept with its prices."""
    prices = tmp_path / "prices.toml"
    prices.write_text(f'[models."{LLAMA}"]\ninput_per_1m = 0.07\n[models."me/x"]\nkind = "chat"\n')
    live = LiveCatalogue(path=path, clock=LATER, overrides=load_overrides(prices))

    changes = await live.refresh(DEARER, clock=clock)

    assert live.get(LLAMA).pricing.input_per_1m == Decimal("0.07")
    assert live.get(LLAMA).pricing.output_per_1m == Decimal("0.64")
    assert "me/x" in live
    assert (changes.added, live.changes().added) == ((), ())
    assert [change.new for change in changes.prices] == [Decimal("0.2"), Decimal("0.64")]
    without = LiveCatalogue(path=path, clock=LATER)
    assert without.get(LLAMA).pricing.input_per_1m == Decimal("0.2")
    assert "me/x" not in without


async def test_readers_see_all_of_the_old_or_all_of_the_new(clock):
    """In another thread, while prices go up and down, two prices of one model always belong together."""
    live = LiveCatalogue()
    cheaper = Lists(openai_of(input_tokens=0.1, output_tokens=0.32), native_of())
    stop, seen = threading.Event(), set()

    def read():
        while not stop.is_set():
            pricing = live.get(LLAMA).pricing
            seen.add((pricing.input_per_1m, pricing.output_per_1m))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            await live.refresh(DEARER, clock=clock)
            await live.refresh(cheaper, clock=clock)
    finally:
        stop.set()
        reader.join()
    assert seen <= {(Decimal("0.1"), Decimal("0.32")), (Decimal("0.2"), Decimal("0.64"))}


async def test_a_disk_that_cannot_be_written_fails_nothing(clock, tmp_path, caplog):
    """What was fetched is in memory, and the log says that it is not kept."""
    (tmp_path / "file").touch()
    live = LiveCatalogue(path=tmp_path / "file" / "catalogue.json")

    with caplog.at_level(logging.WARNING):
        assert await live.refresh(DEARER, clock=clock)

    assert live.get(LLAMA).pricing.input_per_1m == Decimal("0.2")
    assert "the catalogue cannot be kept" in caplog.text


async def test_another_process_hands_over_what_it_has_fetched(clock, path):
    """Only what is newer is taken."""
    mine, other = LiveCatalogue(path=path, clock=LATER), LiveCatalogue(path=path, clock=LATER)
    assert mine.get(LLAMA).pricing.input_per_1m == Decimal("0.1")
    assert not mine.reload()
    await other.refresh(DEARER, clock=clock)

    assert mine.get(LLAMA).pricing.input_per_1m == Decimal("0.1")
    assert mine.reload()
    assert mine.get(LLAMA).pricing.input_per_1m == Decimal("0.2")
    assert not mine.reload()
    assert not LiveCatalogue().reload()


async def test_a_fork_does_not_inherit_a_lock_that_is_held():
    """A child that is forked in the middle of a refresh can refresh."""
    live = LiveCatalogue()
    holding, let_go = threading.Event(), threading.Event()

    def hold():
        with live._alone():
            holding.set()
            let_go.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(10)
    before = live._lock
    live._process = os.getpid() + 1  # as in a child
    try:
        assert live.get(LLAMA) is not None
        assert live._lock is not before
    finally:
        let_go.set()
        holder.join()


def test_a_base_that_is_no_catalogue_is_refused():
    """At construction."""
    with pytest.raises(ValueError, match="base must be of type Catalogue, got 'catalogue'"):
        LiveCatalogue("catalogue")
    with pytest.raises(ValueError, match=r"overrides must be of type Overrides or None, got 'prices\.toml'"):
        LiveCatalogue(overrides="prices.toml")
