"""The set-up in one call: what it sets up, what it refuses and how it says so, and how it ends."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.trace import TracerProvider

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import Metrics, Retry, Tracing
from resilient_ai.observability import Backend, configure
from resilient_ai.observability._console import json_of
from resilient_ai.observability.backends import grafana, langfuse, phoenix
from resilient_ai.testing import ScriptedProvider

from .receivers import grpc_receiver, http_receiver

pytestmark = pytest.mark.anyio

CHAT = Chat(model="m", messages="hi")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """An environment in which nobody has said anything of OpenTelemetry."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def run(program, *arguments, **variables):
    """Run a program in a process of its own, where it may set up what a process can set up once; warnings are errors."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + program, *arguments],
        capture_output=True,
        text=True,
        env=environment | variables,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


HEAD = """
import asyncio, json, logging, os, sys
from decimal import Decimal
from resilient_ai.core.results import Cost
from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import Logging, Metrics, Retry, Tracing
from resilient_ai.observability import backends, configure
from resilient_ai.testing import ScriptedProvider, chat_result

def ask(*stack):
    answer = chat_result(cost=Cost(amount=Decimal("0.1"), source="provider"))
    asyncio.run(Pipeline(ScriptedProvider(answer), stack).send(Chat(model="m", messages="hi")))
"""
RECEIVER = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from receivers import http_receiver as http, plain
"""


