"""A look at what is left of a ledger once everybody is dead, beside what they had told."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.ledger_kills.books import AnyLedger, Book
from benchmarks.ledger_kills.crew import Crew
from benchmarks.ledger_kills.worker import ALL, CHARGED, COST, ENDED, GIVEN_BACK, charges, ended_by, send_id


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What became of the ledger.

    Args:
        kills: Workers that were killed.
        server_kills: How often the server was, or one of its processes.
        rounds: Rounds that were acknowledged.
        rows: Sends in the book.
        acknowledged: Those of them whose begin was acknowledged.
        lost: Acknowledged rows that are not there, or without their acknowledged end.
        left: Sends whose bytes would have left.
        rowless: Those of them of which no row tells.
        endless: Sends without an end after the last restart.
        spared: Acknowledged calls that were spared and are not in the book.
        twice: Calls that were spared and are in the book more often than they were reported.
        integrity: What the database says of itself.
        charges: Charges that were admitted, as far as workers lived to tell.
        miscounted: Budgets that hold what cannot be, in words.
        deaths: Workers that ended in another way than by a kill.
    """

    kills: int
    server_kills: int
    rounds: int
    rows: int
    acknowledged: int
    lost: list[str]
    left: int
    rowless: list[str]
    endless: int
    spared: int
    twice: int
    integrity: str
    charges: int
    miscounted: list[str]
    deaths: list[str]

    def troubles(self) -> list[str]:
        """Return what must not be, in words."""
        found = [*(f"lost: {name}" for name in self.lost), *self.deaths, *self.miscounted]
        found += [f"left without a row: {name}" for name in self.rowless]
        if self.endless:
            found.append(f"{self.endless} sends have no end")
        if self.spared:
            found.append(f"{self.spared} spared calls are lost")
        if self.twice:
            found.append(f"{self.twice} spared calls are written twice")
        if self.integrity != "ok":
            found.append(f"the database is damaged: {self.integrity}")
        return found


def audit(book: Book, crew: Crew, *, server_kills: int = 0) -> Findings:
    """Kill who still lives, open the ledger once more, and compare."""
    crew.kill_all()
    book.quiet()
    return asyncio.run(_compare(book, crew, server_kills))


async def _compare(book: Book, crew: Crew, server_kills: int) -> Findings:
    ledger = book.open()
    rounds = {name: steps.count("r") for name, steps in crew.told.items()}
    states, lost = await _sends(ledger, rounds)
    left = crew.left()
    off = [await _spared(ledger, name) - count for name, count in rounds.items()]
    miscounted = await _miscounted(ledger, crew.told)
    await ledger.aclose()
    return Findings(
        kills=len(rounds),
        server_kills=server_kills,
        rounds=sum(rounds.values()),
        rows=len(states),
        acknowledged=sum(rounds.values()) * (ENDED + 2),
        lost=lost,
        left=len(left),
        rowless=[name for name in left if name not in states],
        endless=sum(1 for state in states.values() if state == "sent"),
        spared=sum(max(0, -count) for count in off),
        # Of the round that was under way it may be written or not.
        twice=sum(max(0, count - 1) for count in off),
        integrity=book.integrity(),
        charges=sum(steps.count("a") for steps in crew.told.values()),
        miscounted=miscounted,
        deaths=crew.deaths,
    )


async def _sends(ledger: AnyLedger, rounds: Mapping[str, int]) -> tuple[dict[str, str], list[str]]:
    rows = {send.send_id: send async for sends in ledger.scan() for send in sends}
    lost: list[str] = []
    for name, count in rounds.items():
        for turn in range(count):
            begun = [send_id(name, turn, number) for number in range(ENDED + 2)]
            lost += [f"{each} (begin)" for each in begun if each not in rows]
            ended = [send_id(name, of, number) for of, number in ended_by(turn)]
            lost += [f"{each} (end)" for each in ended if each in rows and rows[each].cost != COST]
    return {name: send.state for name, send in rows.items()}, lost


async def _spared(ledger: AnyLedger, name: str) -> int:
    return (await ledger.saved(tags={"tenant": name})).hits


async def _miscounted(ledger: AnyLedger, told: Mapping[str, str]) -> list[str]:
    everybody, *spent = await ledger.spent(charges(0, ALL, *told))
    # Both are charged in one step.
    found = [] if everybody == sum(spent) else [f"the budget of all holds {everybody}, their own ones {sum(spent)}"]
    for (name, steps), amount in zip(told.items(), spent, strict=True):
        least, most = _charged(steps)
        if not least <= amount <= most:
            found.append(f"the budget of {name} holds {amount}, not from {least} to {most}")
    return found


def _charged(steps: str) -> tuple[int, int]:
    """Return what a worker has charged at least, and at most."""
    *rounds, last = steps.split("r")
    certain = sum(CHARGED - GIVEN_BACK for each in rounds if "a" in each)
    # In the round that was under way a charge may have been made without a word, and what was given back may not be written.
    return certain + ("a" in last) * (CHARGED - GIVEN_BACK), certain + ("c" in last) * CHARGED
