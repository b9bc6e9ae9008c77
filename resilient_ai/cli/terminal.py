"""What is written where: data to standard output, everything for people to standard error."""

import os
import sys
from contextlib import suppress
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Any, NoReturn

import orjson
from rich.console import Console
from rich.text import Text
from typing_extensions import override

_WIDE = 200
# Whatever a terminal could take as a command: C0 and C1 controls but for line feed and tab, and the overrides of direction.
_CONTROLS = dict.fromkeys(
    (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
)


class Screen(Console):
    """A console that leaves a broken pipe to the program."""

    @override
    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def out() -> Screen:
    """Return the console of standard output."""
    return _screen(stderr=False)


def err() -> Screen:
    """Return the console of standard error."""
    return _screen(stderr=True)


def _screen(*, stderr: bool) -> Screen:
    screen = Screen(stderr=stderr, highlight=False)
    # A table in a pipe is read by programs, for which nothing shall be folded.
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = _WIDE
    return screen


def sanitise(text: str) -> str:
    r"""Return `text` without what a terminal would take as a command; line feeds and tabs stay.

    Only single characters are dropped, so it works on the pieces of a stream, wherever they are cut.

    >>> sanitise("red \x1b[31mtext\r\n")
    'red [31mtext\n'
    """
    return text.translate(_CONTROLS)


def one_line(text: str, most: int = 300) -> str:
    r"""Return `text` sanitised, on one line, and not longer than `most` characters.

    >>> one_line("first\n  second", most=9)
    'first se…'
    """
    line = " ".join(sanitise(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def say(text: str, style: str = "") -> None:
    """Write one line for people: broken between words in a terminal, never elsewhere."""
    screen = err()
    screen.print(Text(text, style=style), soft_wrap=not screen.is_terminal)


def show(text: str) -> None:
    """Write lines of data: broken between words in a terminal, as they are elsewhere."""
    screen = out()
    if screen.is_terminal:
        screen.print(Text(sanitise(text)), end="")
    else:
        write(sanitise(text))


def write(text: str) -> None:
    """Write data as it is, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_json(value: Any) -> None:
    """Write one JSON document, on one line unless a person is looking; money is exact decimal text."""
    option = orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0)
    write(orjson.dumps(value, default=_plain, option=option).decode())


def _plain(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def usd(amount: Decimal | None, *, down: bool = False) -> str:
    """Return an amount of money with three telling digits, and whole cents; rounded, or cut off where it goes `down`.

    >>> usd(Decimal("0.0000097")), usd(Decimal("0.5")), usd(Decimal("0.99999")), usd(Decimal("12.3456"))
    ('$0.0000097', '$0.50', '$1.00', '$12.35')
    >>> usd(Decimal(0)), usd(None), usd(Decimal("0.99999"), down=True)
    ('$0', 'unknown', '$0.999')
    """
    if amount is None:
        return "unknown"
    if amount == 0:
        return "$0"
    rounded = amount.quantize(Decimal(1).scaleb(min(amount.adjusted(), 0) - 2), ROUND_DOWN if down else ROUND_HALF_EVEN)
    short = rounded.normalize()
    return f"${rounded:,.2f}" if rounded >= 1 or short.as_tuple().exponent == -1 else f"${short:f}"


def seconds(elapsed: float) -> str:
    """Return a duration as people read it.

    >>> seconds(0.00042), seconds(0.25), seconds(12.3456)
    ('0.4 ms', '250 ms', '12.3 s')
    """
    if elapsed < 0.01:
        return f"{elapsed * 1000:.1f} ms"
    if elapsed < 1:
        return f"{elapsed * 1000:.0f} ms"
    return f"{elapsed:.1f} s"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "request"), counted(1200, "request")
    ('1 request', '1,200 requests')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def forgive_odd_characters() -> None:
    """Let a terminal that cannot show a character show a question mark, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def abandon_output() -> None:
    """Send what is still buffered nowhere, so that Python does not complain about the closed pipe at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