class TestTheProcess:
    """What is set up for all of it, which can be done once."""

    def test_a_client_that_was_there_before_reports_too(self):
        """Spans to the console and lines of the log, each a JSON object in a line; and what a backend wants on the span."""
        program = """
tracing = Tracing()
with http() as (address, received):
    telemetry = configure("shop", export="console", backend=backends.langfuse(public_key="p", secret_key="s", host=address))
    ask(tracing, Logging())
    assert telemetry.flush()
    telemetry.shutdown()
attempt, call = [plain(span.attributes) for span in received.spans]
print(telemetry.trace_backends, *("langfuse.observation.cost_details" in span for span in (call, attempt)))
"""
        done = run(RECEIVER + program)
        assert done.stdout == "('langfuse',) True False\n"
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        (told,) = [line for line in lines if line["event"] == "resilient_ai.call"]
        inner, span = [line for line in lines if line["event"] == "span"]
        assert len(lines) == 3
        assert (span["name"], span["trace_id"], span["span_id"]) == ("chat m", told["trace_id"], told["span_id"])
        assert (inner["name"], inner["parent_id"], "parent_id" in span) == (
            "resilient_ai.attempt",
            span["span_id"],
            False,
        )
        assert (span["outcome"], span["attempts"], span["usd"]) == ("success", 1, 0.1)

    def test_troubles_of_sending_stand_among_the_lines_as_lines(self):
        """A collector that is not there: what the SDK says of it is JSON as everything else, and masked."""
        program = """
address = "http://127.0.0.1:1"
telemetry = configure("shop", export=["console", "otlp"], endpoint=address, headers={"x-key": "swordfish"}, logs="json")
ask(Tracing(), Logging())
telemetry.shutdown(0.5)
logging.getLogger("opentelemetry.sdk").warning("after")
"""
        *lines, after = run(program).stderr.splitlines()
        loggers = {json.loads(line)["logger"] for line in lines}
        assert {logger for logger in loggers if logger.startswith("opentelemetry.exporter.otlp")}
        assert "swordfish" not in "".join(lines)
        assert after == "after"  # as it was before

    def test_troubles_of_sending_go_where_the_application_has_said(self):
        """Where it has handlers, they go there, and nowhere else; also where lines of ours are off."""
        program = """
if sys.argv[1] == "own":
    logging.basicConfig(format="OWN %(name)s")
configure("shop", export="otlp", endpoint="http://127.0.0.1:1", signals=["traces", "logs"], logs=sys.argv[2])
logging.getLogger("opentelemetry.sdk").warning("late")
os._exit(0)
"""
        assert run(program, "own", "json").stderr == "OWN opentelemetry.sdk\n"
        assert run(program, "none", "off").stderr == "late\n"

    def test_a_collector_that_never_answers_holds_the_end_for_ten_seconds(self):
        """In all, over traces, metrics and logs; it is said what is waited for, what is lost, and what others take is written."""
        program = """
configure("shop", export=["console", "otlp"], endpoint=sys.argv[1], signals=["traces", "metrics", "logs"], logs="json")
ask(Tracing(), Metrics(), Logging())
print("asked", flush=True)
"""
        with silent() as address:
            child = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", HEAD + program, address],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert child.stdout.readline() == "asked\n"
            started = time.monotonic()
            _, told = child.communicate(timeout=40)
            lasted = time.monotonic() - started
        assert child.returncode == 0
        assert 9 < lasted < 13
        *_, waits, lost = [line["event"] for line in map(json.loads, told.splitlines())]
        all_three = "metrics to otlp, traces to otlp, logs to otlp"
        assert waits == f"the end of telemetry waits up to 8 s more for {all_three}"
        assert lost == f"telemetry is lost, as it was not taken within 10 s: {all_three}"
        assert told.count('"event": "span"') == 2

    def test_a_second_call_says_so(self):
        """With the name under which it is set up; also after its end, as providers can be set once."""
        program = """
with configure("shop", export="console"):
    for globally in (True, False):
        try:
            print(configure("bar", export="console", logs="off", globally=globally))
        except ConfigurationError as error:
            print(error)
try:
    configure("bar", export="console")
except ConfigurationError as error:
    print(error)
"""
        sentence = (
            "telemetry is set up already, for the service 'shop'; a process does that once, "
            "or with globally=False for clients of its own"
        )
        assert run(program).stdout.splitlines() == [sentence, "Telemetry('bar')", sentence]

    @pytest.mark.parametrize("signal", ["tracer", "meter", "logger"])
    def test_the_providers_of_an_application_are_left_alone(self, signal, tmp_path):
        """The sentence says what to do; a port that was taken is free again, and neither a handler nor a file is left."""
        program = """
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
own = {"tracer": TracerProvider, "meter": MeterProvider, "logger": LoggerProvider}[sys.argv[1]]()
{"tracer": trace.set_tracer_provider, "meter": metrics.set_meter_provider, "logger": _logs.set_logger_provider}[sys.argv[1]](own)
import socket
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
try:
    configure("shop", export="otlp", signals=["traces", "metrics", "logs"], prometheus=port, trace_file=sys.argv[2])
except ConfigurationError as error:
    print(error)
socket.create_server(("127.0.0.1", port)).close()
print([type(one).__name__ for one in logging.getLogger("resilient_ai").handlers])
from resilient_ai.middleware._backends import remembered_backends
print(remembered_backends())
import threading
print([thread.name for thread in threading.enumerate() if "Otel" in thread.name])
with configure("shop", prometheus=0, globally=False) as telemetry:
    print(telemetry.meter_provider is not None)
"""
        told, handlers, backends, threads, apart = run(
            program, signal, str(tmp_path / "spans.jsonl")
        ).stdout.splitlines()
        assert told.startswith(f"the process has a {signal} provider already, {signal.capitalize()}Provider, to which")
        assert "globally=False" in told
        assert (handlers, backends, threads, apart) == ("['NullHandler']", "()", "[]", "True")
        assert list(tmp_path.iterdir()) == []

    def test_a_provider_of_the_environment_counts_as_one(self):
        """It is loaded when somebody asks for it, and is there from then on."""
        program = """
try:
    configure("shop", export="console")
except ConfigurationError as error:
    print(error)
"""
        found = run(program, OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider").stdout
        assert found.startswith("the process has a tracer provider already, TracerProvider")

    def test_a_fork_goes_on_reporting(self):
        """The SDK begins anew in a child; what waits there is sent, and by the child alone what is the child's."""
        program = """
with http() as (address, received):
    telemetry = configure("shop", export="otlp", endpoint=address, signals=["traces"], logs="off")
    ask(Tracing())
    child = os.fork()
    if child == 0:
        try:
            ask(Tracing())
            telemetry.flush()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    telemetry.shutdown()
print(len(received.spans), len({span.trace_id for span in received.spans}))
"""
        # From Python 3.12 on forking a process with threads is warned of.
        quiet = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
        assert run(RECEIVER + quiet + program).stdout == "4 2\n"

    def test_what_waits_at_the_end_of_a_process_is_written(self, tmp_path):
        """Nobody has to call anything."""
        program = 'configure("shop", trace_file=sys.argv[1], logs="off")\nask(Tracing())'
        run(program, str(tmp_path / "spans.jsonl"))
        spans = [json.loads(line) for line in (tmp_path / "spans.jsonl").read_text().splitlines()]
        assert [span["name"] for span in spans] == ["resilient_ai.attempt", "chat m"]
        assert {span["resource"]["attributes"]["service.name"] for span in spans} == {"shop"}

    @pytest.mark.parametrize("what", ["resilient_ai", "resilient_ai.client", "resilient_ai.observability"])
    def test_importing_sets_nothing_up(self, what):
        """Neither the SDK nor an exporter is imported, nor this package by the client."""
        program = f"import json, sys, {what}\nprint(json.dumps(sorted(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        assert not [name for name in found if name.startswith(("opentelemetry", "grpc", "prometheus_client"))]
        assert ("resilient_ai.observability" in found) == (what == "resilient_ai.observability")

    @pytest.mark.parametrize(
        ("blocked", "options", "extra"),
        [
            ("opentelemetry.exporter.otlp.proto.http", "export='otlp'", "otlp"),
            ("opentelemetry.exporter.otlp.proto.grpc", "export='otlp_grpc'", "otlp"),
            ("opentelemetry.exporter.prometheus", "prometheus=0", "prometheus"),
        ],
    )
    def test_a_missing_extra_is_named(self, blocked, options, extra):
        """With the line that installs it."""
        program = f"""
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({blocked!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
try:
    configure("shop", {options})
except ConfigurationError as error:
    print(error)
"""
        found = run(program).stdout
        assert found.startswith(f"the package {blocked}")
        assert found.endswith(f"is missing; install it with: pip install 'resilient-ai[{extra}]'\n")


class TestOptions:
    """What can be said, and what cannot."""

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"service": ""}, "service.name must be a text that is not empty, got ''"),
            ({"service": None}, "service.name must be a text"),
            ({"resource": 5}, "resource must be of type Mapping or None, got 5"),
            ({"prometheus": 0, "prometheus_host": 5}, "prometheus_host must be of type str, got 5"),
            ({"prometheus": 0, "prometheus_host": ""}, "prometheus_host must be of type str, got None"),
            ({"prometheus": 0, "views": 5}, "views must be of type Sequence, got 5"),
            ({"prometheus": 0, "views": [1]}, "views must be a list of opentelemetry.sdk.metrics.view.View"),
            ({"log_level": 10**30}, "log_level must be a whole number from 0 to 1000, got 1000"),
            ({"export": "otlp", "metric_interval": 1e300}, "metric_interval must be from 0.01 to 86400.0, got 1e.300"),
            ({"export": "otlp", "metric_interval": 1e-300}, "metric_interval must be from 0.01 to 86400.0, got 1e-300"),
            ({"version": 7}, "service.version must be a text that is not empty, got 7"),
            ({"environment": ""}, "deployment.environment.name must be a text"),
            ({"resource": {"team": None}}, "team must be a text"),
            ({"export": "otpl"}, r"export must be of \('console', 'otlp', 'otlp_grpc'\), or left out, got 'otpl'"),
            ({"export": 3}, "export must be of"),
            ({"export": ["otlp", "otlp_grpc"]}, "two ways to one collector"),
            ({"endpoint": "http://c:4318"}, "endpoint and headers are for export"),
            ({"export": "console", "headers": {"a": "b"}}, "endpoint and headers are for export"),
            ({"export": "otlp", "endpoint": "c:4318"}, "otlp: endpoint must be an address"),
            ({"export": "otlp", "headers": {"x": "a\nb"}}, "headers: the value of the header 'x' must be"),
            ({"backend": "langfuse"}, "backend must be one of .*, got an object of type str"),
            ({"backend": langfuse}, "got an object of type function"),
            (
                {"backend": phoenix(), "signals": ["metrics"]},
                r"phoenix takes \('traces',\), and signals are \('metrics',",
            ),
            ({"export": "otlp", "signals": []}, "signals must be some of"),
            ({"export": "otlp", "signals": "traces"}, "signals must be some of"),
            ({"prometheus": 70_000}, "prometheus must be a whole number from 0 to 65535"),
            (
                {"prometheus": "9464"},
                "prometheus must be the number of a port such as 9464, .*, got an object of type str",
            ),
            ({"trace_file": 3}, "trace_file must be of type"),
            ({"trace_file": "/dev/null/spans"}, "trace_file: there is no folder '/dev/null'"),
            ({"trace_file": "s", "trace_file_size": 1}, "trace_file_size must be a whole number >= 1048576"),
            ({"export": "console", "sample": 0}, "sample must be above 0 and at most 1, got 0"),
            ({"export": "console", "sample": 1.5}, "sample must be"),
            ({"export": "otlp", "metric_interval": 0}, "metric_interval must be a positive number of seconds"),
            ({"logs": "xml"}, "logs must be one of"),
            ({"log_level": "LOUD"}, "log_level must be a number or a name of logging such as 'INFO', got 'LOUD'"),
            ({"log_level": 1.5}, "log_level must be of type int or str, got 1.5"),
            ({"root_logs": "yes"}, "root_logs must be of type bool"),
            ({"export": "console", "globally": 1}, "globally must be of type bool"),
            ({"logs": "off"}, "there is nothing to set up"),
            ({}, "there is nothing to set up"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, options, sentence):
        """At once, in one sentence, with what was given."""
        with pytest.raises(ConfigurationError, match=sentence):
            configure(**{"service": "shop", "globally": False, **options})

    def test_what_is_refused_leaves_no_file_behind(self, tmp_path):
        """Where something else cannot be set up, such as a port that is taken: the file of spans is the last thing made."""
        with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="prometheus"):
            port = taken.getsockname()[1]
            configure("shop", trace_file=tmp_path / "s", prometheus=port, globally=False)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("signal", ["TRACER", "METER", "LOGGER"])
    def test_a_provider_of_the_environment_that_is_not_there(self, signal):
        """The variable is named."""
        program = """
try:
    configure("shop", export="otlp", signals=["traces", "metrics", "logs"], logs="off")
except ConfigurationError as error:
    print(error)
"""
        name = f"OTEL_PYTHON_{signal}_PROVIDER"
        assert run(program, **{name: "nosuch"}).stdout.startswith(f"{name} names a provider that cannot be loaded: ")

    def test_whatever_the_sdk_raises_is_an_error_of_ours(self, monkeypatch):
        """With the names of the variables that may be wrong, without what they hold."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "swordfish")
        with pytest.raises(ConfigurationError) as caught:
            configure("shop", export="otlp_grpc", endpoint="http://127.0.0.1:1", globally=False)
        sentence = str(caught.value)
        assert sentence.startswith("telemetry cannot be set up, the SDK has raised ")
        assert sentence.endswith("it may be one of the variables OTEL_EXPORTER_OTLP_COMPRESSION")

    def test_headers_of_the_environment_do_not_reach_a_backend(self, monkeypatch):
        """They are often the key of another one, and exporters would add them."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-honeycomb-team=secret")
        for backend in (langfuse(public_key="p", secret_key="s"), phoenix(protocol="grpc")):
            with pytest.raises(
                ConfigurationError, match="that OTEL_EXPORTER_OTLP_HEADERS holds would be sent"
            ) as caught:
                configure("shop", backend=backend, globally=False)
            assert "secret" not in str(caught.value)
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_HEADERS")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Basic%20old")
        with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
            configure("shop", backend=phoenix(), globally=False)
        # One that is given here anyway takes its place.
        configure("shop", backend=langfuse(public_key="p", secret_key="s"), globally=False).shutdown()

    async def test_the_environment_says_where_the_collector_is(self, monkeypatch):
        """As for every exporter, with headers; those that are given are added."""
        with http_receiver() as (address, received):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=a")
            with configure("shop", export="otlp", headers={"X-More": "b"}, globally=False) as telemetry:
                await asked(telemetry)
        assert len(received.spans) == 2
        assert {(headers["x-team"], headers["x-more"]) for _, headers in received.requests} == {("a", "b")}

    async def test_what_everything_is_reported_of(self, monkeypatch):
        """The arguments, what else is given, and what the environment adds; arguments come first."""
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "region=north,team=other,service.version=0")
        about = {"version": "7", "environment": "test", "resource": {"team": "tides"}}
        with grpc_receiver() as (address, received):
            options = {"export": "otlp_grpc", "endpoint": address, "globally": False}
            with configure("shop", **about, **options) as telemetry:
                await asked(telemetry)
        expected = {
            "service.name": "shop",
            "service.version": "7",
            "deployment.environment.name": "test",
            "region": "north",
            "team": "tides",
        }
        assert {len(bodies) > 0 for bodies in (received.bodies["traces"], received.bodies["metrics"])} == {True}
        assert all(expected.items() <= resource.items() for resource in received.resources)

    async def test_a_share_of_traces(self):
        """Whole calls are kept or left out; where a caller has decided, that holds."""
        with http_receiver() as (address, received):
            with configure("shop", export="otlp", endpoint=address, sample=0.25, globally=False) as telemetry:
                await asked(telemetry, times=200)
                tracer = telemetry.tracer_provider.get_tracer("caller")
                with tracer.start_as_current_span("caller") as span:
                    await asked(telemetry, times=5)
                    kept = span.is_recording()
            mine = [span for span in received.spans if span.name == "chat m" and not span.parent_span_id]
            theirs = [span for span in received.spans if span.name == "chat m" and span.parent_span_id]
        assert 15 <= len(mine) <= 90
        assert len(theirs) == (5 if kept else 0)

    async def test_views_and_the_interval_are_those_of_the_sdk(self):
        """Buckets can be others, and figures come by themselves after the time that was said."""
        own = View(
            instrument_name="resilient_ai.request.duration",
            aggregation=ExplicitBucketHistogramAggregation([1.0, 2.0]),
        )
        with http_receiver() as (address, received):
            options = {"metric_interval": 0.1, "views": [own], "globally": False}
            with configure("shop", export="otlp", endpoint=address, **options) as telemetry:
                await asked(telemetry, flush=False)
                end = time.monotonic() + 10
                while not received.points("resilient_ai.request.duration"):
                    assert time.monotonic() < end
                    await asyncio.sleep(0.02)
            ((_, point),) = received.points("resilient_ai.request.duration")
        assert list(point.explicit_bounds) == [1.0, 2.0]

    async def test_only_the_signals_that_were_named_are_sent(self):
        """To each as far as it takes them; what nobody takes has no provider."""
        with http_receiver() as (address, received):
            backends = [phoenix(endpoint=address), grafana(endpoint=f"{address}/otlp")]
            with configure("shop", backend=backends, globally=False) as telemetry:
                assert telemetry.logger_provider is None
                assert telemetry.trace_backends == ("phoenix", "grafana")
                await asked(telemetry)
            assert {path for path, _ in received.requests} == {
                "/v1/traces",
                "/otlp/v1/traces",
                "/otlp/v1/metrics",
            }
            received.clear()
            with configure("shop", backend=backends[1], signals=["metrics"], globally=False) as telemetry:
                assert telemetry.tracer_provider is None
                await asked(telemetry)
            assert {path for path, _ in received.requests} == {"/otlp/v1/metrics"}


