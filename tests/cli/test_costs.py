import asyncio
import csv
import json
import sys
import time

import pytest

from resilient_ai.cli._costs_book import moment
from resilient_ai.simulator import Fault

from .books import book, write

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
    assert result.stdout.splitlines()[1].split()[-2:] == ["unknown", "1"]
    assert "the cost of 1 request is unknown and not in the sums" in result.stderr
    shell.run("chat", "hi")
    *_, cost, unknown = shell.run("costs").stdout.splitlines()[1].split()
    assert (cost[0], unknown) == ("$", "1")


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
    assert "nothing was sent since 2100-01-01 00:00 UTC; " in shell.run("costs", "--since", "2100-01-01").stderr
    nobody = ("costs", "--tag", "team=x", "--since")
    assert "nothing was sent in the last minute with this tag" in shell.run(*nobody, "1m").stderr
    assert "nothing was sent since 20" in shell.run(*nobody, "7d", "--until", "1d").stderr
    document = json.loads(shell.run("costs", "--since", "1h", "--json").stdout)
    assert (document["total"]["requests"], document["since"][-6:]) == (1, "+00:00")


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604_800), ("24h", 86_400), ("30m", 1800), ("90s", 90), ("2w", 1_209_600)]
)
def test_periods_end_now(text, seconds):
    """A period is a number and a unit."""
    assert time.time() - moment("--since", text) == pytest.approx(seconds, abs=5)


@pytest.mark.parametrize("text", ["2026-11-01", "2026-11-01T00:00:00Z", "2026-11-01T01:00:00+01:00"])
def test_dates_are_utc_unless_they_say_otherwise(text):
    """The days of the book are days of UTC."""
    assert moment("--since", text) == 1_793_491_200


def test_nothing_was_before_1970():
    """A period of twenty thousand years is all there is."""
    assert moment("--since", "999999w") == moment("--since", "0001-01-01") == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--since", "yesterday"),
        ("--until", "tomorrow"),
        ("--by", "colour"),
        ("--tag", "tenant"),
        ("--png", "costs.jpg"),
        ("--png", "nowhere/costs.png"),
        ("--export", "costs.xlsx"),
    ],
)
def test_wrong_use_names_what_is_right(offline, option, value):
    """An option that cannot be read is complained about by name."""
    result = offline.run("costs", option, value)
    assert (result.exit_code, option in result.stderr, value in result.stderr) == (2, True, True)


def test_a_kind_that_there_is_not_is_wrong(offline):
    """The answer would be nothing, which could be taken for the truth."""
    result = offline.run("costs", "--tag", "kind=banana")
    assert result.exit_code == 2
    assert "--tag kind'" in result.stderr
    assert "must be one of chat, stream, complete, embed, image, got 'banana'" in result.stderr


def test_a_tag_that_is_given_twice_is_wrong(offline):
    """Only one of the two could count."""
    result = offline.run("costs", "--tag", "tenant=a", "--tag", "tenant=b")
    assert (result.exit_code, "'tenant' is given twice, got 'a' and 'b'" in result.stderr) == (2, True)


def test_a_misspelt_name_of_a_tag_is_asked_about(ledger):
    """Tags may have any name, so it is no error; where nothing has it, the one that is like it is named."""
    assert (
        "nothing was sent with this tag; did you mean tenant?; the book"
        in ledger.run("costs", "--tag", "tenent=a").stderr
    )
    assert "did you mean" not in ledger.run("costs", "--tag", "team=a").stderr
    assert "did you mean" not in ledger.run("costs", "--tag", "tenant=nobody").stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--since", "2026-11-29T10:30"), "sent since 2026-11-29 10:30 UTC\n"),
        (("--since", "2026-11-29", "--by", "day"), "sent since 2026-11-29 00:00 UTC\n"),
        (
            ("--since", "2026-11-29T10:30", "--by", "day"),
            "sent since 2026-11-29 10:30 UTC, so the first day is not whole\n",
        ),
        (
            ("--since", "2026-11-28T09:00", "--until", "2026-11-30T10:30", "--by", "day"),
            "sent since 2026-11-28 09:00 UTC and until 2026-11-30 10:30 UTC, so the first and the last day are not whole\n",
        ),
    ],
)
def test_the_period_of_a_table_is_named(ledger, args, said):
    """With the days of it that are not whole, also where no picture says so."""
    assert said in ledger.run("costs", *args, COLUMNS="200").stderr
    assert "sent" not in ledger.run("costs").stderr


