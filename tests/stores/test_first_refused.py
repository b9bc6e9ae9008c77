"""The warning about entries that a store refuses."""

import logging

from resilient_ai.stores._first_refused import FirstRefused


def test_it_warns_once(caplog):
    """At the first that is refused, and never again."""
    first = FirstRefused("store %s: no", "x")
    first.note(0)
    assert caplog.records == []
    for refused in (2, 1, 0):
        first.note(refused)
    assert caplog.record_tuples == [("resilient_ai.stores", logging.WARNING, "store x: no")]
