"""What a cache holds, by model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from rich.table import Table

from resilient_ai.cli import terminal
from resilient_ai.cli._cache_store import unreadable

if TYPE_CHECKING:
    from resilient_ai.core.protocols import Inspectable, StoreUsage

_MODEL = slice(16, 32)  # of a key, which begins with the tenant


@dataclass(slots=True)
class Share:
    """What there is of one model: the one that was asked, and of several in one call the first.

    Args:
        digest: The digits that stand for the model in its keys.
        model: Its id, None where it is not in the catalogue.
        entries: How many there are.
        size: Bytes of their values.
    """

    digest: str
    model: str | None
    entries: int = 0
    size: int = 0


async def shares_of(store: "Inspectable", *, tenant: str | None = None) -> list[Share]:
    """Read everything once, and return what there is of each model, for one tenant or for all; the largest first."""
    from resilient_ai.deepinfra.catalogue import catalogue  # noqa: PLC0415 - data that other commands need not read
    from resilient_ai.inspection import model_part, tenant_part  # noqa: PLC0415 - slow to import

    names = {model_part(info.id): info.id for info in catalogue}
    beginning = "" if tenant is None else tenant_part(tenant)
    shares: dict[str, Share] = {}
    async for entries in store.scan():
        for key, value in entries.items():
            if not key.startswith(beginning):
                continue
            digest = key[_MODEL]
            share = shares.setdefault(digest, Share(digest, names.get(digest)))
            share.entries += 1
            share.size += len(value)
    return sorted(shares.values(), key=lambda share: (-share.size, share.digest))


def show(usage: "Sequence[StoreUsage]", shares: Sequence[Share]) -> None:
    """Show both to people."""
    for line in usage:
        limit = "" if line.limit is None else f" of {decimal(line.limit)}"
        size = "" if line.size is None else f", {decimal(line.size)}{limit}, overhead included"
        terminal.say(f"{line.name}{size}")
    missing = unreadable(usage)
    if missing:
        terminal.say(missing, "yellow")
    if shares:
        terminal.out().print(_table(shares))
    elif not missing:
        terminal.say("the cache is empty", "dim")


def document(usage: "Sequence[StoreUsage]", shares: Sequence[Share]) -> dict[str, Any]:
    """Return both for programs."""
    stores = [
        {
            "name": line.name,
            "entries": line.entries,
            "size": line.size,
            "limit": line.limit,
            "unreadable": line.refused,
        }
        for line in usage
    ]
    models = [
        {"model": share.model, "digest": share.digest, "entries": share.entries, "size": share.size} for share in shares
    ]
    return {"stores": stores, "models": models}


def _table(shares: Sequence[Share]) -> Table:
    table = Table(
        box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0), show_footer=True, footer_style="bold"
    )
    table.add_column("Model", "Total", overflow="fold")
    table.add_column("Entries", f"{sum(share.entries for share in shares):,}", justify="right", no_wrap=True)
    table.add_column("Size", decimal(sum(share.size for share in shares)), justify="right", no_wrap=True)
    for share in shares:
        table.add_row(share.model or f"[dim]{share.digest}[/dim]", f"{share.entries:,}", decimal(share.size))
    return table
