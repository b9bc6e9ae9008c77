import json
import time

import pytest

from .books import write

DAY = '[{"limit": "1 USD", "per": "day"}]'


@pytest.fixture
def ledger(offline):
    """A book of what was spent a moment ago: 0.75 USD by a, 0.125 by b, 1 by someone without a name."""
    now = time.time()
    write(
        offline.folder / "home" / "ledger.sqlite",
        (now, "0.5", "m", {"tenant": "a"}),
        (now, "0.25", "n", {"tenant": "a"}),
        (now, "0.125", "m", {"tenant": "b[/]"}),
        (now, "1", "m", {}),
        (now - 70 * 86_400, "50", "m", {"tenant": "old"}),
    )
    return offline


def lines(result):
    return [line.rstrip() for line in result.stdout.splitlines()]


def budgets(shell, *found, args=(), **env):
    return shell.run("budgets", *args, RESILIENT_AI_BUDGETS=json.dumps(found), **env)


def test_without_a_budget_it_says_how_to_set_one(offline):
    """Both places are shown, and no book is made."""
    result = offline.run("budgets")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "[[budgets]]" in result.stderr
    assert "RESILIENT_AI_BUDGETS='[{" in result.stderr
    assert not (offline.folder / "home").exists()
    assert "Budgets that a program gives to its client itself are not seen here" in " ".join(result.stderr.split())
    assert offline.run("budgets", "--json").stdout == "[]\n"


def test_what_it_says_can_be_copied(offline):
    """The example is a file that can be read, and its budget is shown."""
    hint = offline.run("budgets").stderr
    file = offline.folder / "settings.toml"
    file.write_text(hint[hint.index("[[budgets]]") : hint.index("or RESILIENT")])
    result = offline.run("budgets", RESILIENT_AI_CONFIG=str(file))
    assert lines(result)[1].split() == ["25", "USD", "per", "day", "tenant=acme", "$0", "$25.00", "0", "%"]


def test_budgets_are_shown_with_what_is_left(ledger):
    """Those of which most is used come first; of a soft one more than all can be used."""
    soft = {"limit": "1.5 USD", "per": "total", "hard": False, "name": "all of it"}
    hard = {"limit": "1 USD", "per": "total", "scope": {"tenant": "a"}}
    result = budgets(ledger, hard, soft, COLUMNS="120")
    assert [line.split() for line in lines(result)] == [
        ["Budget", "Spent", "Limit", "Left", "Used", "Until"],
        ["all", "of", "it", "$51.88", "$1.50", "$0", "██████████", "3,458", "%", "soft"],
        ["1", "USD", "in", "total", "tenant=a", "$0.75", "$1.00", "$0.25", "███████░░░", "75", "%", "hard"],
    ]


def test_what_is_left_is_never_shown_as_more(ledger):
    """Of a limit of which little was spent not all is left."""
    result = budgets(ledger, {"limit": "100000 USD", "per": "total", "scope": {"tenant": "a"}}, COLUMNS="120")
    assert lines(result)[1].split()[6:8] == ["$100,000.00", "$99,999.25"]
    most = budgets(ledger, {"limit": "1000.749999 USD", "per": "total", "scope": {"tenant": "a"}}, COLUMNS="120")
    assert lines(most)[1].split()[6:8] == ["$1,000.75", "$999.99"]


def test_windows_end_in_utc_and_here(ledger):
    """A calendar window names its end in both clocks; a rolling one has none, and says so."""
    rolling = {"limit": "5 USD", "per": "day", "rolling": True}
    result = budgets(ledger, {"limit": "4 USD", "per": "day"}, rolling, COLUMNS="120", TZ="Asia/Kolkata")
    time.tzset()
    first, second = lines(result)[1:]
    assert "00:00 UTC" in first
    assert "UTC" not in second
    assert second.split()[-2:] == ["rolling", "hard"]
    narrow = budgets(ledger, rolling, COLUMNS="60")
    assert lines(narrow)[2] == "of $5.00, hard, rolling"
    found = json.loads(budgets(ledger, rolling, args=["--json"]).stdout)
    assert [(one["rolling"], one["until"]) for one in found] == [(True, None)]


