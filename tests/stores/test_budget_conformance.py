"""What every book of budgets does, whatever it is made of."""

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from dataclasses import replace
from decimal import Decimal
from itertools import cycle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilient_ai.core.budgets import Admission, Charge, units
from resilient_ai.core.ledger import SendClosed, SendOpened

from .books import BOOKS

pytestmark = pytest.mark.anyio

DAY = 86_400
TODAY = int(time.time()) // DAY * DAY
SHARED = pytest.mark.parametrize("place", [name for name, kind in BOOKS.items() if kind.shared], indirect=True)
KNOWING = pytest.mark.parametrize("place", [name for name, kind in BOOKS.items() if kind.knows_sends], indirect=True)
LOSING = pytest.mark.parametrize("place", [name for name, kind in BOOKS.items() if kind.loses], indirect=True)
TIGHT = {"amount": units(Decimal("0.0025")), "limit": units(Decimal("0.003"))}
THOROUGH = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)


def charge(amount=1, limit=None, *, key="b", start=TODAY, first=None, until=TODAY + 3 * DAY, scope=None):
    return Charge(
        key=key,
        slice=start,
        first=start if first is None else first,
        amount=amount,
        limit=limit,
        until=until,
        scope=scope or {},
    )


@pytest.fixture(params=BOOKS)
def place(request):
    place = BOOKS[request.param](request)
    yield place
    place.close()


@pytest.fixture
def book(place):
    return place.open()


async def holds(book, charges, amounts, *, patience=10.0):
    """Whether the counters come to hold these amounts; what was given up is given back a moment later."""
    async with asyncio.timeout(patience):
        while await book.spent(charges) != amounts:  # noqa: ASYNC110  # a book has no event that says so
            await asyncio.sleep(0.01)
    return True


async def test_what_fits_is_admitted(book):
    """Up to the limit itself, and not a millionth of a millionth beyond it."""
    assert await book.charge([charge(60, 100)]) == Admission(admitted=True, spent=(0,))
    assert await book.charge([charge(40, 100)]) == Admission(admitted=True, spent=(60,))
    assert await book.charge([charge(1, 100)]) == Admission(admitted=False, spent=(100,))
    assert await book.charge([charge(0, 100)]) == Admission(admitted=True, spent=(100,))


async def test_what_is_refused_adds_nothing(book):
    """A smaller charge still fits afterwards."""
    assert not (await book.charge([charge(101, 100)])).admitted
    assert await book.charge([charge(100, 100)]) == Admission(admitted=True, spent=(0,))


async def test_a_budget_that_never_refuses(book):
    """It counts all the same."""
    assert (await book.charge([charge(10**15, None)])).admitted
    assert await book.charge([charge(1, None)]) == Admission(admitted=True, spent=(10**15,))


async def test_no_charges(book):
    """Nothing is admitted, and nothing is spent."""
    assert await book.charge([]) == Admission(admitted=True, spent=())
    assert await book.spent([]) == ()
    book.settle([])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
async def test_nested_budgets_all_or_none(book, order):
    """Where one is full none is charged, wherever it stands, and each says what it held."""
    await book.charge([charge(5, key="team"), charge(95, key="tenant"), charge(7, key="user")])
    charges = [charge(10, 100, key="team"), charge(10, 100, key="tenant"), charge(10, 100, key="user")]
    before = (5, 95, 7)
    found = await book.charge([charges[place] for place in order])
    assert found == Admission(admitted=False, spent=tuple(before[place] for place in order))
    assert await book.spent(charges) == before
    assert (await book.charge([charges[0], charges[2]])).admitted
    assert await book.spent(charges) == (15, 95, 17)


async def test_counters_are_apart(book):
    """Another key, or another slice, is another counter."""
    await book.charge([charge(1, key="a"), charge(2, key="b"), charge(4, key="a", start=TODAY + DAY)])
    asked = [charge(key="a"), charge(key="b"), charge(key="a", start=TODAY + DAY), charge(key="b", start=TODAY + DAY)]
    assert await book.spent(asked) == (1, 2, 4, 0)


