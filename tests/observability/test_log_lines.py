"""Lines of the log: forms, what is masked in those of others, where they go, and that it all ends as it began."""

import io
import json
import logging
import subprocess
import sys
import warnings

import pytest
import structlog
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

from resilient_ai.core.errors import ConfigurationError, ServerFailed
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import Logging, Retry, Tracing
from resilient_ai.middleware._telemetry_faults import fault_counts
from resilient_ai.observability import log_formatter
from resilient_ai.observability.log_lines import RecordHandler, attach, stream_handler
from resilient_ai.testing import FakeClock, ScriptedProvider

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")


@pytest.fixture
def shop():
    """A logger of an application, which goes nowhere else."""
    logger = logging.getLogger("shop")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def written():
    return io.StringIO()


def refuse(why):
    """Raise an error whose message holds a key."""
    raise ValueError(why)


def lines_of(written):
    return [json.loads(line) for line in written.getvalue().splitlines()]


async def test_lines_of_a_call_are_json(written):
    """A retry and the call, with the ids of its trace, once each; nobody else is told, and afterwards all is as it was."""
    logger = logging.getLogger("resilient_ai")
    before = (list(logger.handlers), logger.level, logger.propagate)
    detach = attach([stream_handler("json", written)], root=False, level=logging.INFO, alone=True)
    assert logger.propagate is False
    tracers = TracerProvider(shutdown_on_exit=False)
    pipeline = Pipeline(
        ScriptedProvider(ServerFailed("x", status=500)),
        [Tracing(tracers), Logging(), Retry()],
        clock=FakeClock(),
    )
    await pipeline.send(CHAT, tags={"user": "ann"})
    detach()
    retry, call = lines_of(written)
    assert (retry["event"], retry["level"], retry["error_type"]) == ("resilient_ai.retry", "warning", "500")
    assert (call["event"], call["outcome"], call["tags"]) == ("resilient_ai.call", "success", {"user": "ann"})
    assert len({(line["trace_id"], line["span_id"]) for line in (retry, call)}) == 1
    assert (list(logger.handlers), logger.level, logger.propagate) == before


@pytest.mark.parametrize("heard", [True, False])
def test_troubles_of_exporters_are_lines_where_nobody_else_takes_them(heard, written, monkeypatch):
    """With handlers of the application they are left to those; afterwards all is as it was."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()] if heard else [])
    sender = logging.getLogger("opentelemetry")
    detach = attach([stream_handler("json", written)], root=False, level=logging.INFO, alone=True)
    logging.getLogger("opentelemetry.exporter").warning("not there, Bearer swordfish-4711")
    detach()
    assert sender.handlers == []
    assert [line["event"] for line in lines_of(written)] == ([] if heard else ["not there, Bearer [key]"])


async def test_pretty_lines_are_for_people(written):
    """Time, level, event and fields; in colours where a terminal is."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, form in ((written, "pretty"), (Terminal(), "auto")):
        detach = attach([stream_handler(form, stream)], root=False, level=logging.INFO, alone=True)
        await Pipeline(ScriptedProvider(), [Logging()]).send(CHAT)
        detach()
        text = stream.getvalue()
        assert "resilient_ai.call" in text
        assert ("\x1b[" in text) == (form == "auto")
    assert "model=m" in written.getvalue()


def test_auto_is_json_where_no_terminal_is(written, shop):
    """As in a container."""
    shop.addHandler(stream_handler("auto", written))
    shop.info("paid")
    assert lines_of(written)[0]["event"] == "paid"


def test_lines_of_others_are_masked(written, shop):
    """Keys in texts, fields named as secrets or content, and tracebacks; the values of variables are not shown at all."""
    shop.addHandler(stream_handler("json", written))
    about = {"api_key": "swordfish", "prompt": "swordfish", "order": 17, "by": {"token": "swordfish", "n": 1}}
    try:
        refuse("Bearer swordfish-4711-abcdef")
    except ValueError:
        shop.exception("sent %s", "Authorization: Bearer swordfish-4711-abcdef", extra=about)
    (line,) = lines_of(written)
    assert "swordfish" not in written.getvalue()
    assert "ValueError: Bearer [key]" in line["exception"]
    assert (line["order"], line["by"], line["logger"]) == (17, {"n": 1}, "shop")
    assert line["exception"].startswith("Traceback")
    assert "[key]" in line["event"]


