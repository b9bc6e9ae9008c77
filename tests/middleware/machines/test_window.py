"""The sliding window of outcomes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_ai.middleware._machines.window import Window


def test_a_window_starts_empty():
    """Before anything is recorded there is nothing."""
    assert Window(30.0).totals(123.0) == (0, 0)


def test_an_outcome_leaves_with_its_bucket():
    """An outcome is counted until its three-second bucket is thirty seconds behind."""
    window = Window(30.0)
    window.record(100.0, failed=True)

    assert window.totals(128.9) == (1, 1)
    assert window.totals(129.0) == (0, 0)


def test_a_long_silence_empties_the_window():
    """After hours without calls nothing of before counts, and counting goes on."""
    window = Window(30.0)
    for second in range(100, 130):
        window.record(second, failed=second % 2 == 0)
    window.record(100_000.0, failed=False)

    assert window.totals(100_000.0) == (1, 0)


def test_time_that_runs_backwards_counts_as_no_time():
    """An outcome from an earlier clock goes into the newest bucket; nothing is lost or counted twice."""
    window = Window(30.0)
    window.record(1000.0, failed=True)
    window.record(5.0, failed=True)

    assert window.totals(5.0) == (2, 2)
    assert window.totals(1027.0) == (2, 2)
    assert window.totals(1030.0) == (0, 0)


def test_clear_forgets_everything():
    """After `clear` the window is empty and usable."""
    window = Window(30.0)
    window.record(1.0, failed=True)
    window.clear()
    window.record(2.0, failed=False)

    assert window.totals(2.0) == (1, 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=60))
def test_totals_equal_a_count_over_all_outcomes(steps):
    """The ring agrees with counting every outcome whose bucket is among the newest ten."""
    window, now, outcomes = Window(30.0), 500.0, []
    for pause, failed in steps:
        now += pause
        window.record(now, failed=failed)
        outcomes.append((int(now // 3.0), failed))
        recent = [fail for bucket, fail in outcomes if bucket > int(now // 3.0) - 10]
        assert window.totals(now) == (len(recent), sum(recent))