@pytest.mark.parametrize(
    "key", ["25 USD per day tenant=ä b", "", "a:b{c}*", "'; DROP TABLE budget_counters; --", "x" * 500]
)
async def test_any_key(book, key):
    """A key is a text and nothing more."""
    await book.charge([charge(3, key=key)])
    assert await book.spent([charge(key=key), charge(key=key + "x")]) == (3, 0)


async def test_a_window_that_rolls(book):
    """All slices from the first on count, and those before fall out."""
    hours = [TODAY + 3600 * number for number in range(5)]
    for number, hour in enumerate(hours[:3]):
        assert (await book.charge([charge(10, 100, start=hour, first=hours[0])])).spent == (10 * number,)
    assert await book.charge([charge(71, 100, start=hours[2], first=hours[0])]) == Admission(
        admitted=False, spent=(30,), parts={"b": dict.fromkeys(hours[:3], 10)}
    )
    assert await book.charge([charge(80, 100, start=hours[3], first=hours[1])]) == Admission(admitted=True, spent=(20,))
    assert await book.spent([charge(start=hours[4], first=hours[2]), charge(start=hours[4])]) == (90, 0)


async def test_a_refusal_tells_what_is_in_the_way_by_slice(book):
    """Of each window that rolls and has a limit: what counts in it, settled or not, and nothing of what it refused."""
    hours = [TODAY + 3600 * number for number in range(5)]

    def rolling(amount, hour, **fields):
        return charge(amount, start=hours[hour], first=hours[max(0, hour - 3)], **fields)

    await book.charge([rolling(40, 0), rolling(7, 0, key="soft")])
    await book.charge([rolling(30, 1), charge(5, key="daily")])
    await book.charge([rolling(20, 2)])
    book.settle([rolling(-30, 1), rolling(15, 0)])
    await book.charge([rolling(2, 4)])
    found = await book.charge(
        [
            rolling(40, 3, limit=100),
            rolling(1, 3, limit=10, key="empty"),
            rolling(1, 3, key="soft"),
            charge(1, 5, key="daily"),
        ]
    )
    assert found == Admission(
        admitted=False, spent=(75, 0, 7, 5), parts={"b": {hours[0]: 55, hours[2]: 20}, "empty": {}}
    )
    assert (await book.charge([rolling(25, 3, limit=100)])).parts is None


async def test_slices_after_its_own_do_not_count(book):
    """Such as those of somebody whose clock is ahead."""
    await book.charge([charge(50, start=TODAY + 3600)])
    assert await book.charge([charge(60, 100, start=TODAY)]) == Admission(admitted=True, spent=(0,))


async def test_what_it_did_not_cost_is_given_back(book):
    """A settled amount counts from the next question on, whether it is more or less."""
    await book.charge([charge(100, 100)])
    book.settle([charge(-70)])
    assert await book.spent([charge()]) == (30,)
    assert await book.charge([charge(70, 100)]) == Admission(admitted=True, spent=(30,))
    book.settle([charge(25, 100)])
    assert await book.charge([charge(0, 100)]) == Admission(admitted=False, spent=(125,))
    book.settle([charge(-125)])
    assert await book.spent([charge()]) == (0,)


async def test_no_counter_falls_below_nothing(book):
    """More than it holds is given back only after a counter was lost, and that does not raise the limit."""
    await book.charge([charge(60, 100)])
    book.settle([charge(-70)])
    book.settle([charge(-5), charge(-5, key="missing")])
    assert await book.spent([charge(), charge(key="missing")]) == (0, 0)
    assert await book.charge([charge(101, 100)]) == Admission(admitted=False, spent=(0,))
    assert await book.charge([charge(60, 100)]) == Admission(admitted=True, spent=(0,))


async def test_a_clock_that_is_ahead_takes_nothing_away(book):
    """A slice far in the future opens, and the counters that count now are not touched."""
    await book.charge([charge(60, 100), charge(5, key="other")])
    later = TODAY + 400 * DAY
    for key in ("b", "third"):
        assert (await book.charge([charge(1, key=key, start=later, until=later + 3 * DAY)])).admitted
    assert await book.spent([charge(), charge(key="other")]) == (60, 5)
    assert await book.charge([charge(60, 100)]) == Admission(admitted=False, spent=(60,))


