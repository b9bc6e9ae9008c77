"""The file of spans: one in a line, for this user alone, bounded, and whole whatever happens."""

import json
import multiprocessing
import os
import resource
import signal
import stat

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.middleware._telemetry_faults import fault_counts
from resilient_ai.observability import configure
from resilient_ai.observability._trace_file import TraceFile

SIZE = 1 << 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spans.jsonl"


def spans_of(*names, **attributes):
    """Return ended spans."""
    kept = []

    class Keep(SimpleSpanProcessor):
        def __init__(self):
            pass

        def on_end(self, span):
            kept.append(span)

        def shutdown(self):
            pass

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Keep())
    for name in names:
        provider.get_tracer("t").start_span(name, attributes=attributes).end()
    return kept


def names_in(path):
    """Return the names of the spans in a file."""
    return [json.loads(line)["name"] for line in path.read_text().splitlines() if line]


def test_a_line_is_a_span(path):
    """As the SDK writes it; a file that is there is continued, and only this user can read it."""
    for names in (["a", "b"], ["c\nd ü \ud800"]):
        assert TraceFile(path, SIZE).export(spans_of(*names, cost=0.1)) is SpanExportResult.SUCCESS
    assert names_in(path) == ["a", "b", "c\nd ü \ud800"]
    assert json.loads(path.read_text().splitlines()[0])["attributes"] == {"cost": 0.1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_file_makes_room(path):
    """It gets another name, in place of the one before it; both are private."""
    file = TraceFile(path, SIZE)
    for name in ("a", "b", "c"):
        file.export(spans_of(name, filling="x" * SIZE))
    before = path.with_name("spans.jsonl.1")
    assert (names_in(path), names_in(before)) == (["c"], ["b"])
    assert {stat.S_IMODE(one.stat().st_mode) for one in (path, before)} == {0o600}


def test_a_file_that_is_gone_is_made_again(path):
    """As something that moves logs away does."""
    file = TraceFile(path, SIZE)
    path.rename(path.with_name("moved"))
    file.export(spans_of("a"))
    assert names_in(path) == ["a"]


def test_a_link_is_not_followed(path, tmp_path):
    """Neither when it is set up, nor when somebody puts one in the place of the file."""
    target = tmp_path / "target"
    target.write_text("precious")
    file = TraceFile(path, SIZE)
    path.unlink()
    path.symlink_to(target)
    before = fault_counts().get("tracing", 0)
    assert file.export(spans_of("a")) is SpanExportResult.FAILURE
    assert fault_counts()["tracing"] == before + 1
    assert target.read_text() == "precious"
    with pytest.raises(ConfigurationError, match=r"trace_file: .* is a symbolic link"):
        configure("shop", trace_file=path, globally=False)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    """It is made by nobody, so that a slip of the pen is noticed."""
    folder = tmp_path / "nowhere"
    with pytest.raises(ConfigurationError) as caught:
        configure("shop", trace_file=folder / "spans.jsonl", globally=False)
    assert str(caught.value) == f"trace_file: there is no folder {str(folder)!r}"
    assert not folder.exists()


def test_a_span_that_is_no_json_is_left_out(path):
    """Such as one to which somebody has given bytes; the others are written."""
    before = fault_counts().get("tracing", 0)
    odd = spans_of("odd")[0]
    odd._attributes = {"raw": b"\xff"}
    assert TraceFile(path, SIZE).export([*spans_of("a"), odd, *spans_of("b")]) is SpanExportResult.SUCCESS
    assert names_in(path) == ["a", "b"]
    assert fault_counts()["tracing"] == before + 1


@pytest.fixture
def small_disk():
    """No file grows beyond 4,000 bytes."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_tears_one_line(path, small_disk):
    """What is cut is ended before the next one begins, so that it can be read past."""
    file = TraceFile(path, SIZE)
    assert file.export(spans_of("a")) is SpanExportResult.SUCCESS
    assert file.export(spans_of("b", filling="x" * 4000)) is SpanExportResult.FAILURE
    assert file.export(spans_of("c")) is SpanExportResult.FAILURE
    assert path.stat().st_size == 4000
    with path.open("rb+") as shrunk:
        shrunk.truncate(2000)
    assert file.export(spans_of("d")) is SpanExportResult.SUCCESS
    first, torn, last = path.read_text().splitlines()
    assert (json.loads(first)["name"], json.loads(last)["name"]) == ("a", "d")
    with pytest.raises(ValueError, match="Unterminated string"):
        json.loads(torn)


def test_a_fault_that_is_not_the_disk_s_is_told_as_well(path):
    """A folder in the place of the file."""
    file = TraceFile(path, SIZE)
    path.unlink()
    path.mkdir()
    assert file.export(spans_of("a")) is SpanExportResult.FAILURE
    with pytest.raises(OSError, match="not a file"):
        TraceFile(path, SIZE)


def _write(path, mark):
    file = TraceFile(path, 1 << 30)
    for number in range(50):
        file.export(spans_of(*[f"{mark}-{number}"] * 5, filling=mark * 500))
    os._exit(0)


def test_processes_share_a_file(path):
    """No line of one stands in the middle of another's."""
    begin = multiprocessing.get_context("spawn")
    writers = [begin.Process(target=_write, args=(path, mark)) for mark in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(50)
    found = names_in(path)
    assert len(found) == 500
    assert len(set(found)) == 100
