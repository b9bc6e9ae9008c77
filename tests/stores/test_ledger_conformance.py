"""What every ledger does, whatever it is made of."""

import asyncio
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilient_ai.core.budgets import Charge
from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.ledger import (
    CallSpared,
    LedgerCall,
    LedgerRow,
    LedgerSend,
    LedgerTotal,
    SavedTotal,
    SendClosed,
    SendOpened,
)
from resilient_ai.core.results import Usage

from .ledgers import LEDGERS

pytestmark = pytest.mark.anyio

NOON = 1_800_000_000.0  # 2027-01-15 08:00 UTC
DAY = 86_400.0
SHARED = pytest.mark.parametrize("place", [name for name, kind in LEDGERS.items() if kind.shared], indirect=True)
THOROUGH = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)


def opened(send_id="s", **fields):
    return SendOpened(
        **({"send_id": send_id, "call_id": "c", "at": NOON, "kind": "chat", "model": "m", "attempt": 1} | fields)
    )


def closed(send_id="s", cost=None, state="settled", **fields):
    return SendClosed(send_id=send_id, state=state, cost=Decimal(cost) if isinstance(cost, str) else cost, **fields)


def write(ledger, send_id="s", cost=None, *, state="settled", usage=None, used=True, **fields):
    ledger.opened(opened(send_id, **fields))
    ledger.closed(closed(send_id, cost, state, usage=usage, used=used))


def spared(call_id="c", saved="0.5", **fields):
    fields = {"at": NOON, "kind": "chat", "model": "m", "outcome": "hit", "hits": 1} | fields
    return CallSpared(call_id=call_id, saved=None if saved is None else Decimal(saved), **fields)


def total_of(**fields):
    return LedgerTotal(
        **({"sends": 0, "cost": Decimal(0), "unknown": 0, "input_tokens": 0, "output_tokens": 0} | fields)
    )


async def scanned(ledger, **filters):
    return [send async for sends in ledger.scan(**filters) for send in sends]


@pytest.fixture(params=LEDGERS)
def place(request):
    place = LEDGERS[request.param](request)
    yield place
    place.close()


@pytest.fixture
def ledger(place):
    return place.open()


