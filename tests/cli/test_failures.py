import pytest

from resilient_ai.cli.failures import WrongUseError, exit_code_of, sentence
from resilient_ai.core.errors import (
    CircuitOpen,
    ConfigurationError,
    InsufficientBalance,
    InvalidInput,
    ModelNotFound,
    ServerFailed,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WrongUseError("x"), 2),
        (InvalidInput("x", field="f"), 2),
        (ConfigurationError("x"), 2),
        (FileNotFoundError(2, "No such file", "a"), 2),
        (ServerFailed("x", status=500), 1),
        (CircuitOpen(model="m", retry_after=1.0), 1),
        (ZeroDivisionError(), None),
    ],
)
def test_exit_code_tells_who_can_do_something(error, code):
    """1 is for the service and policies, 2 for the caller, and a fault of ours has none."""
    assert exit_code_of(error) == code


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(13, "Permission denied", "a.txt"), "a.txt: Permission denied"),
        (OSError("odd"), "odd"),
        (ServerFailed("line one\n\x1b[31mline two", status=500), "line one [31mline two"),
        (
            InsufficientBalance("no balance", status=402),
            "no balance; top up the account at https://deepinfra.com/dash/billing",
        ),
    ],
)
def test_sentence_is_one_harmless_line(error, text):
    """What a service writes cannot break the line or command the terminal."""
    assert sentence(error) == text


def test_notes_belong_to_the_sentence():
    """Why something was not tried again is part of what went wrong."""
    error = ServerFailed("failed", status=500)
    error.add_note("not tried again: no time")
    assert sentence(error) == "failed (not tried again: no time)"


def test_a_list_that_is_not_there_is_no_misspelt_model():
    """A model that is not there may be meant otherwise; where none was asked for, nothing is suggested."""
    assert "did you mean BAAI/bge-m3?" in sentence(ModelNotFound("x", status=404, model="BAAI/bge-m33"))
    assert sentence(ModelNotFound("'/models/list' answered 404", status=404)) == "'/models/list' answered 404"