def test_lines_of_others_have_the_ids_of_the_span_around_them(written, shop):
    """So that they are found beside ours."""
    shop.addHandler(stream_handler("json", written))
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("s") as span:
        shop.info("inside")
    shop.info("outside")
    inside, outside = lines_of(written)
    assert inside["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert "trace_id" not in outside


def test_a_long_text_of_others_is_cut(written, shop):
    """It is said how much is missing."""
    shop.addHandler(stream_handler("json", written))
    shop.info("wave " * 10_000)
    assert lines_of(written)[0]["event"].endswith("…[truncated 33616 chars]")


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_an_application_with_structlog_of_its_own(written, form):
    """One that leaves rendering to the formatter; its fields are shown, masked as those of all others."""
    handler = stream_handler(form, written)
    logger = structlog.wrap_logger(
        logging.getLogger("shop.bound"),
        processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    target = logging.getLogger("shop.bound")
    target.addHandler(handler)
    target.setLevel(logging.INFO)
    target.propagate = False
    try:
        logger.info("paid", order=17, password="swordfish")
    finally:
        target.removeHandler(handler)
    assert "paid" in written.getvalue()
    assert ('"order": 17' if form == "json" else "order=17") in written.getvalue()
    assert "swordfish" not in written.getvalue()


def test_a_pretty_traceback_is_plain(written, shop):
    """And nothing is warned of."""
    shop.addHandler(stream_handler("pretty", written))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            shop.exception("no")
    assert "ZeroDivisionError: division by zero" in written.getvalue()


def test_there_are_two_forms():
    """And no third."""
    with pytest.raises(ConfigurationError, match=r"one of \('json', 'pretty'\), got 'xml'"):
        log_formatter("xml")


def test_lines_of_everybody_go_to_the_root(tmp_path):
    """Where that is asked for; without it, those of the library alone, from the level on that was named."""
    program = """
import asyncio, logging, sys
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import Logging
from resilient_ai.observability import configure
from resilient_ai.testing import ScriptedProvider
with configure("shop", logs="json", log_level=sys.argv[1], root_logs=len(sys.argv) > 2):
    logging.getLogger("shop").info("paid")
    asyncio.run(Pipeline(ScriptedProvider(), [Logging()]).send(Chat(model="m", messages="hi")))
logging.getLogger("shop").info("after")
"""
    seen = {}
    for said in (["INFO"], ["info", "root"], ["WARNING", "root"]):
        command = [sys.executable, "-W", "error", "-c", program, *said]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seen[" ".join(said)] = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert seen == {"INFO": ["resilient_ai.call"], "info root": ["paid", "resilient_ai.call"], "WARNING root": []}


class TestRecords:
    """Lines as log records of OpenTelemetry."""

    @pytest.fixture
    def kept(self):
        return InMemoryLogRecordExporter()

    @pytest.fixture
    def handler(self, kept):
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(SimpleLogRecordProcessor(kept))
        return RecordHandler(provider)

    async def test_ours_are_events(self, kept, handler):
        """By their name, which whoever shows texts alone finds as their text, with their fields, inside of the call's span."""
        detach = attach([handler], root=False, level=logging.INFO, alone=False)
        assert logging.getLogger("resilient_ai").propagate
        tracers = TracerProvider(shutdown_on_exit=False)
        await Pipeline(ScriptedProvider(), [Tracing(tracers), Logging()]).send(CHAT, tags={"user": "ann"})
        detach()
        (found,) = kept.get_finished_logs()
        record = found.log_record
        assert (record.event_name, record.body, record.severity_number.name) == ("resilient_ai.call",) * 2 + ("INFO",)
        assert record.attributes["outcome"] == "success"
        assert record.attributes["tags"] == {"user": "ann"}
        assert not {"event", "level", "logger", "timestamp", "trace_id", "span_id"} & record.attributes.keys()
        assert record.trace_id
        assert record.span_id
        assert found.instrumentation_scope.name == "resilient_ai"

    @pytest.mark.parametrize(
        ("level", "severity"),
        [
            (5, "TRACE"),
            (10, "DEBUG"),
            (20, "INFO"),
            (30, "WARN"),
            (35, "WARN"),
            (40, "ERROR"),
            (50, "FATAL"),
            (99, "FATAL"),
        ],
    )
    def test_levels_have_their_severity(self, kept, handler, shop, level, severity):
        """Those between two have the lower one's."""
        shop.addHandler(handler)
        shop.setLevel(1)
        shop.log(level, "x")
        assert kept.get_finished_logs()[0].log_record.severity_number.name == severity

    def test_those_of_others_have_a_body(self, kept, handler, shop):
        """Masked, with their traceback."""
        shop.addHandler(handler)
        try:
            refuse("Bearer swordfish-4711-abcdef")
        except ValueError:
            shop.exception("sent %s", "Bearer swordfish-4711-abcdef", extra={"order": 17})
        record = kept.get_finished_logs()[0].log_record
        assert (record.body, record.event_name) == ("sent Bearer [key]", None)
        assert record.attributes["order"] == 17
        assert "swordfish" not in record.attributes["exception.stacktrace"]

    def test_those_of_the_exporters_are_left_out(self, kept, handler):
        """Each would bring the next one along."""
        for name in ("opentelemetry.exporter", "urllib3"):
            logger = logging.getLogger(name)
            logger.addHandler(handler)
            try:
                from opentelemetry.context import attach as enter
                from opentelemetry.context import detach as leave
                from opentelemetry.context import set_value

                token = enter(set_value("suppress_instrumentation", True))
                logger.error("not sent")
                leave(token)
                if name.startswith("opentelemetry"):
                    logger.error("not sent")
            finally:
                logger.removeHandler(handler)
        assert kept.get_finished_logs() == ()

    def test_a_fault_is_counted(self, shop):
        """And fails nobody."""

        class Broken:
            def get_logger(self, *_):
                raise RuntimeError

        before = fault_counts().get("logging", 0)
        shop.addHandler(RecordHandler(Broken()))
        shop.info("x")
        assert fault_counts()["logging"] == before + 1
