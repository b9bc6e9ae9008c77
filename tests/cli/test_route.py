import io
import json
from decimal import Decimal

import pytest
from rich.console import Console

from resilient_ai.cli.route import _table
from resilient_ai.core.results import Considered

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
NEMO = "mistralai/Mistral-Nemo-Instruct-2407"


def rows(result):
    return [line.split() for line in result.stdout.splitlines()]


def explained(shell, *args, **env):
    return json.loads(shell.run("route", "What is the capital of France?", *args, "--json", **env).stdout)


def test_a_choice_is_explained_in_order(offline):
    """The cheapest comes first, what cannot serve last, each with its reason; nothing is sent, and no key is needed."""
    result = offline.run("route", "hi", "--models", f"{LLAMA}, {NEMO},BAAI/bge-m3")
    head, first, second, unfit = rows(result)
    assert head == ["Model", "Cost", "Why"]
    assert (first[:2], second[:2], unfit[:3]) == (["1", NEMO], ["2", LLAMA], ["-", "BAAI/bge-m3", "unknown"])
    assert (" ".join(first[3:]), " ".join(unfit[3:])) == (
        "by price, as listed",
        "lacks chat, as it is made for embedding",
    )
    assert "nothing was sent; costs are for" in result.stderr
    assert "is not known here" in " ".join(result.stderr.split())
    assert not (offline.folder / "home").exists()


def test_a_budget_that_a_call_never_fits_is_told(offline):
    """Also of the only model; where the answer is short enough, or the budget is of others, nothing is said."""
    budgets = [{"limit": "0.0005 USD", "per": "day", "scope": {"tenant": "a"}}]
    env = {"RESILIENT_AI_BUDGETS": json.dumps(budgets)}
    never = "it could cost up to {} USD, more than the whole budget '0.0005 USD per day tenant=a'"
    args = ("--models", f"{LLAMA},{NEMO}", "--max-tokens")

    def told(*more):
        return [(one["model"], one["place"], one["why"]) for one in explained(offline, *more, **env)]

    cheap = (NEMO, 1, "by price, as listed")
    assert told(*args, "2000", "--tag", "tenant=a") == [cheap, (LLAMA, None, never.format("0.0006462"))]
    assert told(*args, "200", "--tag", "tenant=a") == [cheap, (LLAMA, 2, "by price, as listed")]
    assert told(*args, "2000", "--tag", "tenant=b") == [cheap, (LLAMA, 2, "by price, as listed")]
    alone = offline.run("route", "hi", "-m", LLAMA, "--tag", "tenant=a", **env)
    assert (alone.exit_code, never.format("0.00524628") in " ".join(alone.stdout.split())) == (1, True)
    assert "none of these models can serve this call" in alone.stderr


def test_a_budget_too_small_for_the_longest_answer_names_the_cure(offline):
    """Where a shorter answer would fit; where nothing does, or nothing stands against the call, there is none."""

    def told(limit, *args):
        budgets = json.dumps([{"limit": f"{limit} USD", "per": "day"}])
        return (
            "a small --max-tokens makes it fit"
            in offline.run("route", "hi", *args, RESILIENT_AI_BUDGETS=budgets).stderr
        )

    assert [told("0.0005", "-m", LLAMA), told("0.0000001", "-m", LLAMA), told("1", "-m", LLAMA)] == [True, False, False]
    assert not told("0.0000000001", "-m", "BAAI/bge-m3", "--kind", "embed")


def test_no_budget_is_blamed_where_a_model_lacks_the_kind(offline):
    """A model of another kind has a price, only none for this call; what counts is that it cannot serve it."""
    budgets = json.dumps([{"limit": "1 USD", "per": "day"}])
    (one,) = explained(offline, "-m", "BAAI/bge-m3", RESILIENT_AI_BUDGETS=budgets)
    assert (one["place"], one["why"]) == (None, "the only one; lacks chat, as it is made for embedding")
    (other,) = explained(offline, "-m", "nobody/x", RESILIENT_AI_BUDGETS=budgets)
    assert "no price of it for a chat is known, which a hard budget needs" in other["why"]


