"""`resilient-ai cache`: what is kept on this machine, forgetting it, and taking it elsewhere."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli._cache_dump import add, dump, load
from resilient_ai.cli._cache_stats import Share, document, shares_of, show
from resilient_ai.cli._cache_store import healthy, with_store
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.options import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_ai.cli._cache_store import Store
    from resilient_ai.core.protocols import StoreUsage

_AT_ONCE = 256
_BYTES_AT_ONCE = 16 << 20

cache = typer.Typer(
    no_args_is_help=True, help="Look at the cache that outlives a process, clear it, or take it elsewhere."
)


@cache.command()
def stats(*, json: Json = False) -> None:
    """Show where the cache is, how large it is, and what it holds by model."""

    async def look(store: "Store") -> "tuple[Sequence[StoreUsage], list[Share]]":
        with terminal.err().status("counting"):
            shares = await shares_of(store)
        return await healthy(store), shares

    usage, shares = with_store(look) or ((), [])
    if json:
        terminal.write_json(document(usage, shares))
    else:
        show(usage, shares)


@cache.command()
def clear(
    *,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only what is kept for this tenant.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only what came from this model.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Clear everything without a question.")] = False,
    json: Json = False,
) -> None:
    """Forget entries: all of them, those of a tenant, of a model, or of both.

    Processes that run keep what they have in memory for up to a minute.
    """
    from resilient_ai.middleware._cache_key import pattern  # noqa: PLC0415 - slow to import

    everything = tenant is None and model is None
    if everything and not yes:
        if not _is_terminal():
            raise WrongUseError("to clear everything without being asked, give --yes")
        typer.confirm("Clear everything that is cached?", abort=True, err=True)

    async def forget(store: "Store") -> int:
        count = await store.delete_matching("*" if everything else pattern(tenant=tenant, model=model))
        await healthy(store)
        return count

    count = with_store(forget) or 0
    if json:
        terminal.write_json({"cleared": count})
    else:
        terminal.say(f"{_entries(count)} cleared")


@cache.command("export")
def export_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write; such as cache.jsonl.gz.")],
    *,
    json: Json = False,
) -> None:
    """Write all entries to one file, for another machine.

    It holds what users wrote where answers are kept on disk, in plain even if the cache is encrypted; only you can read it.
    """
    if not file.parent.is_dir() or file.is_dir():
        raise WrongUseError(f"{file}: cannot be written")

    async def write(store: "Store") -> int:
        count = 0
        with dump(file) as output, terminal.err().status("exporting") as status:
            async for entries in store.scan():
                await asyncio.to_thread(add, output, entries)
                count += len(entries)
                status.update(f"exporting, {count:,} so far")
            await healthy(store)
        return count

    count = with_store(write)
    if count is None:
        with dump(file):
            count = 0
    if json:
        terminal.write_json({"output": str(file), "entries": count})
    else:
        terminal.say(f"{_entries(count)} written to {file}")


@cache.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `cache export` has written.")],
    *,
    json: Json = False,
) -> None:
    """Put the entries of a file into the cache, beside or in place of what is there.

    They will answer in place of the service, so take only files that you trust.
    """
    skipped = 0

    async def read(store: "Store") -> int:
        nonlocal skipped
        count, size = 0, 0
        part: dict[str, bytes] = {}
        with terminal.err().status("importing") as status:
            for entry in load(file):
                if entry is None:
                    skipped += 1
                    continue
                part[entry[0]] = entry[1]
                size += len(entry[1])
                if len(part) >= _AT_ONCE or size >= _BYTES_AT_ONCE:
                    count, size = count + await _keep(store, part), 0
                    part = {}
                    status.update(f"importing, {count:,} so far")
            return count + await _keep(store, part)

    count = with_store(read, make=True) or 0
    if json:
        terminal.write_json({"entries": count, "skipped": skipped})
        return
    if skipped:
        terminal.say(f"{terminal.counted(skipped, 'line')} skipped, as they are no entries of a cache", "yellow")
    terminal.say(f"{_entries(count)} read from {file}")


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _entries(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


async def _keep(store: "Store", entries: dict[str, bytes]) -> int:
    await store.set_many(entries)
    await healthy(store)  # which waits until everything is written, so that nothing piles up and is dropped
    return len(entries)