def test_a_narrow_terminal_shows_everything_in_fewer_columns(ledger):
    """In sixty columns limit and end stand below the name."""
    result = budgets(ledger, {"limit": "1 USD", "per": "month", "scope": {"tenant": "a"}, "hard": False}, COLUMNS="60")
    found = lines(result)
    assert found[1].split() == ["1", "USD", "per", "month", "tenant=a", "$0.75", "$0.25", "75", "%"]
    assert found[2].startswith("of $1.00, soft, until 2")
    assert max(map(len, found)) <= 60


def test_a_very_narrow_terminal_has_the_names_above(ledger):
    """In thirty columns a name has them all, and what stands beside it is named below."""
    result = budgets(ledger, {"limit": "1 USD", "per": "total", "scope": {"tenant": "a"}}, COLUMNS="30")
    assert lines(result) == [
        "1 USD in total tenant=a",
        "  Spent $0.75 · Left $0.25 ·",
        "  Used 75 %",
        "  of $1.00, hard",
    ]


def test_a_kind_that_there_is_not_is_wrong(ledger):
    """No budget would count such calls, which could be taken for an answer."""
    result = budgets(ledger, {"limit": "1 USD", "per": "day"}, args=["--tag", "kind=banana"])
    assert (result.exit_code, "--tag kind" in result.stderr, "complete" in result.stderr) == (2, True, True)
    misspelt = budgets(ledger, {"limit": "1 USD", "per": "day", "scope": {"tenant": "a"}}, args=["--tag", "tenent=a"])
    assert "no budget counts such calls; did you mean tenant?" in misspelt.stderr


def test_a_budget_for_each_value_is_shown_for_those_in_the_book(ledger):
    """Every tenant of the last month has a line, and no other; names cannot command the terminal."""
    result = budgets(ledger, {"limit": "1 USD", "per": "month", "scope": {"tenant": "*"}}, args=["--json"])
    assert [(one["scope"], one["spent"], one["left"]) for one in json.loads(result.stdout)] == [
        ("tenant=a", "0.75", "0.25"),
        ("tenant=b[/]", "0.125", "0.875"),
    ]


def test_several_values_make_a_budget_for_each_that_was_seen_together(ledger):
    """A budget per tenant and model has a line for each pair, with what is fixed in all of them."""
    scope = {"tenant": "*", "model": "*", "kind": "chat"}
    result = budgets(ledger, {"limit": "1 USD", "per": "month", "scope": scope}, args=["--json"])
    assert [one["scope"] for one in json.loads(result.stdout)] == [
        "kind=chat model=m tenant=a",
        "kind=chat model=n tenant=a",
        "kind=chat model=m tenant=b[/]",
    ]


def test_one_value_can_be_given_and_the_other_listed(ledger):
    """With --tag tenant=a the models of that tenant are listed, and of no other."""
    each = {"limit": "1 USD", "per": "month", "scope": {"tenant": "*", "model": "*"}}
    result = budgets(ledger, each, args=["--json", "--tag", "tenant=a"])
    assert [one["scope"] for one in json.loads(result.stdout)] == ["model=m tenant=a", "model=n tenant=a"]


def test_values_that_the_book_cannot_list_are_asked_for(ledger):
    """Of a tag without a column the values are unknown; one that is given is shown."""
    team = {"limit": "1 USD", "per": "month", "scope": {"team": "*"}}
    result = budgets(ledger, team)
    assert "1 USD per month: there is one for each team; --tag team=... shows it" in result.stderr
    assert "team=x" in budgets(ledger, team, args=["--tag", "team=x"]).stdout