class TestTheEnd:
    """Flushing and ending, also where nobody takes anything."""

    async def test_what_hangs_is_not_waited_for(self, monkeypatch):
        """A collector that takes connections and never answers holds neither a flush nor the end beyond its time."""
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
        with silent() as address:
            telemetry = configure("shop", export="otlp", endpoint=address, globally=False)
            await asked(telemetry, flush=False)
            started = time.monotonic()
            assert telemetry.flush(0.2) is False
            assert telemetry.shutdown(0.2) is False
            assert time.monotonic() - started < 2.5
        for thread in threading.enumerate():
            if thread.name == "resilient-ai-telemetry":
                await asyncio.to_thread(thread.join, 10)

    async def test_the_end_comes_once(self):
        """What is waiting is sent; afterwards there is nothing to flush or end, and calls go on without a word."""
        with http_receiver() as (address, received):
            with configure("shop", export="otlp", endpoint=address, globally=False) as telemetry:
                stack = await asked(telemetry, flush=False)
                assert not received.spans
            assert len(received.spans) == 2
            assert (telemetry.shutdown(), telemetry.flush()) == (True, True)
            await Pipeline(ScriptedProvider(), stack).send(CHAT)
            assert len(received.spans) == 2

    async def test_an_interrupt_leaves_nothing_undone(self):
        """The port is closed and lines of the log are written no more; whoever asks again waits for what is under way."""
        with silent() as address:
            program = f"""
import signal, threading, urllib.request
telemetry = configure("shop", export="otlp", endpoint={address!r}, prometheus=0, logs="json")
telemetry.tracer_provider.get_tracer("t").start_span("s").end()
threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
try:
    telemetry.shutdown()
except KeyboardInterrupt:
    kinds = [type(handler).__name__ for handler in logging.getLogger("resilient_ai").handlers]
    print("interrupted", telemetry.shutdown(0.2), kinds)
try:
    urllib.request.urlopen(f"http://127.0.0.1:{{telemetry.prometheus_port}}/metrics", timeout=5)
except OSError:
    print("closed")
"""
            done = await asyncio.to_thread(run, program)
        assert done.stdout == "interrupted False ['NullHandler']\nclosed\n"
        assert "interrupted while it waited for traces to otlp" in done.stderr

    async def test_an_interrupt_while_the_process_ends_is_no_traceback(self):
        """It says what it did not wait for."""
        with silent() as address:
            program = f"""
import signal, threading
telemetry = configure("shop", export="otlp", endpoint={address!r}, logs="off")
telemetry.tracer_provider.get_tracer("t").start_span("s").end()
interrupt = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
interrupt.daemon = True
interrupt.start()
"""
            done = await asyncio.to_thread(run, program)
        assert "interrupted while it waited for traces to otlp" in done.stderr
        assert "Traceback" not in done.stderr

    async def test_an_exporter_that_raises_fails_nobody(self, caplog):
        """It is logged by the name of its error, without what it says."""
        telemetry = configure("shop", export="console", globally=False, logs="off")

        def broken():
            raise RuntimeError("secret")

        telemetry.tracer_provider.force_flush = broken
        assert telemetry.flush(5) is False
        assert "could not be handed over: RuntimeError" in caplog.text
        assert "secret" not in caplog.text
        assert telemetry.shutdown(5)

    @pytest.mark.parametrize("timeout", [0, -1, "soon"])
    def test_a_time_is_a_positive_number(self, timeout):
        """Of seconds."""
        with configure("shop", export="console", globally=False) as telemetry:
            for end in (telemetry.flush, telemetry.shutdown):
                with pytest.raises(ValueError, match="timeout must be a positive number of seconds"):
                    end(timeout)

    def test_what_it_looks_like(self, tmp_path):
        """A repr has where to look, and no key."""
        backend = langfuse(public_key="p", secret_key="swordfish")
        with configure("shop", backend=backend, trace_file=tmp_path / "s", prometheus=0, globally=False) as telemetry:
            assert repr(telemetry) == (
                f"Telemetry('shop', prometheus_port={telemetry.prometheus_port}, trace_file={tmp_path / 's'!r})"
            )
            assert "swordfish" not in repr(vars(telemetry))


