"""Here the trials make their own loops; the garbage collector looks when it is told to, and only at what they leave."""

import gc

import pytest


@pytest.fixture(scope="package", autouse=True)
def _little_to_collect():
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _tidy():
    yield
    gc.collect()
