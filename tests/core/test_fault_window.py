"""When a store is left alone."""

from resilient_ai.core.fault_window import FaultWindow


def test_five_faults_in_a_minute_are_too_many():
    """The fifth begins a pause of a minute."""
    window = FaultWindow()
    for now in range(4):
        window.record(float(now))
    assert not window.paused(3.0)
    window.record(60.0)
    assert [window.paused(now) for now in (60.0, 119.0, 120.0)] == [True, True, False]
    assert window.total == 5


def test_faults_far_apart_do_not_add_up():
    """Five faults in more than a minute are borne."""
    window = FaultWindow()
    for now in range(0, 100, 20):
        window.record(float(now))
    assert not window.paused(80.0)
