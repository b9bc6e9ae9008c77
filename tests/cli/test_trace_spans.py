"""Spans out of a trace file, in both ways of writing, and whatever else may stand there."""

import base64
import json

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from resilient_ai.cli._trace_spans import spans_of
from resilient_ai.cli._trace_values import Facts

from .traces import recorded, span

SCENES = ("retried", "streamed", "hedged", "with_tools")


def one(**fields):
    (found,) = spans_of(span(**fields))
    return found


def described(found):
    """Return a span with what it holds, to compare."""
    events = [(event.name, round(event.at / 1000), dict(event.facts.attributes)) for event in found.events]
    links = [(link.trace, link.span, dict(link.facts.attributes)) for link in found.links]
    times = (round(found.start / 1000), round(found.end / 1000))
    at = (found.trace, found.id, found.parent, found.name, found.failed, found.service)
    return at, times, dict(found.facts.attributes), events, links


def in_hexadecimal(document):
    """Return OTLP as its specification writes it, where protobuf's own JSON has numbers in base 64."""
    text = json.dumps(document)
    for name in ("traceId", "spanId", "parentSpanId"):
        for piece in set(text.split(f'"{name}": "')[1:]):
            number = piece.partition('"')[0]
            text = text.replace(f'"{name}": "{number}"', f'"{name}": "{base64.b64decode(number).hex()}"')
    return json.loads(text)


@pytest.mark.parametrize("written", [in_hexadecimal, lambda document: document], ids=["specification", "protobuf"])
def test_otlp_and_the_sdk_say_the_same(written):
    """What a collector writes and what the SDK writes of the same spans are read as the same."""
    recorder = recorded(*SCENES)
    of_sdk = [next(spans_of(json.loads(line))) for line in recorder.lines.splitlines()]
    of_otlp = list(spans_of(written(MessageToDict(encode_spans(recorder.spans)))))
    assert sorted(map(described, of_otlp), key=repr) == sorted(map(described, of_sdk), key=repr)


def test_only_what_may_be_shown_is_kept():
    """Prompts, answers, arguments and whatever an application adds are not, though the file has them."""
    secret = "canary"
    kept = one(
        attributes={
            "gen_ai.request.model": "m",
            "gen_ai.input.messages": secret,
            "gen_ai.output.messages": secret,
            "gen_ai.tool.call.arguments": secret,
            "gen_ai.tool.call.result": secret,
            "gen_ai.tool.description": secret,
            "gen_ai.tool.definitions": secret,
            "gen_ai.request.stop_sequences": [secret],
            "db.statement": secret,
        }
    )
    assert dict(kept.facts.attributes) == {"gen_ai.request.model": "m"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "text",
        True,
        {},
        {"name": "x"},
        span(context=None),
        span(context={"trace_id": "0x1"}),
        span(context={"trace_id": "nonsense", "span_id": "0x1"}),
        span(context={"trace_id": "0x0", "span_id": "0x1"}),
        span(context={"trace_id": "0x" + "1" * 40, "span_id": "0x1"}),
        span(start_time=None),
        span(start_time="yesterday"),
        span(start_time=-1),
        span(start_time=1e30),
        span(start_time=float("nan")),
        span(start_time=float("inf")),
        {"spanId": "AAAA=", "traceId": "!=", "startTimeUnixNano": "1"},
    ],
)
def test_what_is_no_span(value):
    """Without a number or a time there is nothing to draw, and nothing fails."""
    assert list(spans_of(value)) == [None]


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"resourceLogs": []},
        {"resourceMetrics": [{}]},
        {"resourceSpans": None},
        {"resourceSpans": [None, {}, {"scopeSpans": 3}, {"scopeSpans": [{"spans": "x"}]}]},
    ],
)
def test_what_holds_no_spans(value):
    """Logs, metrics and empty lists are passed over."""
    assert list(spans_of(value)) == []


@pytest.mark.parametrize("end", [None, "2027-01-15T07:00:00Z", "never", 1e40])
def test_no_span_ends_before_it_begins(end):
    """An end that is missing, earlier or nonsense is the beginning."""
    found = one(end_time=end)
    assert found.end == found.start


