import pytest

from resilient_ai.cli.demo.tally import Tally
from resilient_ai.core.events import (
    BatchDone,
    CacheLookedUp,
    CircuitClosed,
    CircuitHalfOpened,
    CircuitOpened,
    PermitGranted,
    SendSettled,
    SendStarted,
)
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import Usage
from resilient_ai.testing import ScriptedProvider

COMMON = {"call_id": "c", "model": "m"}


def settled(usage):
    return SendSettled(**COMMON, send_id="s", state="settled", cost=None, usage=usage, error=None, elapsed=1.0)


def test_events_are_counted():
    """Each event adds to its sum, and unknown tokens add nothing."""
    tally = Tally()
    for event in (
        SendStarted(**COMMON, number=1),
        settled(Usage(input_tokens=3)),
        settled(Usage(output_tokens=4)),
        settled(None),
        CacheLookedUp(**COMMON, outcome="hit", hits=2, misses=0),
        CacheLookedUp(**COMMON, outcome="hit", hits=1, misses=0),
        PermitGranted(**COMMON, waited=0.5),
        PermitGranted(**COMMON, waited=0.25),
        CircuitOpened(**COMMON, retry_after=1.0),
        CircuitHalfOpened(**COMMON),
        CircuitClosed(**COMMON),
        BatchDone(**COMMON, done=1, total=2),
    ):
        tally.heard(event)
    assert tally == Tally(
        sends=1,
        input_tokens=3,
        output_tokens=4,
        hits=3,
        queued=2,
        longest_wait=0.5,
        opened=1,
        half_opened=1,
        closed=1,
    )


@pytest.mark.anyio
async def test_calls_are_counted_by_a_middleware():
    """A bound method is a middleware."""
    tally = Tally()
    await Pipeline(ScriptedProvider(), [tally.count_calls]).send(Chat(model="m", messages="hi"))
    assert tally.calls == 1
