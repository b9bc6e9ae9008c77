"""Faults by name: most of them over real sockets, so in real time."""

import pytest

from resilient_ai import Settings
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
    server.reset()
    return server


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path, cache="off")
