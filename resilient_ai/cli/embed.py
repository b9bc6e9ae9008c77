"""`resilient-ai embed`: one vector per text."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli._embed_bar import bar
from resilient_ai.cli._embed_file import to_file
from resilient_ai.cli._embed_job import How
from resilient_ai.cli._embed_preview import show
from resilient_ai.cli._input import Piped, source_of
from resilient_ai.cli._lines import Given, Line, TextFile
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.options import EMBEDDING_MODEL, BaseUrl, Json, Tag, tags_of
from resilient_ai.cli.session import facts_of, with_client

if TYPE_CHECKING:
    from resilient_ai.client import AsyncClient
    from resilient_ai.core.results import EmbedResult

_MOST_SHOWN = 5000


def embed(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE", help="A file with one text per line; `-` is standard input.", show_default=False
        ),
    ] = None,
    *,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", "-t", help="A text, instead of a file. May be repeated.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .parquet, .npy or .jsonl file to write.", show_default=False),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m")] = EMBEDDING_MODEL,
    dimensions: Annotated[
        int | None,
        typer.Option("--dimensions", help="Length of a vector, for models that can shorten them.", show_default=False),
    ] = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache",
            help="Neither read nor fill the cache; of a run that was killed up to 3,840 lines are paid for again.",
        ),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.001,
            help="For up to 3,840 lines together, retries included.",
            show_default=False,
        ),
    ] = None,
    tag: Tag = None,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Turn texts into vectors.

    With --output, any number of lines: a run that ended early, even by kill -9, goes on when the same command is given again.

    Without, up to 5,000: standard output gets them as JSON lines, a terminal a preview.

    What was embedded before comes from the cache. Blank lines are left out; lines are numbered from 0, blank ones included.
    """
    how = How(model=model, dimensions=dimensions)
    connection: dict[str, Any] = {"base_url": base_url, "timeout": timeout, "tags": tags_of(tag), "cache": not no_cache}
    source = source_of(text or (), file)
    if output is not None:
        to_file(source, output, how, connection, json=json)
    else:
        _to_screen(source, how, connection, json=json)


def _to_screen(source: Given | TextFile | Piped, how: How, connection: dict[str, Any], *, json: bool) -> None:
    lines = _few(source)

    async def work(client: "AsyncClient") -> "tuple[EmbedResult, float]":
        started = time.monotonic()
        with bar() as shown:
            shown.phase("embedding", len(lines))
            result = await client.embed(
                how.model, [line.text for line in lines], progress=lambda done, _: shown.at(done), **how.options
            )
        return result, time.monotonic() - started

    result, elapsed = with_client(work, **connection)
    if json:
        summary = {"texts": len(lines), "dimensions": result.dimensions, "from_cache": result.hits, **facts_of(result)}
        terminal.write_json({**summary, "elapsed": elapsed, "vectors": list(result.vectors)})
        return
    show(lines, result)
    facts = [f"{terminal.counted(len(lines), 'vector')} of {result.dimensions:,} dimensions"]
    facts += [f"{result.hits:,} from the cache"] if result.hits else []
    facts += [terminal.counted(result.attempts, "request"), terminal.usd(result.cost.amount if result.cost else None)]
    terminal.say(" · ".join([*facts, terminal.seconds(elapsed)]), "dim")


def _few(source: Given | TextFile | Piped) -> list[Line]:
    lines: list[Line] = []
    blank = 0
    for line in source.lines():
        if not line.text.strip():
            blank += 1
        elif len(lines) < _MOST_SHOWN:
            lines.append(line)
        else:
            raise WrongUseError(
                f"more than {_MOST_SHOWN:,} texts need --output FILE, which also lets a run that ended early go on"
            )
    if not lines:
        raise WrongUseError(f"there is nothing to embed in {source.name}")
    if blank:
        terminal.say(f"{terminal.counted(blank, 'blank line')} left out", "yellow")
    return lines
