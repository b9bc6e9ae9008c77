"""What takes telemetry in tests: OTLP over HTTP and gRPC, and a Prometheus that scrapes; each a real server on a free port."""

import contextlib
import gzip
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

_START = 30.0
_MESSAGES = {
    "traces": (trace_service_pb2.ExportTraceServiceRequest, trace_service_pb2.ExportTraceServiceResponse),
    "metrics": (metrics_service_pb2.ExportMetricsServiceRequest, metrics_service_pb2.ExportMetricsServiceResponse),
    "logs": (logs_service_pb2.ExportLogsServiceRequest, logs_service_pb2.ExportLogsServiceResponse),
}


class Received:
    """What has arrived.

    Attributes:
        bodies: Everything, decoded, by signal, in the order of its arrival.
        requests: The path (or method) and the headers of each request.
    """

    def __init__(self):
        self.bodies = {"traces": [], "metrics": [], "logs": []}
        self.requests = []

    def take(self, signal, path, headers, body):
        self.requests.append((path, headers))
        self.bodies[signal].append(body)

    def clear(self):
        self.requests.clear()
        for bodies in self.bodies.values():
            bodies.clear()

    @property
    def resources(self):
        """The attributes of every resource that sent something."""
        bodies = [*self.bodies["traces"], *self.bodies["metrics"], *self.bodies["logs"]]
        parts = ("resource_spans", "resource_metrics", "resource_logs")
        return [plain(one.resource.attributes) for body in bodies for part in parts for one in getattr(body, part, ())]

    @property
    def spans(self):
        """Every span."""
        return [
            span
            for body in self.bodies["traces"]
            for resource in body.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def records(self):
        """Every log record."""
        return [
            record
            for body in self.bodies["logs"]
            for resource in body.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def points(self, name):
        """The points of a metric as they were told last, each with its attributes."""
        found = {}
        for body in self.bodies["metrics"]:
            for metric in metrics_of(body):
                if metric.name == name:
                    data = getattr(metric, metric.WhichOneof("data"))
                    for point in data.data_points:
                        found[frozenset(plain(point.attributes).items())] = point
        return [(dict(attributes), point) for attributes, point in found.items()]


def metrics_of(body):
    """Return the metrics of a request."""
    return [
        metric for resource in body.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
    ]


def plain(attributes):
    """Return attributes as Python has them."""
    return {pair.key: value_of(pair.value) for pair in attributes}


def value_of(value):
    """Return one value as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(value_of(one) for one in value.array_value.values)
    if kind == "kvlist_value":
        return plain(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


@contextlib.contextmanager
def http_receiver():
    """Take OTLP over HTTP, under any base path; yields the address and what arrives."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            signal = self.path.rpartition("/")[2]
            request, response = _MESSAGES[signal]
            headers = {name.lower(): value for name, value in self.headers.items()}
            received.take(signal, self.path, headers, request.FromString(body))
            answer = response().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # Half a second, as is usual, would be waited for at the end of each test.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextlib.contextmanager
def grpc_receiver():
    """Take OTLP by gRPC; yields the address and what arrives."""
    received = Received()

    def taking(signal):
        def export(_self, request, context):
            received.take(signal, signal, dict(context.invocation_metadata()), request)
            return _MESSAGES[signal][1]()

        return export

    server = grpc.server(ThreadPoolExecutor(4))
    for signal, module, name in (
        ("traces", trace_service_pb2_grpc, "TraceService"),
        ("metrics", metrics_service_pb2_grpc, "MetricsService"),
        ("logs", logs_service_pb2_grpc, "LogsService"),
    ):
        servicer = type(name, (getattr(module, f"{name}Servicer"),), {"Export": taking(signal)})()
        getattr(module, f"add_{name}Servicer_to_server")(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", received
    finally:
        server.stop(0).wait(10)


class Prometheus:
    """A `prometheus` of the test's own, which scrapes one port every second and keeps its data in a folder of the test."""

    def __init__(self, program, folder, target):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 250ms, scrape_timeout: 250ms}\n"
            f"scrape_configs: [{{job_name: test, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        self.log = folder / "prometheus.log"
        self.until(lambda: self._get("/-/ready"), _START)

    def stop(self):
        """End it, and wait for that."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._log.close()

    def query(self, expression, at):
        """Return the value of each series at a time in seconds since 1970, by its labels.

        Of a machine that is busy a scrape may fail, after which all series are gone until the next one: whoever compares
        several queries asks them for one time.
        """
        asked = urllib.parse.urlencode({"query": expression, "time": at})
        answer = json.loads(self._get(f"/api/v1/query?{asked}"))
        assert answer["status"] == "success", answer
        result = answer["data"]["result"]
        return {frozenset(one["metric"].items()): float(one["value"][1]) for one in result}

    def until(self, done, timeout):
        """Wait until something is so."""
        end = time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError):
                if found := done():
                    return found
            assert self._process.poll() is None, "prometheus has ended"
            assert time.monotonic() < end, "it did not come about in time"
            time.sleep(0.05)

    def _get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return answer.read()


@contextlib.contextmanager
def prometheus(folder, target):
    """Run a Prometheus; without the program the test is skipped, or fails where the services must be there."""
    program = shutil.which("prometheus")
    if program is None:
        reason = "prometheus is not installed"
        if os.environ.get("CI_REQUIRES_SERVICES"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder.mkdir()
    server = Prometheus(program, folder, target)
    try:
        yield server
    finally:
        server.stop()