async def test_settling_several_at_once(book):
    """Each counter gets its own amount."""
    await book.charge([charge(10, key="a"), charge(20, key="b")])
    book.settle([charge(-4, key="a"), charge(5, key="b"), charge(7, key="c")])
    assert await book.spent([charge(key="a"), charge(key="b"), charge(key="c")]) == (6, 25, 7)


async def test_amounts_are_exact(book):
    """Beyond what a binary fraction can hold, which is 9,007 dollars."""
    much = 10**16
    assert (await book.charge([charge(much, much + 1)])).admitted
    assert await book.charge([charge(2, much + 1)]) == Admission(admitted=False, spent=(much,))
    assert await book.charge([charge(1, much + 1)]) == Admission(admitted=True, spent=(much,))
    assert await book.charge([charge(1, much + 1)]) == Admission(admitted=False, spent=(much + 1,))
    book.settle([charge(-much)])
    assert await book.spent([charge()]) == (1,)


async def test_a_limit_without_end(book):
    """A limit may be larger than any counter can be, and a charge larger than any limit."""
    assert (await book.charge([charge(1, 10**30)])).admitted
    assert await book.charge([charge(10**30, 100)]) == Admission(admitted=False, spent=(1,))


async def test_twenty_at_once(book):
    """Of 20 calls of 0.0025 USD one fits into 0.003 USD."""
    found = await asyncio.gather(*(book.charge([charge(**TIGHT)]) for _ in range(20)))
    assert sum(each.admitted for each in found) == 1
    assert await book.spent([charge()]) == (TIGHT["amount"],)


async def test_a_thousand_tenants_at_once(book):
    """Each is new, and has a budget beside the one of all; none is kept waiting for too long."""
    tenants = [charge(1, 1, key=f"t{number}", scope={"tenant": f"t{number}"}) for number in range(1000)]
    everyone = charge(1, 1000, key="all")
    found = await asyncio.gather(*(book.charge([tenant, everyone]) for tenant in tenants))
    assert all(each.admitted for each in found)
    assert sorted(each.spent[1] for each in found) == list(range(1000))
    assert await book.spent([everyone, *tenants]) == (1000, *[1] * 1000)


async def test_a_thousand_at_once_for_one_counter(book):
    """Exactly as many are admitted as fit."""
    found = await asyncio.gather(*(book.charge([charge(4, 1001)]) for _ in range(1000)))
    assert sum(each.admitted for each in found) == 250
    assert await book.spent([charge()]) == (1000,)


def test_many_threads_at_once(book):
    """Each with a loop of its own."""
    start, admitted = threading.Barrier(4), []

    async def ask():
        found = await asyncio.gather(*(book.charge([charge(**TIGHT)]) for _ in range(20)))
        admitted.extend(each.admitted for each in found)

    def work():
        start.wait()
        asyncio.run(ask())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(admitted), sum(admitted)) == (80, 1)


@SHARED
async def test_two_books_of_one_process(place):
    """They share their counters."""
    one, two = place.open(), place.open()
    found = await asyncio.gather(*(book.charge([charge(**TIGHT)]) for book in [one, two] * 10))
    assert sum(each.admitted for each in found) == 1
    one.settle([charge(-1)])
    assert await one.spent([charge()]) == (TIGHT["amount"] - 1,)
    assert await two.spent([charge()]) == (TIGHT["amount"] - 1,)


RACE = """
import asyncio, sys
from resilient_ai.core.budgets import Charge
from resilient_ai.core.errors import BookUnavailable
{source}
async def ask(wanted):
    while True:
        try:
            return (await book.charge([wanted])).admitted
        except BookUnavailable:
            pass
async def main():
    wanted = Charge(key="race", slice={start}, first={start}, amount={amount}, limit={limit}, until={until})
    await book.spent([wanted])
    print("ready", flush=True)
    sys.stdin.readline()
    print(sum(await asyncio.gather(*(ask(wanted) for _ in range(20)))), flush=True)
    await book.aclose()
asyncio.run(main())
"""