class TestRows:
    """What is kept of a send."""

    async def test_a_send_from_begin_to_end(self, ledger):
        """Every field of both reports comes back."""
        tags = {"tenant": "a", "user": "b", "feature": "f", "environment": "e", "team": "t", "city": "Rome"}
        tokens = {
            "input_tokens": 10,
            "output_tokens": 5,
            "cached_tokens": 3,
            "cache_write_tokens": 4,
            "reasoning_tokens": 2,
        }
        ledger.opened(opened(tags=tags, attempt=2))
        ledger.closed(
            closed(
                cost="0.25",
                list_cost=Decimal("0.20"),
                used=False,
                usage=Usage(**tokens),
                service_tier="priority",
                error="ServerFailed",
                elapsed=1.5,
            )
        )
        expected = LedgerSend(
            send_id="s",
            call_id="c",
            at=NOON,
            kind="chat",
            model="m",
            attempt=2,
            state="settled",
            tags=tags,
            cost=Decimal("0.25"),
            list_cost=Decimal("0.20"),
            used=False,
            **tokens,
            service_tier="priority",
            error="ServerFailed",
            elapsed=1.5,
        )
        assert await ledger.sends() == [expected]
        assert await scanned(ledger) == [expected]

    async def test_a_send_in_flight(self, ledger):
        """It is there before its end is known, and neither its cost nor whether it was used is known."""
        ledger.opened(opened())
        assert await ledger.sends() == [
            LedgerSend(send_id="s", call_id="c", at=NOON, kind="chat", model="m", attempt=1, state="sent")
        ]
        assert await ledger.total() == total_of(sends=1, cost=None, unknown=1)

    async def test_an_end_that_comes_later(self, ledger):
        """Also after the begin was written long ago."""
        ledger.opened(opened())
        await ledger.flush()
        ledger.closed(closed(cost="0.5", usage=Usage(input_tokens=3), elapsed=2.0))
        (send,) = await ledger.sends()
        assert (send.state, send.cost, send.used, send.input_tokens, send.elapsed) == (
            "settled",
            Decimal("0.5"),
            True,
            3,
            2.0,
        )

    async def test_an_empty_book(self, ledger):
        """Sums of nothing are zero, and there are no groups."""
        assert await ledger.total() == total_of()
        assert await ledger.by("model") == []
        assert await ledger.sends() == []
        assert await ledger.calls() == []
        assert await ledger.saved() == SavedTotal(calls=0, hits=0, saved=Decimal(0), unknown=0)
        assert await scanned(ledger) == []

    @pytest.mark.parametrize(
        ("amounts", "total"),
        [
            (["0.1", "0.2"], "0.3"),
            (["0.0000000000000000001"] * 3, "0.0000000000000000003"),
            (["123456789012345678", "0.0000000000000000001"], "123456789012345678.0000000000000000001"),
            (["1E-7", "2E+3"], "2000.0000001"),
            (["0.0000097"] * 1000, "0.0097"),
        ],
    )
    async def test_amounts_add_up_exactly(self, ledger, amounts, total):
        """No amount passes through a binary fraction, and none is rounded."""
        for number, amount in enumerate(amounts):
            write(ledger, f"s{number}", amount)
        assert (await ledger.total()).cost == Decimal(total)
        assert (await ledger.by("model"))[0].cost == Decimal(total)
        assert (await ledger.calls())[0].cost == Decimal(total)

    async def test_an_amount_keeps_its_digits(self, ledger):
        """What was reported as 0.10 is 0.10."""
        write(ledger, cost="0.10")
        assert str((await ledger.sends())[0].cost) == "0.10"

    @pytest.mark.parametrize("cost", [None, "NaN", "sNaN", "Infinity"])
    async def test_unknown_is_not_zero(self, ledger, cost):
        """A send without a price is counted as unknown, one that cost nothing is not."""
        write(ledger, "free", "0")
        write(ledger, "priceless", cost)
        assert await ledger.total() == total_of(sends=2, unknown=1)
        assert {send.send_id: send.cost for send in await ledger.sends()} == {"free": 0, "priceless": None}

    async def test_what_was_never_sent_owes_nothing(self, ledger):
        """Its cost is not unknown; beside sends of which none is known it makes nothing known."""
        write(ledger, state="never_sent")
        assert await ledger.total() == total_of(sends=1)
        write(ledger, "timed out", state="unknown")
        assert await ledger.total() == total_of(sends=2, cost=None, unknown=1)
        assert [call.cost for call in await ledger.calls()] == [None]

    async def test_what_nobody_got_is_wasted(self, ledger):
        """As far as its cost is known; it is a part of the whole."""
        write(ledger, "a", "0.1")
        write(ledger, "b", "0.2", used=False)
        write(ledger, "c", "0.4", used=False, model="n")
        write(ledger, "d", used=False)
        total = await ledger.total()
        assert (total.cost, total.wasted, total.unknown) == (Decimal("0.7"), Decimal("0.6"), 1)
        assert {row.key: row.wasted for row in await ledger.by("model")} == {
            ("m",): Decimal("0.2"),
            ("n",): Decimal("0.4"),
        }
        assert (await ledger.calls())[0].wasted == Decimal("0.6")

    async def test_tokens_that_are_not_known_add_nothing(self, ledger):
        """The others are added up."""
        write(ledger, "a", usage=Usage(input_tokens=7))
        write(ledger, "b", usage=Usage(input_tokens=5, output_tokens=2))
        total = await ledger.total()
        assert (total.input_tokens, total.output_tokens) == (12, 2)

    @pytest.mark.parametrize("apart", [False, True], ids=["in-one-go", "one-by-one"])
    async def test_the_first_end_counts(self, ledger, apart):
        """A second one changes nothing, unless the first was unknown."""
        for report in [
            opened("a"),
            closed("a", "1"),
            closed("a", "2"),
            opened("b"),
            closed("b", state="unknown"),
            closed("b", "4", "estimated"),
            closed("b", "8"),
            opened("c"),
            closed("c", "16", "never_sent"),
            closed("c", state="unknown"),
        ]:
            (ledger.opened if isinstance(report, SendOpened) else ledger.closed)(report)
            if apart:
                await ledger.flush()
        found = {send.send_id: (send.cost, send.state) for send in await ledger.sends()}
        assert found == {"a": (1, "settled"), "b": (4, "estimated"), "c": (16, "never_sent")}

    @pytest.mark.parametrize("apart", [False, True], ids=["in-one-go", "one-by-one"])
    async def test_a_send_is_written_once(self, ledger, apart):
        """The same begin again, and the end of a send that never began, change nothing."""
        write(ledger, cost="1")
        if apart:
            await ledger.flush()
        ledger.opened(opened(model="another"))
        ledger.closed(closed("stranger", "5"))
        assert await ledger.total() == total_of(sends=1, cost=Decimal(1))
        assert (await ledger.sends())[0].model == "m"

    async def test_a_begin_that_is_told_again_with_its_end(self, ledger):
        """The row keeps its begin, and gets the end."""
        ledger.opened(opened())
        await ledger.flush()
        write(ledger, cost="1", model="another")
        (send,) = await ledger.sends()
        assert (send.model, send.state, send.cost) == ("m", "settled", 1)

    async def test_text_that_is_no_unicode(self, ledger):
        """Half of a surrogate pair becomes a question mark instead of a lost report."""
        write(ledger, "s\ud800", "1", tags={"team\udfff": "x", "tenant": "ü\ud800"})
        (send,) = await ledger.sends()
        assert (send.send_id, send.tags, send.cost) == ("s?", {"team?": "x", "tenant": "ü?"}, 1)
        ledger.spared(spared("c\ud800", tags={"tenant": "\udfff"}))
        assert (await ledger.saved()).calls == 1

    async def test_text_with_a_zero(self, ledger):
        """Its row is there, whatever becomes of the sign."""
        write(ledger, "s", "1", tags={"team": "a\0b", "tenant": "c\0d"}, model="m\0n")
        assert await ledger.total() == total_of(sends=1, cost=Decimal(1))

    async def test_figures_that_nobody_can_mean(self, ledger):
        """Are unknown, and everything else of the row is kept, and can be added up."""
        absurd = Usage(input_tokens=2**70, output_tokens=7)
        for number, cost in enumerate(["1e1000000", "1e-1000000", "0e9999", "1e30"]):
            ledger.opened(opened(f"{number}"))
            ledger.closed(replace(closed(f"{number}", cost), usage=absurd))
        assert [send.cost for send in await ledger.sends()][::-1] == [None, None, 0, Decimal("1e30")]
        total = await ledger.total()
        assert (total.sends, total.cost, total.unknown) == (4, Decimal("1e30"), 2)
        assert (total.input_tokens, total.output_tokens, ledger.lost) == (0, 28, 0)

    async def test_a_settlement_that_nobody_can_mean(self, ledger):
        """Fills a budget up, instead of being lost."""
        one = Charge(key="b", slice=0, first=0, amount=10, limit=10**18, until=2**40)
        ledger.settle([replace(one, amount=10**40), replace(one, key="other", amount=7)])
        assert not (await ledger.charge([one])).admitted
        assert (await ledger.spent([replace(one, key="other")]), ledger.lost) == ((7,), 0)
        ledger.settle([replace(one, amount=-(10**41))])
        assert await ledger.spent([one]) == (0,)

    @pytest.mark.parametrize("broken", [{"error": object()}])
    async def test_a_report_that_cannot_be_written(self, ledger, broken):
        """It is lost alone."""
        write(ledger, "a", "1")
        ledger.opened(opened("b"))
        ledger.closed(replace(closed("b", "2"), **broken))
        write(ledger, "c", "4")
        found = {send.send_id: send.cost for send in await ledger.sends()}
        assert (found["a"], found["c"], len(found)) == (1, 4, 3)


