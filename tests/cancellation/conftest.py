"""Here the trials make their own loops; the garbage collector looks when it is told to, and only at what they leave."""

import gc

import pytest


@pytest.fixture(scope="package", autouse=True)
def _collected_when_told():
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def _tidy():
    yield
    gc.collect()
    gc.freeze()
