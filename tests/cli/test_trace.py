"""`resilient-ai trace`: the drawing, the options, the document, and files that mean harm."""

import io
import json
import random
import re
import stat

import pytest
from rich.cells import cell_len
from rich.console import Console

from resilient_ai.cli._trace_draw import drawing
from resilient_ai.cli._trace_search import Wanted, find
from resilient_ai.cli._trace_words import lasted, ticks

from .drawings import ALL, NARROW, RETRIED
from .test_trace_calls import T, attempt, call_at, foreign
from .traces import recorded, span

SCENES = ("retried", "streamed", "hedged", "fell_back", "cached", "queued", "refused", "with_tools")


@pytest.fixture(scope="module")
def recorder():
    return recorded(*SCENES)


@pytest.fixture
def trace(offline, recorder):
    """Run the command on the file of all scenes, or on a text."""
    file = offline.folder / "calls.jsonl"

    def run(*args, text=None, **env):
        file.write_text(recorder.lines if text is None else text, errors="surrogatepass")
        return offline.run("trace", file, *args, **env)

    return run


def lines(*spans):
    return "".join(f"{json.dumps(one)}\n" for one in spans)


def test_a_retried_call_is_drawn(trace):
    """500, a wait, 429, the wait that the server asked for, 200: each where it stands in time."""
    result = trace("--trace", "6513270e", COLUMNS="80")
    assert result.stdout == RETRIED
    assert result.stderr == "1 call, 3 attempts; $0.0000097\n"


def test_every_scene_is_drawn(trace):
    """A stream, a hedge, a fallback, the cache, a line, a failure and a loop of tools."""
    result = trace("--last", "100", COLUMNS="80")
    assert result.stdout == ALL
    assert result.stderr == "11 calls, 1 tool, 1 failed, 14 attempts; at least $0.0000882\n"


def test_a_narrow_terminal_has_bars_below_their_words(trace):
    """Of thirty columns."""
    assert trace("--trace", "8d116ece", COLUMNS="30").stdout == NARROW


def test_a_terminal_without_such_characters_gets_others(trace):
    """Of ASCII alone."""
    drawn = trace("--trace", "6513270e", COLUMNS="80").stdout
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    plain = "\n".join(line.plain for line in drawing(_found(recorded("retried").lines).traces, console, 80))
    assert plain.isascii()
    assert [len(line.rstrip()) for line in plain.splitlines()] == [len(line) for line in drawn.splitlines()]
    assert "  wait, backoff                      ..                    250 ms" in plain