@SHARED
def test_four_processes_at_once(place):
    """Of 80 calls of 0.0025 USD in four processes one fits into 0.003 USD."""
    program = RACE.format(source=place.source, start=TODAY, until=TODAY + 3 * DAY, **TIGHT)
    with contextlib.ExitStack() as stack:
        crew = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(4)
        ]
        assert [process.stdout.readline() for process in crew] == ["ready\n"] * 4
        for process in crew:
            process.stdin.write("\n")
            process.stdin.flush()
        assert sum(int(process.stdout.readline()) for process in crew) == 1
        assert [process.wait(20) for process in crew] == [0] * 4


@SHARED
async def test_what_was_settled_is_written_at_the_end(place):
    """A book that is opened afterwards has it."""
    book = place.open()
    await book.charge([charge(10)])
    book.settle([charge(-3)])
    await book.aclose()
    assert await place.open().spent([charge()]) == (7,)


async def test_a_book_that_was_closed_is_opened_again(book):
    """Closing twice does no harm, nor does using it afterwards."""
    await book.charge([charge(10)])
    await book.aclose()
    await book.aclose()
    book.settle([charge(1, key="late")])
    assert (await book.charge([charge(1, key="later")])).admitted


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_charge_keeps_nothing(book, turns):
    """Whenever whoever asked is cancelled, the counter comes to hold what was admitted and heard of, and no more."""
    heard = 0
    tasks = [asyncio.create_task(book.charge([charge(10, 10_000)])) for _ in range(10)]
    for _ in range(turns):
        await asyncio.sleep(0)
    if turns > 3:
        await asyncio.sleep(0.001 * turns)
    for task in tasks[::2]:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        heard += 10 if isinstance(found, Admission) else 0
    assert heard >= 50
    assert await holds(book, [charge()], (heard,))


