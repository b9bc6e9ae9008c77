"""Fixtures of all tests: asynchronous tests run in virtual time unless their own folder says otherwise."""

import pytest

from resilient_ai.testing import FakeClock, VirtualLoop


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def clock():
    return FakeClock()
