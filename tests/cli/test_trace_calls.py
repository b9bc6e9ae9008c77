"""From spans to calls: what stands in what, and what is left where spans are missing, foreign or wrong."""

import io
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.cli import _trace_search
from resilient_ai.cli._trace_calls import Tree
from resilient_ai.cli._trace_model import Attempt, Mark, Other, Wait
from resilient_ai.cli._trace_search import Wanted, find
from resilient_ai.cli._trace_spans import Span
from resilient_ai.cli._trace_values import Facts
from resilient_ai.cli.failures import WrongUseError

from .traces import LLAMA, recorded, span

T = "2027-01-15T08:00:"


def found_in(*spans, most=20, **wanted):
    return find(io.BytesIO("".join(f"{json.dumps(one)}\n" for one in spans).encode()), Wanted(most=most, **wanted))


def calls_of(*spans, **wanted):
    return found_in(*spans, **wanted).shown


def attempt(number=10, parent=1, **fields):
    attributes = {"resilient_ai.attempt.number": 1, "resilient_ai.attempt.model": "m"} | fields.pop("attributes", {})
    return span(
        name="resilient_ai.attempt", number=number, parent_id=f"0x{parent:016x}", attributes=attributes, **fields
    )


def foreign(number, parent, **fields):
    return span(**{"name": "POST", "number": number, "parent_id": f"0x{parent:016x}", "attributes": {}} | fields)


def call_at(number, second=0, **fields):
    """Return a call that begins at a second and takes one."""
    times = {"start_time": f"{T}{second:02}Z", "end_time": f"{T}{second + 1:02}Z"}
    return span(**{"number": number, "trace": number, **times, **fields})


def test_a_retried_call_in_full():
    """Attempts and waits in the order of time, with what went wrong and what it cost."""
    (call,) = find(io.BytesIO(recorded("retried").lines.encode()), Wanted(most=1)).shown
    kinds = [(type(part), part.end - part.start) for part in call.parts]
    assert [(kind, round(took / 1e9, 3)) for kind, took in kinds] == [
        (Attempt, 0.8),
        (Wait, 0.25),
        (Attempt, 0.3),
        (Wait, 2.1),
        (Attempt, 1.2),
    ]
    first, wait, second, asked, third = call.parts
    assert (first.error, first.status, second.error, third.cost) == ("500", 500, "429", Decimal("0.0000097"))
    assert (wait.source, wait.error, asked.source, asked.error) == ("backoff", "500", "retry_after", "429")
    assert (call.title, call.attempts, call.outcome, call.failed) == (LLAMA, 3, "success", False)


def test_foreign_spans_nest_under_attempts_and_calls():
    """As deep as they say, but for those that stand in themselves."""
    (call,) = calls_of(
        span(),
        attempt(),
        foreign(20, 10, name="POST", attributes={"http.status_code": 200}),
        foreign(21, 20, name="connect", status={"status_code": "ERROR"}),
        foreign(22, 1, name="redis GET", start_time=f"{T}00.5Z"),
        foreign(23, 22, name=""),
        foreign(24, 24),
    )
    first, redis, inner = call.parts
    shown = [(one.name, one.depth, one.status, one.failed) for one in first.others]
    assert shown == [("POST", 0, 200, False), ("connect", 1, None, True)]
    assert [(one.name, one.depth) for one in (redis, inner)] == [("redis GET", 0), ("(no name)", 1)]
    assert isinstance(redis, Other)


def test_calls_in_calls():
    """A function that asks a model itself has the call under it, whatever stands between."""
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look"}
    found = found_in(
        span(name="agent", number=1, attributes={}),
        span(number=2, parent_id=f"0x{1:016x}", name="execute_tool look", attributes=tool),
        foreign(3, 2),
        span(number=4, parent_id=f"0x{3:016x}"),
    )
    (trace,) = found.traces
    assert [(depth, call.is_tool, call.title) for depth, call in trace.calls] == [(0, True, "look"), (1, False, "m")]
    assert trace.root == "agent"


def test_two_that_stand_in_each_other_are_both_shown():
    """There is no top to find."""
    found = found_in(span(number=1, parent_id=f"0x{2:016x}"), span(number=2, parent_id=f"0x{1:016x}"))
    assert [(depth, call.span[-1]) for depth, call in found.traces[0].calls] == [(0, "1"), (0, "2")]


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("abcdefghx") | st.none()),
    st.lists(st.sampled_from("abcdefghx"), unique=True),
)
def test_where_spans_stand(parents, chosen):
    """As by walking up from each of them: in the next chosen one; and at the top of all, where there is no circle."""
    tree = Tree({one: span_of(one, parent) for one, parent in parents.items()}, chosen)
    for one in [*parents, *chosen]:
        path = [one]
        while (parent := parents.get(path[-1])) is not None and parent not in path:
            path.append(parent)
        within = next((above for above in path[1:] if above in chosen), None)
        assert tree.place(one) == (within, path[-1] if parent is None else None)