def test_a_query_asks_the_catalogue(offline):
    """What meets the conditions stands in line, the cheapest first, as many as were asked for."""
    found = explained(offline, "--query", "tools, context=100_000,max_output_price=0.5,org=meta-llama,limit=2")
    assert [one["place"] for one in found] == [1, 2]
    assert all(one["model"].startswith("meta-llama/") and one["cost"] for one in found)


def test_a_long_line_is_cut_short(offline):
    """A terminal gets the first twenty, programs get all."""
    result = offline.run("route", "hi", "--query", "tools")
    count = len(explained(offline, "--query", "tools"))
    assert (len(rows(result)), f"and {count - 20} more; --json has all of them" in result.stderr) == (21, True)


def test_settings_say_what_auto_stands_for(offline):
    """Without options the route is that of a client with the same settings; options come before them."""
    env = {"RESILIENT_AI_AUTO_MODELS": json.dumps([LLAMA, NEMO])}
    assert [(one["model"], one["why"]) for one in explained(offline, **env)] == [
        (LLAMA, "in the order given"),
        (NEMO, "in the order given"),
    ]
    assert [one["model"] for one in explained(offline, RESILIENT_AI_AUTO_PREFER="cheapest", **env)] == [NEMO, LLAMA]
    assert {one["why"] for one in explained(offline, "--prefer", "fastest", **env)} == {"not timed yet"}


def test_a_list_that_is_named_is_asked_in_its_order(offline):
    """Models that a call names need no choice."""
    assert [one["model"] for one in explained(offline, "-m", LLAMA, "-m", NEMO)] == [LLAMA, NEMO]


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("embedding", "google/embeddinggemma-300m"),
        ("embed", "google/embeddinggemma-300m"),
        ("image", "stabilityai/sdxl-turbo"),
    ],
)
def test_other_kinds_can_be_asked_about(offline, kind, first):
    """A query looks among the models of that kind."""
    assert explained(offline, "--kind", kind, "--query", "limit=1")[0]["model"] == first


def test_a_longer_answer_costs_more(offline):
    """What the call is expected to cost depends on it."""
    short, long = (
        explained(offline, "--models", f"{LLAMA},{NEMO}", "--max-tokens", tokens)[0]["cost"] for tokens in ("1", "9000")
    )
    assert float(short) < float(long)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "a prompt of about 1 token and an answer of 1,000, which is a guess"),
        (("--max-tokens", "2000"), "an answer of 1,000, which is a guess"),
        (("--max-tokens", "200"), "an answer of 200, as long as it may be"),
        (("--kind", "embed"), "costs are for a prompt of about 1 token, by prices"),
        (("--kind", "image"), "costs are for one picture, by prices"),
    ],
)
def test_it_is_said_what_costs_are_for(offline, args, said):
    """A guess is called one, so that nobody takes the longest answer for the expected one."""
    assert said in " ".join(offline.run("route", "hi", "--models", LLAMA, *args).stderr.split())


@pytest.mark.parametrize("args", [("-m", LLAMA), ("-m", LLAMA, "-m", NEMO), ("--models", LLAMA, "--prefer", "fastest")])
def test_costs_are_known_whatever_decides(offline, args):
    """Also where nothing is ordered by price."""
    assert all(one["cost"] is not None for one in explained(offline, *args))


def test_a_model_without_a_price_is_called_one(offline):
    """Whatever else is the reason."""
    (one,) = explained(offline, "-m", "nobody/no-such-model")
    assert (one["cost"], one["why"]) == (None, "the only one, no price known; not in the catalogue")


