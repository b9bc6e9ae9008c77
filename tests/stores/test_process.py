"""Names of processes."""

import os
import subprocess
import sys

import pytest

from resilient_ai.stores._process import identity


@pytest.fixture
def child():
    """A process that waits until its input is closed."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as it:
        yield it


def test_a_process_keeps_its_name(child):
    """It is the same at every look, and another process has another."""
    assert identity(os.getpid()) == identity(os.getpid()) is not None
    assert identity(child.pid) not in {None, identity(os.getpid())}


def test_a_process_that_has_ended_has_no_name(child):
    """Also while its parent has not looked yet, and after that."""
    assert identity(child.pid) is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identity(child.pid) is None
    child.wait()
    assert identity(child.pid) is None


def test_a_number_that_nobody_has():
    """It names nobody."""
    assert identity(2**30) is None
