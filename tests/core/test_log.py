"""The library's log, and handlers of the application that fail."""

import asyncio
import logging

import pytest

from resilient_ai.core.log import Log


@pytest.fixture
def logger():
    logger = logging.getLogger("tests.log")
    before = logger.handlers[:], logger.level
    yield logger
    logger.handlers, level = before
    logger.setLevel(level)


class Failing(logging.Handler):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def emit(self, record):
        raise self.fault


def test_lines_are_those_of_whoever_writes_them(logger, caplog):
    """With the level and the place where they were written."""
    log = Log("tests.log")
    with caplog.at_level(logging.DEBUG, "tests.log"):
        for write in (log.debug, log.info, log.warning, log.error):
            write("%s of %d", "one", 4)
    assert [record.levelname for record in caplog.records] == ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert {(record.getMessage(), record.funcName) for record in caplog.records} == {
        ("one of 4", "test_lines_are_those_of_whoever_writes_them")
    }


def test_an_exception_is_shown_with_its_stack(logger, caplog):
    """As what must not happen is looked into by whoever wrote it."""
    try:
        {}["lost"]
    except KeyError:
        Log("tests.log").exception("%s went wrong", "it")
    (record,) = caplog.records
    assert (record.levelname, record.getMessage(), record.exc_info[0]) == ("ERROR", "it went wrong", KeyError)


@pytest.mark.parametrize(
    "fault", [ValueError("disk full"), asyncio.CancelledError()], ids=lambda fault: type(fault).__name__
)
def test_a_handler_that_fails_harms_nobody(logger, caplog, fault):
    """Neither whoever writes nor the handlers before it."""
    logger.addHandler(Failing(fault))
    logger.setLevel(logging.DEBUG)
    with pytest.raises(type(fault)):
        logger.warning("as the standard library does it")
    Log("tests.log").warning("told")
    logger.addFilter(lambda record: 1 / 0)
    try:
        Log("tests.log").warning("lost")
    finally:
        logger.filters.clear()


def test_what_cannot_be_interpreted_is_no_fault_of_a_call(logger):
    """A message whose values do not fit is the handler's to complain about."""
    logger.addHandler(Failing(TypeError("not all arguments converted")))
    Log("tests.log").error("nothing", 1)
