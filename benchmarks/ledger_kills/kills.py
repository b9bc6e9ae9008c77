"""Somebody who kills at random moments those who share a ledger, or the server that keeps it."""

import random
import time

from benchmarks.ledger_kills.audit import Findings, audit
from benchmarks.ledger_kills.books import Book
from benchmarks.ledger_kills.crew import WORKERS, Crew
from benchmarks.ledger_kills.private_postgres import PrivatePostgres

_LONGEST = 0.12  # seconds between two kills of workers, at most
_AWAY = 0.5  # seconds for which a killed server is away at most


def kill_workers(book: Book, *, kills: int, seed: int, longest: float = _LONGEST) -> Findings:
    """Let workers share a ledger, kill one after the other, and look at what is left.

    Args:
        book: The ledger.
        kills: How many workers to kill.
        seed: Of the moments and the victims.
        longest: Seconds between two kills at most.
    """
    chance = random.Random(seed)
    crew = Crew(book, chance)
    for _ in range(kills - WORKERS):
        time.sleep(chance.uniform(0.0, longest))
        crew.replace_one()
    time.sleep(0.5)
    return audit(book, crew)


def kill_the_server(book: Book, server: PrivatePostgres, *, kills: int, seed: int) -> Findings:
    """Let workers share a ledger, kill its server as often, and look at what is left.

    Every other time only one process of the server is killed, after which it starts anew by itself. Where all of it is, one of
    the workers dies while it is away.
    """
    chance = random.Random(seed)
    crew = Crew(book, chance)
    for number in range(kills):
        # So that it dies while all of them write.
        crew.wait_for_a_round()
        time.sleep(chance.uniform(0.0, _LONGEST))
        if number % 2:
            server.kill_one(chance)
            continue
        server.kill()
        time.sleep(chance.uniform(0.0, _AWAY))
        crew.replace_one()
        server.start()
    crew.wait_for_a_round()
    return audit(book, crew, server_kills=kills)
