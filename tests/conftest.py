"""Fixtures of all tests: asynchronous tests run in virtual time unless their own folder says otherwise."""

import pytest
from hypothesis import HealthCheck, Phase, settings

from resilient_ai.testing import FakeClock, VirtualLoop

# For `make mutation`: the same examples for every mutant, no time spent on a short counterexample, and slowness kills nobody.
settings.register_profile(
    "mutation",
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def clock():
    return FakeClock()
