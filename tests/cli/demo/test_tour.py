import json
from pathlib import Path

import pytest

from resilient_ai.cli.demo.command import _agree

STEPS = [
    "Chat",
    "20 at once",
    "Streaming",
    "Tools",
    "Vision",
    "Structured output",
    "Code",
    "500 embeddings",
    "The same and 20",
    "Semantic search",
    "Image",
    "Fallback",
    "Outage",
    "Burst of 300",
    "Unknown model",
    "Wrong key",
]
TROUBLE = {"Fallback", "Outage", "Burst of 300"}


def test_tour_runs_from_end_to_end(offline, tmp_path):
    """Without a key and a network the tour shows every step, agrees with the server's books and leaves two files."""
    process = offline.start("demo")
    output, errors = process.communicate(timeout=55)
    screen = output.decode()
    lines = screen.splitlines()
    assert (process.returncode, errors) == (0, b"")
    assert [step for step in STEPS if not any(line.startswith(f"✓ {step} ") for line in lines)] == []
    for telling in (
        "the server counted 20 texts in 1 request",
        "breaker: closed → open",
        "breaker: open → half-open",
        "breaker: half-open → closed",
        "all answered; the server saw at most",
        "ModelNotFound, after 1 request",
        "AuthenticationFailed, after 1 request",
        "the ledger says the same, model by model",
    ):
        assert telling in screen
    assert "\x1b" not in screen
    assert max(len(line.rstrip()) for line in lines[3:]) <= 100
    assert (tmp_path / "demo-output" / "lighthouse.jpg").read_bytes().startswith(b"\xff\xd8")
    spans = [json.loads(line) for line in (tmp_path / "demo-output" / "trace.jsonl").read_text().splitlines()]
    assert f"({len(spans)} OpenTelemetry spans)" in screen
    assert {"chat", "resilient_ai.attempt"} <= {span["name"].partition(" ")[0] for span in spans}
    assert not (tmp_path / "home").exists()


def test_json_tells_the_whole_tour(offline):
    """--json is one document with every step and sum, while people read along on standard error."""
    result = offline.run("demo", "--json", "--output", "there")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["ok"], document["differences"]) == (0, True, [])
    assert [step["title"] for step in document["steps"]] == STEPS
    assert document["requests"] == document["server"]["requests"]
    assert document["retries"] >= 10
    assert document["cache_hits"] == 501
    assert document["breaker"]["opened"] == document["breaker"]["closed"] >= 1
    assert document["trace"] == str(Path("there") / "trace.jsonl")
    assert result.stderr.count("✓") == len(STEPS)


def test_live_tour_leaves_out_what_needs_a_failing_service(shell, simulator):
    """--live talks to the configured service, spends what it names at most, and writes into the user's own book."""
    result = shell.run("demo", "--live", "--yes")
    assert result.exit_code == 0
    assert "this tour can cost at most $0.02" in result.stderr
    assert f"against {simulator.base_url}" in result.stdout
    shown = [step for step in STEPS if f"✓ {step} " in result.stdout]
    assert shown == [step for step in STEPS if step not in TROUBLE]
    assert "the ledger says the same" not in result.stdout
    total = json.loads(shell.run("costs", "--json").stdout)["total"]
    assert total["cost"] == f"{simulator.stats().bill:f}"
    again = json.loads(shell.run("demo", "--live", "--yes", "--json").stdout)
    assert (again["ok"], again["server"]) == (True, None)


def test_live_tour_asks_first(shell, simulator, monkeypatch):
    """Nothing is sent before somebody has agreed; where nobody can, --yes is asked for."""
    refused = shell.run("demo", "--live")
    assert (refused.exit_code, "--yes agrees" in refused.stderr) == (2, True)
    monkeypatch.setattr("typer.testing._NamedTextIOWrapper.isatty", lambda _: True)
    declined = shell.run("demo", "--live", stdin="n\n")
    assert (declined.exit_code, declined.stderr.endswith("cancelled\n")) == (130, True)
    assert simulator.stats().requests == 0


def test_unknown_prices_are_named_before_asking(monkeypatch, capsys):
    """A step whose price is not known is not taken for free."""
    monkeypatch.setattr("resilient_ai.cli.demo.plan.most_it_can_cost", lambda: {"Chat": None})
    _agree(yes=True)
    assert "plus Chat, whose price is not known" in capsys.readouterr().err


def test_tour_that_fails_says_so(shell, simulator):
    """A step that fails is marked, the others go on, and the exit code is 1."""
    simulator.faults.outage("google/gemma-3-12b-it")
    result = shell.run("demo", "--live", "--yes", RESILIENT_AI_ATTEMPTS="1")
    assert result.exit_code == 1
    assert "✗ Vision" in result.stdout
    assert "✓ Wrong key" in result.stdout
    assert "✗ 1 of 13 steps failed: Vision" in result.stdout


@pytest.mark.parametrize("output", ["taken"])
def test_output_that_is_no_folder_is_a_wrong_use(offline, tmp_path, output):
    """Where nothing can be written the tour does not begin."""
    (tmp_path / output).write_text("")
    result = offline.run("demo", "--output", output)
    assert (result.exit_code, result.stderr) == (2, "error: taken: File exists\n")