async def test_a_cancelled_question_harms_nobody(book):
    """The next one is answered."""
    task = asyncio.create_task(book.spent([charge()]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await book.charge([charge(5)])).spent == (0,)


def settled(one, cost, life):
    """What puts the true cost in the place of what was charged."""
    return replace(one, amount=cost - one.amount, held=one.amount, life=life)


async def test_a_counter_has_one_life(book):
    """Each admission tells it, whoever asks, and what is settled for it is the difference."""
    one = charge(100, 1000)
    (life,) = (await book.charge([one])).lives
    other = await book.charge([charge(1, key="other"), one])
    assert other.lives[1] == life
    book.settle([settled(one, 30, life), settled(one, 40, life)])
    assert await book.spent([one]) == (70,)


async def test_a_window_that_rolls_has_one_life(book):
    """Its slices have it one of another, those that were begun by a settlement too."""
    hours = [charge(100, 1000, start=TODAY + 3600 * hour, first=TODAY + 3600 * (hour - 2)) for hour in range(4)]
    lives = [(await book.charge([hour])).lives for hour in hours[:2]]
    book.settle([hours[2]])
    lives += [(await book.charge([hour])).lives for hour in hours[2:]]
    assert len(set(lives)) == 1
    assert await book.spent([hours[3]]) == (400,)


async def test_to_a_counter_of_another_life_the_whole_cost_is_added(book):
    """It does not hold what was reserved, whether it is there or not; what is taken back from it is nothing."""
    one = charge(100, 1000)
    (life,) = (await book.charge([one])).lives
    missing = replace(one, key="missing")
    book.settle([settled(one, 30, life - 1), settled(one, 0, life - 1), settled(one, 100, life - 1)])
    book.settle([settled(missing, 30, life - 1)])
    assert await book.spent([one, missing]) == (230, 30)


@LOSING
async def test_counters_that_are_lost_do_not_open_the_limit(place):
    """Nine requests are under way, the counters are lost, and the limit is spent anew: what the nine cost counts on top."""
    book = place.open()
    nine = charge(100, 1000)
    before = [(await book.charge([nine])).lives[0] for _ in range(9)]
    place.lose()
    (after,) = (await book.charge([charge(1000, 1000)])).lives
    assert {*before} == {before[0]} != {after}
    for life in before:
        book.settle([settled(nine, 20, life)])
    assert await book.charge([charge(1, 1000)]) == Admission(admitted=False, spent=(1180,))
    book.settle([settled(charge(1000, 1000), 300, after)])
    assert await book.charge([charge(1, 1000)]) == Admission(admitted=True, spent=(480,))


async def test_thousands_of_counters_can_be_asked_for_at_once(book):
    """Those of all tenants, most of which have spent nothing."""
    await book.charge([charge(5, key="t7", scope={"tenant": "t7"}), charge(6, key="t8999", scope={"tenant": "t8999"})])
    asked = [charge(key=f"t{number}", scope={"tenant": f"t{number}"}) for number in range(9_000)]
    spent = await book.spent(asked)
    assert (len(spent), spent[7], spent[8999], sum(spent)) == (9_000, 5, 6, 11)


class TestWhatWasSpentBefore:
    """A budget that is new counts what the ledger knows."""

    pytestmark = KNOWING

    def send(self, book, name, cost, *, at=TODAY + 60.0, model="m", kind="chat", **tags):
        book.opened(SendOpened(send_id=name, call_id="c", at=at, kind=kind, model=model, attempt=1, tags=tags))
        amount = None if cost is None else Decimal(cost)
        book.closed(SendClosed(send_id=name, state="settled" if cost else "unknown", cost=amount))

    async def test_sends_of_the_slice(self, book):
        """From its begin until its end, unknown costs apart, rounded up once."""
        for name, cost, at in [
            ("before", "1", TODAY - 1.0),
            ("first", "0.25", float(TODAY)),
            ("tiny", "0.0000000000001", TODAY + 1.0),
            ("tinier", "0.0000000000001", TODAY + 2.0),
            ("unknown", None, TODAY + 3.0),
            ("after", "4", float(TODAY + DAY)),
        ]:
            self.send(book, name, cost, at=at)
        asked = charge(1, units(Decimal("0.25")) + 2, until=TODAY + DAY)
        assert await book.spent([asked]) == (units(Decimal("0.25")) + 1,)
        assert (await book.charge([asked])).admitted
        assert await book.charge([asked]) == Admission(admitted=False, spent=(units(Decimal("0.25")) + 2,))

    @pytest.mark.parametrize(
        ("scope", "spent"),
        [
            ({}, "31"),
            ({"tenant": "a"}, "3"),
            ({"tenant": "a", "team": "red"}, "1"),
            ({"team": "red"}, "5"),
            ({"model": "n"}, "8"),
            ({"kind": "embed"}, "8"),
            ({"kind": "chat"}, "23"),
            ({"kind": "stream"}, "16"),
            ({"kind": "chat", "team": "red"}, "5"),
            ({"tenant": "z"}, "0"),
        ],
    )
    async def test_sends_of_the_scope(self, book, scope, spent):
        """Those with all of its tags."""
        self.send(book, "1", "1", tenant="a", team="red")
        self.send(book, "2", "2", tenant="a", team="blue")
        self.send(book, "3", "4", tenant="b", team="red")
        self.send(book, "4", "8", model="n", kind="embed")
        self.send(book, "5", "16", kind="stream")
        assert (await book.charge([charge(scope=scope)])).spent == (units(Decimal(spent)),)

    @pytest.mark.parametrize("many", [3, 700])
    @pytest.mark.parametrize("tag", ["tenant", "team"])
    async def test_many_scopes_at_once(self, book, many, tag):
        """Each counter begins with its own, of one slice or of a window that rolls, whether it is asked for or charged."""
        for number in range(3):
            for kind in ("chat", "stream", "embed"):
                name = f"{tag} {number} {kind}"
                self.send(book, name, str(10**number), kind=kind, **{tag: f"ä{number}"})
        hour = TODAY + 3600

        def asked(number, **scope):
            fields = {"scope": {tag: f"ä{number}", **scope}, "key": f"{number} {scope}"}
            return [
                charge(**fields),
                charge(**fields | {"key": fields["key"] + " rolling"}, start=hour, first=hour - DAY),
            ]

        charges = [one for number in range(many) for one in [*asked(number), *asked(number, kind="chat")]]
        dollars = [each for number in range(3) for each in [3 * 10**number] * 2 + [2 * 10**number] * 2]
        expected = tuple(map(units, map(Decimal, dollars + [0] * (len(charges) - len(dollars)))))
        assert await book.spent(charges) == expected
        assert (await book.charge(charges[:12])).spent == expected[:12]
        assert await book.spent(charges[:12]) == tuple(each + 1 for each in expected[:12])

    async def test_a_counter_that_is_there_counts_for_itself(self, book):
        """Sends after its begin are charged and settled, so they are not counted twice."""
        await book.charge([charge(units(Decimal(2)))])
        self.send(book, "s", "2")
        assert await book.spent([charge()]) == (units(Decimal(2)),)

    async def test_a_send_that_begins_in_the_next_slice(self, book):
        """In a window that rolls it was charged in the one before, so it is not counted twice."""
        hour = 3_600
        await book.charge([charge(units(Decimal(5)), start=TODAY, first=TODAY - DAY)])
        self.send(book, "s", "2", at=TODAY + hour + 0.01)
        book.settle([charge(-units(Decimal(3)), start=TODAY, first=TODAY - DAY)])
        later = charge(1, start=TODAY + hour, first=TODAY + hour - DAY)
        assert await book.spent([later]) == (units(Decimal(2)),)
        assert await book.charge([later]) == Admission(admitted=True, spent=(units(Decimal(2)),))
        assert await book.spent([later]) == (units(Decimal(2)) + 1,)

    @pytest.mark.parametrize("window", [0, DAY], ids=["calendar", "rolling"])
    @pytest.mark.parametrize(("settled", "known"), [("0.1", "5"), ("5", "5"), ("7", "5"), ("0", "5"), ("0.1", "0")])
    async def test_what_is_settled_before_the_first_charge(self, book, window, settled, known):
        """Is a part of what was spent before, or more than it where its send is in another ledger; nothing counts twice."""
        dollar, limit = units(Decimal(1)), units(Decimal(9))
        self.send(book, "s", known)
        one = charge(dollar, limit, first=TODAY - window)
        book.settle([replace(one, amount=units(Decimal(settled)))])
        before = units(max(Decimal(known), Decimal(settled)))
        assert await book.spent([one]) == (before,)
        assert await book.charge([one]) == Admission(admitted=True, spent=(before,))
        assert await book.charge([one]) == Admission(admitted=True, spent=(before + dollar,))
        book.settle([replace(one, amount=-dollar)])
        assert await book.charge([one]) == Admission(admitted=True, spent=(before + dollar,))

    @pytest.mark.parametrize("window", [0, DAY], ids=["calendar", "rolling"])
    async def test_what_is_settled_at_its_worst_before_the_first_charge(self, book, window):
        """The ledger knows no cost of it, so it counts beside what was spent; a send of another scope takes no part in that."""
        dollar = units(Decimal(1))
        one = charge(dollar, units(Decimal(20)), first=TODAY - window, scope={"tenant": "a"})
        self.send(book, "s", "6", tenant="a")
        self.send(book, "elsewhere", None, tenant="b")
        book.settle([replace(one, amount=5 * dollar)])
        assert await book.spent([one]) == (6 * dollar,)
        self.send(book, "u", None, tenant="a")
        assert await book.spent([one]) == (11 * dollar,)
        for spent in (11, 12):
            assert await book.charge([one]) == Admission(admitted=True, spent=(spent * dollar,))

    async def test_what_is_settled_before_the_first_charge_of_another_slice(self, book):
        """It begins no slice that a later charge would take for begun."""
        hour = 3_600
        self.send(book, "s", "5")
        early = charge(units(Decimal(1)), start=TODAY, first=TODAY - DAY)
        late = charge(units(Decimal(1)), start=TODAY + hour, first=TODAY + hour - DAY)
        book.settle([early])
        first = await book.charge([late])
        book.settle([early])
        assert [first.spent, await book.spent([late])] == [(units(Decimal(spent)),) for spent in (5, 7)]

    async def test_many_that_were_settled_first(self, book):
        """Each begins for itself, whether it is charged alone or along with others."""
        for number in range(5):
            self.send(book, f"s{number}", f"{number}", tenant=f"t{number}")
        many = [charge(1, key=f"t{number}", scope={"tenant": f"t{number}"}) for number in range(5)]
        book.settle([replace(one, amount=units(Decimal(2))) for one in many])
        expected = tuple(units(Decimal(max(2, number))) for number in range(5))
        assert await book.charge(many[:3]) == Admission(admitted=True, spent=expected[:3])
        found = await asyncio.gather(*(book.charge([one]) for one in many))
        assert [each.spent[0] for each in found] == [*(each + 1 for each in expected[:3]), *expected[3:]]

    async def test_a_refused_charge_counts_it_too(self, book):
        """And the next one as well."""
        self.send(book, "s", "2")
        for _ in range(2):
            assert await book.charge([charge(1, 1)]) == Admission(admitted=False, spent=(units(Decimal(2)),))


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["charge", "charge", "charge", "settle"]),
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 60)),
            min_size=1,
            max_size=3,
            unique_by=lambda c: c[0],
        ),
    ),
    max_size=25,
)
LIMITS = {0: 100, 1: 150, 2: None}
examples = iter(range(10**9))


