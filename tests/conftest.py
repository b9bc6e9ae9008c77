"""Fixtures of all tests: asynchronous tests run in virtual time unless their own folder says otherwise."""

import gc
import signal

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


# How long an example takes says more about the machine than about the code.
settings.register_profile("noisy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy")


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect():
    """The garbage collector looks at what a file of tests makes, and not time and again at the nine thousand tests."""
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """A run in the background is started with Ctrl-C ignored, and so would be all programs that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
