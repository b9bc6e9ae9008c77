"""Pins: which model a conversation keeps to."""

from resilient_ai.middleware._machines.pins import Pins


def test_a_conversation_keeps_to_the_model_that_served_last():
    """It is known until somebody else serves."""
    pins = Pins(most=10, silence=60.0)
    assert pins.get("a", 0.0) is None
    pins.keep("a", "m", 0.0)
    assert pins.get("a", 1.0) == "m"
    pins.keep("a", "n", 1.0)
    assert (pins.get("a", 1.0), len(pins)) == ("n", 1)


def test_silence_ends_it_and_every_turn_prolongs_it():
    """An hour counts from the last turn, not from the first."""
    pins = Pins(most=10, silence=60.0)
    pins.keep("a", "m", 0.0)
    pins.keep("a", "m", 50.0)
    assert pins.get("a", 110.0) == "m"
    assert pins.get("a", 110.1) is None


def test_the_most_silent_is_forgotten_for_a_new_one():
    """However many conversations there are, memory stays bounded."""
    pins = Pins(most=3, silence=60.0)
    for number in range(3):
        pins.keep(str(number), "m", 0.0)
    pins.keep("0", "m", 1.0)
    pins.keep("3", "m", 1.0)
    assert [pins.get(str(number), 1.0) for number in range(4)] == ["m", None, "m", "m"]
    for number in range(1000):
        pins.keep(str(number), "m", 2.0)
    assert len(pins) == 3
