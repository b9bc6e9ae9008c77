"""What every scenario is given and what it gives back."""

import json
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from resilient_ai import AsyncClient, Client, Settings
from resilient_ai.core.errors import ResilientAIError


@dataclass(frozen=True)
class Finding:
    """What was measured, in a few words, and whether it is what was aimed for."""

    text: str
    holds: bool


@dataclass(frozen=True)
class Bench:
    """The hostile server and a folder for the state of clients.

    Args:
        url: Where the server is, up to and with `/v1`.
        home: A folder that goes away.
    """

    url: str
    home: Path

    def settings(self) -> Settings:
        """Return the default settings with a home that nobody has used."""
        return Settings(home=Path(tempfile.mkdtemp(dir=self.home)))

    def client(self) -> AsyncClient:
        return AsyncClient(api_key="bench", base_url=self.url, settings=self.settings())

    def blocking_client(self) -> Client:
        return Client(api_key="bench", base_url=self.url, settings=self.settings())

    def requests(self, model: str) -> int:
        """Return how many requests for a model have reached the server."""
        return int(self._of(model, "requests"))

    def under_way(self, model: str) -> int:
        """Return how many requests for a model the server is answering."""
        return int(self._of(model, "under_way"))

    def gap(self, model: str) -> float:
        """Return the seconds between the last two requests for a model."""
        return self._of(model, "gap")

    def _of(self, model: str, field: str) -> float:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/log", timeout=5) as answer:
            counts: dict[str, dict[str, float]] = json.loads(answer.read())
        return counts.get(model, {}).get(field, 0.0)


async def seconds_to_fail(call: Callable[[], Awaitable[object]]) -> tuple[float, BaseException | None]:
    """Return how long a call takes to fail, and with what; None where it succeeds."""
    started = time.perf_counter()
    try:
        await call()
    except ResilientAIError as error:
        return time.perf_counter() - started, error
    return time.perf_counter() - started, None
