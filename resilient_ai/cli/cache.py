"""`resilient-ai cache`: what is kept on this machine, forgetting it, and taking it elsewhere."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli._cache_dump import add, dump
from resilient_ai.cli._cache_fill import Filled, fill
from resilient_ai.cli._cache_stats import Share, document, shares_of, show
from resilient_ai.cli._cache_store import entries, healthy, unreadable, with_store
from resilient_ai.cli.failures import CacheUnreachableError, WrongUseError, closest
from resilient_ai.cli.options import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_ai.cli._cache_store import Store
    from resilient_ai.core.protocols import StoreUsage

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
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Only what this model was asked; where a call names several, the first of them counts.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Clear everything without a question.")] = False,
    json: Json = False,
) -> None:
    """Forget entries: all of them, those of a tenant, of a model, or of both.

    Processes that run keep what they have in memory for up to a minute.
    """
    from resilient_ai.inspection import pattern  # noqa: PLC0415 - slow to import

    everything = tenant is None and model is None
    if everything and not yes:
        if not _is_terminal():
            raise WrongUseError("to clear everything without being asked, give --yes")
        typer.confirm("Clear everything that is cached?", abort=True, err=True)

    async def forget(store: "Store") -> tuple[int, str]:
        count = await store.delete_matching("*" if everything else pattern(tenant=tenant, model=model))
        await healthy(store)
        return count, "" if model is None or count or json else await _similar(store, model, tenant)

    count, hint = with_store(forget) or (0, "")
    if json:
        terminal.write_json({"cleared": count})
    else:
        terminal.say(f"{entries(count)} cleared{hint}")


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

    async def write(store: "Store") -> tuple[int, str | None]:
        count = 0
        with dump(file) as output, terminal.err().status("exporting") as status:
            async for page in store.scan():
                await asyncio.to_thread(add, output, page)
                count += len(page)
                status.update(f"exporting, {count:,} so far")
            missing = unreadable(await healthy(store))
            if missing and not count:
                raise CacheUnreachableError(missing)
        return count, missing

    written = with_store(write)
    if written is None:
        with dump(file):
            written = 0, None
    count, missing = written
    if json:
        terminal.write_json({"output": str(file), "entries": count})
    else:
        terminal.say(f"{entries(count)} written to {file}")
    if missing:
        raise CacheUnreachableError(missing)


@cache.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `cache export` has written.")],
    *,
    json: Json = False,
) -> None:
    """Put the entries of a file into the cache, beside or in place of what is there.

    They will answer in place of the service, so take only files that you trust.
    """

    async def read(store: "Store") -> Filled:
        return await fill(store, file)

    done = with_store(read, make=True) or Filled()
    if done.skipped and not json:
        terminal.say(f"{terminal.counted(done.skipped, 'line')} skipped, as they are no entries of a cache", "yellow")
    if done.damage is not None:
        raise WrongUseError(f"{done.damage}; what stood before that was read: {entries(done.entries)}")
    if json:
        terminal.write_json({"entries": done.entries, "skipped": done.skipped})
    else:
        terminal.say(f"{entries(done.entries)} read from {file}")


def _is_terminal() -> bool:
    return sys.stdin.isatty()


async def _similar(store: "Store", model: str, tenant: str | None) -> str:
    found = {share.model: share.entries for share in await shares_of(store, tenant=tenant) if share.model is not None}
    close = closest(model, found)
    return "" if close is None else f"; did you mean {close}, which has {entries(found[close])}?"
