"""A scene of the tour: the client with its default stack in front of a simulated service."""

from contextlib import asynccontextmanager

import pytest

from resilient_ai.cli.demo.scene import Scene
from resilient_ai.cli.demo.tally import Tally
from resilient_ai.client import AsyncClient
from resilient_ai.presets import default_stack
from resilient_ai.settings import Settings


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def scene_of(tmp_path):
    """Make a scene in front of a simulator."""

    @asynccontextmanager
    async def make(simulator, **settings):
        chosen = Settings(api_key="key", base_url=simulator.base_url, home=tmp_path / "home", **settings)
        tally = Tally()
        stack = [tally.count_calls, *default_stack(chosen)]
        async with AsyncClient(stack=stack, settings=chosen) as ai:
            ai.subscribe(tally.heard)
            yield Scene(
                ai=ai,
                stack=stack,
                ledger=ai.ledger,
                base_url=simulator.base_url,
                output=tmp_path,
                tally=tally,
                started=0.0,
                simulator=simulator,
            )

    return make
