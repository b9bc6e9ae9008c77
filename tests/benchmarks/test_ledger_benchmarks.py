"""The benchmarks of the ledger: that they run, and that they notice what they are there for."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import ledger_rows
from benchmarks.ledger_kills import __main__ as ledger_kills
from benchmarks.ledger_kills.audit import Findings, audit
from benchmarks.ledger_kills.books import in_a_file
from benchmarks.ledger_kills.private_postgres import missing
from benchmarks.ledger_kills.worker import COST, charges
from benchmarks.ledger_rows import _opened, _spared, measure
from resilient_ai.core.ledger import SendClosed
from resilient_ai.stores import SQLiteLedger

ROOT = Path(__file__).parent.parent.parent
FINE = Findings(
    kills=1,
    server_kills=0,
    rounds=1,
    rows=8,
    acknowledged=8,
    lost=[],
    left=8,
    rowless=[],
    endless=0,
    spared=0,
    twice=0,
    integrity="ok",
    charges=1,
    miscounted=[],
    deaths=[],
)


@pytest.mark.parametrize(
    ("ledger", "more"),
    [("SQLite", []), ("PostgreSQL", []), ("PostgreSQL, itself killed", ["--server-kills", "2"])],
)
def test_a_few_kills(ledger, more):
    """Nothing is lost, and the table says so."""
    why = missing() if ledger != "SQLite" else None
    if why is not None:
        (pytest.fail if os.environ.get("CI_REQUIRES_SERVICES") else pytest.skip)(why)
    running = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ledger_kills", "--kills", "8", "--ledger", ledger, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with running:
        try:
            said, complaints = running.communicate(timeout=50)
        finally:
            # It stops the processes that it has started, which it cannot where it is killed.
            running.send_signal(signal.SIGINT)
    assert (running.returncode, complaints) == (0, ""), said + complaints
    assert "8 kills on each ledger, seed 1" in said
    assert f"│ {ledger} " in said


def test_a_postgres_that_is_not_there(monkeypatch, capsys):
    """The other ledgers are tried, and it is said why this one is not."""
    monkeypatch.setattr(ledger_kills, "missing", lambda: "PostgreSQL is not installed")
    monkeypatch.setattr(ledger_kills, "kill_workers", lambda *_, **__: FINE)
    assert ledger_kills.main([]) == 0
    said = capsys.readouterr().out
    assert "skipped: PostgreSQL, as PostgreSQL is not installed" in said
    assert "│ SQLite " in said


def test_a_loss_is_told(monkeypatch, capsys):
    """The exit code is 1, and below the table is what was lost, and where."""
    monkeypatch.setattr(ledger_kills, "kill_workers", lambda *_, **__: replace(FINE, lost=["w1-2-3 (end)"]))
    assert ledger_kills.main(["--ledger", "SQLite"]) == 1
    assert "SQLite: lost: w1-2-3 (end)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({}, []),
        ({"lost": ["s (end)"]}, ["lost: s (end)"]),
        ({"rowless": ["s"]}, ["left without a row: s"]),
        ({"endless": 2}, ["2 sends have no end"]),
        ({"spared": 3}, ["3 spared calls are lost"]),
        ({"twice": 3}, ["3 spared calls are written twice"]),
        ({"integrity": "row 7 missing"}, ["the database is damaged: row 7 missing"]),
        (
            {"miscounted": ["the budget of w1 holds 5, not from 6 to 10"]},
            ["the budget of w1 holds 5, not from 6 to 10"],
        ),
        ({"deaths": ["w1 had ended with 1 before it was killed"]}, ["w1 had ended with 1 before it was killed"]),
    ],
)
def test_troubles_are_told(trouble, words):
    """Each in words."""
    assert replace(FINE, **trouble).troubles() == words


class Dead:
    """Workers that are dead already, and what they have told."""

    deaths = ()

    def __init__(self, **told):
        self.told = told

    def kill_all(self):
        """They are."""

    def left(self):
        """Whatever they have sent."""
        return [f"{name}-0-0" for name in self.told]


def test_what_is_not_in_the_book(tmp_path):
    """Two rounds were acknowledged of which nothing is there; of a third one nothing need be."""
    found = audit(in_a_file(tmp_path / "ledger.db"), Dead(w0="carcarc"))
    assert (found.rounds, found.rows, found.acknowledged, found.spared, found.charges) == (2, 0, 16, 2, 2)
    assert found.lost == [f"w0-{turn}-{number} (begin)" for turn in range(2) for number in range(8)]
    assert found.miscounted == ["the budget of w0 holds 0, not from 12 to 22"]
    assert (found.left, found.rowless) == (1, ["w0-0-0"])


def test_what_is_in_the_book_and_must_not(tmp_path):
    """A begin without its end, a call that was written twice, and a budget of one that is not in that of all."""
    book = in_a_file(tmp_path / "ledger.db")
    ledger = book.open()
    for number in range(8):
        ledger.opened(replace(_opened(f"w0-0-{number}"), call_id="w0-0"))
        if number:
            ledger.closed(SendClosed(send_id=f"w0-0-{number}", state="settled", cost=COST))
    for _ in range(3):
        ledger.spared(replace(_spared("w0-0"), tags={"tenant": "w0"}))
    ledger.settle(charges(7, "w0"))
    asyncio.run(ledger.flush())
    found = audit(book, Dead(w0="cr"))
    ledger.close()
    assert (found.lost, found.endless, found.twice, found.rowless) == (["w0-0-0 (end)"], 1, 1, [])
    assert found.miscounted == [
        "the budget of all holds 0, their own ones 7",
        "the budget of w0 holds 7, not from 0 to 0",
    ]


def test_rows_are_counted_in_the_book():
    """Only what is there counts, and what a report costs is a number."""
    ledger = SQLiteLedger(":memory:")
    try:
        found = asyncio.run(measure(ledger, 300))
    finally:
        ledger.close()
    assert (found.rows, found.lost) == (300, 0)
    assert found.per_second == 300 / found.seconds > 0
    assert min(found.reporting, found.making) > 0


def test_a_ledger_that_is_too_slow(monkeypatch, capsys):
    """The exit code says so."""
    arguments = ["--rows", "100", "--rounds", "1"]
    monkeypatch.setattr(ledger_rows, "GOAL", 0)
    assert ledger_rows.main(arguments) == 0
    monkeypatch.setattr(ledger_rows, "GOAL", 10**9)
    assert ledger_rows.main(arguments) == 1
    assert "SQLite, durable" in capsys.readouterr().out