def test_no_span_is_passed_twice_on_the_way_up():
    """However deep calls stand, and however many there are: it is counted how often one is looked up."""

    class Counted(dict):
        looks = 0

        def get(self, *key):
            self.looks += 1
            return super().get(*key)

    deep, many = 5000, 2000
    names = [str(number) for number in range(deep + many)]
    parents = [None, *names[: deep - 1], *[names[deep - 1]] * many]
    spans = Counted((one, span_of(one, parent)) for one, parent in zip(names, parents, strict=True))
    tree = Tree(spans, names[deep:])
    assert {tree.place(one) for one in names[deep:]} == {(None, "0")}
    assert spans.looks <= 2 * len(spans)


def span_of(one, parent):
    return Span(trace="t", id=one, parent=parent, name=one, start=0, end=1, failed=False, facts=Facts({}))


def test_attempts_without_their_call_tell_of_it():
    """A process that was killed has not ended its call."""
    limiter = {"resilient_ai.limiter.name": "rate"}
    found = found_in(
        attempt(10, 1, attributes={"resilient_ai.attempt.model": "x"}, start_time=f"{T}02Z", end_time=f"{T}03Z"),
        foreign(11, 1, name="resilient_ai.limiter.wait", attributes=limiter, start_time=f"{T}00Z", end_time=f"{T}02Z"),
        call_at(3, 8),
    )
    lost, whole = found.shown
    assert (lost.complete, lost.title, lost.attempts, lost.end - lost.start) == (False, "x", 1, 3 * 10**9)
    assert [getattr(part, "kind", None) for part in lost.parts] == ["rate", None]
    assert (whole.complete, found.calls) == (True, 2)


def test_an_attempt_that_ends_after_its_call_is_part_of_it():
    """As one that lost a race; and a call that was exported twice is one."""
    (call,) = calls_of(span(), span(), attempt())
    assert len(call.parts) == 1


def test_waits_do_not_outlast_their_call():
    """One that was cancelled has not waited to the end, and a wait that is no number is none."""

    def retry(delay):
        return {
            "name": "resilient_ai.retry",
            "timestamp": f"{T}00.25Z",
            "attributes": {"resilient_ai.retry.delay": delay},
        }

    (call,) = calls_of(span(events=[retry(60), retry(-1), retry("x"), retry(1e300), retry(float("nan"))]))
    assert [(part.end - part.start) / 1e9 for part in call.parts] == [0.75, 0.0, 0.0, 0.0, 0.0]


def test_what_happens_at_a_moment():
    """Fallbacks, resumed streams, circuits and hedges, each before what follows from it."""

    def event(name, **attributes):
        return {
            "name": f"resilient_ai.{name}",
            "timestamp": f"{T}00Z",
            "attributes": {f"resilient_ai.{key}": value for key, value in attributes.items()},
        }

    events = [
        event("fallback", **{"fallback.to": "b"}),
        event("stream_resumed", **{"stream_resumed.how": "continue"}),
        event("circuit_breaker.transition", **{"circuit_breaker.state": "open"}),
        event("hedge"),
        event("unknown"),
    ]
    (call,) = calls_of(attempt(), span(events=events))
    *marks, last = call.parts
    assert [(mark.kind, mark.text) for mark in marks if isinstance(mark, Mark)] == [
        ("fallback", "b"),
        ("resumed", "continue"),
        ("circuit", "open"),
        ("hedge", None),
    ]
    assert isinstance(last, Attempt)


@pytest.mark.parametrize(
    ("amount", "dollars"),
    [
        (0.0000097, Decimal("0.0000097")),
        (0, Decimal(0)),
        (1e-300, Decimal(0)),
        (-1, None),
        (1e12, None),
        ("1", None),
        (True, None),
    ],
)
def test_amounts(amount, dollars):
    """What is no price is not known."""
    (call,) = calls_of(span(attributes={"resilient_ai.outcome": "success", "resilient_ai.cost.amount": amount}))
    assert call.money.amount == dollars


def test_what_counts_as_a_call():
    """Ours, described by somebody else or not, and those of other libraries; nothing else."""
    described = span(number=1, trace=1, name="resilient_ai.request", attributes={"resilient_ai.outcome": "success"})
    other = span(number=2, trace=2, name="embeddings e", attributes={"gen_ai.operation.name": "embeddings"})
    agent = span(number=3, trace=3, name="invoke_agent x", attributes={"gen_ai.operation.name": "invoke_agent"})
    attempted = attempt(9, 1, trace=1, attributes={"resilient_ai.attempt.model": "z"})
    assert [(call.operation, call.title) for call in calls_of(described, attempted, other, agent)] == [
        ("call", "z"),
        ("embeddings", "e"),
    ]


# Which calls


def test_the_last_the_slowest_and_the_failed():
    """As many as are asked for, in the order that was asked for."""
    failed = {"status": {"status_code": "ERROR"}, "end_time": f"{T}09Z"}
    spans = [call_at(3, 3), call_at(1, 1), call_at(2, 2, **failed), call_at(4, 4)]

    def numbers(**wanted):
        return [int(call.span, 16) for call in calls_of(*spans, **wanted)]

    assert numbers() == [1, 2, 3, 4]
    assert numbers(most=2) == [3, 4]
    assert numbers(most=1, slowest=True) == [2]
    assert numbers(most=3, slowest=True) == [2, 3, 1]
    assert numbers(failed=True) == [2]
    assert numbers(model="x") == []