class TestQuestions:
    """Sums by groups, times and tags."""

    @pytest.fixture
    def book(self, ledger):
        write(ledger, "1", "0.1", at=NOON, model="a", tags={"tenant": "x", "team": "red"}, call_id="one")
        write(ledger, "2", "0.2", at=NOON + 1, model="B", kind="embed", tags={"tenant": "y"}, call_id="one", used=False)
        write(
            ledger,
            "3",
            "0.4",
            at=NOON + DAY,
            model="a",
            tags={"tenant": "x", "user": "u", "team": "blue"},
            call_id="two",
        )
        ledger.opened(opened("4", at=NOON + 2 * DAY, model="a", tags={"feature": "f", "environment": "e"}))
        return ledger

    @pytest.mark.parametrize(
        ("columns", "groups"),
        [
            (["model"], {("B",): (1, "0.2"), ("a",): (3, "0.5")}),
            (["kind"], {("chat",): (3, "0.5"), ("embed",): (1, "0.2")}),
            (["day"], {("2027-01-15",): (2, "0.3"), ("2027-01-16",): (1, "0.4"), ("2027-01-17",): (1, None)}),
            (["tenant"], {(None,): (1, None), ("x",): (2, "0.5"), ("y",): (1, "0.2")}),
            (["user"], {(None,): (3, "0.3"), ("u",): (1, "0.4")}),
            (["feature"], {(None,): (3, "0.7"), ("f",): (1, None)}),
            (["environment"], {(None,): (3, "0.7"), ("e",): (1, None)}),
            (["state"], {("sent",): (1, None), ("settled",): (3, "0.7")}),
            (["tenant", "model"], {(None, "a"): (1, None), ("x", "a"): (2, "0.5"), ("y", "B"): (1, "0.2")}),
        ],
    )
    async def test_groups(self, book, columns, groups):
        """Each group has its own sums, sorted by the keys, capital letters first; a missing tag is None."""
        rows = await book.by(*columns)
        assert [row.key for row in rows] == list(groups)
        assert {row.key: (row.sends, row.cost) for row in rows} == {
            key: (sends, cost and Decimal(cost)) for key, (sends, cost) in groups.items()
        }

    async def test_a_group_has_all_sums(self, book):
        """Unknown costs and tokens are those of the group."""
        write(book, "5", model="z", usage=Usage(input_tokens=3, output_tokens=4))
        assert (await book.by("model"))[-1] == LedgerRow(
            key=("z",), sends=1, cost=None, unknown=1, input_tokens=3, output_tokens=4
        )

    async def test_groups_of_some_sends(self, book):
        """Of a time, or of tags."""
        assert [row.key for row in await book.by("model", since=NOON + 1, until=NOON + 2)] == [("B",)]
        assert [(row.key, row.sends) for row in await book.by("day", tags={"tenant": "x"})] == [
            (("2027-01-15",), 1),
            (("2027-01-16",), 1),
        ]

    @pytest.mark.parametrize("columns", [[], ["colour"], ["model", "at; DROP TABLE sends"]])
    async def test_columns_are_checked(self, book, columns):
        """None, and one that is not known, are refused by name."""
        with pytest.raises(InvalidInput, match=r"columns must be some of model, kind, day.*, got (none|\[')") as told:
            await book.by(*columns)
        assert told.value.field == "columns"

    async def test_a_column_is_named_once(self, book):
        """Twice it would group by nothing more."""
        with pytest.raises(InvalidInput, match=r"columns must be named once each, got \['tenant', 'tenant'\]"):
            await book.by("tenant", "tenant")

    @pytest.mark.parametrize("question", ["total", "by", "sends", "calls", "saved", "scan"])
    async def test_a_period_does_not_end_before_it_begins(self, book, question):
        """It is refused, as the answer would be nothing."""
        period, columns = {"since": 2.0, "until": 1.0}, ["model"] if question == "by" else []
        with pytest.raises(InvalidInput, match=r"since: must not come after until, got 2\.0 and 1\.0"):
            await (scanned(book, **period) if question == "scan" else getattr(book, question)(*columns, **period))

    async def test_a_period_has_its_begin_and_not_its_end(self, book):
        """`since` belongs to it, `until` does not, in every question."""
        for since, until, names in [
            (NOON + 1, None, "234"),
            (None, NOON + 1, "1"),
            (NOON + 1, NOON + 2, "2"),
            (NOON + 1.5, NOON + 1.5, ""),
        ]:
            period = {"since": since, "until": until}
            assert (await book.total(**period)).sends == len(names)
            assert [send.send_id for send in await book.sends(**period)] == list(reversed(names))
            assert [send.send_id for send in await scanned(book, **period)] == list(names)
            assert sum(call.sends for call in await book.calls(**period)) == len(names)
            assert sum(row.sends for row in await book.by("kind", **period)) == len(names)

    @pytest.mark.parametrize(
        ("tags", "names"),
        [
            ({}, "1234"),
            ({"tenant": "x"}, "13"),
            ({"team": "red"}, "1"),
            ({"tenant": "x", "team": "blue"}, "3"),
            ({"tenant": "y", "team": "blue"}, ""),
            ({"city": "Rome"}, ""),
            ({"environment": "e", "feature": "f"}, "4"),
            ({"model": "a"}, "134"),
            ({"kind": "embed"}, "2"),
            ({"kind": "chat", "tenant": "x", "model": "a"}, "13"),
            ({"tenant": "x' OR '1'='1"}, ""),
            ({"te'am": "red"}, ""),
        ],
    )
    async def test_sends_with_some_tags(self, book, tags, names):
        """Tags with and without a column of their own narrow alike, and so do model and kind."""
        assert (await book.total(tags=tags)).sends == len(names)
        assert [send.send_id for send in await book.sends(tags=tags)] == list(reversed(names))
        assert [send.send_id for send in await scanned(book, tags=tags)] == list(names)
        assert sum(call.sends for call in await book.calls(tags=tags)) == len(names)
        assert sum(row.sends for row in await book.by("state", tags=tags)) == len(names)

    async def test_the_latest_sends(self, book):
        """The newest first, at most `limit`, of one call if asked for, or all of them."""
        assert [send.send_id for send in await book.sends(limit=2)] == ["4", "3"]
        assert [send.send_id for send in await book.sends(limit=None)] == ["4", "3", "2", "1"]
        assert [send.send_id for send in await book.sends(call_id="one")] == ["2", "1"]
        assert [send.send_id for send in await book.sends(call_id="one", since=NOON + 1)] == ["2"]
        assert await book.sends(call_id="none") == []

    async def test_calls(self, book):
        """What each came to over all of its sends, the newest first."""
        found = await book.calls()
        assert [call.call_id for call in found] == ["c", "two", "one"]
        assert found[2] == LedgerCall(
            call_id="one",
            at=NOON,
            kind="chat",
            models=("B", "a"),
            sends=2,
            cost=Decimal("0.3"),
            wasted=Decimal("0.2"),
            unknown=0,
            tags={"tenant": "x", "team": "red"},
        )
        assert (found[0].unknown, found[0].cost, found[0].tags) == (1, None, {"feature": "f", "environment": "e"})
        assert [call.call_id for call in await book.calls(limit=1)] == ["c"]
        assert [call.call_id for call in await book.calls(limit=None, until=NOON + DAY + 1)] == ["two", "one"]

    async def test_a_call_counts_where_its_sends_do(self, book):
        """Sends outside of the time are not in its sums."""
        (call,) = await book.calls(since=NOON + 1, until=NOON + 2)
        assert (call.call_id, call.at, call.sends, call.cost, call.models) == (
            "one",
            NOON + 1,
            1,
            Decimal("0.2"),
            ("B",),
        )

    async def test_calls_of_one_moment(self, ledger):
        """All are there, each once."""
        for number in range(50):
            write(ledger, f"s{number}", "1", call_id=f"c{number % 10}")
        found = await ledger.calls()
        assert {call.call_id: call.sends for call in found} == {f"c{number}": 5 for number in range(10)}
        assert len(found) == 10

    @pytest.mark.parametrize("question", ["total", "by", "sends", "calls", "saved", "scan"])
    async def test_a_kind_that_there_is_not(self, book, question):
        """It is refused, as the answer would be nothing; of a chat and a streamed one each is asked for by its own name."""
        write(book, "5", "1", kind="stream")
        tags, columns = {"tags": {"kind": "chats"}}, ["model"] if question == "by" else []
        with pytest.raises(InvalidInput, match="kind: one of chat, stream, complete, embed, image, got 'chats'"):
            await (scanned(book, **tags) if question == "scan" else getattr(book, question)(*columns, **tags))
        assert [(await book.total(tags={"kind": kind})).sends for kind in ("chat", "stream", "image")] == [3, 1, 0]

    @pytest.mark.parametrize("limit", [0, True, 1.5, "2"])
    @pytest.mark.parametrize("question", ["sends", "calls"])
    async def test_the_limit_is_checked(self, book, question, limit):
        """It is a whole number, and at least 1."""
        with pytest.raises(InvalidInput, match=f"limit must be >= 1, got {limit!r}") as told:
            await getattr(book, question)(limit=limit)
        assert told.value.field == "limit"


