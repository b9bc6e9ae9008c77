"""The end: everything at once, within one time, in threads that are there before it."""

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from resilient_ai.observability._ending import Ending, say


@pytest.fixture
def gate():
    """What holds work up, until the test is over."""
    gate = threading.Event()
    yield gate
    gate.set()


def within(ending, timeout):
    """Begin the end, and wait for it."""
    assert ending.begin()
    return ending.wait(timeout)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "resilient-ai-telemetry"]


def test_everything_is_done_at_once(caplog):
    """Each piece of work waits here for the other one."""
    both = threading.Barrier(2, timeout=10)
    assert within(Ending({"a": both.wait, "b": both.wait}), 10)
    assert caplog.text == ""


def test_what_hangs_is_named(gate, caplog):
    """What is done in the same time is done; nameless work is not told, but counts."""
    done = []
    ending = Ending({"traces": gate.wait, "metrics": lambda: done.append(1), "": gate.wait})
    started = time.monotonic()
    assert not within(ending, 0.1)
    assert time.monotonic() - started < 5
    assert done == [1]
    assert caplog.messages == ["telemetry is lost, as it was not taken within 0.1 s: traces"]


def test_it_is_said_what_is_waited_for(gate, caplog):
    """After two seconds, once; where it comes in time after all, nothing is lost."""
    threading.Timer(2.2, gate.set).start()
    assert within(Ending({"traces": gate.wait}), 20)
    assert caplog.messages == ["the end of telemetry waits up to 18 s more for traces"]


@pytest.mark.parametrize("broken", [lambda: False, lambda: {}["secret"]], ids=["no", "raises"])
def test_what_fails_fails_nobody(broken, caplog):
    """It is done, and it was not well; an error is logged by its name."""
    assert not within(Ending({"a": broken, "b": bool}), 10)
    assert "secret" not in caplog.text
    assert caplog.messages in ([], ["telemetry could not be handed over: KeyError"])


def test_who_comes_second_waits_as_long_as_the_first(gate, caplog):
    """It begins nothing anew, says nothing, and gives up in its own time, or when the first one does."""
    ending = Ending({"traces": gate.wait})
    assert not ending.is_begun
    assert ending.begin()
    assert ending.is_begun
    assert not ending.begin()
    assert not ending.wait_as_well(0.05)
    assert caplog.messages == []
    assert not ending.wait(0.05)
    started = time.monotonic()
    assert not ending.wait_as_well(60)
    assert time.monotonic() - started < 30
    gate.set()
    for thread in threads():
        thread.join(10)
    assert ending.wait_as_well(60)


@pytest.mark.parametrize(
    ("name", "told"), [("traces", ["the end of telemetry was interrupted while it waited for traces"]), ("", [])]
)
def test_who_is_interrupted_says_so(name, told, gate, caplog):
    """What it waited for is named, unless it has no name, and goes on; whoever comes then waits for it."""
    ending = Ending({name: gate.wait})
    assert ending.begin()
    threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        ending.wait(60)
    assert caplog.messages == told
    gate.set()
    assert ending.wait_as_well(60)


def test_what_is_forgotten_is_not_done():
    """Its threads end."""
    before, done = threads(), []
    ending = Ending({"a": lambda: done.append(1)})
    (thread,) = set(threads()) - set(before)
    ending.forget()
    thread.join(10)
    assert (thread.is_alive(), done) == (False, [])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a process with threads is forked
def test_a_child_has_threads_of_its_own():
    """What is to be done at the end of a forked process is done there, and by it alone."""
    read, write = os.pipe()
    ending = Ending({"a": lambda: os.write(write, b"%d " % os.getpid())})
    child = os.fork()
    if child == 0:
        os._exit(0 if within(ending, 10) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert within(ending, 10)
    os.close(write)
    with os.fdopen(read) as told:
        assert told.read().split() == [str(child), str(os.getpid())]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_a_child_of_one_that_has_ended_has_none():
    """There is nothing left to do."""
    ending = Ending({"a": bool})
    within(ending, 10)
    child = os.fork()
    if child == 0:
        os._exit(len(threads()))
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # as above
def test_a_child_of_one_that_is_ending_waits_for_nothing(gate):
    """What is under way is the parent's."""
    ending = Ending({"a": gate.wait})
    ending.begin()
    child = os.fork()
    if child == 0:
        os._exit(0 if ending.wait_as_well(60) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_who_hears_no_log_is_told_on_the_error_channel(capsys, monkeypatch):
    """And nobody, where there is none, or it is closed."""
    log = logging.getLogger("resilient_ai")
    monkeypatch.setattr(log, "propagate", False)
    monkeypatch.setattr(log, "handlers", [logging.NullHandler()])
    say("something is lost")
    assert capsys.readouterr().err == "resilient_ai: something is lost\n"
    monkeypatch.setattr(sys, "stderr", None)
    say("nobody hears")
    with Path(os.devnull).open("w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
    say("nobody hears")
