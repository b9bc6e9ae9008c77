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
    """It is written in portions of 32, and other work takes its turn after the first."""
    pages = Pages()
    worker, goes_on, _ = blocked(pages)
    offer(worker, 70)
    seen = worker.submit(lambda: list(pages.portions))
    goes_on.set()
    assert seen.result() == [32]
    worker.finish().result()
    assert pages.portions == [32, 32, 6]


def test_finishing_writes_everything_and_closes(blocked):
    """Also while no more turns can be taken, and even if closing fails."""
    pages = Pages()
    worker, goes_on, _ = blocked(pages)
    assert [offer(worker, 64), offer(worker, 1)] == [True, True]
    done = worker.finish()
    goes_on.set()
    done.result()
    assert (pages.portions, pages.closed) == ([32, 32, 1], True)


def test_small_batches_share_a_turn(blocked):
    """What was written in three calls is there for the read that follows."""
    pages = Pages()
    worker, goes_on, _ = blocked(pages)
    for count in (1, 10, 30):
        offer(worker, count)
    seen = worker.submit(lambda: list(pages.portions))
    goes_on.set()
    assert seen.result() == [1, 10, 21]
    worker.finish().result()
    assert pages.portions == [1, 10, 21, 9]


def test_a_batch_that_fails_is_dropped(blocked):
    """The fault is reported with the batch's time, the rest of it is not tried, and the next one is."""
    pages = Pages(fails=[False, True])
    worker, goes_on, faults = blocked(pages)
    offer(worker, 96)
    offer(worker, 5)
    goes_on.set()
    worker.finish().result()
    assert (pages.portions, faults) == ([32, 5], [("disk full", 7.0)])


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
