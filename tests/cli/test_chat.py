import json
import signal
import time

import pytest

from resilient_ai.cli.chat import _Page, _tell_facts
from resilient_ai.core.deltas import ReasoningDelta, Restarted, TextDelta, ToolCallDelta
from resilient_ai.simulator import Fault, serve
from resilient_ai.testing import PIXEL, chat_result

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
THINKER = "deepseek-ai/DeepSeek-R1-0528"


def test_answer_goes_to_stdout_and_its_cost_to_stderr(shell):
    """Standard output holds the answer alone, so that it can be piped on."""
    result = shell.run("chat", "What is the capital of France?")
    assert (result.exit_code, result.stdout) == (0, "The capital of France is Paris.\n")
    assert result.stderr.startswith(f"{LLAMA} · 11 + 9 tokens · $0.00000398 · ")


def test_whole_answer_reads_like_a_streamed_one(shell):
    """--no-stream changes when the answer appears, not what appears."""
    streamed, whole = (
        shell.run("chat", *more, "-m", THINKER, "Why is the sky blue?") for more in ([], ["--no-stream"])
    )
    assert streamed.stdout == whole.stdout
    assert streamed.stderr.splitlines()[:2] == whole.stderr.splitlines()[:2]


def test_thoughts_go_to_stderr(shell):
    """What a model thinks aloud is not part of the answer."""
    result = shell.run("chat", "-m", THINKER, "Why is the sky blue?")
    assert result.stdout.startswith("The sky is blue because")
    assert result.stderr.startswith("The question is about sky blue.")


def test_thoughts_are_dimmed_on_a_terminal(shell):
    """A terminal shows thoughts dimmed."""
    result = shell.run("chat", "-m", THINKER, "Why?", FORCE_COLOR="1", TERM="xterm", NO_COLOR="")
    assert "\x1b[2m" in result.stderr
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("args", [["-"], []])
def test_prompt_is_read_from_standard_input(shell, args):
    """`-`, or nothing where standard input is no terminal, takes the prompt from there."""
    result = shell.run("chat", *args, stdin="What is the capital of Italy?\n")
    assert result.stdout == "The capital of Italy is Rome.\n"


@pytest.mark.parametrize(
    ("stdin", "sentence"),
    [
        ("  \n", "error: the prompt is empty: give it as an argument, or `-` and standard input"),
        (b"\xff\xfe", "error: standard input is not UTF-8 text"),
    ],
)
def test_unusable_standard_input_is_a_wrong_use(shell, stdin, sentence):
    """Standard input must be text, and not empty."""
    result = shell.run("chat", "-", stdin=stdin)
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (2, "", sentence)


def test_argument_that_is_no_text_is_a_wrong_use(shell):
    """Bytes of an argument that are no UTF-8 are refused before anything is sent."""
    result = shell.run("chat", "caf\udce9")
    assert (result.exit_code, result.stderr) == (2, "error: an argument is not UTF-8 text\n")


def test_json_is_one_document_with_all_facts(shell, simulator):
    """--json gives the answer and everything known about it, and nothing else."""
    result = shell.run("chat", "--json", "-t", "0", "--max-tokens", "50", "--seed", "1", "What is 17 * 23?")
    document = json.loads(result.stdout)
    assert (document["text"], document["finish_reason"], document["tool_calls"]) == ("17 * 23 = 391.", "stop", [])
    assert (document["served_by"], document["cost"], document["attempts"]) == (LLAMA, f"{simulator.stats().bill:f}", 1)
    assert (result.exit_code, result.stderr) == (0, "")


def test_second_time_comes_from_the_cache(shell):
    """A repeatable question is answered from the cache of the process; --no-cache sends it all the same."""
    first, again = (
        json.loads(shell.run("chat", "--json", *more, "-t", "0", "hi").stdout) for more in ([], ["--no-cache"])
    )
    assert (first["cache"], again["cache"]) == ("miss", "off")