@pytest.mark.parametrize("home", ["/etc/passwd", "/proc/nowhere"])
@pytest.mark.parametrize("command", ["costs", "budgets"])
def test_a_home_that_cannot_be_is_no_empty_book(offline, home, command):
    """Nothing is known of what was sent, and so nothing is said of it."""
    env = {"RESILIENT_AI_HOME": home, "RESILIENT_AI_BUDGETS": '[{"limit": "1 USD", "per": "day"}]'}
    result = offline.run(command, **env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: home: {home} cannot be used (")


def test_a_very_narrow_terminal_has_the_names_above(ledger):
    """In thirty columns a name has them all, and what stands beside it is named below."""
    result = ledger.run("costs", "--by", "tenant", "--by", "model", "--tag", "model=m", COLUMNS="30")
    assert [line.rstrip() for line in result.stdout.splitlines()] == [
        "a, m",
        "  Requests 2 · Tokens in 20 ·",
        "  Tokens out 10 · Cost $0.75 ·",
        "  Wasted $0.25",
        "b, m",
        "  Requests 1 · Tokens in 10 ·",
        "  Tokens out 5 · Cost unknown",
        "  · Wasted $0 · Unknown 1",
        "Total",
        "  Requests 3 · Tokens in 30 ·",
        "  Tokens out 15 · Cost $0.75 ·",
        "  Wasted $0.25 · Unknown 1",
    ]


def test_what_nobody_knows_is_null(offline):
    """A sum of unknown costs is not zero."""
    write(offline.folder / "home" / "ledger.sqlite", ("2026-11-28T10:00", None, "m", {}))
    document = json.loads(offline.run("costs", "--json").stdout)
    assert (document["total"]["cost"], document["total"]["unknown"]) == (None, 1)
    assert document["rows"][0]["cost"] is None


def test_a_period_that_ends_before_it_begins_is_wrong(offline):
    """Both options are named, as either may be the wrong one."""
    result = offline.run("costs", "--since", "1d", "--until", "2d")
    assert (result.exit_code, result.stderr) == (2, "error: --until: 2d must be later than --since: 1d\n")


def test_two_documents_on_one_stream_are_refused(offline):
    """Programs that read JSON would choke on a picture."""
    assert offline.run("costs", "--json", "--plot").exit_code == 2


@pytest.fixture
def ledger(offline):
    """A book of three days."""
    path = offline.folder / "home" / "ledger.sqlite"
    write(
        path,
        ("2026-11-28T10:00", "0.5", "m", {"tenant": "a"}),
        ("2026-11-29T10:00", "0.25", "m", {"tenant": "a", "used": False}),
        ("2026-11-29T11:00", None, "m", {"tenant": "b"}),
        ("2026-11-30T10:00", "0.125", "n", {"tenant": "b"}),
        ("2026-11-30T11:00", "1000", "n", {"tenant": "[/]\x1b[31m"}),
        hits=[("2026-11-30T12:00", "0.0625", "m", {"tenant": "a"}), ("2026-11-30T13:00", None, "m", {"tenant": "b"})],
    )
    return offline


def rows(result):
    return [line.split() for line in result.stdout.splitlines()]


def test_what_was_wasted_and_what_is_unknown_have_columns(ledger):
    """They are there where there is any, and rows without have none."""
    assert rows(ledger.run("costs", "--by", "model")) == [
        ["Model", "Requests", "Tokens", "in", "Tokens", "out", "Cost", "Wasted", "Unknown"],
        ["n", "2", "20", "10", "$1,000.12", "$0"],
        ["m", "3", "30", "15", "$0.75", "$0.25", "1"],
        ["Total", "5", "50", "25", "$1,000.88", "$0.25", "1"],
    ]
    assert rows(ledger.run("costs", "--tag", "model=n"))[0][-1] == "Cost"


def test_wasted_sorts_by_what_was_wasted(ledger):
    """The model at the top is the one to look into; the column is there even where nothing was wasted."""
    assert [row[0] for row in rows(ledger.run("costs", "--wasted"))] == ["Model", "m", "n", "Total"]
    assert rows(ledger.run("costs", "--wasted", "--tag", "model=n"))[0][-1] == "Wasted"


def test_tags_and_moments_narrow_what_counts(ledger):
    """Only what fits all of them is added up, and the document says what was asked."""
    asked = ("--tag", "tenant=a", "--tag", "kind=chat", "--since", "2026-11-29", "--until", "2026-11-30")
    document = json.loads(ledger.run("costs", *asked, "--json").stdout)
    assert document["total"] == {
        "requests": 1,
        "input_tokens": 10,
        "output_tokens": 5,
        "cost": "0.25",
        "wasted": "0.25",
        "unknown": 0,
    }
    assert {name: document[name] for name in ("since", "until", "tags", "saved")} == {
        "since": "2026-11-29T00:00:00+00:00",
        "until": "2026-11-30T00:00:00+00:00",
        "tags": {"tenant": "a", "kind": "chat"},
        "saved": {"calls": 0, "hits": 0, "saved": "0", "unknown": 0},
    }
    assert "nothing was sent with this tag; the book is" in ledger.run("costs", "--tag", "team=x").stderr


def test_what_the_cache_has_saved_stands_below(ledger):
    """Savings are told where there are any, and where one asks."""
    saved = "the cache and shared requests saved $0.0625 in 2 calls, not counting 1 call of unknown cost\n"
    assert saved in ledger.run("costs").stderr
    assert "saved" not in ledger.run("costs", "--until", "2026-11-30").stderr
    assert "saved $0 in 0 calls\n" in ledger.run("costs", "--until", "2026-11-30", "--saved").stderr


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_every_width_has_all_figures_and_whole_names(offline, width):
    """Names stand above where a table has no room, and no figure is left out; no name is broken that a line has room for."""
    write(
        offline.folder / "home" / "ledger.sqlite",
        ("2026-11-28T10:00", "0.5", LLAMA, {"tenant": "acme", "tokens": (1234, 567)}),
        ("2026-11-28T10:00", None, "n", {"tenant": "globex", "tokens": (1, 1)}),
    )
    result = offline.run("costs", "--by", "tenant", "--by", "model", COLUMNS=str(width))
    written = " ".join(result.stdout.split())
    assert all(figure in written for figure in ("1,234", "567", "$0.50", "1,235", "568"))
    assert (LLAMA in written) is (width >= 60)
    assert ("acme, meta" in written) is (width < 100)
    assert max(map(len, result.stdout.splitlines())) <= width


def test_a_picture_is_drawn_where_it_is_asked_for(ledger):
    """It stands below the table, by the first column that is no day."""
    lines = ledger.run("costs", "--plot", "--by", "day", "--by", "tenant", "--until", "2026-12-01").stdout.splitlines()
    assert "Spent per day by tenant, 2026-11-28 to 2026-11-30 UTC" in lines
    assert "Spent" not in ledger.run("costs").stdout
    assert "Wasted per day by model" in ledger.run("costs", "--plot", "--wasted").stdout


def test_a_terminal_gets_a_picture_unasked(ledger):
    """Where it is wide enough, plotext is there, and nobody has said no."""
    terminal = {"FORCE_COLOR": "1", "COLUMNS": "60"}
    assert "Spent per" in ledger.run("costs", **terminal).stdout
    for args, env in ((("--no-plot",), {}), (("--json",), {}), ((), {"COLUMNS": "49"})):
        assert "Spent per" not in ledger.run("costs", *args, **(terminal | env)).stdout


def test_a_missing_plotext_matters_only_to_who_asked(ledger, monkeypatch):
    """Without it a terminal shows the table alone, and --plot says what to install."""
    monkeypatch.setitem(sys.modules, "plotext", None)
    result = ledger.run("costs", FORCE_COLOR="1")
    assert (result.exit_code, "Spent per" in result.stdout) == (0, False)
    result = ledger.run("costs", "--plot")
    assert (result.exit_code, "pip install 'resilient-ai[cli]'" in result.stderr) == (2, True)


def test_a_picture_and_the_rows_can_be_written_to_files(ledger):
    """Each file is there when its line says so, and holds what was asked for."""
    result = ledger.run("costs", "--png", "costs.png", "--export", "costs.csv", "--tag", "model=n")
    assert "a picture was written to costs.png\n" in result.stderr
    assert "2 requests written to costs.csv\n" in result.stderr
    assert (ledger.folder / "costs.png").read_bytes().startswith(b"\x89PNG")
    with (ledger.folder / "costs.csv").open(newline="") as file:
        assert [row["cost"] for row in csv.DictReader(file)] == ["0.125", "1000"]


def test_without_anything_spent_no_picture_is_written(ledger):
    """A chart without a bar would only look like a fault."""
    result = ledger.run("costs", "--png", "costs.png", "--tag", "tenant=nobody")
    assert "nothing was spent, so costs.png was not drawn\n" in result.stderr
    assert not (ledger.folder / "costs.png").exists()
    assert "nothing was wasted" in ledger.run("costs", "--png", "costs.png", "--wasted", "--tag", "model=n").stderr


def test_a_tag_with_a_name_of_our_own_chooses_rows(offline):
    """Whatever a tag is called, it narrows the file as it narrows the table."""
    names = ("path", "since", "until", "limit", "call_id", "tags")
    sends = (("2026-11-28T10:00", "0.5", "m", dict.fromkeys(names, "x")), ("2026-11-28T11:00", "0.25", "m", {}))

    async def fill():
        async with book(offline.folder / "home" / "ledger.sqlite") as rows:
            for when, cost, model, tags in sends:
                rows.tagged(when, cost, model, tags)

    (offline.folder / "home").mkdir()
    asyncio.run(fill())
    for name in names:
        result = offline.run("costs", "--export", "costs.csv", "--tag", f"{name}=x")
        assert (result.exit_code, "1 request written to costs.csv" in result.stderr) == (0, True)
        with (offline.folder / "costs.csv").open(newline="") as file:
            assert [row["cost"] for row in csv.DictReader(file)] == ["0.5"]


def test_days_stand_in_their_order(ledger):
    """With days among the columns rows follow their keys, as those of `ai.costs.by` do, also by what was wasted."""
    days = ["2026-11-28", "2026-11-29", "2026-11-30"]
    for option in ("--no-plot", "--wasted"):
        assert [row[0] for row in rows(ledger.run("costs", "--by", "day", option))[1:-1]] == days
    found = rows(ledger.run("costs", "--by", "tenant", "--by", "day"))[1:-1]
    assert [row[:2] for row in found] == [
        ["[/][31m", "2026-11-30"],
        ["a", "2026-11-28"],
        ["a", "2026-11-29"],
        ["b", "2026-11-29"],
        ["b", "2026-11-30"],
    ]


@pytest.mark.parametrize("args", [(), ("--json",)])
def test_a_book_that_is_off_has_no_figures(ledger, args):
    """What an old file holds is not what is spent now; how to read it all the same is said."""
    result = ledger.run("costs", *args, RESILIENT_AI_LEDGER="off")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith('error: ledger: is "off", so no process writes down what calls cost')
    assert "with RESILIENT_AI_LEDGER=on this command shows what was written before" in result.stderr
    assert json.loads(ledger.run("costs", "--json", RESILIENT_AI_LEDGER="on").stdout)["total"]["requests"] == 5


def test_a_tag_without_a_value_is_none(offline):
    """Who gives an empty name and who gives none are one row, for people and for programs, and in the order of their costs."""
    write(
        offline.folder / "home" / "ledger.sqlite",
        ("2026-11-28T10:00", "0.5", "m", {"tenant": "a"}),
        ("2026-11-28T10:00", "0.25", "m", {"tenant": ""}),
        ("2026-11-28T11:00", None, "m", {"tenant": ""}),
        ("2026-11-29T10:00", "0.5", "m", {}),
        ("2026-11-29T10:00", None, "n", {"tenant": ""}),
        ("2026-11-29T10:00", None, "n", {}),
    )
    assert rows(offline.run("costs", "--by", "tenant"))[1:3] == [
        ["(none)", "5", "50", "25", "$0.75", "3"],
        ["a", "1", "10", "5", "$0.50"],
    ]
    assert "(none), m\n" in offline.run("costs", "--by", "tenant", "--by", "model", COLUMNS="40").stdout.replace(
        " \n", "\n"
    )
    found = json.loads(offline.run("costs", "--by", "tenant", "--by", "model", "--json").stdout)["rows"]
    assert [(row["tenant"], row["model"], row["cost"], row["unknown"]) for row in found] == [
        (None, "m", "0.75", 1),
        ("a", "m", "0.5", 0),
        (None, "n", None, 2),
    ]


def test_a_bar_of_less_than_a_day_is_told(ledger):
    """A period that begins within a day would look as if little was spent on it."""
    asked = ("costs", "--plot", "--since", "2026-11-28T09:00", "--until", "2026-12-01")
    assert "the first bar counts from 2026-11-28 09:00 UTC\n" in ledger.run(*asked).stdout
    assert "bar counts" not in ledger.run("costs", "--plot", "--since", "2026-11-28", "--until", "2026-12-01").stdout


def test_a_book_in_postgresql_is_never_shown_with_its_password(offline):
    """One that cannot be reached is a failure, one that is none is wrong use."""
    pytest.importorskip("psycopg")
    result = offline.run("costs", RESILIENT_AI_LEDGER_URL="postgresql://me:s3cret@127.0.0.1:1/db")
    assert (result.exit_code, "postgresql://127.0.0.1:1/db cannot be asked" in result.stderr) == (1, True)
    wrong = offline.run("costs", RESILIENT_AI_LEDGER_URL="mysql://me:s3cret@127.0.0.1:1/db")
    assert (wrong.exit_code, "ledger_url" in wrong.stderr) == (2, True)
    assert "s3cret" not in result.output + wrong.output
