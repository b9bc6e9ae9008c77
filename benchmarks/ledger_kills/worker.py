"""A process that reports sends and charges a budget, and says so once it has been told that it is written."""

import asyncio
import os
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from resilient_ai.core.budgets import Charge
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.ledger import CallSpared, SendClosed, SendOpened
from resilient_ai.stores import SQLiteLedger

# Of the sends of a round the first ones end in it, the next one in the round after it, and the last one never does.
SENDS, ENDED = 8, 6
COST = Decimal("0.0000097")
CHARGED, GIVEN_BACK, LIMIT = 10, 4, 10**12


def work(path: Path, name: str, told: int) -> None:
    """Work until killed.

    Args:
        path: The ledger.
        name: What the names of this worker's sends begin with.
        told: A pipe that gets a line per step: "r" and a number for a round that is written, "c" for a charge that will be
            asked for, "a" for one that was admitted.
    """
    asyncio.run(_rounds(SQLiteLedger(path), name, told))


def send_id(name: str, turn: int, number: int) -> str:
    """Return the name of a send."""
    return f"{name}-{turn}-{number}"


def budget(amount: int) -> Charge:
    """Return a charge against the one budget of all workers."""
    # In a scope that no send is in, so that it counts nothing but charges.
    scope = {"tenant": "nobody"}
    return Charge(key="all", slice=0, first=0, amount=amount, limit=LIMIT, until=2**40, scope=scope)


def ended_by(turn: int) -> Iterator[tuple[int, int]]:
    """Yield round and number of the sends that a round brings to an end."""
    yield from ((turn, number) for number in range(ENDED))
    if turn:
        yield turn - 1, ENDED


async def _rounds(ledger: SQLiteLedger, name: str, told: int) -> None:
    turn = 0
    while True:
        for number in range(SENDS):
            ledger.opened(
                SendOpened(
                    send_id=send_id(name, turn, number),
                    call_id=f"{name}-{turn}",
                    at=time.time(),
                    kind="chat",
                    model="m",
                    attempt=1,
                )
            )
        if turn % 3 == 0:
            await asyncio.sleep(0.01)  # so that some ends are written apart from their begins
        for of, number in ended_by(turn):
            ledger.closed(SendClosed(send_id=send_id(name, of, number), state="settled", cost=COST))
        ledger.spared(
            CallSpared(call_id=name, at=time.time(), kind="chat", model="m", outcome="hit", hits=1, saved=COST)
        )
        os.write(told, b"c\n")
        try:
            if (await ledger.charge([budget(CHARGED)])).admitted:
                os.write(told, b"a\n")
                ledger.settle([budget(-GIVEN_BACK)])
        except BookUnavailable:  # the file is in great demand
            pass
        await ledger.flush()
        os.write(told, f"r{turn}\n".encode())
        turn += 1
