"""Events are frozen facts, and what they show of an error is its class."""

import dataclasses

import pytest

from resilient_ai.core.errors import ServerFailed
from resilient_ai.core.events import CircuitOpened, ModelSkipped, RetryScheduled


def test_an_event_shows_its_fields_and_of_an_error_the_class():
    """Whoever prints events must not print what a service or an exception has quoted."""
    error = ServerFailed("CANARY", status=500, body="CANARY")
    event = RetryScheduled(call_id="c", model="m", attempt=1, wait=0.5, error=error, retry_after=None)
    shown = "RetryScheduled(call_id='c', model='m', attempt=1, wait=0.5, error=<ServerFailed>, retry_after=None)"
    assert (repr(event), str(event), event.error) == (shown, shown, error)
    assert repr(CircuitOpened(call_id="c", model="m", retry_after=2.0)) == (
        "CircuitOpened(call_id='c', model='m', retry_after=2.0)"
    )


def test_events_are_frozen_and_equal_by_their_fields():
    """They can be kept, compared and put into sets."""
    error = KeyError("x")
    one, other = (ModelSkipped(call_id="c", model="m", next_model="n", error=error) for _ in range(2))
    assert one == other
    assert len({one, other}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.model = "n"
