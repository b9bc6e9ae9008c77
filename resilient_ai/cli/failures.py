"""From an exception to one line and an exit code."""

import difflib
from collections.abc import Iterable

from resilient_ai.cli.terminal import one_line
from resilient_ai.core.errors import (
    AuthenticationFailed,
    BookUnavailable,
    ConfigurationError,
    ConnectionFailed,
    InsufficientBalance,
    InvalidInput,
    ModelNotFound,
    ResilientAIError,
)

FAILED = 1
WRONG_USE = 2
CANCELLED = 130
PIPE_CLOSED = 141


class WrongUseError(Exception):
    """What was asked for or given cannot work; the message is for the person who asked."""


class CacheUnreachableError(Exception):
    """The store of the cache did not do all that was asked of it."""


def exit_code_of(error: Exception) -> int | None:
    """Return the exit code for an error, or None where the error is a fault of this program."""
    if isinstance(error, WrongUseError | InvalidInput | ConfigurationError | OSError):
        return WRONG_USE
    return FAILED if isinstance(error, ResilientAIError | CacheUnreachableError | BookUnavailable) else None


def sentence(error: Exception) -> str:
    """Return an error as one line that says what can be done about it."""
    if isinstance(error, OSError):
        name = "" if error.filename is None else f"{error.filename}: "
        return one_line(f"{name}{error.strerror or error}")
    hint = _hint(error)
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return one_line(f"{error}{notes}") + (f"; {hint}" if hint else "")


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that somebody who wrote `name` may have meant, None where none is like it."""
    names = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return names[close[0]] if close else None


def _hint(error: Exception) -> str:
    if isinstance(error, AuthenticationFailed):
        return "the service refused the key: is DEEPINFRA_API_KEY the right one?"
    if isinstance(error, InsufficientBalance):
        return "top up the account at https://deepinfra.com/dash/billing"
    if isinstance(error, ModelNotFound) and error.model is not None:
        return _similar(error.model)
    if isinstance(error, ConnectionFailed):
        return "`resilient-ai doctor` looks closer"
    return ""


def _similar(model: str) -> str:
    from resilient_ai.deepinfra.catalogue import catalogue  # noqa: PLC0415 - data that only this error needs

    close = closest(model, (info.id for info in catalogue if info.status == "active"))
    return f"did you mean {close}?" if close else "`resilient-ai models` lists what there is"
