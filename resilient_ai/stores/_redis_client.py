"""A blocking client of Redis for a thread of its own: one connection, nothing repeated behind our back."""

from collections.abc import Callable
from typing import Any, Protocol, cast

from resilient_ai.stores._redis_address import package_missing, unusable


class Client(Protocol):
    """What of a Redis client is used."""

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: str) -> Any:
        """Run a script that the server knows."""
        ...

    def script_load(self, script: str) -> Any:
        """Make a script known to the server."""
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
