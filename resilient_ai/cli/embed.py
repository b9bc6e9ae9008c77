"""`resilient-ai embed`: one vector per text."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from resilient_ai.cli import terminal
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.options import EMBEDDING_MODEL, BaseUrl, Json, NoCache, Tag, Timeout, tags_of
from resilient_ai.cli.session import checked, facts_of, standard_input, with_client

if TYPE_CHECKING:
    from resilient_ai.client import AsyncClient
    from resilient_ai.core.results import EmbedResult

_SHOWN = 20


def embed(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; `-` reads one per line of standard input.")] = None,
    *,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A file with one text per line.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .jsonl file to write, one line per text.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m")] = EMBEDDING_MODEL,
    dimensions: Annotated[
        int | None, typer.Option("--dimensions", help="Length of a vector, for models that can shorten them.")
    ] = None,
    no_cache: NoCache = False,
    timeout: Timeout = None,
    tag: Tag = None,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Turn texts into vectors.

    They go to a .jsonl file or to standard output; a terminal gets a preview. Texts that were embedded before come from the
    cache and are not sent again.
    """
    tags = tags_of(tag)
    lines = _texts(texts or [], file)
    options: dict[str, Any] = {} if dimensions is None else {"dimensions": dimensions}

    async def work(client: "AsyncClient") -> "tuple[EmbedResult, float]":
        started = time.monotonic()
        with _progress(len(lines)) as progress:
            return await client.embed(model, lines, progress=progress, **options), time.monotonic() - started

    with _target(output) as target:
        result, elapsed = with_client(work, base_url=base_url, timeout=timeout, tags=tags, cache=not no_cache)
        if target is not None:
            target.writelines(_jsonl(lines, result))
    summary = {"texts": len(lines), "dimensions": result.dimensions, "from_cache": result.hits, **facts_of(result)}
    if json:
        where = {"output": str(output)} if output else {"vectors": [result.vectors[i] for i in range(len(lines))]}
        terminal.write_json({**summary, "elapsed": elapsed, **where})
        return
    if output is None:
        _show(lines, result)
    _tell_facts(result, len(lines), output, elapsed)


def _texts(arguments: Sequence[str], file: Path | None) -> list[str]:
    if file is not None and arguments:
        raise WrongUseError("give texts as arguments or with --file, not both")
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise WrongUseError(f"{file}: is not UTF-8 text") from None
    elif list(arguments) == ["-"] or (not arguments and not sys.stdin.isatty()):
        lines = standard_input().splitlines()
    else:
        lines = [checked(text) for text in arguments]
    found = [line for line in lines if line.strip()]
    if not found:
        raise WrongUseError("there is nothing to embed: give texts, --file, or `-` and standard input")
    if len(found) < len(lines):
        terminal.say(f"{terminal.counted(len(lines) - len(found), 'blank line')} left out", "yellow")
    return found


@contextmanager
def _target(output: Path | None) -> "Generator[IO[bytes] | None]":
    """Open the output before anything is paid for; a file of that name is replaced once all is there."""
    if output is None:
        yield None
        return
    if output.suffix != ".jsonl":
        raise WrongUseError(f"--output: the file must end in .jsonl, got {str(output)!r}")
    try:
        handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    except OSError as error:
        raise WrongUseError(f"--output: {output} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(name).chmod(0o644)
        Path(name).replace(output)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()


@contextmanager
def _progress(total: int) -> "Generator[Callable[[int, int], None]]":
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    screen = terminal.err()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("embedding", total=total)

        def advance(done: int, to_send: int) -> None:
            bar.update(task, completed=done, total=to_send)

        yield advance


def _jsonl(texts: Sequence[str], result: "EmbedResult") -> Iterable[bytes]:
    for index, text in enumerate(texts):
        record = {"index": index, "text": text, "vector": result.vectors[index]}
        yield orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _show(texts: Sequence[str], result: "EmbedResult") -> None:
    if not terminal.out().is_terminal:
        for line in _jsonl(texts, result):
            terminal.write(line.decode())
        return
    table = Table("Text", "Vector", box=None, header_style="bold", pad_edge=False)
    for index, text in enumerate(texts[:_SHOWN]):
        numbers = " ".join(f"{number:+.3f}" for number in result.vectors[index][:5])
        table.add_row(terminal.one_line(text, 50), f"[dim]{numbers} …[/dim]")
    terminal.out().print(table)
    if len(texts) > _SHOWN:
        terminal.say(f"… and {len(texts) - _SHOWN} more; --output keeps them all", "dim")


def _tell_facts(result: "EmbedResult", count: int, output: Path | None, elapsed: float) -> None:
    facts = [f"{terminal.counted(count, 'vector')} of {result.dimensions:,} dimensions"]
    if result.hits:
        facts.append(f"{result.hits} from the cache")
    facts += [terminal.counted(result.attempts, "request")]
    facts += [terminal.usd(result.cost.amount if result.cost else None), terminal.seconds(elapsed)]
    if output is not None:
        facts.append(f"written to {output}")
    terminal.say(" · ".join(facts), "dim")
