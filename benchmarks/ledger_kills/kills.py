"""Processes that share a ledger, somebody who kills them at random moments, and a look at what they leave."""

import asyncio
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ledger_kills.worker import CHARGED, COST, ENDED, GIVEN_BACK, LIMIT, budget, ended_by, send_id, work
from resilient_ai.stores import SQLiteLedger

WORKERS = 3
_SHORTEST, _LONGEST = 0.0, 0.12  # seconds between two kills


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What became of the ledger.

    Args:
        kills: Workers that were killed.
        rounds: Rounds that were acknowledged.
        rows: Sends in the book.
        acknowledged: Those of them whose begin was acknowledged.
        lost: Acknowledged rows that are not there, or without their acknowledged end.
        endless: Sends without an end after the last restart.
        spared: Acknowledged calls that were spared and are not in the book.
        integrity: What SQLite says of the file.
        charges: Charges that were admitted, as far as workers lived to tell.
        spent: What the counter holds.
        least: What it must hold at least.
        most: What it may hold at most.
        deaths: Workers that ended in another way than by a kill.
    """

    kills: int
    rounds: int
    rows: int
    acknowledged: int
    lost: list[str]
    endless: int
    spared: int
    integrity: str
    charges: int
    spent: int
    least: int
    most: int
    deaths: list[str]

    def troubles(self) -> list[str]:
        """Return what must not be, in words."""
        found = [f"lost: {name}" for name in self.lost] + self.deaths
        if self.endless:
            found.append(f"{self.endless} sends have no end")
        if self.spared:
            found.append(f"{self.spared} spared calls are lost")
        if self.integrity != "ok":
            found.append(f"the file is damaged: {self.integrity}")
        if not self.least <= self.spent <= self.most:
            found.append(f"the budget holds {self.spent}, not from {self.least} to {self.most}")
        return found


class _Worker:
    """A process, and the pipe through which it tells how far it has come; it outlives the process."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._reads, writes = os.pipe()
        # Forked, as a process that begins with importing would hardly ever be killed at work.
        self._process = multiprocessing.get_context("fork").Process(target=work, args=(path, name, writes), daemon=True)
        self._process.start()
        os.close(writes)

    def kill(self) -> int | None:
        """End it, and return what it died of, as `multiprocessing` says it."""
        self._process.kill()
        self._process.join()
        return self._process.exitcode

    def lines(self) -> list[str]:
        """Return what a dead worker has told."""
        with os.fdopen(self._reads, encoding="ascii") as pipe:
            return pipe.read().split()


def kill_at_random(path: Path, *, kills: int, seed: int) -> Findings:
    """Let workers share the ledger at `path`, kill one after the other, and look at what is left."""
    chance = random.Random(seed)
    workers = [_Worker(path, f"w{number}") for number in range(WORKERS)]
    told: dict[str, list[str]] = {}
    deaths: list[str] = []

    def kill(victim: _Worker) -> None:
        code = victim.kill()
        if code != -signal.SIGKILL:
            deaths.append(f"{victim.name} had ended with {code} before it was killed")
        told[victim.name] = victim.lines()

    for number in range(kills - WORKERS):
        time.sleep(chance.uniform(_SHORTEST, _LONGEST))
        kill(workers.pop(chance.randrange(WORKERS)))
        workers.append(_Worker(path, f"w{WORKERS + number}"))
    time.sleep(0.5)
    for victim in workers:
        kill(victim)
    return asyncio.run(_audit(path, told, deaths))


async def _audit(path: Path, told: dict[str, list[str]], deaths: list[str]) -> Findings:
    ledger = SQLiteLedger(path)
    rows = {send.send_id: send async for sends in ledger.scan() for send in sends}
    lost: list[str] = []
    acknowledged = 0
    rounds = {name: sum(1 for line in lines if line[0] == "r") for name, lines in told.items()}
    for name, count in rounds.items():
        for turn in range(count):
            begun = [send_id(name, turn, number) for number in range(ENDED + 2)]
            acknowledged += len(begun)
            lost += [f"{each} (begin)" for each in begun if each not in rows]
            ended = [send_id(name, of, number) for of, number in ended_by(turn)]
            lost += [f"{each} (end)" for each in ended if each in rows and rows[each].cost != COST]
    steps = Counter(line[0] for lines in told.values() for line in lines)
    # What a worker gave back in its last round may not have been written.
    certain = sum(min(rounds[name], sum(1 for line in lines if line == "a")) for name, lines in told.items())
    (spent,) = await ledger.spent([budget(0)])
    saved = await ledger.saved()
    await ledger.aclose()
    with closing(sqlite3.connect(path)) as connection:
        ((integrity,),) = connection.execute("PRAGMA integrity_check").fetchall()
    return Findings(
        kills=len(told),
        rounds=sum(rounds.values()),
        rows=len(rows),
        acknowledged=acknowledged,
        lost=lost,
        endless=sum(1 for send in rows.values() if send.state == "sent"),
        spared=max(0, sum(rounds.values()) - saved.hits),
        integrity=integrity,
        charges=steps["a"],
        spent=spent,
        least=steps["a"] * (CHARGED - GIVEN_BACK),
        most=min(LIMIT, steps["c"] * CHARGED - certain * GIVEN_BACK),
        deaths=deaths,
    )