class TestSavings:
    """What was not sent."""

    @pytest.fixture
    def book(self, ledger):
        ledger.spared(spared("1", "0.1", tags={"tenant": "x", "team": "red"}))
        ledger.spared(spared("2", "0.20", at=NOON + 1, outcome="stale", kind="embed", hits=7, tags={"tenant": "y"}))
        ledger.spared(spared("3", None, at=NOON + 2, outcome="joined", model="n"))
        return ledger

    async def test_they_add_up(self, book):
        """Exactly, and unknown is not zero; sends are another matter."""
        assert await book.saved() == SavedTotal(calls=3, hits=9, saved=Decimal("0.3"), unknown=1)
        assert await book.total() == total_of()

    async def test_parts_of_one_call(self, ledger):
        """A call whose parts are reported apart is one call."""
        ledger.spared(spared("c", "0.1", hits=2))
        ledger.spared(spared("c", None, hits=3))
        ledger.spared(spared("d", "NaN"))
        assert await ledger.saved() == SavedTotal(calls=2, hits=6, saved=Decimal("0.1"), unknown=2)

    @pytest.mark.parametrize(
        ("filters", "hits"),
        [
            ({"since": NOON + 1}, 8),
            ({"until": NOON + 1}, 1),
            ({"since": NOON + 1, "until": NOON + 2}, 7),
            ({"tags": {"tenant": "x"}}, 1),
            ({"tags": {"team": "red"}}, 1),
            ({"tags": {"kind": "embed"}}, 7),
            ({"tags": {"model": "n"}}, 1),
            ({"tags": {"tenant": "z"}}, 0),
        ],
    )
    async def test_of_some_calls(self, book, filters, hits):
        """Times and tags narrow as they do for sends."""
        assert (await book.saved(**filters)).hits == hits


