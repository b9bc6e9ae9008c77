"""What threads that talk to a Redis share: how they take their jobs, and let go of a client."""

from queue import SimpleQueue

import pytest

from resilient_ai.stores._redis_client import close, gather, hash_of


@pytest.fixture
def jobs():
    return SimpleQueue()


def test_all_jobs_that_are_there_are_taken_at_once(jobs):
    """In order, and those after the end are left."""
    for job in ("a", "b", None, "late"):
        jobs.put(job)
    assert gather(jobs, None) == (["a", "b"], False)
    assert gather(jobs, None) == (["late"], True)


def test_nothing_comes(jobs):
    """There may still be more."""
    assert gather(jobs, 0.0) == ([], True)


def test_no_more_jobs_are_taken_than_one_round_trip_holds(jobs):
    """The others wait for the next one."""
    for number in range(300):
        jobs.put(number)
    assert gather(jobs, None) == (list(range(256)), True)
    assert gather(jobs, None) == (list(range(256, 300)), True)


def test_a_client_that_cannot_be_closed_is_let_go():
    """As is none."""
    asked = []

    class Broken:
        def close(self):
            asked.append("close")
            raise OSError("gone")

    close(Broken())
    close(None)
    assert asked == ["close"]


def test_a_script_is_named_by_its_hash():
    """As Redis itself names it."""
    assert hash_of("return 1") == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
