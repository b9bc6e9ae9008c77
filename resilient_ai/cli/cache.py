"""`resilient-ai cache`: what is kept on this machine, forgetting it, and taking it elsewhere."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar, cast

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli._cache_dump import add, dump, load
from resilient_ai.cli._cache_stats import Share, document, shares_of, show
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.options import Json
from resilient_ai.core.errors import ResilientAIError
from resilient_ai.core.protocols import CacheStore, Inspectable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilient_ai.core.protocols import StoreUsage
    from resilient_ai.settings import Settings

T = TypeVar("T")

_AT_ONCE = 256
_BYTES_AT_ONCE = 16 << 20

cache = typer.Typer(
    no_args_is_help=True, help="Look at the cache that outlives a process, clear it, or take it elsewhere."
)


class Store(CacheStore, Inspectable, Protocol):
    """A store that can do everything that is needed here."""


class CacheUnreachableError(ResilientAIError):
    """The store did not do all that was asked of it."""


@cache.command()
def stats(*, json: Json = False) -> None:
    """Show where the cache is, how large it is, and what it holds by model."""

    async def look(store: Store) -> "tuple[Sequence[StoreUsage], list[Share]]":
        with terminal.err().status("counting"):
            shares = await shares_of(store)
        return await _healthy(store), shares

    usage, shares = _with_store(look) or ((), [])
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

    async def forget(store: Store) -> int:
        count = await store.delete_matching("*" if everything else pattern(tenant=tenant, model=model))
        await _healthy(store)
        return count

    count = _with_store(forget) or 0
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

    async def write(store: Store) -> int:
        count = 0
        with dump(file) as output, terminal.err().status("exporting") as status:
            async for entries in store.scan():
                await asyncio.to_thread(add, output, entries)
                count += len(entries)
                status.update(f"exporting, {count:,} so far")
            await _healthy(store)
        return count

    count = _with_store(write)
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

    async def read(store: Store) -> int:
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

    count = _with_store(read, make=True) or 0
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


async def _keep(store: Store, entries: dict[str, bytes]) -> int:
    await store.set_many(entries)
    await _healthy(store)  # which waits until everything is written, so that nothing piles up and is dropped
    return len(entries)


async def _healthy(store: Store) -> "Sequence[StoreUsage]":
    usage = await store.usage()
    for line in usage:
        if line.trouble is not None or line.faults:
            raise CacheUnreachableError(
                f"{line.name}: {line.trouble or 'something went wrong; not everything was done'}"
            )
    return usage


def _with_store(work: Callable[[Store], Awaitable[T]], *, make: bool = False) -> T | None:
    """Return what `work` gives, None where there is no store and it shall not be made."""
    from resilient_ai.settings import Settings  # noqa: PLC0415 - slow to import

    store = _store(Settings(), make=make)
    if store is None:
        return None

    async def run() -> T:
        try:
            return await work(store)
        finally:
            await store.aclose()

    return asyncio.run(run())


def _store(settings: "Settings", *, make: bool) -> Store | None:
    """Return the store of the default stack that outlives a process; None where it is a folder that is not there."""
    from resilient_ai.presets import home_of, lasting_store  # noqa: PLC0415 - slow to import

    home = home_of(settings.home)
    if settings.cache_redis_url is None and not make and not (home / "cache").is_dir():
        return None
    return cast("Store | None", lasting_store(settings, home))