class Account:
    """What counters must hold, kept by the simplest means, for one example after the other on the same book."""

    def __init__(self):
        self._prefix = f"mix {next(examples)} "
        self._counters = {}

    def charge(self, budget, hour, amount):
        """Return a charge against a budget whose window is an hour and the one before."""
        start = TODAY + 3600 * hour
        return charge(amount, LIMITS[budget], key=f"{self._prefix}{budget}", start=start, first=start - 3600)

    def add(self, charges):
        for one in charges:
            self._counters[one.key, one.slice] = self._counters.get((one.key, one.slice), 0) + one.amount

    def holds(self, charges):
        return tuple(
            sum(
                amount
                for (key, start), amount in self._counters.items()
                if key == one.key and one.first <= start <= one.slice
            )
            for one in charges
        )

    def parts(self, charges):
        """What is in the way of charges that roll and have a limit."""
        limited = [one for one in charges if one.limit is not None]
        return {
            one.key: {
                start: amount
                for (key, start), amount in self._counters.items()
                if key == one.key and amount and one.first <= start <= one.slice
            }
            for one in limited
        } or None

    def admits(self, charges):
        return all(
            one.limit is None or held + one.amount <= one.limit
            for one, held in zip(charges, self.holds(charges), strict=True)
        )


def book_of(place):
    """One book for all examples, each in a loop of its own."""
    place.shelf = getattr(place, "shelf", None) or place.open()
    return place.shelf