def test_cached_answer_says_so(shell):
    """The line of facts names the cache in place of tokens."""
    shell.env["RESILIENT_AI_CACHE_ANSWERS_ON_DISK"] = "1"
    shell.run("chat", "-t", "0", "hi")
    result = shell.run("chat", "-t", "0", "hi")
    assert f"{LLAMA} · from the cache · $0 · " in result.stderr


def test_system_and_picture_travel_along(shell, simulator, tmp_path):
    """--system and --image become part of the conversation."""
    (tmp_path / "pixel.png").write_bytes(PIXEL)
    result = shell.run(
        "chat", "--system", "Be brief.", "-i", "pixel.png", "-m", "google/gemma-3-12b-it", "What do you see?"
    )
    assert result.stdout.startswith("I see a 1 by 1 PNG picture")


def test_next_model_serves_when_the_first_is_down(shell, simulator):
    """Several models are tried in turn, and the line of facts tells how many requests it took."""
    simulator.faults.outage("Qwen/Qwen2.5-72B-Instruct")
    result = shell.run("chat", "-m", "Qwen/Qwen2.5-72B-Instruct", "-m", LLAMA, "hi", RESILIENT_AI_ATTEMPTS="1")
    assert result.exit_code == 0
    assert f"{LLAMA} · 4 + 20 tokens · 2 requests · " in result.stderr


def test_answer_that_was_cut_says_so(shell):
    """An answer that ended at its limit is not taken for a whole one."""
    result = shell.run("chat", "--max-tokens", "3", "What is the capital of France?")
    assert "the answer was cut" in result.stderr


def test_controls_in_an_answer_do_not_reach_the_terminal(shell):
    """A model cannot colour, move or rename the terminal; --json leaves the text as it is."""
    evil = "say exactly: a\x1b[31mb\x07c"
    assert shell.run("chat", evil).stdout == "a[31mbc\n"
    assert json.loads(shell.run("chat", "--json", evil).stdout)["text"] == "a\x1b[31mb\x07c"


def test_stream_that_breaks_ends_its_line_and_fails(shell, simulator):
    """What had arrived stays, the error stands on a line of its own, and the exit code is 1."""
    simulator.faults.script(LLAMA, Fault.cut(after=4))
    result = shell.run("chat", "What is the capital of France?")
    assert result.exit_code == 1
    assert result.stdout.endswith("\n")
    assert result.stderr.startswith("error: the stream broke after content had arrived")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["-m", "meta-llama/Llama-3.3-70B-Instruct-Turbos", "hi"], 1, f"did you mean {LLAMA}?"),
        (["-m", "zzzzzz", "hi"], 1, "`resilient-ai models` lists what there is"),
        (["-t", "9", "hi"], 2, "temperature"),
        (["--tag", "nonsense", "hi"], 2, "'--tag': must be NAME=VALUE, got 'nonsense'"),
        (["--timeout", "0", "hi"], 2, "'--timeout'"),
        (["-i", "missing.png", "hi"], 2, "missing.png"),
        (["--base-url", "http://127.0.0.1:9", "hi"], 1, "`resilient-ai doctor` looks closer"),
        (["--base-url", "ftp://x", "hi"], 2, "base_url"),
        (["--bogus", "hi"], 2, "see `resilient-ai chat --help`"),
    ],
)
def test_failures_are_one_line(shell, args, code, sentence):
    """Whatever goes wrong is one line on standard error and an exit code."""
    result = shell.run("chat", *args, RESILIENT_AI_ATTEMPTS="1")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "code", "sentence"),
    [("bad", 1, "is DEEPINFRA_API_KEY the right one?"), (None, 2, "no API key")],
)
def test_wrong_and_missing_keys_are_told_apart(shell, key, code, sentence):
    """A key the service refuses is a failure, no key is a wrong configuration; neither is shown."""
    result = shell.run("chat", "hi", DEEPINFRA_API_KEY=key)
    assert (result.exit_code, result.stderr.count("\n")) == (code, 1)
    assert sentence in result.stderr


