"""Logging in applications of every kind: it shows where they have set up logging, and sets up nothing itself."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, logging, sys
from resilient_ai.core.errors import ServerFailed
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import Logging, Retry, Tracing
from resilient_ai.testing import FakeClock, ScriptedProvider, chat_result, run

{setup}

def state():
    loggers = [logging.getLogger(), logging.getLogger("httpx"), logging.getLogger("asyncio")]
    return [(list(one.handlers), list(one.filters), one.level) for one in loggers], logging.getLogRecordFactory()

def of_structlog():
    import structlog
    return structlog.is_configured(), repr(structlog.get_config())

before, configured = state(), of_structlog() if "structlog" in sys.modules else None
failure = ServerFailed("CANARY-ERROR", status=500, body="CANARY-BODY", request_id="r1")
provider = ScriptedProvider(failure, chat_result("CANARY-ANSWER"), failure, failure)
pipeline = Pipeline(provider, [Tracing(), Logging(), Retry(attempts=2)], clock=FakeClock())
chat = Chat(model="m", messages="CANARY-PROMPT")

async def main():
    await pipeline.send(chat, tags={{"tenant": "acme"}})
    try:
        await pipeline.send(chat)
    except ServerFailed:
        {on_failure}

run(main())
assert state() == before
assert configured is None or of_structlog() == configured
assert of_structlog()[0] is (configured or [False])[0]
assert logging.getLogger("resilient_ai").level == logging.NOTSET
assert [type(handler) for handler in logging.getLogger("resilient_ai").handlers] == [logging.NullHandler]
"""

JSON_OF_STRUCTLOG = """
import structlog
shared = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.ExtraAdder(),
]
structlog.configure(
    processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(structlog.stdlib.ProcessorFormatter(
    foreign_pre_chain=shared,
    processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
))
logging.getLogger().addHandler(handler)
logging.getLogger().setLevel(logging.INFO)
structlog.contextvars.bind_contextvars(request="r-17")
"""

PRINTING = """
import structlog
structlog.configure(
    processors=[structlog.processors.add_log_level, structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()],
    logger_factory=structlog.PrintLoggerFactory(),
)
"""


def ran(setup, on_failure="pass"):
    """Run the program of an application, and return what it wrote to its two streams."""
    program = PROGRAM.format(setup=setup, on_failure=on_failure)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert on_failure != "pass" or "CANARY" not in done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("setup", ["", "import structlog", "logging.getLogger('resilient_ai').propagate = False"])
def test_an_application_without_logging(setup):
    """Nothing is printed, warnings neither, and nothing is set up."""
    assert ran(setup) == ("", "")


def test_plain_logging():
    """The events show by name, at the levels that were asked for."""
    out, err = ran("logging.basicConfig(level=logging.INFO)")
    assert out == ""
    assert err.splitlines() == [
        "WARNING:resilient_ai:resilient_ai.retry",
        "INFO:resilient_ai:resilient_ai.call",
        "WARNING:resilient_ai:resilient_ai.retry",
        "WARNING:resilient_ai:resilient_ai.call",
    ]


def test_plain_logging_with_a_format_of_its_own():
    """Fields are attributes of the record."""
    setup = (
        "logging.basicConfig(level=logging.WARNING, format='%(model)s %(error_type)s %(call_id)s', stream=sys.stdout)"
    )
    out, _ = ran(setup)
    assert [line.split()[:2] for line in out.splitlines()] == [["m", "500"]] * 3


def test_structlog_on_the_standard_library():
    """Lines are JSON as those of the application, with its context."""
    out, err = ran(JSON_OF_STRUCTLOG)
    lines = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert [(line["event"], line["level"]) for line in lines] == [
        ("resilient_ai.retry", "warning"),
        ("resilient_ai.call", "info"),
        ("resilient_ai.retry", "warning"),
        ("resilient_ai.call", "warning"),
    ]
    assert (
        lines[1].items()
        >= {"logger": "resilient_ai", "request": "r-17", "tags": {"tenant": "acme"}, "attempts": 2}.items()
    )
    assert lines[3].items() >= {"outcome": "error", "error_type": "500", "status": 500, "request_id": "r1"}.items()


def test_structlog_that_prints():
    """An application that prints by structlog alone has set up no handler, so it sees its own lines and none of ours."""
    assert ran(PRINTING) == ("", "")


def test_structlog_that_prints_beside_a_handler():
    """Its processors, which print tracebacks with the variables of every frame, see none of our lines: those have no traceback."""
    seen = "handler = logging.StreamHandler(sys.stdout); logging.getLogger().addHandler(handler)\n"
    shown = "handler.setFormatter(logging.Formatter('%(message)s %(exc_info)s'))\n"
    out, err = ran(PRINTING + seen + shown)
    assert (out.splitlines(), err) == (["resilient_ai.retry None"] * 2 + ["resilient_ai.call None"], "")


def test_the_applications_own_traceback_with_variables():
    """What an application prints itself, variables of our frames included, has neither prompt nor answer."""
    out, _ = ran(PRINTING, "structlog.get_logger().exception('failed')")
    (line,) = out.splitlines()
    found = json.loads(line)
    assert found["exception"][0]["exc_type"] == "ServerFailed"
    assert len(found["exception"][0]["frames"]) > 3
    for name in ("PROMPT", "ANSWER", "BODY"):
        assert f"CANARY-{name}" not in line