class TestAppliedTo:
    """A stack that reports to what was not set up for the process."""

    def test_tracing_and_metrics_report_there(self):
        """Those that have a provider or backends of their own keep them, and nothing else is touched."""
        own, retry = TracerProvider(), Retry()
        with configure(
            "shop", backend=[langfuse(public_key="p", secret_key="s"), Backend(name="b")], globally=False
        ) as telemetry:
            traced, counted, other, plain_one, same = telemetry.applied_to(
                [Tracing(tags=["feature"]), Metrics(tenants=3), Tracing(own), Tracing(backends=["phoenix"]), retry]
            )
            assert (traced.tracer_provider, traced.tags) == (telemetry.tracer_provider, ("feature",))
            assert traced.backends == ("langfuse",)
            assert (counted.meter_provider, counted.tenants) == (telemetry.meter_provider, 3)
            assert other.tracer_provider is own
            assert plain_one.backends == ("phoenix",)
            assert same is retry

    def test_what_is_not_taken_is_left_as_it_is(self):
        """Without a provider for figures, figures go where they went."""
        meters = MeterProvider()
        with configure("shop", export="console", globally=False) as telemetry:
            first, second = telemetry.applied_to([Metrics(), Metrics(meters)])
        assert (first.meter_provider, second.meter_provider) == (None, meters)
        meters.shutdown()


