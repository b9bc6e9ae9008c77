"""Packages that only some options need."""

from importlib import import_module
from types import ModuleType

from resilient_ai.cli.failures import WrongUseError


def needed(name: str, extra: str) -> ModuleType:
    """Import a package of an extra.

    Raises:
        WrongUseError: If it is missing; the message names the extra.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise WrongUseError(f"{missing} is missing; install it with: pip install 'resilient-ai[{extra}]'") from None
