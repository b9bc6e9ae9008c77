import io
import sys
from decimal import Decimal

import pytest

from resilient_ai.cli import terminal


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b]0;title\x07", "]0;title"),
        ("over\rwritten", "overwritten"),
        ("\x9b31m", "31m"),
        ("a\u202eb\u2066c\x7f", "abc"),
        ("grün 漢字 🙂", "grün 漢字 🙂"),
    ],
)
def test_sanitise_leaves_text_and_takes_commands(given, left):
    """Everything a terminal obeys is dropped, everything a person reads stays."""
    assert terminal.sanitise(given) == left


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "unknown"),
        (Decimal(0), "$0"),
        (Decimal("0E-9"), "$0"),
        (Decimal("0.00000398"), "$0.00000398"),
        (Decimal("0.0123456"), "$0.0123"),
        (Decimal("0.10"), "$0.10"),
        (Decimal("0.5"), "$0.50"),
        (Decimal("0.125"), "$0.125"),
        (Decimal("0.9999"), "$1.00"),
        (Decimal("1234.5"), "$1,234.50"),
        (Decimal("2E-8"), "$0.00000002"),
    ],
)
def test_money_keeps_its_telling_digits(amount, text):
    """Small amounts are not rounded to nothing, and unknown is not zero."""
    assert terminal.usd(amount) == text


@pytest.mark.parametrize(("elapsed", "text"), [(0.0004, "0.4 ms"), (0.05, "50 ms"), (1.26, "1.3 s"), (75.0, "75.0 s")])
def test_durations_have_a_fitting_unit(elapsed, text):
    """Nobody has to count zeros."""
    assert terminal.seconds(elapsed) == text


def test_json_writes_money_as_exact_text(capsys):
    """A float would round what was billed; other objects become their text."""
    terminal.write_json({"cost": Decimal("0.10"), "kind": ValueError("x")})
    assert capsys.readouterr().out == '{"cost":"0.10","kind":"x"}\n'


def test_json_is_indented_for_people(monkeypatch):
    """A terminal gets one value a line, a pipe gets one line."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    terminal.write_json({"cost": 1})
    assert sys.stdout.getvalue() == '{\n  "cost": 1\n}\n'


def test_output_that_is_no_terminal_is_wide(monkeypatch):
    """Tables in a pipe are not folded, unless a width is asked for."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert terminal.out().width == 200
    monkeypatch.setenv("COLUMNS", "70")
    assert terminal.err().width == 70


def test_lines_break_between_words_in_a_terminal_alone(capsys, monkeypatch):
    """A name that is to be copied is not cut, and what is read by programs stays one line."""
    monkeypatch.setenv("COLUMNS", "60")
    text = "auto stands for nothing: give --models or --query, or set RESILIENT_AI_AUTO_MODELS"
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    terminal.say(text)
    terminal.show(f"{text}\n")
    assert capsys.readouterr() == (f"{text}\n", f"{text}\n")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.say(text)
    terminal.show(f"{text}\x1b\n")
    for written in capsys.readouterr():
        lines = written.splitlines()
        assert [line.strip() for line in lines][-1] == "RESILIENT_AI_AUTO_MODELS"
        assert max(map(len, lines)) <= 60


def test_streams_without_encoding_are_left_alone(monkeypatch):
    """Output that was replaced by something simple still works."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    terminal.forgive_odd_characters()
    terminal.abandon_output()


def test_odd_characters_become_question_marks(offline):
    """A terminal of another alphabet gets an answer, not an error."""
    process = offline.start("costs", PYTHONIOENCODING="ascii", RESILIENT_AI_HOME=str(offline.folder / "grün"))
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"gr?n" in errors


def test_console_leaves_a_closed_pipe_to_the_program():
    """rich would end the program with 1, which means a failure of the service here."""
    with pytest.raises(BrokenPipeError):
        terminal.out().on_broken_pipe()