@given(operations=OPERATIONS)
@THOROUGH
def test_no_mix_exceeds_a_limit(place, operations):
    """Random charges over nested budgets that roll, and parts of them that are given back, against a model."""

    async def run():
        book, account, admitted = book_of(place), Account(), []
        for kind, parts in operations:
            charges = [account.charge(*part) for part in parts]
            if kind == "charge":
                admits = account.admits(charges)
                expected = Admission(
                    admitted=admits, spent=account.holds(charges), parts=None if admits else account.parts(charges)
                )
                assert await book.charge(charges) == expected
                if expected.admitted:
                    account.add(charges)
                    admitted.append(charges)
            elif admitted:
                back = [
                    replace(one, amount=-min(one.amount, part[2]))
                    for one, part in zip(admitted.pop(), cycle(parts), strict=False)
                ]
                book.settle(back)
                account.add(back)
        counters = [account.charge(budget, hour, 0) for budget in LIMITS for hour in range(5)]
        assert await book.spent(counters) == account.holds(counters)

    asyncio.run(run())


@given(operations=OPERATIONS)
@THOROUGH
def test_no_mix_at_once_exceeds_a_limit(place, operations):
    """Whatever order charges are admitted in, the counters hold what was admitted, and no limit is exceeded."""

    async def run():
        book, account = book_of(place), Account()
        wanted = [[account.charge(budget, 0, amount) for budget, _, amount in parts] for _, parts in operations]
        for charges, found in zip(wanted, await asyncio.gather(*map(book.charge, wanted)), strict=True):
            if found.admitted:
                account.add(charges)
        counters = [account.charge(budget, 0, 0) for budget in LIMITS]
        spent = await book.spent(counters)
        assert spent == account.holds(counters)
        assert all(held <= one.limit for one, held in zip(counters, spent, strict=True) if one.limit is not None)

    asyncio.run(run())
