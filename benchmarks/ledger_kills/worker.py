"""A process that reports sends and charges a budget, and says so once it has been told that it is written."""

import asyncio
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

from benchmarks.ledger_kills.books import AnyLedger
from resilient_ai.core.budgets import Charge
from resilient_ai.core.errors import BookUnavailable
from resilient_ai.core.ledger import CallSpared, SendClosed, SendOpened

# Of the sends of a round the first ones end in it, the next one in the round after it, and the last one never does.
SENDS, ENDED = 8, 6
COST = Decimal("0.0000097")
CHARGED, GIVEN_BACK, LIMIT = 10, 4, 10**12
ALL = "all"  # the budget that all of them share; each has one of its own besides


def work(open_ledger: Callable[[], AnyLedger], name: str, told: int, left: Path) -> None:
    """Work until killed.

    Args:
        open_ledger: Opens the ledger.
        name: What the names of this worker's sends begin with.
        told: A pipe that gets a letter per step: "c" for a charge that will be asked for, "a" for one that was admitted, "r" for
            a round that is written.
        left: A file that gets the name of each send in the moment in which its bytes would leave.
    """
    # That a server is away is known here; what is lost is an error.
    logging.getLogger("resilient_ai").setLevel(logging.ERROR)
    leaves = os.open(left, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    asyncio.run(_rounds(open_ledger(), name, told, leaves))


def send_id(name: str, turn: int, number: int) -> str:
    """Return the name of a send."""
    return f"{name}-{turn}-{number}"


def charges(amount: int, *keys: str) -> list[Charge]:
    """Return charges against the budgets of these names."""
    # In a scope that no send is in, so that they count nothing but charges.
    scope = {"tenant": "nobody"}
    return [Charge(key=key, slice=0, first=0, amount=amount, limit=LIMIT, until=2**40, scope=scope) for key in keys]


def ended_by(turn: int) -> Iterator[tuple[int, int]]:
    """Yield round and number of the sends that a round brings to an end."""
    yield from ((turn, number) for number in range(ENDED))
    if turn:
        yield turn - 1, ENDED


async def _rounds(ledger: AnyLedger, name: str, told: int, leaves: int) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        # Whoever was to kill it may have been killed, and it would go on for ever.
        asyncio.get_running_loop().add_reader(parent.sentinel, os._exit, 1)
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
            os.write(leaves, f"{send_id(name, turn, number)}\n".encode())
        if turn % 3 == 0:
            await asyncio.sleep(0.01)  # so that some ends are written apart from their begins
        for of, number in ended_by(turn):
            ledger.closed(SendClosed(send_id=send_id(name, of, number), state="settled", cost=COST))
        ledger.spared(
            CallSpared(
                call_id=f"{name}-{turn}",
                at=time.time(),
                kind="chat",
                model="m",
                outcome="hit",
                hits=1,
                saved=COST,
                tags={"tenant": name},
            )
        )
        os.write(told, b"c")
        try:
            if (await ledger.charge(charges(CHARGED, ALL, name))).admitted:
                os.write(told, b"a")
                ledger.settle(charges(-GIVEN_BACK, ALL, name))
        except BookUnavailable:  # the file is in great demand, or the server away
            pass
        await ledger.flush()
        os.write(told, b"r")
        turn += 1
