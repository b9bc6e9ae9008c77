"""Where the texts of `resilient-ai embed` come from."""

import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from resilient_ai.cli._files import private
from resilient_ai.cli._lines import Given, Line, TextFile, lines_of
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.session import checked


@dataclass(frozen=True, slots=True)
class Piped:
    """Something that can be read once: standard input, or a pipe that has a name.

    Args:
        path: The pipe, None for standard input.
        name: What people call it.
    """

    path: Path | None
    name: str

    def lines(self) -> Iterator[Line]:
        """Return the lines, once."""
        with self._open() as file:
            yield from lines_of(file, self.name)

    def copied(self, path: Path) -> TextFile:
        """Read everything into a file of this user alone, so that it can be read again."""
        with self._open() as pipe, private(path) as file:
            shutil.copyfileobj(pipe, file)
        return TextFile(path, self.name)

    def _open(self) -> AbstractContextManager[BinaryIO]:
        return nullcontext(sys.stdin.buffer) if self.path is None else self.path.open("rb")


def source_of(texts: Sequence[str], file: str | None) -> Given | TextFile | Piped:
    """Return where the texts are.

    Raises:
        WrongUseError: If that is nowhere, or in two places.
        OSError: If there is no such file.
    """
    if texts and file is not None:
        raise WrongUseError("give a file or --text, not both")
    if texts:
        return Given([checked(text) for text in texts])
    if file == "-" or (file is None and not sys.stdin.isatty()):
        return Piped(None, "standard input")
    if file is None:
        raise WrongUseError(
            "there is nothing to embed: give a file with one text per line, `-` for standard input, or --text"
        )
    path = Path(file)
    return TextFile(path, file) if stat.S_ISREG(path.stat().st_mode) or path.is_dir() else Piped(path, file)
