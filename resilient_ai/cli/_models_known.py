"""The models that `resilient-ai models` shows, and what has changed of them."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from resilient_ai.cli import terminal
from resilient_ai.cli.session import with_client

if TYPE_CHECKING:
    from resilient_ai.client import AsyncClient
    from resilient_ai.deepinfra.catalogue import CatalogueChanges, LiveCatalogue


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of models.

    Args:
        catalogue: The models.
        since: What they were compared with, in words.
        news: What a refresh has changed; None where there was none.
    """

    catalogue: "LiveCatalogue"
    since: str
    news: "CatalogueChanges | None" = None


def kept() -> Known:
    """Return what is on this machine: packaged, fetched by an earlier refresh, and said by a price file."""
    from resilient_ai.deepinfra.catalogue import catalogue  # noqa: PLC0415 - data that other commands need not read
    from resilient_ai.presets import live_catalogue  # noqa: PLC0415 - slow to import
    from resilient_ai.settings import Settings  # noqa: PLC0415 - slow to import

    return Known(catalogue=live_catalogue(Settings()), since=f"the packaged data of {catalogue.as_of}")


def refreshed(base_url: str | None) -> Known:
    """Ask the service for its lists, and return what is known with them."""

    async def ask(client: "AsyncClient") -> Known:
        live = client.catalogue.live
        fetched_at, as_of = live.fetched_at, live.as_of
        since = f"the packaged data of {as_of}" if fetched_at is None else f"the refresh of {_minute(fetched_at)}"
        with terminal.err().status("asking for the lists of models"):
            news = await client.catalogue.refresh()
        return Known(catalogue=live, since=since, news=news)

    return with_client(ask, base_url=base_url)


def show_changes(known: Known, *, json: bool, only: Collection[str] | None = None) -> None:
    """Write what has changed, of all models or of those named by their ids."""
    changes = known.catalogue.changes() if known.news is None else known.news
    if only is not None:
        changes = _narrowed(changes, only)
    if json:
        terminal.write_json({"since": known.since, **asdict(changes)})
        return
    if changes or changes.suspicious or changes.failed:
        terminal.show(f"{changes}\n")
    else:
        terminal.say("nothing has changed", "dim")
    terminal.say(f"since {known.since}; models as of {known.catalogue.as_of}", "dim")


def tell_news(news: "CatalogueChanges") -> None:
    """Say how much a refresh has changed, and what of it went wrong."""
    count = len(news.prices)
    terminal.say(
        f"{terminal.counted(count, 'price')} changed, {len(news.added)} new, {len(news.retired)} retired, "
        f"{len(news.removed)} no longer listed; --changes shows what has changed since the package",
        "dim",
    )
    for problem in (*news.failed, *map(str, news.suspicious)):
        terminal.say(f"not believed or not read: {terminal.one_line(problem)}", "yellow")


def _narrowed(changes: "CatalogueChanges", only: Collection[str]) -> "CatalogueChanges":
    return replace(
        changes,
        **{
            name: tuple(one for one in getattr(changes, name) if one in only)
            for name in ("added", "removed", "retired")
        },
        **{
            name: tuple(one for one in getattr(changes, name) if one.model in only)
            for name in ("prices", "facts", "suspicious")
        },
    )


def _minute(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
