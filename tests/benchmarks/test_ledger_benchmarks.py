"""The benchmarks of the ledger: that they run, and that they notice what they are there for."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import ledger_rows
from benchmarks.ledger_kills.kills import Findings
from benchmarks.ledger_rows import measure
from resilient_ai.stores import SQLiteLedger

ROOT = Path(__file__).parent.parent.parent
FINE = Findings(
    kills=1,
    rounds=1,
    rows=8,
    acknowledged=8,
    lost=[],
    endless=0,
    spared=0,
    integrity="ok",
    charges=1,
    spent=8,
    least=6,
    most=10,
    deaths=[],
)


def test_a_few_kills():
    """Nothing is lost, and the table says so."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.ledger_kills", "--kills", "8"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=50,
        check=False,
    )
    # A worker may say that its reports wait for the file, which is shared.
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False), ran.stdout + ran.stderr
    assert "8 kills, seed 1" in ran.stdout


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({}, []),
        ({"lost": ["s (end)"]}, ["lost: s (end)"]),
        ({"endless": 2}, ["2 sends have no end"]),
        ({"spared": 3}, ["3 spared calls are lost"]),
        ({"integrity": "row 7 missing"}, ["the file is damaged: row 7 missing"]),
        ({"spent": 5}, ["the budget holds 5, not from 6 to 10"]),
        ({"spent": 11}, ["the budget holds 11, not from 6 to 10"]),
        ({"deaths": ["w1 had ended with 1 before it was killed"]}, ["w1 had ended with 1 before it was killed"]),
    ],
)
def test_troubles_are_told(trouble, words):
    """Each in words."""
    assert replace(FINE, **trouble).troubles() == words


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
