"""A queue and its thread: what is put in is done in order, whenever it comes."""

import threading
import time
from concurrent.futures import Future

import pytest

from resilient_ai.stores._worker import Worker


@pytest.fixture
def crew():
    """Make workers, and end their threads."""
    workers = []

    def make(work, end=lambda: None, **options):
        workers.append(Worker("test", work, end, **options))
        return workers[-1]

    yield make
    for worker in workers:
        worker.finish(0.0).result(10)


def test_everything_is_done_in_order_and_in_groups(crew):
    """No group is larger than it may be, and nobody waits for the last one."""
    groups = []
    worker = crew(lambda items: groups.append(list(items)), most=7, gather=0.01)
    for number in range(100):
        worker.put(number)
    worker.finish(5.0).result(10)
    assert [item for group in groups for item in group] == list(range(100))
    assert max(map(len, groups)) == 7


def test_the_thread_begins_with_the_first_item_and_ends_with_the_last(crew):
    """And once more where it is used again."""
    ended = []
    worker = crew(lambda items: None, lambda: ended.append(threading.current_thread().name))
    assert not worker.running
    for time_of_it in (1, 2):
        worker.put("a")
        worker.finish(5.0).result(10)
        assert (worker.running, ended) == (False, ["test"] * time_of_it)


def test_whoever_waits_for_a_mark_does_not_wait_for_more(crew):
    """A group is gathered for a while, but not where one of it is awaited."""
    worker = crew(lambda items: [item.set_result(None) for item in items], gather=30.0)
    mark = Future()
    worker.put(mark, awaited=True)
    assert mark.result(10) is None


def test_whoever_waits_for_a_mark_does_not_wait_for_more_behind_a_full_group(crew):
    """Nor where so much was put in before it that it is in a later group."""
    worker = crew(lambda items: [item.set_result(None) for item in items], gather=30.0, apart=30.0, most=2)
    marks = [Future() for _ in range(5)]
    for mark in marks[:-1]:
        worker.put(mark)
    worker.put(marks[-1], awaited=True)
    assert [mark.result(10) for mark in marks] == [None] * 5


def test_groups_are_apart(crew):
    """What comes soon after a group is gathered until the next one may begin."""
    begun = []

    def work(items):
        begun.append((time.monotonic(), len(items)))
        for item in items:
            item.set_result(None)

    worker = crew(work, gather=0.001, apart=0.2)
    first, second, third = Future(), Future(), Future()
    worker.put(first, awaited=True)
    first.result(10)
    worker.put(second)
    worker.put(third)
    third.result(10)
    (before, _), (after, size) = begun
    assert size == 2
    assert after - before >= 0.2


def test_work_is_called_now_and_then(crew):
    """Also where nothing came."""
    called = threading.Semaphore(0)
    worker = crew(lambda items: items or called.release(), every=0.01)
    worker.put("a")
    assert all(called.acquire(timeout=10) for _ in range(3))


def test_putting_in_while_the_thread_is_being_started_waits_for_nobody(crew):
    """As the garbage collector does, in the very thread that starts it."""
    seen = []
    worker = crew(seen.extend)
    with worker._starting:
        worker.put("in between")
    assert not worker.running
    worker.put("later")
    worker.finish(5.0).result(10)
    assert seen == ["in between", "later"]


def test_without_a_thread_everything_waits(crew, monkeypatch):
    """Until one can be had."""
    seen = []
    worker = crew(seen.extend)

    def none_left(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        worker.put(1)
    assert (worker.running, worker.waiting) == (False, 1)
    worker.put(2)
    worker.finish(5.0).result(10)
    assert seen == [1, 2]


def test_a_pause_ends_when_somebody_wants_to_finish(crew):
    """It is tried in short steps from then on, until there is no time left."""
    steps, begun = [], threading.Event()

    def work(items):
        begun.set()
        while items and worker.pause(60.0):
            steps.append(time.monotonic())

    worker = crew(work)
    worker.put("a")
    begun.wait(10)
    # Steps of a tenth of a second, some of which may take much longer on a busy machine.
    worker.finish(1.0).result(10)
    assert 2 <= len(steps) <= 10


def test_what_is_put_in_while_the_thread_ends_is_done(crew):
    """By another one."""
    seen, ending, goes_on = [], threading.Event(), threading.Event()

    def end():
        ending.set()
        goes_on.wait(10)

    worker = crew(seen.extend, end)
    worker.put("early")
    finished = worker.finish(5.0)
    ending.wait(10)
    worker.put("late")
    goes_on.set()
    finished.result(10)
    worker.finish(5.0).result(10)
    assert seen == ["early", "late"]


def test_work_that_fails_is_told_and_does_not_end_the_thread(crew, caplog):
    """What comes later is done."""
    seen = []

    def work(items):
        seen.extend(items)
        if items == ["bad"]:
            raise KeyError("unexpected")

    worker = crew(work, most=1)
    for item in ("bad", "good"):
        worker.put(item)
    worker.finish(5.0).result(10)
    assert seen == ["bad", "good"]
    assert "thread test: something went wrong that must not" in caplog.text


def test_what_is_put_in_while_another_starts_the_thread_is_done(crew, monkeypatch):
    """Whoever starts it may be held up until the thread has come and gone; it then looks for what nobody could start it for."""
    seen, held_up, goes_on = [], threading.Event(), threading.Event()
    worker = crew(seen.extend)
    start = threading.Thread.start

    def slowly(thread):
        start(thread)
        if thread.name == "test" and not held_up.is_set():
            held_up.set()
            goes_on.wait(10)

    monkeypatch.setattr(threading.Thread, "start", slowly)
    starter = threading.Thread(target=lambda: worker.put("early"))
    start(starter)
    held_up.wait(10)
    worker.finish(5.0).result(10)
    late = worker.finish(5.0)
    goes_on.set()
    late.result(10)
    starter.join(10)
    assert seen == ["early"]