def test_a_narrow_terminal_has_the_reasons_below(offline):
    """In sixty columns each model has a line for why it stands there; nothing is lost, and no command of a terminal is left."""
    result = offline.run("route", "hi", "--models", f"{NEMO},a[/]\x1b[31m", COLUMNS="60")
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert (lines[2].strip(), lines[3].split(), lines[4].strip()) == (
        "by price, as listed",
        ["2", "a[/][31m", "unknown"],
        "no price known; not in the catalogue",
    )
    assert max(map(len, lines)) <= 60
    footer = result.stderr.splitlines()
    assert max(map(len, footer)) <= 60
    assert " ".join(line.strip() for line in footer).endswith("in them, ai.explain(operation) says it.")


def test_a_very_narrow_terminal_has_the_names_above():
    """In thirty columns a name has them all, and what stands beside it is named below."""
    screen = Console(file=io.StringIO(), width=30)
    found = [Considered(model="org/a-model-of-a-long-name", place=1, why="by time", cost=Decimal("0.01"), seconds=0.25)]
    screen.print(_table([*found, Considered(model="b", place=None, why="lacks tools")], width=30))
    assert [line.rstrip() for line in screen.file.getvalue().splitlines()] == [
        "1 org/a-model-of-a-long-name",
        "  Cost $0.01 · Time 250 ms ·",
        "  by time",
        "- b",
        "  Cost unknown · lacks tools",
    ]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("Qwen/QwQ-32B", "retired, use Qwen/Qwen3-32B"),
        ("mistralai/Mistral-7B-Instruct-v0.1", "retired, use "),
        ("nobody/no-such-model", "not in the catalogue"),
        ("meta-llama/Llama-2-7b-chat-hf", "no longer listed by the service"),
    ],
)
def test_what_speaks_against_a_model_is_said(offline, model, said):
    """Whether it has been withdrawn, or is not known at all, beside the reason for its place."""
    found = {one["model"]: one for one in explained(offline, "--models", f"{LLAMA},{model}")}
    assert said in found[model]["why"]
    assert found[LLAMA]["why"] == "by price, as listed"


def test_a_private_deployment_is_no_stranger(offline):
    """No catalogue knows one."""
    (one,) = explained(offline, "-m", "deploy_id:42")
    assert "catalogue" not in one["why"]


def test_a_prompt_that_may_be_too_long_is_said_to_be(offline):
    """By a guess at its tokens and with the longest answer; what is too long in any language, the model lacks."""
    (maybe,) = json.loads(offline.run("route", "-", "-m", LLAMA, "--json", stdin="word " * 110_000).stdout)
    assert (maybe["place"], maybe["why"]) == (
        1,
        "the only one; may be too long: about 137,500 tokens, and it takes 131,072",
    )
    (answer,) = json.loads(
        offline.run("route", "-", "-m", LLAMA, "--max-tokens", "10000", "--json", stdin="word " * 100_000).stdout
    )
    assert "may be too long: about 135,000 tokens" in answer["why"]
    (vector,) = json.loads(
        offline.run("route", "-", "-m", "BAAI/bge-m3", "--kind", "embed", "--json", stdin="word " * 10_000).stdout
    )
    assert "may be too long: about 12,500 tokens, and it takes 8,192" in vector["why"]


def test_what_is_too_long_in_any_language_is_told_once(offline):
    """It lacks the context, and no guess stands beside that."""
    for args in (["-m", LLAMA], ["--models", f"{LLAMA},{NEMO}"]):
        result = offline.run("route", "-", *args, "--json", stdin="word " * 200_000)
        for one in json.loads(result.stdout):
            assert (one["place"], one["why"].count("tokens"), "may be" in one["why"]) == (None, 1, False)
            assert "lacks context for at least 166" in one["why"]


