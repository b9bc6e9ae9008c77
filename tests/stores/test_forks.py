"""Threads that use files stand still for the moment of a fork."""

import asyncio
import os
import threading
import time

from resilient_ai.core.ledger import SendOpened
from resilient_ai.stores import SQLiteLedger
from resilient_ai.stores._forks import Gate


def test_a_shut_gate_lets_nobody_in_until_it_is_reopened():
    """Shutting waits for whoever is inside, and whoever comes then waits until it is open again."""
    gate, seen = Gate(), []
    inside, leave = threading.Event(), threading.Event()

    def user():
        with gate:
            inside.set()
            leave.wait(10)
            seen.append("first out")

    def late():
        with gate:
            seen.append("second in")

    first = threading.Thread(target=user)
    first.start()
    inside.wait(10)
    threading.Timer(0.05, leave.set).start()
    gate.shut()
    seen.append("shut")
    second = threading.Thread(target=late)
    second.start()
    second.join(0.05)
    gate.reopen()
    first.join(10)
    second.join(10)

    assert seen == ["first out", "shut", "second in"]


def test_children_forked_in_the_middle_of_writing_can_write(tmp_path):
    """While a ledger writes without pause, every forked child finds the file usable."""
    ledger = SQLiteLedger(tmp_path / "ledger.sqlite")
    stop = threading.Event()

    def opened(name):
        ledger.opened(SendOpened(send_id=name, call_id="c", at=1.0, kind="chat", model="m", attempt=1))

    def load():
        number = 0
        while not stop.is_set():
            for _ in range(20):
                opened(f"{number}")
                number += 1
            time.sleep(0.001)

    writer = threading.Thread(target=load)
    writer.start()
    codes = []
    for child in range(25):
        pid = os.fork()
        if pid == 0:
            threading.Timer(10, os._exit, [1]).start()
            opened(f"child {child}")
            asyncio.run(ledger.flush())
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.set()
    writer.join(10)
    total = asyncio.run(ledger.by("state"))
    asyncio.run(ledger.aclose())

    assert codes == [0] * 25
    assert sum(row.sends for row in total) > 25