class TestScans:
    """All sends, some at a time."""

    async def test_thousands_of_sends(self, ledger):
        """The oldest first, in pieces of bounded size, each once, though many are of the same moment."""
        for number in range(5000):
            write(ledger, f"s{number:04}", "1", at=NOON + number // 1500)
        sizes, names = [], []
        async for sends in ledger.scan():
            sizes.append(len(sends))
            names += [send.send_id for send in sends]
        assert names == [f"s{number:04}" for number in range(5000)]
        assert 0 < min(sizes) <= max(sizes) <= 2000

    async def test_the_oldest_first_whatever_the_order_of_reports(self, ledger):
        """Sends are sorted by their time."""
        for at in (3, 1, 2):
            write(ledger, f"s{at}", at=NOON + at)
        assert [send.send_id for send in await scanned(ledger)] == ["s1", "s2", "s3"]

    async def test_sends_meanwhile(self, ledger):
        """A scan comes to an end though new sends are written all the time, and what was there is there once."""
        for number in range(2500):
            write(ledger, f"s{number}", at=NOON + number)
        names, serial = [], iter(range(10**6))
        async for sends in ledger.scan():
            names += [send.send_id for send in sends]
            for _ in range(2500):
                write(ledger, f"new{next(serial)}", at=NOON + 10_000)
            await ledger.flush()
            assert len(names) < 20_000
        assert [name for name in names if name.startswith("s")] == [f"s{number}" for number in range(2500)]

    async def test_a_scan_that_is_left(self, ledger):
        """It holds nothing up."""
        for number in range(2500):
            write(ledger, f"s{number}")
        scan = ledger.scan()
        async for _ in scan:
            break
        await scan.aclose()
        write(ledger, "late", "1")
        assert (await ledger.total()).sends == 2501


class TestLife:
    """Flushing, closing and opening again."""

    @SHARED
    async def test_flush_makes_rows_visible(self, place):
        """Another object sees them."""
        one, two = place.open(), place.open()
        write(one, cost="0.5")
        one.spared(spared())
        await one.flush()
        assert ((await two.total()).cost, (await two.saved()).calls) == (Decimal("0.5"), 1)

    @SHARED
    async def test_rows_outlive_the_ledger(self, place):
        """A ledger that is opened later has them; so has the same one, used again after it was closed."""
        ledger = place.open()
        write(ledger, cost="0.1")
        await ledger.aclose()
        assert (await place.open().total()).cost == Decimal("0.1")
        write(ledger, "t", "0.2")
        assert (await ledger.total()).cost == Decimal("0.3")

    async def test_closing_twice(self, ledger):
        """Also at the same time; both return."""
        write(ledger, cost="1")
        await asyncio.gather(ledger.aclose(), ledger.aclose())
        await ledger.aclose()

    async def test_closing_an_unused_ledger(self, ledger):
        """It does nothing."""
        await ledger.aclose()

    @SHARED
    async def test_closing_ends_what_is_in_flight(self, place):
        """Nobody else would; an end that is reported later still counts."""
        ledger = place.open()
        ledger.opened(opened())
        await ledger.aclose()
        assert (await ledger.sends())[0].state == "unknown"
        ledger.closed(closed(cost="3"))
        assert (await ledger.sends())[0].cost == 3

    def test_two_loops_in_a_row(self, ledger):
        """The ledger belongs to none of them."""
        for number in range(2):
            write(ledger, f"s{number}", "0.5")
            assert asyncio.run(ledger.total()).cost == Decimal("0.5") * (number + 1)

    def test_many_threads(self, ledger):
        """32 of them report at once and nothing is lost."""
        start = threading.Barrier(32)

        def work(thread):
            start.wait()
            for number in range(50):
                write(ledger, f"{thread}-{number}", "0.001")

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert asyncio.run(ledger.total()) == total_of(sends=1600, cost=Decimal("1.6"))

    async def test_a_cancelled_question_harms_nobody(self, ledger):
        """The ledger answers the next one."""
        question = asyncio.ensure_future(ledger.total())
        await asyncio.sleep(0)
        question.cancel()
        await asyncio.gather(question, return_exceptions=True)
        write(ledger, cost="1")
        assert (await ledger.total()).cost == 1


def script(place, *body):
    """A program in a process of its own that has a ledger there."""
    lines = [
        "import asyncio, os, signal, sys",
        "from decimal import Decimal",
        "from resilient_ai.core.ledger import SendClosed, SendOpened",
        place.source,
        "def begin(name): book.opened(SendOpened(send_id=name, call_id='c', at=1.0, kind='chat', model='m', attempt=1))",
        "def settle(name): book.closed(SendClosed(send_id=name, state='settled', cost=Decimal('0.1')))",
        "def flush(): asyncio.run(book.flush())",
        *body,
    ]
    return subprocess.Popen([sys.executable, "-c", "\n".join(lines)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def ended(process):
    process.communicate()
    return process.returncode


@SHARED
class TestOtherProcesses:
    """Death and company."""

    @pytest.mark.parametrize("death", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)"])
    def test_a_sudden_death(self, place, death):
        """What was flushed is there, and what was in flight is unknown rather than forgotten."""
        body = ["for n in range(10): begin(f's{n}')", "for n in range(5): settle(f's{n}')", "flush()", death]
        assert ended(script(place, *body)) in {3, -signal.SIGKILL}
        ledger = place.open()
        assert {row.key: row.sends for row in asyncio.run(ledger.by("state"))} == {("settled",): 5, ("unknown",): 5}
        assert asyncio.run(ledger.total()) == total_of(sends=10, cost=Decimal("0.5"), unknown=5)

    def test_a_death_in_the_moment_of_a_send(self, place):
        """What nobody had the time to write is there, once, and unknown; the next one dies as fast."""
        for name in "ab":
            body = [f"for n in range(20): begin('{name}' + str(n))", "os.kill(os.getpid(), signal.SIGKILL)"]
            assert ended(script(place, *body)) == -signal.SIGKILL
        first, second = place.open(), place.open()
        assert {row.key: row.sends for row in asyncio.run(first.by("state"))} == {("unknown",): 40}
        assert asyncio.run(second.total()).unknown == 40

    def test_an_ordinary_end_writes_what_waits(self, place):
        """Also without a flush, and what is in flight then is unknown."""
        assert ended(script(place, "begin('a')", "settle('a')", "begin('b')")) == 0
        assert {send.send_id: send.state for send in asyncio.run(place.open().sends())} == {
            "a": "settled",
            "b": "unknown",
        }

    def test_a_neighbour_s_sends_stay_in_flight(self, place):
        """Opening and closing does not end the sends of a process that lives."""
        process = script(
            place, "begin('theirs')", "flush()", "print('ready', flush=True)", "sys.stdin.read()", "os._exit(0)"
        )
        try:
            assert process.stdout.readline() == b"ready\n"
            ledger = place.open()
            asyncio.run(ledger.flush())
            asyncio.run(ledger.aclose())
            assert asyncio.run(ledger.sends())[0].state == "sent"
        finally:
            ended(process)
        assert asyncio.run(place.open().sends())[0].state == "unknown"

    def test_several_processes_share_a_book(self, place):
        """All of their rows arrive."""
        body = "for n in range(300):\n    name = f'{os.getpid()}-{n}'\n    begin(name); settle(name)\nflush()"
        processes = [script(place, body) for _ in range(3)]
        assert [ended(process) for process in processes] == [0, 0, 0]
        assert asyncio.run(place.open().total()) == total_of(sends=900, cost=Decimal(90))


AMOUNTS = st.one_of(st.none(), st.decimals(min_value=0, max_value=1000, places=12, allow_nan=False))
REPORTS = st.lists(
    st.one_of(
        st.builds(
            SendOpened,
            send_id=st.sampled_from("abcdef"),
            call_id=st.sampled_from(["one", "two"]),
            at=st.integers(0, 3).map(lambda days: NOON + days * DAY),
            kind=st.sampled_from(["chat", "embed"]),
            model=st.sampled_from(["m", "n"]),
            attempt=st.just(1),
            tags=st.fixed_dictionaries({}, optional={"tenant": st.sampled_from("xy"), "team": st.sampled_from("rb")}),
        ),
        st.builds(
            SendClosed,
            send_id=st.sampled_from("abcdef"),
            state=st.sampled_from(["settled", "estimated", "unknown", "never_sent"]),
            cost=AMOUNTS,
            list_cost=AMOUNTS,
            used=st.booleans(),
        ),
        st.none(),
    ),
    max_size=30,
)
runs = iter(range(10**9))


@given(reports=REPORTS)
@THOROUGH
def test_any_reports(place, reports):
    """Whatever is reported in whatever order, the book has what the simplest of books would have."""
    run = f"run {next(runs)} "
    rows = {}

    async def main():
        # One ledger for all examples, which are told apart by a tag.
        ledger = place.shelf = getattr(place, "shelf", None) or place.open()
        for report in reports:
            if report is None:
                await ledger.flush()
            elif isinstance(report, SendOpened):
                ledger.opened(replace(report, send_id=run + report.send_id, tags=report.tags | {"feature": run}))
                rows.setdefault(report.send_id, (report, None))
            else:
                ledger.closed(replace(report, send_id=run + report.send_id))
                begin, end = rows.get(report.send_id, (None, None))
                if begin and (end is None or end.state == "unknown"):
                    rows[report.send_id] = (begin, report)
        found = {send.send_id.removeprefix(run): send for send in await ledger.sends(limit=None, tags={"feature": run})}
        return found, await ledger.total(tags={"feature": run}), await ledger.by("model", "day", tags={"feature": run})

    found, total, groups = asyncio.run(main())
    assert found.keys() == rows.keys()
    for name, (begin, end) in rows.items():
        send = found[name]
        assert (send.at, send.kind, send.model, send.call_id) == (begin.at, begin.kind, begin.model, begin.call_id)
        expected = ("sent", None, None, None) if end is None else (end.state, end.cost, end.list_cost, end.used)
        assert (send.state, send.cost, send.list_cost, send.used) == expected
    ends = [end for _, end in rows.values()]
    costs = [(end.cost, end.used) for end in ends if end is not None and end.cost is not None]
    unknown = sum(1 for end in ends if end is None or (end.cost is None and end.state != "never_sent"))
    assert total == total_of(
        sends=len(rows),
        cost=sum((cost for cost, _ in costs), Decimal(0)) if costs or not unknown else None,
        wasted=sum((cost for cost, used in costs if not used), Decimal(0)),
        unknown=unknown,
    )
    assert sum(row.sends for row in groups) == len(rows)
    assert sum((row.cost or 0 for row in groups), Decimal(0)) == (total.cost or 0)
