"""Turns on shared state."""

import gc
import threading

import pytest

from resilient_ai.middleware._machines.turns import Turns

pytestmark = pytest.mark.timeout(20)


def test_work_is_done_at_once_when_nobody_has_the_turn():
    """Without contention `post` does the work before it returns."""
    log = []
    Turns().post(lambda: log.append("done"))
    assert log == ["done"]


def test_work_that_is_posted_within_a_turn_is_done_after_it():
    """The thread that has the turn does not wait for itself."""
    turns, log = Turns(), []
    with turns:
        turns.post(lambda: log.append("posted"))
        log.append("turn")
    assert log == ["turn", "posted"]


def test_the_garbage_collector_may_post_in_the_middle_of_a_turn():
    """A finalizer that runs inside of a turn of its own thread neither blocks nor is lost."""
    turns, log = Turns(), []

    class Abandoned:
        def __init__(self):
            self.itself = self

        def __del__(self):
            turns.post(lambda: log.append("given back"))

    Abandoned()
    with turns:
        gc.collect()
        assert log == []
    assert log == ["given back"]


def test_what_work_returns_is_called_outside_of_the_turn():
    """A listener may take a turn itself."""
    turns, log = Turns(), []

    def listener():
        with turns:
            log.append("listener")

    turns.post(lambda: listener)
    assert log == ["listener"]


def test_a_turn_ends_when_its_body_raises():
    """An error in a turn does not keep the others out."""
    turns, log = Turns(), []
    with pytest.raises(KeyError), turns:
        raise KeyError
    turns.post(lambda: log.append("done"))
    assert log == ["done"]


def test_a_forked_child_begins_afresh():
    """Nobody holds a turn there; what the parent had posted is the parent's; who wants to know is told."""
    turns, log = Turns(), []
    with turns:
        turns.post(lambda: log.append("of the parent"))
        turns.forked = lambda: log.append("forked")
        turns.begin_afresh()
        assert log == ["forked"]
        turns.post(lambda: log.append("of the child"))
        assert log == ["forked", "of the child"]
        turns.__enter__()
    assert log == ["forked", "of the child"]


def test_a_forked_child_that_nobody_asks_about():
    """Without a listener it begins afresh all the same."""
    turns, log = Turns(), []
    turns.begin_afresh()
    turns.post(lambda: log.append("done"))
    assert log == ["done"]


def test_no_work_is_lost_between_threads():
    """Eight threads post and enter at once; every piece of work is done exactly once."""
    turns, count = Turns(), [0]

    def add():
        count[0] = count[0] + 1

    def work():
        for _ in range(2_000):
            turns.post(add)
            with turns:
                add()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == [32_000]
