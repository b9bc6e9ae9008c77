"""Fixtures of the stores: threads and files need real time, and what is opened is closed."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from resilient_ai.stores import DiskStore, SQLiteLedger

NOBODY = 65534


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def open_store(tmp_path):
    stores = []

    def make(directory=None, **options):
        stores.append(DiskStore(directory or tmp_path / "cache", **({"timeout": 20.0} | options)))
        return stores[-1]

    yield make
    for store in stores:
        asyncio.run(store.aclose())


@pytest.fixture
def open_ledger(tmp_path):
    ledgers = []

    def make(path=None, **options):
        ledgers.append(SQLiteLedger(path or tmp_path / "ledger.db", **options))
        return ledgers[-1]

    yield make
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def unprivileged():
    """A folder of an ordinary user, and a context in which the test is that user; root may write everywhere."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, -1)
        yield folder, _as_nobody
        folder.chmod(0o700)


@contextmanager
def _as_nobody() -> Iterator[None]:
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def in_child():
    """Run a function in a forked child; its return value says whether all is well there."""

    def run(function):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if function() else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return run
