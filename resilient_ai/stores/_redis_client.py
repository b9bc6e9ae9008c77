"""What a thread that talks to a Redis needs: its jobs, and a client of one connection that repeats nothing behind our back."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar, cast

from resilient_ai.stores._redis_address import package_missing, unusable

Job = TypeVar("Job")

_MOST = 256  # jobs in one round trip


class Client(Protocol):
    """What of a Redis client is used."""

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: str) -> Any:
        """Run a script that the server knows."""
        ...

    def script_load(self, script: str) -> Any:
        """Make a script known to the server."""
        ...

    def pipeline(self, *, transaction: bool) -> Any:
        """Begin a list of commands that travel together."""
        ...

    def info(self, section: str) -> Any:
        """Return what the server says of itself."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def client_of(url: str, timeout: float) -> tuple[Callable[[], Client], type[Exception]]:
    """Return what makes a client, and the error of a server that does not know a script.

    Raises:
        ConfigurationError: If the package `redis` is missing, or `url` cannot be used.
    """
    try:
        from redis import Redis  # noqa: PLC0415 - it takes a third of a second, and who shares nothing needs none
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.exceptions import NoScriptError  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415
    except ImportError:
        raise package_missing() from None

    def connect() -> Client:
        # The client's own annotations leave open what else may be given.
        from_url = cast("Callable[..., Client]", Redis.from_url)  # pyright: ignore[reportUnknownMemberType]
        retry = Retry(NoBackoff(), 0)
        return from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=retry, max_connections=1, protocol=2
        )

    try:
        connect().close()
    except Exception as error:  # noqa: BLE001 - its text may quote the password
        raise unusable(error) from None
    return connect, NoScriptError


def evicts(client: Client) -> str | None:
    """Return in words that the server throws keys away where its memory is full; None where it does not, or does not say."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 - as above

    try:
        about = client.info("memory")
    except ResponseError:  # it is not allowed, and the server may be a good one
        return None
    policy = about.get("maxmemory_policy", "noeviction")
    if not about.get("maxmemory") or policy == "noeviction":
        return None
    return (
        f"throws keys away where its memory is full (maxmemory-policy {policy}), and what was spent of budgets among them;"
        " set it to noeviction"
    )


def close(client: Client | None) -> None:
    """Close a client, if there is one; a broken connection cannot be closed better."""
    if client is not None:
        with suppress(Exception):
            client.close()


def gather(jobs: SimpleQueue[Job | None], within: float | None) -> tuple[list[Job], bool]:
    """Wait for jobs, for so many seconds or for ever; return what is there, and whether there will be more."""
    found: list[Job] = []
    with suppress(Empty):
        item = jobs.get(timeout=within)
        while item is not None:
            found.append(item)
            if len(found) == _MOST:
                return found, True
            item = jobs.get_nowait()
        return found, False
    return found, True


@cache
def hash_of(script: str) -> str:
    """Return the name by which Redis knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