@pytest.mark.parametrize(
    ("time", "nanoseconds"),
    [
        ("2027-01-15T08:00:00.123456Z", 1_800_000_000_123_456_000),
        ("2027-01-15T08:00:00.123456789Z", 1_800_000_000_123_456_789),
        ("2027-01-15T08:00:00", 1_800_000_000_000_000_000),
        ("2027-01-15T10:00:00+02:00", 1_800_000_000_000_000_000),
        ("1800000000000000001", 1_800_000_000_000_000_001),
        (1_800_000_000_000_000_001, 1_800_000_000_000_000_001),
    ],
)
def test_times(time, nanoseconds):
    """Dates are in UTC where they do not say otherwise, and no digit is lost."""
    assert one(start_time=time).start == nanoseconds


def test_texts_are_made_harmless():
    """No control character, no override of direction, no half of a pair, one line, and no longer than can be shown."""
    found = one(name="a\x1b]0;x\x07b\u202ec\ud800\n\td", service="x")
    assert found.name == "a]0;xbc? d"
    assert len(one(name="x" * 10_000_000).name) == 200
    assert len(one(name="é" * 10_000_000).name) == 200


@pytest.mark.parametrize(
    ("value", "text", "number", "count", "flag"),
    [
        ("x", "x", None, None, None),
        ("", None, None, None, None),
        (3, None, 3, 3, None),
        (2.5, None, 2.5, None, None),
        (-1, None, None, None, None),
        (True, None, None, None, True),
        (float("nan"), None, None, None, None),
        (float("inf"), None, None, None, None),
        (10**30, None, None, None, None),
        (["a", 1, "b"], None, None, None, None),
        ({"a": 1}, None, None, None, None),
        (None, None, None, None, None),
    ],
)
def test_facts_of_a_wrong_kind_are_not_known(value, text, number, count, flag):
    """Nothing is taken for what it is not."""
    facts = one(attributes={"resilient_ai.attempts": value}).facts
    name = "resilient_ai.attempts"
    assert (facts.text(name), facts.number(name), facts.count(name), facts.flag(name)) == (text, number, count, flag)


def test_lists_are_of_texts():
    """And not endless."""
    facts = one(attributes={"resilient_ai.tags": ["a", 1, *"x" * 50]}).facts
    assert facts.attributes["resilient_ai.tags"] == ("a", *"x" * 18)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"intValue": "7"}, 7),
        ({"intValue": 7}, 7),
        ({"intValue": "9" * 40}, None),
        ({"intValue": None}, None),
        ({"doubleValue": 0.5}, 0.5),
        ({"boolValue": False}, False),
        ({"arrayValue": {"values": [{"stringValue": "a"}]}}, ("a",)),
        ({"kvlistValue": {}}, None),
        ({}, None),
    ],
)
def test_values_of_otlp(value, kept):
    """Each kind as what it is."""
    attributes = [{"key": "resilient_ai.attempts", "value": value}, "nonsense", {"key": 3}]
    (found,) = spans_of({"spanId": "a1", "traceId": "b1", "startTimeUnixNano": "5", "attributes": attributes})
    assert found.facts.attributes.get("resilient_ai.attempts") == kept
    assert isinstance(found.facts, Facts)


def test_odd_events_and_links_are_left_out_alone():
    """The rest of their span is kept."""
    good_event = {"name": "resilient_ai.retry", "timestamp": "2027-01-15T08:00:00Z", "attributes": {}}
    good_link = {"context": {"trace_id": "0x1", "span_id": "0x2"}, "attributes": {}}
    found = one(
        events=[good_event, {"name": "x"}, {"timestamp": "2027"}, None, 3],
        links=[good_link, {"context": None}, {}, "x"],
    )
    assert ([event.name for event in found.events], [link.span for link in found.links]) == (
        ["resilient_ai.retry"],
        ["2"],
    )


def test_other_traces_can_be_left_out():
    """Before anything is made of them."""
    both = [span(trace=1), span(trace=2), {}, span(context=3)]
    assert [found.trace for found in spans_of(both, {f"{2:032x}"})] == [f"{2:032x}"]
