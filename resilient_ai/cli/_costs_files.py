"""The files that `resilient-ai costs` writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resilient_ai.cli import terminal
from resilient_ai.cli._costs_chart import MOST_STEPS, check, write_chart
from resilient_ai.cli._costs_over_time import over_time
from resilient_ai.cli.failures import WrongUseError

if TYPE_CHECKING:
    from resilient_ai.cli._costs_book import Question
    from resilient_ai.core.ledger import CostBook


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where a picture and the rows of the book are to be written, each None where it is not wanted.

    Raises:
        WrongUseError: If one of them cannot be written, or a picture cannot be drawn.
    """

    png: Path | None
    export: Path | None

    def __post_init__(self) -> None:
        if self.png is not None:
            _check("--png", self.png, (".png",))
            check()
        if self.export is not None:
            _check("--export", self.export, (".csv", ".parquet"))

    async def write(self, book: "CostBook", question: "Question", *, wasted: bool) -> list[str]:
        """Write them, and return what there is to say of each."""
        said: list[str] = []
        if self.export is not None:
            rows = await _export(book, question, self.export)
            said.append(f"{terminal.counted(rows, 'request')} written to {self.export}")
        if self.png is not None:
            over = await over_time(book, question, most=MOST_STEPS, wasted=wasted)
            if over is None:
                said.append(f"nothing was {'wasted' if wasted else 'spent'}, so {self.png} was not drawn")
            else:
                write_chart(over, self.png)
                said.append(f"a picture was written to {self.png}")
        return said


async def _export(book: "CostBook", question: "Question", path: Path) -> int:
    from resilient_ai.costs import ClientCosts  # noqa: PLC0415 - slow to import, and seldom needed

    return await ClientCosts(book).export(path, since=question.since, until=question.until, tags=question.tags)


def _check(option: str, path: Path, endings: tuple[str, ...]) -> None:
    if path.suffix.lower() not in endings:
        raise WrongUseError(f"{option}: the file must end in {' or '.join(endings)}, got {str(path)!r}")
    if not path.parent.is_dir() or path.is_dir():
        raise WrongUseError(f"{option}: {path} cannot be written")
