"""The log of the library, through which no handler of the application can harm what it is told of."""

import logging
from asyncio import CancelledError
from contextlib import suppress


class Log:
    """Writes to a logger of the standard library.

    A handler or filter that raises is a fault of whoever has set it up. It must not take an answer away that was paid for, nor a
    permit, nor stop a thread that writes. So it is passed over; the line is lost, and others are not.

    Args:
        name: Of the logger.

    >>> log = Log("resilient_ai")
    >>> log.debug("%d sends are waited for", 3)
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str = "resilient_ai") -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *given: object) -> None:
        """Write what helps whoever looks for a fault."""
        self._write(logging.DEBUG, message, given)

    def info(self, message: str, *given: object) -> None:
        """Write what is as it should be."""
        self._write(logging.INFO, message, given)

    def warning(self, message: str, *given: object) -> None:
        """Write what somebody may want to do something about."""
        self._write(logging.WARNING, message, given)

    def error(self, message: str, *given: object) -> None:
        """Write what has cost something."""
        self._write(logging.ERROR, message, given)

    def exception(self, message: str, *given: object) -> None:
        """Write what must not happen, with the stack of the exception at hand."""
        self._write(logging.ERROR, message, given, with_stack=True)

    def _write(self, level: int, message: str, given: tuple[object, ...], *, with_stack: bool = False) -> None:
        with suppress(Exception, CancelledError):
            self._logger.log(level, message, *given, exc_info=with_stack, stacklevel=3)