@pytest.mark.parametrize("width", range(30, 201, 5))
def test_every_line_fits(recorder, width):
    """In any terminal of 30 to 200 columns, and everything is there."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    drawn = [line.plain for line in drawing(_found(recorder.lines).traces, console, width)]
    assert max(map(cell_len, drawn)) <= width
    text = "\n".join(drawn)
    assert len(re.findall(r"^✓ chat|^✗ chat", text, re.MULTILINE)) == 11
    assert len(re.findall(r"^  \d (initial|retry|hedge|fallback|ini|initi|fall)", text, re.MULTILINE)) == 14


def test_a_terminal_has_colours_and_a_pipe_has_none(offline, recorder):
    """A pipe gets plain text."""
    file = offline.folder / "t.jsonl"
    file.write_text(recorder.lines)
    console = Console(file=io.StringIO(), width=90, force_terminal=True, color_system="256")
    for line in drawing(_found(recorder.lines).traces, console, 90):
        console.print(line, soft_wrap=True)
    assert "\x1b[31m" in console.file.getvalue()
    shown = offline.start("trace", file)
    out, _ = shown.communicate()
    assert shown.returncode == 0
    assert b"\x1b" not in out
    assert max(map(len, out.decode().splitlines())) <= 140


def test_standard_input_is_read(offline, recorder):
    """As it comes out of another program."""
    result = offline.run("trace", "-", stdin=recorder.lines)
    assert "11 calls, 1 tool" in result.stderr


def test_options_choose(trace):
    """The slowest, the failed, those of a model, those of a trace."""

    def titles(*args):
        return re.findall(r"^[✓✗] (\w+)", trace(*args).stdout, re.MULTILINE), trace(*args).stderr

    assert titles("--failed") == (["chat"], "1 call, 1 failed, 1 attempt; $0\n")
    assert titles("-n", "2", "--slowest") == (
        ["chat", "chat"],
        "2 calls, 4 attempts; at least $0.0000097; the slowest of 11 calls\n",
    )
    assert titles("--last", "1") == (["chat"], "1 call, 1 attempt; $0.0000097; the last of 11 calls\n")
    assert titles("--last", "2")[1] == "2 calls, 1 tool, 2 attempts; $0.0000197; the last of 11 calls\n"
    assert titles("--model", "qwen")[0] == ["chat"]
    assert titles("--trace", "5c90a958")[0] == ["chat", "tool", "chat"]
    assert titles("--model", "gpt") == ([], "none of 11 calls fits\n")
    assert trace("--trace", " ").exit_code == 2
    assert trace("--last", "0").exit_code == 2


def test_the_document_has_everything(trace):
    """With exact amounts, and seconds from the start of each call."""
    found = json.loads(trace("--json", "--last", "100").stdout)
    assert (len(found["calls"]), [tool["name"] for tool in found["tools"]]) == (11, ["weather"])
    assert found["found"] == {"calls": 11, "matching": 11, "spans_left_out": 0}
    retried, streamed, hedged, fell_back, _, cached, *_ = found["calls"]
    assert (retried["started"], retried["duration"], retried["cost"]) == ("2027-01-15T08:16:40.000Z", 4.65, "0.0000097")
    parts = [(part["part"], part["start"], part["duration"]) for part in retried["parts"]]
    assert parts[:2] == [("attempt", 0.0, 0.8), ("wait", 0.8, 0.25)]
    assert streamed["stream"]["first_chunk"] == pytest.approx(0.35)
    assert streamed["stream"]["tokens_per_second"] == pytest.approx(20 / 1.52, rel=0.01)
    assert [part["outcome"] for part in hedged["parts"] if part["part"] == "attempt"] == ["lost", "won"]
    assert (fell_back["served_by"], fell_back["parts"][1]["text"]) == ("Qwen/Qwen3-32B", "Qwen/Qwen3-32B")
    assert (cached["cache"], cached["cache_age"], cached["cost"], cached["parts"]) == (
        "hit",
        pytest.approx(12),
        "0",
        [],
    )


def test_the_document_has_what_other_libraries_wrote(trace):
    """And calls that have not ended, and those that share an answer."""
    link = {
        "context": {"trace_id": "0xa", "span_id": "0xb"},
        "attributes": {"resilient_ai.link.type": "coalesced_leader"},
    }
    text = lines(span(links=[link]), foreign(5, 1), attempt(7, 6), foreign(8, 7))
    shared, lost = json.loads(trace("--json", text=text).stdout)["calls"]
    assert shared["shares_answer_of"] == {"trace_id": "a", "span_id": "b"}
    assert [part["name"] for part in shared["parts"]] == ["POST"]
    assert (lost["complete"], [one["name"] for one in lost["parts"][0]["others"]]) == (False, ["POST"])


def test_what_is_known_of_a_call_is_said(trace):
    """Its tokens, what was wasted, how a stream ended, why nobody tried again."""
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "org/m",
        "gen_ai.usage.input_tokens": 1200,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 1000,
        "gen_ai.usage.reasoning.output_tokens": 20,
        "gen_ai.response.time_to_first_chunk": 0.2,
        "gen_ai.response.finish_reasons": ["length", "stop"],
        "resilient_ai.usage.discarded_output_tokens": 7,
        "resilient_ai.stream.time_to_first_content": 0.5,
        "resilient_ai.stream.outcome": "interrupted",
        "resilient_ai.stream.chunks": 4,
        "resilient_ai.cost.amount": 0.002,
        "resilient_ai.cost.wasted": 0.001,
        "resilient_ai.cost.complete": False,
        "resilient_ai.outcome": "error",
        "resilient_ai.error.class": "StreamInterrupted",
        "error.type": "stream_interrupted",
        "resilient_ai.retry.stop_reason": "exhausted",
        "resilient_ai.timeout.phase": "first_token",
        "resilient_ai.budget.name": "25 USD per day",
        "resilient_ai.request.batch_size": 3,
        "resilient_ai.image.count": 1,
        "resilient_ai.tenant": "acme",
    }
    drawn = trace(text=lines(span(attributes=attributes, status={"status_code": "ERROR"})), COLUMNS="140").stdout
    said = [part for line in drawn.splitlines()[3:] for part in line.strip().split(" · ")]
    assert said[:17] == [
        "StreamInterrupted",
        "not tried again: exhausted",
        "timeout: first token",
        "budget 25 USD per day",
        "1,200 + 30 tokens (1,000 cached, 20 reasoning)",
        "7 tokens of answers that were not used",
        "3 texts",
        "1 image",
        "at least $0.002",
        "$0.001 of it wasted",
        "first token after 200 ms",
        "first of the answer after 500 ms",
        "stream interrupted after 4 pieces",
        "finished by length",
        "tenant acme",
        "org/m",
        "",
    ]


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({"resilient_ai.outcome": "success", "resilient_ai.cache.outcome": "stale"}, "✓ chat m  stale hit"),
        ({"resilient_ai.outcome": "success", "resilient_ai.cache.outcome": "joined"}, "✓ chat m  joined"),
        ({"resilient_ai.outcome": "refused", "error.type": "circuit_open"}, "✗ chat m  circuit_open"),
        (
            {"resilient_ai.outcome": "error", "error.type": "_OTHER", "resilient_ai.error.class": "KeyError"},
            "✗ chat m  KeyError",
        ),
        ({"resilient_ai.outcome": "error"}, "✗ chat m  error"),
        ({"resilient_ai.outcome": "cancelled", "error.type": "cancelled"}, "○ chat m  cancelled"),
        ({"resilient_ai.outcome": "abandoned"}, "○ chat m  abandoned"),
    ],
)
def test_how_a_call_ended(trace, fields, result):
    """In a word, and by a sign."""
    usual = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    code = "UNSET" if fields["resilient_ai.outcome"] in {"success", "abandoned"} else "ERROR"
    drawn = trace(text=lines(span(attributes=usual | fields, status={"status_code": code})))
    head = drawn.stdout.splitlines()[2].split()
    assert " ".join((*head[:3], "", head[-1] if "hit" not in head else "stale hit")) == result


def test_the_last_line_says_which_tokens_it_cannot_count(trace):
    """Those of a stream that was left and paid for, as the page does."""
    left = {
        "gen_ai.operation.name": "chat",
        "resilient_ai.stream.outcome": "abandoned",
        "resilient_ai.cost.amount": 0.5,
    }
    said = trace(text=lines(span(attributes=left))).stderr
    assert said.startswith("1 call; $0.50\nWithout the tokens of 1 stream that did not come to an end")


def test_parts_that_other_scenes_lack(trace):
    """What stands in a line below an attempt, an unknown wait, events, a call that has not ended, more than there is room for."""
    event = {"name": "resilient_ai.circuit_breaker.transition", "timestamp": f"{T}00Z"}
    events = [
        event | {"attributes": {"resilient_ai.circuit_breaker.state": "half_open"}},
        event,
        event | {"name": "resilient_ai.fallback"},
        event | {"name": "resilient_ai.stream_resumed"},
        event | {"name": "resilient_ai.stream_resumed", "attributes": {"resilient_ai.stream_resumed.how": "continue"}},
        event | {"name": "resilient_ai.hedge"},
        event | {"name": "resilient_ai.retry", "attributes": {"resilient_ai.retry.delay_source": "moon"}},
    ]
    odd = {"resilient_ai.attempt.outcome": "error", "error.type": "_OTHER", "resilient_ai.error.class": "KeyError"}
    text = lines(
        span(events=events),
        attempt(attributes=odd),
        foreign(11, 10, name="POST", attributes={"http.response.status_code": 502}, status={"status_code": "ERROR"}),
        foreign(12, 10, name="send", status={"status_code": "ERROR"}),
        attempt(30, 29),
        *(foreign(number, 1, start_time=f"{T}00.9Z") for number in range(100, 150)),
    )
    drawn = trace(text=text).stdout
    labels = [line[:28].rstrip() for line in drawn.splitlines() if line.startswith("  ")]
    assert labels[1:10] == [
        "  circuit half open",
        "  circuit",
        "  falls back",
        "  stream resumed",
        "  stream resumed, continue",
        "  hedge",
        "  1 attempt",
        "    POST",
        "    send",
    ]
    assert "  wait, moon" in labels
    assert re.search(r"POST .* 502$", drawn, re.MULTILINE)
    assert re.search(r"send .* error$", drawn, re.MULTILINE)
    assert re.search(r"attempt .* KeyError$", drawn, re.MULTILINE)
    assert "and 20 more lines; --json has all" in drawn
    assert "its own span is not in the file: it has not ended, or stands elsewhere" in drawn


@pytest.mark.parametrize("text", ["", "[]\n"])
def test_an_empty_file(trace, text):
    """Nothing is drawn, and that is said."""
    result = trace(text=text)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "there are no calls in " + result.stderr[22:])


def test_a_file_that_is_being_written(trace, recorder):
    """What is whole is drawn."""
    result = trace(text=recorder.lines[:-20])
    assert result.exit_code == 0
    assert "the file ends within a span" in result.stderr


def test_wrong_files(offline):
    """One line, and the exit code for wrong use."""
    (offline.folder / "text").write_text("hello\n")
    for name, sentence in (("missing", "No such file"), (".", "directory"), ("text", "there are no spans in it")):
        result = offline.run("trace", name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert sentence in result.stderr


def test_the_page_is_private_and_whole_or_not_there(trace, offline):
    """A file that only this user can read; nothing is drawn beside it, and the document can be had with it."""
    result = trace("--html", "out.html")
    page = offline.folder / "out.html"
    assert result.stdout == ""
    assert result.stderr.startswith("wrote out.html\n11 calls")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert json.loads(trace("--html", "out.html", "--json").stdout)["calls"]
    missing = trace("--html", "nowhere/out.html")
    assert (missing.exit_code, (offline.folder / "nowhere").exists()) == (2, False)
    assert missing.stderr == "error: nowhere/out.html: No such file or directory\n"


def test_spans_without_room_are_told(trace, monkeypatch):
    """With their number."""
    monkeypatch.setattr("resilient_ai.cli._trace_search._MOST_SPANS", 1)
    result = trace(text=lines(span(), foreign(11, 1), foreign(12, 1), foreign(13, 1)))
    assert result.stderr == "1 call\n2 spans had no room and are left out\n"


def test_a_shared_answer_names_its_trace(trace):
    """Where the call that asked for it can be looked up."""
    attributes = {"resilient_ai.link.type": "coalesced_leader"}
    link = {"context": {"trace_id": f"0x{'ab' * 16}", "span_id": "0xb"}, "attributes": attributes}
    assert "shares the answer of a call in trace abababab" in trace(text=lines(span(links=[link]))).stdout


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (1e-9, "<0.01 ms"),
        (0.000123, "0.12 ms"),
        (0.0095, "9.5 ms"),
        (0.0099996, "10 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (9.996, "10.0 s"),
        (59.4, "59.4 s"),
        (59.6, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (360_000, "4 d"),
        (86400 * 36500, "36,500 d"),
    ],
)
def test_how_long_something_took(seconds, text):
    """In the unit that people would use."""
    assert lasted(seconds * 1e9) == text


@pytest.mark.parametrize(
    ("seconds", "names"),
    [
        (1e-9, ["0", "1 ns"]),
        (0.00004, ["0", "10 µs", "20 µs", "30 µs", "40 µs"]),
        (0.35, ["0", "100 ms", "200 ms", "300 ms"]),
        (59, ["0", "20 s", "40 s"]),
        (200, ["0", "1 min", "2 min", "3 min"]),
        (4000, ["0", "30 min", "1 h"]),
        (100_000, ["0", "6 h", "12 h", "18 h", "1 d"]),
        (86400 * 3650, ["0", "1000 d", "2000 d", "3000 d"]),
    ],
)
def test_axes_have_round_times(seconds, names):
    """However short or long they are."""
    assert [name for _, name in ticks(7, 7 + round(seconds * 1e9), 5)] == names


# Files that mean harm

EVIL = [
    "[bold red]x[/]",
    "[/",
    "\x1b]8;;http://e\x1b\\",
    "\x1b[2J\x9b31m",
    "\u202eevil",
    "<script>",
    "a\nb\r\tc",
    "x" * 10_000_000,
    "\ud800",
    "名" * 90,
    "",
]


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_names_that_mean_harm(trace, evil):
    """Nothing in them is obeyed, by the terminal or by rich, and every line fits."""
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": evil,
        "gen_ai.response.model": evil,
        "resilient_ai.outcome": "error",
        "error.type": evil,
        "resilient_ai.tenant": evil,
        "resilient_ai.error.class": evil,
        "resilient_ai.fallback.model": evil,
    }
    status = {"status_code": "ERROR"}
    text = lines(
        span(name=evil, number=9, attributes={}),
        span(parent_id=f"0x{9:016x}", name=evil, attributes=attributes, status=status),
        attempt(attributes={f"resilient_ai.attempt.{name}": evil for name in ("kind", "model", "outcome")}),
        foreign(11, 10, name=evil),
    )
    for width in ("30", "80"):
        result = trace(text=text, COLUMNS=width)
        assert result.exit_code == 0
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", result.stdout)
        assert max(map(cell_len, result.stdout.splitlines())) <= int(width)
    if evil.startswith("[b"):
        assert "[bold red]x[/]" in trace(text=text, COLUMNS="140").stdout


NUMBERS = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.response.finish_reasons",
    "resilient_ai.cost.amount",
    "resilient_ai.cost.wasted",
    "resilient_ai.cache.age",
    "resilient_ai.attempts",
    "resilient_ai.stream.chunks",
    "resilient_ai.request.batch_size",
)


def test_ends_before_beginnings_and_numbers_that_are_none(trace):
    """A picture is drawn all the same."""
    odd = [float("nan"), float("inf"), -float("inf"), -1, 1e300, "x", None, True, [], {}]
    for value in odd:
        attributes = dict.fromkeys(NUMBERS, value) | {
            "resilient_ai.outcome": "success",
            "resilient_ai.stream.outcome": "completed",
        }
        backwards = {"start_time": f"{T}05Z", "end_time": f"{T}01Z"}
        text = lines(span(attributes=attributes, **backwards), attempt(**backwards), call_at(3, 50))
        assert trace(text=text).exit_code == 0
        assert trace("--json", text=text).exit_code == 0
        assert trace("--html", "out.html", text=text).exit_code == 0


def test_broken_files_never_break_the_command(offline, recorder):
    """Whatever bytes are changed, cut out or put in; the seed is in the message."""
    text = recorder.lines.encode()
    for seed in range(30):
        chance = random.Random(seed)
        broken = bytearray(text)
        for _ in range(chance.randrange(1, 60)):
            place = chance.randrange(len(broken))
            length = chance.choice([0, 1, 1, 30])
            broken[place : place + length] = chance.randbytes(chance.choice([0, 1, 1, 2]))
        file = offline.folder / "broken"
        file.write_bytes(broken)
        for args in (["--json"], ["--html", "out.html"], []):
            result = offline.run("trace", file, *args)
            assert result.exit_code == 0, (seed, args, result.stderr)


def _found(text):
    return find(io.BytesIO(text.encode()), Wanted(most=1000))