def test_tags_choose_what_a_call_counts_against(ledger):
    """Those of a call with these tags and no others: a budget of another tenant is left out, one of everybody is not."""
    found = [
        {"limit": "1 USD", "per": "month", "scope": {"tenant": "a"}},
        {"limit": "2 USD", "per": "month", "scope": {"tenant": "b"}},
        {"limit": "3 USD", "per": "month"},
    ]
    result = budgets(ledger, *found, args=["--tag", "tenant=b", "--json"])
    assert [one["limit"] for one in json.loads(result.stdout)] == ["3", "2"]
    result = budgets(ledger, *found, args=["--tag", "user=u", "--json"])
    assert [one["limit"] for one in json.loads(result.stdout)] == ["3"]
    result = budgets(ledger, found[0], args=["--tag", "tenant=b"])
    assert (result.stdout, "no budget counts such calls" in result.stderr) == ("", True)


def test_an_empty_book_has_spent_nothing(offline):
    """Nothing was sent, so nothing is spent, and no book is made; one for each value waits for the first."""
    assert json.loads(budgets(offline, {"limit": "1 USD", "per": "day"}, args=["--json"]).stdout)[0]["spent"] == "0"
    result = budgets(offline, {"limit": "1 USD", "per": "day", "scope": {"tenant": "*"}})
    assert "no call has counted against a budget yet" in result.stderr
    assert not (offline.folder / "home").exists()


def test_hundreds_of_budgets_are_cut_short(offline):
    """A terminal gets the twenty that have spent most, programs get all."""
    now = time.time()
    sends = [(now, str(number), "m", {"tenant": f"t{number}"}) for number in range(1, 61)]
    write(offline.folder / "home" / "ledger.sqlite", *sends)
    each = {"limit": "100 USD", "per": "month", "scope": {"tenant": "*"}}
    result = budgets(offline, each, COLUMNS="120")
    assert (len(lines(result)), "tenant=t60" in lines(result)[1]) == (21, True)
    assert "and 40 more, of which less is spent; --tag shows one, --json all of them" in result.stderr
    assert len(json.loads(budgets(offline, each, args=["--json"]).stdout)) == 60


@pytest.mark.parametrize("args", [(), ("--json",)])
def test_without_a_ledger_nothing_is_known(ledger, args):
    """Processes count by themselves, and what an old file holds is none of what they count."""
    result = ledger.run("budgets", *args, RESILIENT_AI_BUDGETS=DAY, RESILIENT_AI_LEDGER="off")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith('error: ledger: is "off", so no process writes down what calls cost')


def test_a_long_name_stands_above_its_numbers(ledger):
    """A model's id in a budget is not broken where a line has room for it."""
    scope = {"model": "meta-llama/Llama-3.3-70B-Instruct-Turbo-" + "x" * 20}
    (first, *_), wide = (
        lines(budgets(ledger, {"limit": "1 USD", "per": "day", "scope": scope}, COLUMNS=width))
        for width in ("80", "160")
    )
    assert first == f"1 USD per day model={scope['model']}"
    assert wide[1].startswith(first)


def test_a_redis_that_counts_is_asked(offline):
    """One that cannot be reached is a failure, without its password."""
    pytest.importorskip("redis")
    url = "redis://:s3cret@127.0.0.1:1/0"
    for ledger in ("on", "off"):
        env = {"RESILIENT_AI_BUDGET_REDIS_URL": url, "RESILIENT_AI_LEDGER": ledger}
        result = offline.run("budgets", RESILIENT_AI_BUDGETS=DAY, **env)
        assert (result.exit_code, "127.0.0.1:1" in result.stderr, "s3cret" in result.output) == (1, True, False)


@pytest.mark.parametrize(
    "given",
    ['[{"limit": "much", "per": "day"}]', '[{"limit": "1 USD", "per": "year"}]', '[{"per": "day"}]', "nonsense"],
)
def test_budgets_that_are_none_are_wrong_use(offline, given):
    """The setting is named."""
    result = offline.run("budgets", RESILIENT_AI_BUDGETS=given)
    assert (result.exit_code, "budgets" in result.stderr) == (2, True)
