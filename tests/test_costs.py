"""`ai.costs`: questions with moments and tags, and files of all sends."""

import asyncio
import csv
import os
import sys
import tracemalloc
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resilient_ai._cost_files import FORMATS
from resilient_ai.core.errors import ConfigurationError, InvalidInput
from resilient_ai.core.ledger import CallSpared, LedgerSend, SavedTotal, SendClosed, SendOpened
from resilient_ai.core.results import Usage
from resilient_ai.costs import ClientCosts
from resilient_ai.stores import SQLiteLedger

pytestmark = pytest.mark.anyio

NOON = 1_800_000_000.0  # 2027-01-15 08:00 UTC
DAY = 86_400.0
COLUMNS = [
    *["send_id", "call_id", "at", "kind", "model", "attempt", "state", "cost", "list_cost", "used", "input_tokens"],
    *["output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "service_tier", "error", "elapsed"],
    *["tenant", "user", "feature", "environment", "tags"],
]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def book():
    ledger = SQLiteLedger(":memory:")
    yield ledger
    ledger.close()


@pytest.fixture
def costs(book):
    return ClientCosts(book)


def write(book, send_id, cost=None, *, at=NOON, kind="chat", model="m", call_id="c", tags=None, **end):
    book.opened(SendOpened(send_id=send_id, call_id=call_id, at=at, kind=kind, model=model, attempt=1, tags=tags or {}))
    amount = None if cost is None else Decimal(cost)
    book.closed(SendClosed(send_id=send_id, state="settled", cost=amount, **end))


@pytest.fixture
def filled(book, costs):
    write(book, "1", "0.1", tags={"tenant": "a", "team": "red"}, call_id="one")
    write(book, "2", "0.2", at=NOON + 1, tags={"tenant": "b"}, model="n", call_id="one", used=False)
    write(book, "3", "0.4", at=NOON + DAY, tags={"tenant": "a"}, kind="embed", call_id="two", used=False)
    write(book, "4", at=NOON + DAY + 1, call_id="three")
    return costs


def questions_of(costs, folder, **which):
    """Every question there is, each about the same sends."""
    asks = (costs.total, costs.sends, costs.calls, costs.wasted, costs.saved_by_cache)
    yield from (ask(**which) for ask in asks)
    yield costs.by("model", **which)
    yield costs.export(folder / "costs.csv", **which)


class TestQuestions:
    """What is asked of the book."""

    @pytest.mark.parametrize(
        ("tags", "sends"),
        [
            ({}, 4),
            ({"tenant": "a"}, 2),
            ({"team": "red"}, 1),
            ({"model": "n"}, 1),
            ({"kind": "chat", "tenant": "a"}, 1),
        ],
    )
    async def test_tags_narrow(self, filled, tags, sends):
        """In every question, those included that have no column of their own, and model and kind."""
        assert (await filled.total(**tags)).sends == sends
        assert sum(row.sends for row in await filled.by("state", **tags)) == sends
        assert len(await filled.sends(**tags)) == sends
        assert sum(call.sends for call in await filled.calls(**tags)) == sends

    @pytest.mark.parametrize(
        ("since", "sends"),
        [
            (NOON + 1, 3),
            (int(NOON) + 1, 3),
            (date(2027, 1, 16), 2),
            (datetime(2027, 1, 15, 8, 0, 1, tzinfo=UTC), 3),
            (datetime(2027, 1, 15, 10, 0, 1, tzinfo=timezone(timedelta(hours=2))), 3),
            ("2027-01-16", 2),
            ("2027-01-15T08:00:01Z", 3),
            ("2027-01-15 10:00:01+02:00", 3),
            (None, 4),
        ],
    )
    async def test_moments(self, filled, since, sends):
        """Seconds, a time of any zone, a day, which begins in UTC, and the texts of times and days."""
        assert (await filled.total(since=since)).sends == sends
        assert (await filled.total(until=since)).sends == (4 if since is None else 4 - sends)
        assert sum(row.sends for row in await filled.by("kind", since=since)) == sends
        assert len(await filled.sends(since=since)) == sends
        assert sum(call.sends for call in await filled.calls(since=since)) == sends

    @pytest.mark.parametrize(
        "moment",
        [
            *[datetime(2027, 1, 15), "2027-01-15T08:00", "7d", "", float("nan"), float("inf"), True],  # noqa: DTZ001
        ],
    )
    async def test_moments_are_checked(self, costs, moment):
        """A time that could be anywhere, also as a text, a text of another kind, and what is no time."""
        for name in ("since", "until"):
            with pytest.raises(InvalidInput, match=f"{name}: .*got ") as caught:
                await costs.total(**{name: moment})
            assert (caught.value.field, caught.value.value) == (name, moment)

    async def test_tags_are_checked(self, costs):
        """They are texts."""
        with pytest.raises(InvalidInput, match="tenant: a text, got 7"):
            await costs.by("model", tenant=7)
        with pytest.raises(InvalidInput, match="tenant: a text, got 7"):
            await costs.total(tags={"tenant": 7})
        with pytest.raises(InvalidInput, match="tags: a mapping of names to texts, got 'a'"):
            await costs.calls(tags="a")
        with pytest.raises(InvalidInput, match="tenant: a text, got 7"):
            ClientCosts(costs._book, {"tenant": 7})

    async def test_tags_with_names_of_our_own(self, book, costs, tmp_path):
        """A mapping holds names that a question has for itself; keywords beside it narrow further."""
        names = ("path", "since", "until", "limit", "call_id", "tags", "day", "not a name")
        write(book, "1", "0.1", tags=dict.fromkeys(names, "x") | {"tenant": "a"}, used=False)
        write(book, "2", "0.2", tags={"tenant": "a"})
        for name in names:
            tags = {name: "x"}
            assert (await costs.total(tags=tags, tenant="a")).sends == 1
            assert [row.sends for row in await costs.by("model", tags=tags)] == [1]
            assert [send.send_id for send in await costs.sends(tags=tags)] == ["1"]
            assert [call.sends for call in await costs.calls(tags=tags)] == [1]
            assert await costs.wasted(tags=tags) == Decimal("0.1")
            assert (await costs.saved_by_cache(tags=tags)).calls == 0
            assert await costs.export(tmp_path / "costs.csv", tags=tags) == 1
        assert (await costs.total(tags={"tenant": "a"}, tenant="a")).sends == 2
        with pytest.raises(InvalidInput, match="tenant: the same question is about 'b' alone, got 'a'"):
            await costs.total(tags={"tenant": "b"}, tenant="a")

    async def test_what_no_text_is_can_not_be_asked_for(self, costs, tmp_path):
        """Half of a surrogate pair is refused by every question, as no call can have such a tag."""
        for ask in questions_of(costs, tmp_path, tenant="a\ud800"):
            with pytest.raises(InvalidInput, match="'tenant': half of a surrogate pair is no text"):
                await ask
        with pytest.raises(InvalidInput, match="'call_id': half of a surrogate pair is no text"):
            await costs.sends(call_id="\udfff")

    async def test_kinds_are_checked(self, costs, tmp_path):
        """One that there is not is refused by every question, as the answer would be nothing; a tag may be any."""
        for ask in questions_of(costs, tmp_path, kind="banana"):
            with pytest.raises(InvalidInput, match="kind: one of chat, stream, complete, embed, image, got 'banana'"):
                await ask
        assert (await costs.total(kind="stream", banana="kind")).sends == 0

    async def test_costs_of_a_view(self, book, filled, tmp_path):
        """Its tags narrow every question and every file."""
        view = ClientCosts(book, {"tenant": "a"})
        hit = {"call_id": "h", "at": NOON, "kind": "chat", "model": "m", "outcome": "hit", "hits": 1}
        for saved, tenant in (("1", "a"), ("2", "b")):
            book.spared(CallSpared(**hit | {"call_id": tenant}, saved=Decimal(saved), tags={"tenant": tenant}))

        assert (await view.total()).cost == Decimal("0.5")
        assert [row.key for row in await view.by("tenant")] == [("a",)]
        assert [send.send_id for send in await view.sends()] == ["3", "1"]
        assert [call.call_id for call in await view.calls()] == ["two", "one"]
        assert await view.wasted() == Decimal("0.4")
        assert (await view.saved_by_cache()).saved == 1
        assert await view.export(tmp_path / "costs.csv") == 2
        assert (await view.total(team="red")).cost == Decimal("0.1")
        assert (await view.total(tenant="a")).cost == (await view.total(tags={"tenant": "a"})).cost == Decimal("0.5")

    @pytest.mark.parametrize(
        "given", [{"tenant": "b"}, {"tags": {"tenant": "b"}}, {"tenant": "a", "tags": {"tenant": "b"}}]
    )
    async def test_a_view_tells_nothing_about_others(self, book, filled, tmp_path, given):
        """A question that names another value for one of its tags is refused, whichever it is, and nothing is written."""
        for ask in questions_of(ClientCosts(book, {"tenant": "a"}), tmp_path, **given):
            with pytest.raises(InvalidInput, match="tenant: this view is about 'a' alone, got 'b'") as caught:
                await ask
            assert (caught.value.field, caught.value.value) == ("tenant", "b")
        assert list(tmp_path.iterdir()) == []

    async def test_where_no_cost_is_known_there_is_none(self, book, costs):
        """Of a sum, a group and a call: None and no zero; what was never sent is known to have cost nothing."""
        for name, call_id, state in [("1", "x", "unknown"), ("2", "x", "never_sent"), ("3", "y", "never_sent")]:
            book.opened(SendOpened(send_id=name, call_id=call_id, at=NOON, kind="chat", model=call_id, attempt=1))
            book.closed(SendClosed(send_id=name, state=state))
        total = await costs.total()
        assert (total.sends, total.cost, total.wasted, total.unknown) == (3, None, 0, 1)
        assert [(row.key, row.cost) for row in await costs.by("model")] == [(("x",), None), (("y",), 0)]
        assert {call.call_id: call.cost for call in await costs.calls()} == {"x": None, "y": 0}
        assert (await costs.total(model="y")).cost == (await costs.total(model="nobody")).cost == 0
        write(book, "4", "0.1")
        assert ((await costs.total()).cost, (await costs.total()).unknown) == (Decimal("0.1"), 1)

    async def test_groups_by_day(self, filled):
        """The day comes last, wherever it is asked for, and once."""
        assert [row.key for row in await filled.by("model", "kind", day=True)] == [
            ("m", "chat", "2027-01-15"),
            ("m", "chat", "2027-01-16"),
            ("m", "embed", "2027-01-16"),
            ("n", "chat", "2027-01-15"),
        ]
        assert [row.key for row in await filled.by(day=True)] == [("2027-01-15",), ("2027-01-16",)]
        assert [row.key for row in await filled.by("day", day=True)] == [("2027-01-15",), ("2027-01-16",)]
        assert [row.key for row in await filled.by("tenant")] == [(None,), ("a",), ("b",)]

    async def test_columns_and_limits_are_the_book_s_matter(self, costs):
        """It refuses what it does not know."""
        with pytest.raises(InvalidInput, match="columns must be some of model"):
            await costs.by()
        with pytest.raises(InvalidInput, match="limit must be >= 1, got 0"):
            await costs.sends(limit=0)

    async def test_a_period_that_ends_before_it_begins_is_refused(self, costs, tmp_path):
        """By every question, in the words of whoever asks; an empty one has nothing in it."""
        period = {"since": "2027-01-16", "until": date(2027, 1, 15)}
        asks = [costs.total, costs.sends, costs.calls, costs.wasted, costs.saved_by_cache]
        for ask in [
            *asks,
            lambda **which: costs.by("model", **which),
            lambda **which: costs.export(tmp_path / "c.csv", **which),
        ]:
            with pytest.raises(
                InvalidInput, match="since: must not come after until, got '2027-01-16' and datetime"
            ) as told:
                await ask(**period)
            assert (told.value.field, told.value.value) == ("since", "2027-01-16")
        assert (await costs.total(since=NOON, until=NOON)).sends == 0

    async def test_waste(self, filled):
        """Exact, and of some sends where asked for."""
        assert await filled.wasted() == Decimal("0.6")
        assert await filled.wasted(tenant="b") == Decimal("0.2")
        assert await filled.wasted(since=date(2027, 1, 16)) == Decimal("0.4")
        assert str(await filled.wasted(tenant="nobody")) == "0"

    async def test_calls_and_sends(self, filled):
        """The newest first, at most so many, and of one call."""
        assert [call.call_id for call in await filled.calls(limit=2)] == ["three", "two"]
        assert [send.send_id for send in await filled.sends(limit=1)] == ["4"]
        assert [send.send_id for send in await filled.sends(call_id="one")] == ["2", "1"]

    async def test_savings(self, book, costs):
        """What the cache answered."""
        tags = {"tenant": "a"}
        book.spared(
            CallSpared(
                call_id="c", at=NOON, kind="chat", model="m", outcome="hit", hits=2, saved=Decimal("0.1"), tags=tags
            )
        )
        book.spared(CallSpared(call_id="d", at=NOON + 1, kind="embed", model="m", outcome="joined", hits=1, saved=None))
        assert await costs.saved_by_cache() == SavedTotal(calls=2, hits=3, saved=Decimal("0.1"), unknown=1)
        assert (await costs.saved_by_cache(tenant="a")).hits == 2
        assert (await costs.saved_by_cache(kind="embed", since=NOON + 1)).hits == 1

    def test_its_form(self, book, costs):
        """It shows its book, and its tags where it has some."""
        assert repr(costs) == f"ClientCosts({book!r})"
        assert repr(ClientCosts(book, {"tenant": "a"})) == f"ClientCosts({book!r}, {{'tenant': 'a'}})"


class TestFiles:
    """All sends as a file."""

    @pytest.fixture
    def whole(self, book, costs):
        """One send with everything, one with nothing."""
        tokens = {
            "input_tokens": 10,
            "output_tokens": 5,
            "cached_tokens": 3,
            "cache_write_tokens": 4,
            "reasoning_tokens": 2,
        }
        tags = {"tenant": 'a, "b"', "user": "u", "feature": "f", "environment": "e", "team": "ü\nx", "city": "Rome"}
        write(
            book,
            "1",
            "0.0000097",
            at=NOON + 0.25,
            tags=tags,
            usage=Usage(**tokens),
            list_cost=Decimal("0.00001"),
            used=False,
            service_tier="priority",
            error="ServerFailed",
            elapsed=1.5,
        )
        book.opened(SendOpened(send_id="2", call_id="d", at=NOON + 1, kind="embed", model="n", attempt=2))
        return costs

    async def test_csv(self, whole, tmp_path):
        """A line of names, then the oldest first; what is not known is empty."""
        assert await whole.export(tmp_path / "costs.csv") == 2
        with (tmp_path / "costs.csv").open(encoding="utf-8", newline="") as file:
            names, first, second = csv.reader(file)
        assert names == COLUMNS
        assert first == [
            *[
                "1",
                "c",
                "2027-01-15T08:00:00.250000+00:00",
                "chat",
                "m",
                "1",
                "settled",
                "0.0000097",
                "0.00001",
                "false",
            ],
            *["10", "5", "3", "4", "2", "priority", "ServerFailed", "1.5", 'a, "b"', "u", "f", "e"],
            '{"city": "Rome", "team": "ü\\nx"}',
        ]
        assert second == ["2", "d", "2027-01-15T08:00:01.000000+00:00", "embed", "n", "2", "sent", *[""] * 16]

    async def test_parquet(self, whole, tmp_path):
        """Columns of their own kinds; amounts are decimals."""
        assert await whole.export(str(tmp_path / "costs.PARQUET")) == 2
        table = pq.read_table(tmp_path / "costs.PARQUET")
        assert table.column_names == COLUMNS
        assert table.schema.field("cost").type == pa.decimal128(38, 18)
        first, second = table.to_pylist()
        assert first["at"] == datetime(2027, 1, 15, 8, 0, 0, 250_000, tzinfo=UTC)
        assert (first["cost"], first["list_cost"], first["used"]) == (Decimal("0.0000097"), Decimal("0.00001"), False)
        assert (first["input_tokens"], first["elapsed"], first["tenant"]) == (10, 1.5, 'a, "b"')
        assert first["tags"] == '{"city": "Rome", "team": "ü\\nx"}'
        assert {name for name, value in second.items() if value is not None} == {*COLUMNS[:7]}

    @pytest.mark.parametrize("amount", ["0.0000000000000000001", "100000000000000000000000000000"])
    async def test_amounts_of_many_digits(self, whole, book, tmp_path, amount):
        """They are text in Parquet, all of them, and none is rounded."""
        write(book, "3", amount, at=NOON + 2)
        assert await whole.export(tmp_path / "costs.parquet") == 3
        table = pq.read_table(tmp_path / "costs.parquet", columns=["cost", "list_cost"])
        assert table["cost"].to_pylist() == ["0.0000097", None, amount]
        assert table["list_cost"].to_pylist() == ["0.00001", None, None]

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    async def test_some_of_them(self, filled, tmp_path, suffix):
        """Times and tags narrow as elsewhere."""
        path = tmp_path / f"costs{suffix}"
        assert await filled.export(path, since=date(2027, 1, 15), until=NOON + DAY, tenant="a") == 1
        assert await filled.export(path, tenant="nobody") == 0
        assert list(tmp_path.iterdir()) == [path]

    async def test_an_empty_book(self, costs, tmp_path):
        """A file without rows has its columns all the same."""
        assert await costs.export(tmp_path / "costs.csv") == 0
        assert (tmp_path / "costs.csv").read_text() == ",".join(COLUMNS) + "\n"
        assert await costs.export(tmp_path / "costs.parquet") == 0
        assert pq.read_table(tmp_path / "costs.parquet").column_names == COLUMNS

    @pytest.mark.parametrize("name", ["costs", "costs.xlsx", "costs.csv.gz"])
    async def test_other_files(self, costs, tmp_path, name):
        """They are refused, and nothing is made."""
        with pytest.raises(InvalidInput, match=r"path: the file must end in .csv or .parquet, got 'costs"):
            await costs.export(tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    async def test_a_missing_package(self, costs, tmp_path, monkeypatch):
        """The message names the extra."""
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(ConfigurationError, match=r"the package pyarrow is missing.*resilient-ai\[parquet\]"):
            await costs.export(tmp_path / "costs.parquet")

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    async def test_many_rows_take_little_memory(self, book, costs, tmp_path, suffix):
        """Each once, in their order, in memory for about one group of rows."""
        count = 45_000
        for number in range(count):
            write(book, f"{number:05}", "0.0001", at=NOON + number)
        await book.flush()
        assert await costs.export(tmp_path / f"warm{suffix}", until=NOON + 10) == 10
        tracemalloc.start()
        try:
            assert await costs.export(tmp_path / f"costs{suffix}") == count
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 45_000_000
        if suffix == ".csv":
            with (tmp_path / "costs.csv").open() as file:
                names = [line.partition(",")[0] for line in file][1:]
        else:
            names = pq.read_table(tmp_path / "costs.parquet", columns=["send_id"])["send_id"].to_pylist()
        assert names == [f"{number:05}" for number in range(count)]

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    async def test_an_export_that_fails(self, costs, tmp_path, suffix):
        """What was there before is left as it was, and nothing lies beside it."""
        path = tmp_path / f"costs{suffix}"
        path.write_text("before")

        async def scan(**_):
            yield [LedgerSend(send_id="s", call_id="c", at=NOON, kind="chat", model="m", attempt=1, state="sent")]
            raise RuntimeError("the book is torn")

        costs._book.scan = scan
        with pytest.raises(RuntimeError, match="the book is torn"):
            await costs.export(path)
        assert (path.read_text(), list(tmp_path.iterdir())) == ("before", [path])

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    @pytest.mark.parametrize("times", [1, 2])
    async def test_an_export_that_is_cancelled(self, book, costs, tmp_path, suffix, times):
        """Once or twice, at any moment: a file is there whole or not at all, and nothing lies beside it."""
        for number in range(3000):
            write(book, f"{number}")
        await book.flush()
        path = tmp_path / f"costs{suffix}"
        for turns in range(0, 40, 3):
            task = asyncio.create_task(costs.export(path))
            for _ in range(turns):
                await asyncio.sleep(0)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            found = await asyncio.gather(task, return_exceptions=True)
            assert found == [3000] or isinstance(found[0], asyncio.CancelledError)
            assert [each for each in tmp_path.iterdir() if each != path] == []
            assert path.exists() == (found == [3000])
            path.unlink(missing_ok=True)

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    async def test_a_place_where_no_file_can_be(self, filled, tmp_path, suffix):
        """The error names the folder that is not there, or the file that was asked for, and nothing lies beside it."""
        nowhere = tmp_path / "nowhere"
        with pytest.raises(InvalidInput) as unknown:
            await filled.export(nowhere / f"costs{suffix}")
        assert str(unknown.value) == f"path: there is no folder {str(nowhere)!r}"
        assert unknown.value.field == "path"
        folder = tmp_path / f"folder{suffix}"
        folder.mkdir()
        with pytest.raises(IsADirectoryError) as caught:
            await filled.export(folder)
        assert (caught.value.filename, caught.value.filename2) == (str(folder), None)
        assert list(tmp_path.iterdir()) == [folder]

    async def test_an_error_of_the_book_stays_what_it_is(self, costs, tmp_path):
        """Only those of the file get its name."""

        async def scan(**_):
            raise ConnectionResetError(104, "the book is away")
            yield

        costs._book.scan = scan
        with pytest.raises(ConnectionResetError, match="the book is away") as caught:
            await costs.export(tmp_path / "costs.csv")
        assert caught.value.filename is None

    @pytest.mark.parametrize("kind", FORMATS.values())
    def test_a_file_that_is_abandoned(self, kind, tmp_path):
        """It is closed, whether it was opened or not, and though its disk is full."""
        kind(tmp_path / "never").abandon()
        full = kind(tmp_path / "full")
        full.open()
        device = os.open("/dev/full", os.O_WRONLY)
        os.dup2(device, full._file.fileno())
        os.close(device)
        full.write([LedgerSend(send_id="s", call_id="c", at=NOON, kind="chat", model="m", attempt=1, state="sent")])
        full.abandon()
        assert full._file.closed