def test_a_model_is_found_by_a_part_of_its_name():
    """Whether it was asked, or has answered."""
    outcome = {"resilient_ai.outcome": "success"}
    spans = [
        call_at(1, attributes=outcome | {"gen_ai.request.model": "Meta/Llama"}),
        call_at(2, attributes=outcome | {"gen_ai.response.model": "meta/llama"}),
        call_at(3, attributes=outcome),
        attempt(4, 9, attributes={"resilient_ai.attempt.model": "old/LLAMA"}),
    ]
    assert {call.span[-1] for call in calls_of(*spans, model="LLaMA")} == {"1", "2", "9"}


def test_a_trace_is_found_by_its_first_digits_and_a_call_by_its_id():
    """Whether they come from a backend or from a line of a log."""
    id_of_call = {"resilient_ai.outcome": "success", "resilient_ai.call.id": "5571b4"}
    spans = [call_at(0xAB), call_at(0xAC, attributes=id_of_call)]
    for wanted in (f"0x{0xAC:032X}", f"{0xAC:032x}", "5571b4"):
        assert [call.span[-2:] for call in calls_of(*spans, trace=wanted)] == ["ac"]
    assert len(calls_of(*spans, trace="000")) == 2


def test_counts_are_of_the_whole_file():
    """Of all calls, and of those that fit."""
    found = found_in(*(call_at(number, number) for number in range(1, 9)), most=3, model="m")
    assert (found.calls, found.matching, len(found.shown)) == (8, 8, 3)


def test_functions_are_no_calls(monkeypatch):
    """They are not counted as such, take no call's place, and come with the calls that they stand between."""
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look"}
    kinds = {1: {}, 2: {"attributes": tool}, 3: {}, 4: {"attributes": tool}, 5: {}}
    spans = [call_at(number, number * 5, **fields) for number, fields in kinds.items()]

    def shown(**wanted):
        found = found_in(*spans, **wanted)
        assert (found.calls, found.matching) == (3, 3)
        return [int(call.span, 16) for call in found.shown], len(found.shown_calls)

    assert shown() == ([1, 2, 3, 4, 5], 3)
    assert shown(most=2) == ([3, 4, 5], 2)
    assert shown(most=1) == ([5], 1)
    monkeypatch.setattr(_trace_search, "_MOST_TOOLS", 1)
    assert shown() == ([1, 3, 4, 5], 3)
    alone = found_in(spans[1])
    assert (alone.calls, len(alone.shown), alone.shown_calls) == (0, 1, [])


def test_memory_does_not_grow_with_the_file(monkeypatch):
    """Calls that may still come are forgotten, and spans for which there is no room are counted."""
    monkeypatch.setattr(_trace_search, "_MOST_UNKNOWN", 2)
    monkeypatch.setattr(_trace_search, "_MOST_SPANS", 3)
    lost = [attempt(100 + number, number, start_time=f"{T}{number:02}Z") for number in range(1, 6)]
    calls = [call_at(number, 10 + number, trace=1) for number in range(10, 15)]
    found = found_in(*lost, *calls, attempt(200, 14, start_time=f"{T}30Z"))
    assert (found.calls, found.left_out) == (10, 3)


def test_what_could_not_be_read_is_told():
    """Torn lines, nonsense, spans without a time."""
    text = f'{json.dumps(span())}\nnonsense\n{json.dumps(span(start_time=None))}\n{{"name": '
    found = find(io.BytesIO(text.encode()), Wanted(most=1))
    assert found.remarks == [
        "the file ends within a span, as one does that is being written; that one is left out",
        "1 line could not be read, the first of them line 2",
        "1 span without a number or a time left out",
    ]


def test_what_was_too_long_is_told(monkeypatch):
    """With the limit."""
    monkeypatch.setattr("resilient_ai.cli._trace_json.LONGEST", 1000)
    text = f'"{"x" * 2000}"\n{json.dumps(span())}\n'
    found = find(io.BytesIO(text.encode()), Wanted(most=1))
    assert (len(found.shown), found.remarks) == (1, ["1 line longer than 256 MB left out"])


@pytest.mark.parametrize("text", ["hello\n", '{"a": 1}\n', "[1]", "\x00\x01\x02\n"])
def test_a_file_of_something_else_is_refused(text):
    """The sentence says what would do."""
    with pytest.raises(WrongUseError, match="there are no spans in it"):
        find(io.BytesIO(text.encode()), Wanted(most=1))


@pytest.mark.parametrize("text", ["", '{"resourceSpans": []}\n', "[]"])
def test_an_empty_file_has_no_calls(text):
    """Which is not wrong."""
    found = find(io.BytesIO(text.encode()), Wanted(most=1))
    assert (found.calls, found.shown, found.remarks) == (0, [], [])