def test_tags_reach_the_book_of_costs(shell):
    """--tag names what the money was spent for."""
    shell.run("chat", "--tag", "feature=search", "hi")
    rows = json.loads(shell.run("costs", "--json", "--by", "feature").stdout)["rows"]
    assert [row["feature"] for row in rows] == ["search"]


def test_missing_prompt_on_a_terminal_is_a_wrong_use(shell, monkeypatch):
    """Without a prompt nobody waits for a terminal."""
    monkeypatch.setattr("typer.testing._NamedTextIOWrapper.isatty", lambda _: True)
    result = shell.run("chat")
    assert (result.exit_code, "there is no prompt" in result.stderr) == (2, True)


def test_page_keeps_thoughts_and_answer_apart(capsys):
    """Thoughts and answer each begin on a line of their own, whatever blank pieces come between them."""
    page = _Page()
    for piece in (
        ReasoningDelta("\n"),
        ReasoningDelta("I think"),
        ReasoningDelta("\x07"),
        ReasoningDelta(" so."),
        TextDelta("\n\n"),
        TextDelta("Yes"),
        ToolCallDelta(index=0),
        TextDelta(".\n"),
    ):
        page.show(piece)
    page.end()
    assert capsys.readouterr() == ("Yes.\n", "I think so.\n\n")


def test_page_begins_again(capsys):
    """A restarted answer begins on a line of its own, and the reader is told why."""
    page = _Page()
    for piece in (TextDelta("Ye"), Restarted(), TextDelta("\nYes.")):
        page.show(piece)
    page.end()
    assert capsys.readouterr() == ("Ye\nYes.\n", "the stream broke; the answer begins again\n")


def test_page_of_an_empty_answer_stays_empty(capsys):
    """Nothing is written where nothing was said."""
    page = _Page()
    page.think("")
    page.tell("\n")
    page.end()
    assert capsys.readouterr() == ("", "")


def test_facts_leave_out_what_is_not_known(capsys):
    """Without usage and cost the line says what is unknown, and nothing that is not so."""
    _tell_facts(chat_result(usage=None, served_by="m"), 0.5)
    assert capsys.readouterr().err == "m · unknown · 500 ms\n"


def test_ctrl_c_cancels_cleanly(offline):
    """Ctrl-C in mid-answer ends with 130, without a traceback, and the service sees the caller leave."""
    with serve(token_delay=0.05) as simulator:
        process = offline.start(
            "chat",
            "Write a story of 500 words.",
            DEEPINFRA_API_KEY="key",
            RESILIENT_AI_BASE_URL=simulator.base_url,
        )
        assert process.stdout is not None
        started = process.stdout.read(5)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
        deadline = time.monotonic() + 10
        while simulator.stats().in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        assert simulator.stats().in_flight == 0
    assert (process.returncode, errors) == (130, b"cancelled\n")
    assert (started + output).endswith(b"\n")


def test_reader_that_leaves_ends_the_command_quietly(offline):
    """A closed pipe is 141, as of any program, and nothing is complained about."""
    with serve(token_delay=0.002) as simulator:
        process = offline.start(
            "chat",
            "Write a story of 500 words.",
            DEEPINFRA_API_KEY="key",
            RESILIENT_AI_BASE_URL=simulator.base_url,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=20) == 141
        process.stderr.close()
        assert process.stdin is not None
        process.stdin.close()
    assert errors == b""


def test_a_cost_that_could_not_be_written_is_told(shell):
    """The answer is there all the same, and one line says that the book lacks it, without a password."""
    pytest.importorskip("psycopg")
    result = shell.run("chat", "hi", RESILIENT_AI_LEDGER_URL="postgresql://me:hunter2@127.0.0.1:1/db")
    assert (result.exit_code, bool(result.stdout)) == (0, True)
    told = "what this has cost could not be written into the ledger, postgresql://127.0.0.1:1/db; `resilient-ai doctor`"
    assert result.stderr.count(told) == 1
    assert "hunter2" not in result.output
    assert "could not be written" not in shell.run("chat", "hi").stderr
