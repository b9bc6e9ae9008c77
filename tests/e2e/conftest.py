"""End-to-end tests: real sockets, so real time; the simulator stands for DeepInfra."""

import time

import pytest

from resilient_ai import AsyncClient, Settings
from resilient_ai.simulator import serve


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def server():
    with serve() as sim:
        yield sim


@pytest.fixture
def sim(server):
    # What the test before left under way would be counted and billed in this one's books.
    end = time.monotonic() + 10
    while server.stats().in_flight:
        assert time.monotonic() < end
        time.sleep(0.005)
    server.reset()
    return server


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path)


@pytest.fixture
async def ai(sim, settings):
    async with AsyncClient(api_key="test-key", base_url=sim.base_url, settings=settings) as client:
        yield client