@pytest.mark.parametrize("width", [50, 80, 90, 200])
def test_names_and_reasons_are_not_broken_within_a_word(offline, width):
    """An id is for copying, also one within a reason; where there is no room beside it, the rest stands below."""
    result = offline.run("route", "hi", "--models", f"{LLAMA},Qwen/QwQ-32B", COLUMNS=str(width))
    assert f"{LLAMA}" in result.stdout
    assert "Qwen/Qwen3-32B" in result.stdout
    assert ("Cost $" in result.stdout) is (width == 50)
    assert max(map(len, result.stdout.splitlines())) <= width


@pytest.mark.parametrize(
    "args", [("-m", "BAAI/bge-m3"), ("--models", "BAAI/bge-m3,BAAI/bge-base-en-v1.5"), ("-m", LLAMA, "--kind", "embed")]
)
def test_nothing_left_is_a_failure(offline, args):
    """Whatever is asked for, each model is told of with what it lacks, and the exit code is 1."""
    result = offline.run("route", "hi", *args)
    assert (result.exit_code, "none of these models can serve this call" in result.stderr) == (1, True)
    assert "lacks" in result.stdout
    document = offline.run("route", "hi", *args, "--json")
    assert (document.exit_code, {one["place"] for one in json.loads(document.stdout)}) == (1, {None})


def test_times_are_shown_where_there_are_any():
    """A process that has measured a model knows how long it takes, and of others that nobody does."""
    found = [
        Considered(model="a", place=1, why="by time", cost=Decimal("0.01"), seconds=0.25),
        Considered(model="b", place=2, why="not timed yet"),
    ]
    screen = Console(file=io.StringIO(), width=80)
    screen.print(_table(found, width=80))
    assert [line.split() for line in screen.file.getvalue().splitlines()] == [
        ["Model", "Cost", "Time", "Why"],
        ["1", "a", "$0.01", "250", "ms", "by", "time"],
        ["2", "b", "unknown", "unknown", "not", "timed", "yet"],
    ]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "auto stands for nothing: give --models or --query"),
        (("--models", "a,b", "--query", "tools"), "--models and --query"),
        (("--models", "a,a"), "--models: each model may stand there once, got 'a,a'"),
        (("--models", " , "), "--models: names no model, got ' , '"),
        (("--models", "a", "--tag", "tenant=a", "--tag", "tenant=b"), "'tenant' is given twice, got 'a' and 'b'"),
        (("--models", "auto,a"), "--models: models must not name 'auto'"),
        (("--query", ""), "--query: names no condition, got ''"),
        (("--query", " , "), "--query: names no condition, got ' , '"),
        (
            ("--query", "tools", "-m", "a"),
            "--query says what auto stands for, and --model names others; give one of them",
        ),
        (("--models", "a,b", "-m", "c"), "--models says what auto stands for, and --model names others"),
        (("--query", "colour"), "--query: 'colour' is none of tools, "),
        (("--query", "tools=yes"), "--query: 'tools=yes' is none of"),
        (("--query", "context=many"), "--query: 'context=many' needs a number"),
        (("--query", "limit=0"), "--query: limit"),
        (("--query", "max_input_price=cheap"), "needs a number"),
        (("--query", "text=nothing-is-called-so"), "--query: no model fits"),
        (("--models", "a", "--prefer", "best"), "--prefer"),
        (("--models", "a", "--kind", "song"), "--kind"),
        (("--models", "a", "--kind", "embed", "--max-tokens", "5"), "--max-tokens is for chats"),
        (("--models", "a", "--tag", "tenant"), "--tag"),
        (("-m", "a", "-m", "auto"), "model: 'auto' stands for the models of the stack and comes first"),
    ],
)
def test_wrong_use_names_what_is_right(offline, args, said):
    """An option that cannot work is complained about by name, in one line."""
    result = offline.run("route", "hi", *args)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert said in result.stderr


def test_an_empty_prompt_is_no_question(offline):
    """As with chat, and it is said how to give one."""
    result = offline.run("route", " ", "--models", "a")
    assert (result.exit_code, "the prompt is empty: give it as an argument, or `-`" in result.stderr) == (2, True)
