import json
import time

import pytest

from resilient_ai.cli.costs import _moment
from resilient_ai.simulator import Fault

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


def test_spending_is_shown_by_model(shell, simulator):
    """The table has a line per model, the dearest first, and a total that is the server's own."""
    shell.run("chat", "What is the capital of France?")
    shell.run("embed", "-t", "Kiel")
    result = shell.run("costs")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["Model", LLAMA, "BAAI/bge-m3", "Total"]
    assert lines[1].split()[1:] == ["1", "11", "9", "$0.00000398"]
    assert lines[3].split()[1] == "2"
    total = json.loads(shell.run("costs", "--json").stdout)["total"]
    assert total["cost"] == f"{simulator.stats().bill:f}"


def test_several_columns_make_a_group(shell):
    """--by may be repeated, and a tag that is missing shows as such."""
    shell.run("chat", "hi")
    result = shell.run("costs", "--by", "kind", "--by", "tenant")
    assert result.stdout.splitlines()[1].split()[:2] == ["stream", "(none)"]
    document = json.loads(shell.run("costs", "--by", "kind", "--by", "tenant", "--json").stdout)
    assert (document["by"], document["rows"][0]["tenant"]) == (["kind", "tenant"], None)


def test_unknown_costs_are_shown_as_unknown(shell, simulator):
    """A request whose cost nobody told us is not counted as free."""
    simulator.faults.script(LLAMA, Fault.drop())
    shell.run("chat", "hi", RESILIENT_AI_ATTEMPTS="1")
    result = shell.run("costs")
    assert result.stdout.splitlines()[1].split()[-1] == "unknown"
    assert "the cost of 1 request is unknown and not in the sums" in result.stderr
    shell.run("chat", "hi")
    assert "+ 1 unknown" in shell.run("costs").stdout


def test_without_a_book_nothing_was_sent(offline, tmp_path):
    """Where there is no book yet, that is said, and none is made."""
    result = offline.run("costs")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing was sent" in result.stderr
    assert not (tmp_path / "home").exists()
    assert json.loads(offline.run("costs", "--json").stdout)["total"]["requests"] == 0


def test_without_a_home_the_platform_folder_is_used(offline, tmp_path):
    """The book is where the default stack keeps it."""
    result = offline.run("costs", RESILIENT_AI_HOME=None, XDG_DATA_HOME=str(tmp_path / "data"))
    assert str(tmp_path / "data" / "resilient_ai" / "ledger.sqlite") in result.stderr.replace("\n", "")


def test_since_leaves_out_what_was_before(shell):
    """A date in the future finds nothing, a period finds what was just sent."""
    shell.run("chat", "hi")
    assert "nothing was sent in that time" in shell.run("costs", "--since", "2100-01-01").stderr
    document = json.loads(shell.run("costs", "--since", "1h", "--json").stdout)
    assert (document["total"]["requests"], document["since"][-6:]) == (1, "+00:00")


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604_800), ("24h", 86_400), ("30m", 1800), ("90s", 90), ("2w", 1_209_600)]
)
def test_periods_end_now(text, seconds):
    """A period is a number and a unit."""
    assert time.time() - _moment(text) == pytest.approx(seconds, abs=5)


@pytest.mark.parametrize("text", ["2026-11-01", "2026-11-01T00:00:00Z", "2026-11-01T01:00:00+01:00"])
def test_dates_are_utc_unless_they_say_otherwise(text):
    """The days of the book are days of UTC."""
    assert _moment(text) == 1_793_491_200


@pytest.mark.parametrize(("option", "value"), [("--since", "yesterday"), ("--by", "colour")])
def test_wrong_use_names_what_is_right(offline, option, value):
    """An option that cannot be read is complained about by name."""
    result = offline.run("costs", option, value)
    assert (result.exit_code, option in result.stderr, value in result.stderr) == (2, True, True)