class TestConsole:
    """A line for each span."""

    async def test_a_line_says_what_there_was(self, capfd):
        """When, what, how long, the error, the figures, the trace; children are indented, and a name has no line break."""
        with configure("shop", export="console", globally=False) as telemetry:
            tracer = telemetry.tracer_provider.get_tracer("t")
            with tracer.start_as_current_span("outer\nforged") as outer:
                outer.set_attributes({"error.type": "500", "resilient_ai.cost.amount": 0.1, "prompt": "secret"})
                with tracer.start_as_current_span("inner"):
                    pass
            await asyncio.to_thread(telemetry.flush)
        inner, outer_line = capfd.readouterr().err.splitlines()
        trace = f"trace={outer.get_span_context().trace_id:032x}"
        assert "   inner " in inner
        assert outer_line.split(" ")[1:3] == ["outer", "forged"]
        assert outer_line.endswith(f"ms error=500 usd=0.1 {trace}")
        assert "secret" not in outer_line

    def test_as_json_it_says_the_same(self):
        """In a line, with what lines of the log call a time, an event and a trace; an error and a parent where there are some."""
        tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
        with tracer.start_as_current_span("outer\nforged") as outer:
            outer.set_attributes({"error.type": "500", "resilient_ai.cost.amount": 0.1, "prompt": "secret"})
            with tracer.start_as_current_span("inner") as inner:
                pass
        text, below = json_of(outer), json.loads(json_of(inner))
        told = json.loads(text)
        context = outer.get_span_context()
        assert text.count("\n") == 1
        assert (told["event"], told["name"], told["error"], told["usd"]) == ("span", "outer\nforged", "500", 0.1)
        assert (told["trace_id"], told["span_id"]) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
        assert (below["parent_id"], "parent_id" in told, "secret" in text) == (told["span_id"], False, False)
        assert told["duration"] >= below["duration"] > 0


async def asked(telemetry, *, times=1, flush=True):
    """Send calls through a stack that reports there, and return it."""
    stack = telemetry.applied_to([Tracing(), Metrics()])
    pipeline = Pipeline(ScriptedProvider(), stack)
    for _ in range(times):
        await pipeline.send(CHAT)
    if flush:
        assert await asyncio.to_thread(telemetry.flush)
    return stack


@contextlib.contextmanager
def silent():
    """Take connections, and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def take():
            with contextlib.suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for one in held:
                one.close()
            thread.join(5)
