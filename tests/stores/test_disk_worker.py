"""The thread of the store on disk."""

import threading

import pytest

from resilient_ai.stores._disk_worker import DiskWorker


class Pages:
    """A file that remembers in what portions it was written."""

    def __init__(self, fails=()):
        self.portions = []
        self.fails = list(fails)
        self.closed = False

    def set(self, entries, *, ttl, created):
        if self.fails and self.fails.pop(0):
            raise OSError("disk full")
        self.portions.append(len(entries))

    def close(self):
        self.closed = True
        raise OSError("cannot be closed")


@pytest.fixture
def blocked():
    """A worker whose thread waits until it is told to go on."""
    workers = []

    def make(pages):
        faults = []
        worker = DiskWorker(pages, lambda error, at: faults.append((str(error), at)))
        goes_on = threading.Event()
        worker.submit(goes_on.wait)
        workers.append(goes_on)
        return worker, goes_on, faults

    yield make
    for goes_on in workers:
        goes_on.set()


def offer(worker, count, size=1):
    value = bytes(size)
    return worker.offer({f"{n}": value for n in range(count)}, ttl=None, wall=0.0, monotonic=7.0)


def test_a_large_batch_lets_reads_in_between(blocked):
    """It is written in portions of 128, and other work takes its turn after the first."""
    pages = Pages()
    worker, goes_on, _ = blocked(pages)
    offer(worker, 270)
    seen = worker.submit(lambda: list(pages.portions))
    goes_on.set()
    assert seen.result() == [128]
    worker.finish().result()
    assert pages.portions == [128, 128, 14]


def test_finishing_writes_everything_and_closes(blocked):
    """Also while no more turns can be taken, and even if closing fails."""
    pages = Pages()
    worker, goes_on, _ = blocked(pages)
    assert [offer(worker, 256), offer(worker, 1)] == [True, True]
    done = worker.finish()
    goes_on.set()
    done.result()
    assert (pages.portions, pages.closed) == ([128, 128, 1], True)


def test_small_batches_share_a_turn(blocked):
    """What was written in three calls is there for the read that follows."""
    pages = Pages()
    worker, goes_on, _ = blocked(pages)
    for count in (1, 10, 126):
        offer(worker, count)
    seen = worker.submit(lambda: list(pages.portions))
    goes_on.set()
    assert seen.result() == [1, 10, 117]
    worker.finish().result()
    assert pages.portions == [1, 10, 117, 9]


def test_a_batch_that_fails_is_dropped(blocked):
    """The fault is reported with the batch's time, the rest of it is not tried, and the next one is."""
    pages = Pages(fails=[False, True])
    worker, goes_on, faults = blocked(pages)
    offer(worker, 384)
    offer(worker, 5)
    goes_on.set()
    worker.finish().result()
    assert (pages.portions, faults) == ([128, 5], [("disk full", 7.0)])


def test_only_so_many_bytes_wait(blocked):
    """64 MiB."""
    pages = Pages()
    worker, goes_on, _ = blocked(pages)
    assert offer(worker, 16, 4 * 2**20)
    assert not offer(worker, 1)
    goes_on.set()
    worker.submit(worker.drain).result()
    assert offer(worker, 1)
    worker.finish().result()


def test_forgotten_batches_are_not_written(blocked):
    """And new ones are."""
    pages = Pages()
    worker, goes_on, _ = blocked(pages)
    offer(worker, 10)
    worker.forget()
    offer(worker, 3)
    goes_on.set()
    worker.finish().result()
    assert pages.portions == [3]


def test_what_is_to_happen_after_the_batches_waits_for_them(blocked):
    """It sees what was offered before it and not what was offered later, and what is submitted gets in between."""
    pages = Pages()
    worker, goes_on, _ = blocked(pages)
    offer(worker, 200)
    after = worker.after(lambda: list(pages.portions))
    offer(worker, 5)
    between = worker.submit(lambda: list(pages.portions))
    goes_on.set()
    assert (between.result(), after.result()) == ([128], [128, 72])
    worker.finish().result()
    assert pages.portions == [128, 72, 5]


def test_forgetting_batches_keeps_what_was_to_happen_after_them(blocked):
    """Whoever waits for it is answered."""
    pages = Pages()
    worker, goes_on, _ = blocked(pages)
    offer(worker, 10)
    after = worker.after(lambda: list(pages.portions))
    worker.forget()
    goes_on.set()
    assert after.result() == []
    worker.finish().result()


def test_what_happens_after_the_batches_may_fail_or_be_called_off(blocked):
    """The error is that of the future, a cancelled one does not run, and the thread goes on."""
    pages = Pages()
    worker, goes_on, _ = blocked(pages)
    fails, called_off, last = worker.after(int, "x"), worker.after(pages.close), worker.after(int, "7")
    called_off.cancel()
    goes_on.set()
    assert (last.result(), pages.closed) == (7, False)
    with pytest.raises(ValueError, match="invalid literal"):
        fails.result()
    worker.finish().result()


def test_a_thread_that_has_ended_takes_nothing_more(blocked):
    """Batches are not taken, and work is refused."""
    worker, goes_on, _ = blocked(Pages())
    done = worker.finish()
    assert not offer(worker, 1)
    with pytest.raises(RuntimeError, match="has ended"):
        worker.after(list)
    goes_on.set()
    done.result()


def test_the_end_of_python_is_the_end_of_the_thread(blocked):
    """When no thread takes work any more, batches are not taken."""
    worker, goes_on, _ = blocked(Pages())
    goes_on.set()
    worker._executor.shutdown()
    assert not offer(worker, 1)
