import json
from dataclasses import replace
from decimal import Decimal

import pytest

from resilient_ai.cli._models_table import prices_of, tokens
from resilient_ai.core.operations import Complete, Embed, Stream
from resilient_ai.deepinfra.catalogue import CatalogueAbilities, catalogue
from resilient_ai.deepinfra.catalogue.models import KINDS


def listed(shell, *args):
    return json.loads(shell.run("models", "--json", *args).stdout)


def test_filters_narrow_the_list(offline):
    """Every filter is one condition, and all of them hold."""
    args = [
        "--kind",
        "chat",
        "--tools",
        "--vision",
        "--json-mode",
        "--max-input-price",
        "0.1",
        "--min-context",
        "131072",
    ]
    found = listed(offline, *args)
    assert found
    for model in found:
        assert model["kind"] == "chat"
        assert all(model[name] for name in ("tools", "vision", "json"))
        assert float(model["input_per_1m"]) <= 0.1
        assert model["context_length"] >= 131072
    assert all(model["reasoning"] and model["code"] for model in listed(offline, "--reasoning", "--code"))


def test_retired_models_are_listed_on_demand(offline):
    """Without --all only what answers under its own name is listed."""
    assert {model["status"] for model in listed(offline)} == {"active"}
    everything = listed(offline, "--all")
    assert len(everything) == len(catalogue)
    assert any(model["replaced_by"] for model in everything)


def test_table_names_models_in_full(offline):
    """An id is for copying, so it is never folded, and prices stand beside it."""
    result = offline.run("models", "--search", "llama-3.3-70b", COLUMNS="80")
    assert "meta-llama/Llama-3.3-70B-Instruct-Turbo" in result.stdout
    assert "0.32" in result.stdout
    unit = "US dollars per million tokens"
    assert result.stderr == f"1 of {len(catalogue)} models; prices in {unit}, as of {catalogue.as_of}\n"


def test_table_has_the_columns_it_needs(offline):
    """Kind shows where kinds differ, status with --all, and only those prices that there are."""
    header = {
        args: offline.run("models", *args.split(), COLUMNS="120").stdout.splitlines()[0].split()
        for args in ("--search flux", "--all --search llama-3.3", "--search qwen3", "--kind embed")
    }
    assert header["--search flux"] == ["Model", "Context", "Price", "Can"]
    assert header["--all --search llama-3.3"] == ["Model", "Status", "Context", "In", "Out", "Can"]
    assert header["--search qwen3"] == ["Model", "Kind", "Context", "In", "Out", "Price", "Can"]
    assert header["--kind embed"] == ["Model", "Context", "In", "Can"]


@pytest.mark.parametrize(
    ("args", "unit"),
    [
        ("--kind chat", "US dollars per million tokens"),
        ("--kind image", "US dollars"),
        ("--search qwen3", "US dollars per million tokens, or per what is named"),
    ],
)
def test_the_footer_says_what_prices_are(offline, args, unit):
    """A unit stands beside a price or below the table, so that nobody takes a million tokens for one."""
    assert f"models; prices in {unit}, as of 2" in offline.run("models", *args.split()).stderr


@pytest.mark.parametrize(
    ("word", "operation"),
    [
        ("embed", Embed(model="m", texts=["hi"])),
        ("stream", Stream(model="m", messages="hi")),
        ("complete", Complete(model="m", prompt="hi")),
    ],
)
def test_kinds_of_calls_name_all_models_that_serve_them(offline, word, operation):
    """What a call is called stands for the models that the catalogue says can serve it, and for no other."""
    abilities = CatalogueAbilities(catalogue)
    serving = {model.id for model in catalogue.find() if abilities.lacks(operation.on(model.id)) is None}
    assert serving
    assert {model["id"] for model in listed(offline, "--kind", word)} == serving


@pytest.mark.parametrize("kind", ["embedding", "completion", "chat"])
def test_kinds_of_models_are_those_alone(offline, kind):
    """What the catalogue calls models names those that it calls so."""
    assert {model["kind"] for model in listed(offline, "--all", "--kind", kind)} == {kind}


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100])
@pytest.mark.parametrize("asked", ["--cheapest --tools --context 100000", "--kind image", "--kind tts", "--all"])
def test_prices_are_shown_whole(offline, asked, width):
    """However narrow the terminal, prices and ids are all there, no line is too long, and nothing is left out."""
    result = offline.run("models", *asked.split(), COLUMNS=str(width))
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= width
    written = "".join(result.stdout.split())
    for row in listed(offline, *asked.split()):
        prices = (row["input_per_1m"], row["output_per_1m"]) if row["per_unit"] is None else (row["per_unit"]["usd"],)
        assert all(price is None or f"{Decimal(price).normalize():f}" in written for price in prices)
        assert width < 80 or row["id"] in result.stdout


def test_a_narrow_table_has_the_rest_below_the_ids(offline):
    """What a unit is, the context and the abilities have a line of their own."""
    chat = offline.run("models", "--search", "gpt-oss-20b", COLUMNS="40").stdout.splitlines()
    assert [line.split() for line in chat] == [
        ["Model", "In", "Out"],
        ["openai/gpt-oss-20b", "0.03", "0.14"],
        ["131k", "tokens", "·", "tools", "json"],
        ["reasoning"],
    ]
    picture = offline.run("models", "--search", "FLUX-1-dev", "--all", COLUMNS="60").stdout.splitlines()
    assert picture[0].split() == ["Model", "Price"]
    assert picture[1].split() == ["black-forest-labs/FLUX-1-dev", "0.009"]
    assert picture[2].strip().split(" · ")[:2] == ["active", "per megapixel, 25 steps"]


def test_a_very_narrow_table_has_the_names_above(offline):
    """In thirty columns a name has them all, and prices are named below it."""
    chat = offline.run("models", "--search", "gpt-oss-20b", COLUMNS="30").stdout.splitlines()
    assert [line.rstrip() for line in chat] == [
        "openai/gpt-oss-20b",
        "  In 0.03 · Out 0.14 · 131k",
        "  tokens · tools json",
        "  reasoning",
    ]


def test_the_cheapest_of_each_kind_come_first(offline):
    """A price per minute is not compared with one per token."""
    kinds = [model["kind"] for model in listed(offline)]
    assert [kind for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind] == [
        kind for kind in KINDS if kind in kinds
    ]
    chats = [model["id"] for model in listed(offline) if model["kind"] == "chat"]
    assert chats == [model.id for model in catalogue.find("chat", status="active")]


def test_a_short_list_says_how_many_fit(offline):
    """Ten of all models might be all there are for it, or a few of many."""
    result = offline.run("models", "--cheapest", "--tools", "--context", "100000")
    fit = len(catalogue.find("chat", tools=True, min_context=100_000))
    assert result.stderr.startswith(f"10 of {fit} that fit, of {len(catalogue)} models; prices in US dollars per")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--context", "100k"), "'--context': must be a whole number in digits, such as 100000, got '100k'"),
        (("--context", "-1"), "'--context': must be greater than or equal to 0, got '-1'"),
        (("--max-input-price", "low"), "'--max-input-price': must be a number, such as 0.5, got 'low'"),
    ],
)
def test_a_number_that_is_none_is_shown_with_its_form(offline, args, said):
    """In words of ours, and not of a library."""
    result = offline.run("models", *args)
    assert (result.exit_code, said in result.stderr.replace("\n", " ")) == (2, True)


def test_context_has_two_names(offline):
    """Both of them are heeded, also together."""
    by_name = [
        listed(offline, *args.split())
        for args in ("--context 1000000", "--min-context 1000000", "--min-context 9 --context 1000000")
    ]
    assert by_name[0] == by_name[1] == by_name[2] != listed(offline)


def test_help_is_whole_in_a_narrow_terminal(offline):
    """No option hides behind dots, and no sentence is broken where it need not be."""
    text = offline.run("models", "--help", COLUMNS="60").output
    assert "--context" in text
    assert "…" not in text
    assert "They are those of the package or of the last --refresh," in text
    whole = [line.strip() for line in offline.run("models", "--help", COLUMNS="400").output.splitlines()]
    assert any(line.startswith("They are") and line.endswith("narrows --changes as well.") for line in whole)


def test_nothing_found_is_no_error(offline):
    """An empty list is an answer."""
    result = offline.run("models", "--search", "no such model")
    assert (result.exit_code, result.stdout, result.stderr[:5]) == (0, "", "0 of ")


def test_unknown_kind_names_those_there_are(offline):
    """A kind that is none is a wrong use."""
    result = offline.run("models", "--kind", "poem")
    assert (result.exit_code, "embedding" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("count", "text"), [(None, ""), (512, "512"), (8192, "8k"), (131_072, "131k"), (1_048_576, "1.05M")]
)
def test_tokens_are_short(count, text):
    """Context lengths are read at a glance."""
    assert tokens(count) == text


@pytest.mark.parametrize(
    ("model", "prices"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", ("0.10", "0.32", "")),
        ("BAAI/bge-m3", ("0.01", "", "")),
        ("black-forest-labs/FLUX-1-schnell", ("", "0.0005", "megapixel, 1 step")),
        ("black-forest-labs/FLUX-1-dev", ("", "0.009", "megapixel, 25 steps")),
        ("black-forest-labs/FLUX-1.1-pro", ("", "0.04", "image")),
    ],
)
def test_prices_name_their_unit(model, prices):
    """What is not paid by tokens says what it is paid by."""
    info = catalogue.get(model)
    assert info is not None
    assert prices_of(info) == prices


LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


def cheaper(id=LLAMA, factor="0.5"):
    model = catalogue.get(id)
    price = model.pricing.input_per_1m * Decimal(factor)
    return replace(model, pricing=replace(model.pricing, input_per_1m=price))


def test_cheapest_is_a_short_list_of_known_prices(offline):
    """Ten chat models with the lowest prices, or as many and of the kind that is asked for."""
    found = listed(offline, "--cheapest", "--tools", "--context", "100000")
    vectors = listed(offline, "--cheapest", "--kind", "embedding", "--limit", "3")

    expected = catalogue.find("chat", tools=True, min_context=100_000)[:10]
    assert [model["id"] for model in found] == [model.id for model in expected]
    assert [model["kind"] for model in vectors] == ["embedding"] * 3
    assert len(listed(offline, "--limit", "5")) == 5
    silent = listed(offline, "--cheapest", "--kind", "tts", "--limit", "100")
    assert 0 < len(silent) < len(catalogue.find("tts"))
    assert all(model["per_unit"] for model in silent)


def test_a_refresh_is_kept_for_the_next_command(shell, simulator):
    """What the service says now is shown, and shown again without asking it."""
    simulator.put_models(cheaper())

    first = shell.run("models", "--search", "llama-3.3", "--refresh", "--json")
    second = shell.run("models", "--search", "llama-3.3", "--json")

    assert [model["input_per_1m"] for model in json.loads(first.stdout)] == ["0.05"]
    assert first.stdout == second.stdout
    assert first.stderr == ""


def test_a_refresh_says_what_it_has_changed(shell, simulator):
    """In one line above the table, with whatever was not believed."""
    simulator.put_models(cheaper(), cheaper("BAAI/bge-m3", "1000"))

    result = shell.run("models", "--search", "llama-3.3", "--refresh")

    assert "1 price changed, 0 new, 0 retired, 0 no longer listed; --changes shows" in result.stderr
    assert "not believed or not read: BAAI/bge-m3: input_per_1m 10: is more than 50 times" in result.stderr
    assert "0.05" in result.stdout


def test_changes_since_the_package_and_since_the_last_time(shell, simulator):
    """Without a refresh those since the package, with one those that it finds."""
    nothing = shell.run("models", "--changes")
    simulator.put_models(cheaper())
    shell.run("models", "--refresh")
    package = shell.run("models", "--changes")
    simulator.put_models(cheaper(factor="2"))
    latest = shell.run("models", "--changes", "--refresh")

    assert (nothing.stdout, nothing.exit_code) == ("", 0)
    assert nothing.stderr.startswith("nothing has changed\n")
    assert f"price          {LLAMA}: input_per_1m 0.1 -> 0.05 (-50%)\n" in package.stdout
    assert f"since the packaged data of {catalogue.as_of}" in package.stderr
    assert latest.stdout == f"price          {LLAMA}: input_per_1m 0.05 -> 0.2 (+300%)\n"
    assert "since the refresh of 2" in latest.stderr


def test_changes_for_programs(shell, simulator):
    """One document, prices as exact texts."""
    simulator.put_models(cheaper())
    simulator.drop_models("BAAI/bge-m3")

    changes = json.loads(shell.run("models", "--changes", "--refresh", "--json").stdout)

    assert changes["prices"] == [{"model": LLAMA, "field": "input_per_1m", "old": "0.1", "new": "0.05"}]
    assert (changes["removed"], changes["added"]) == (["BAAI/bge-m3"], [])


def test_what_was_removed_or_not_believed_stays_in_sight(shell, simulator):
    """A model that is listed no more is no choice any longer, and later commands still say so, until it is listed again."""
    simulator.put_models(cheaper("intfloat/e5-base-v2", "1000"))
    simulator.drop_models("BAAI/bge-m3")
    news = shell.run("models", "--refresh", "--limit", "1").stderr
    assert "1 no longer listed" in news

    changes = json.loads(shell.run("models", "--changes", "--json").stdout)

    assert changes["removed"] == ["BAAI/bge-m3"]
    assert [doubt["model"] for doubt in changes["suspicious"]] == ["intfloat/e5-base-v2"]
    assert "not listed     BAAI/bge-m3\n" in shell.run("models", "--changes").stdout
    assert "BAAI/bge-m3" not in [model["id"] for model in listed(shell, "--search", "bge-m3")]
    assert [model["status"] for model in listed(shell, "--all", "--search", "BAAI/bge-m3")][:1] == ["presumed_removed"]
    asked = shell.run("route", "hi", "--kind", "embed", "--query", "org=BAAI,dimensions=1024", "--json").stdout
    assert "BAAI/bge-m3" not in [one["model"] for one in json.loads(asked)]
    simulator.reset()
    shell.run("models", "--refresh")
    again = json.loads(shell.run("models", "--changes", "--json").stdout)
    assert (again["removed"], again["suspicious"]) == ([], [])


def test_changes_are_narrowed_like_the_list(shell, simulator):
    """Those of the models that the options choose; what would cut the list short has no meaning for changes."""
    simulator.put_models(cheaper(), cheaper("BAAI/bge-base-en-v1.5"))
    simulator.drop_models("BAAI/bge-m3")
    shell.run("models", "--refresh")

    def changed(*args):
        found = json.loads(shell.run("models", "--changes", "--json", *args).stdout)
        return {change["model"] for change in found["prices"]}, found["removed"]

    assert changed() == ({LLAMA, "BAAI/bge-base-en-v1.5"}, ["BAAI/bge-m3"])
    assert changed("--kind", "chat") == ({LLAMA}, [])
    assert changed("--search", "bge-m3") == (set(), ["BAAI/bge-m3"])
    for option in (["--limit", "3"], ["--cheapest"]):
        result = shell.run("models", "--changes", *option)
        assert (result.exit_code, "leave --cheapest and --limit out" in result.stderr) == (2, True)


def test_a_list_that_fails_is_named_once(shell, simulator):
    """The other one is used, and the line says which answered what."""
    shell.env["RESILIENT_AI_BASE_URL"] = f"{simulator.url}/v1/nowhere"
    result = shell.run("models", "--refresh")
    assert result.exit_code == 1
    assert result.stderr == "error: '/openai/models' answered 404: Not Found\n"


def test_a_service_that_is_not_there_is_one_line(offline):
    """Nothing is shown that could be taken for new."""
    offline.env |= {"DEEPINFRA_API_KEY": "key", "RESILIENT_AI_BASE_URL": "http://127.0.0.1:9/v1"}
    result = offline.run("models", "--refresh")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1


def test_a_price_file_goes_before_all(offline, tmp_path):
    """It is the one of the settings."""
    prices = tmp_path / "prices.toml"
    prices.write_text(f'[models."{LLAMA}"]\ninput_per_1m = 0.07\n')

    result = offline.run("models", "--search", "llama-3.3", "--json", RESILIENT_AI_PRICE_FILE=str(prices))

    assert json.loads(result.stdout)[0]["input_per_1m"] == "0.07"


@pytest.mark.parametrize(("said", "day"), [("as_of = 2026-11-01\n", "as of 2026-11-01"), ("", "without a date")])
def test_prices_of_a_file_are_told_with_its_day(offline, tmp_path, said, day):
    """Whoever reads a price of one's own learns of which day it is; where none of the file's is shown, it is not named."""
    prices = tmp_path / "prices.toml"
    prices.write_text(f'{said}[models."{LLAMA}"]\ninput_per_1m = 0.07\n[models."BAAI/bge-m3"]\ndimensions = 7\n')
    env = {"RESILIENT_AI_PRICE_FILE": str(prices), "COLUMNS": "1000"}
    own = f"as of {catalogue.as_of}, those of {prices} {day}"

    for args in (["models", "--search", "llama-3.3"], ["route", "hi", "-m", LLAMA]):
        assert own in offline.run(*args, **env).stderr
    for args in (["models", "--search", "bge-m3"], ["route", "hi", "-m", "BAAI/bge-m3", "--kind", "embed"]):
        assert str(prices) not in offline.run(*args, **env).stderr


def test_an_id_is_never_broken_where_a_line_has_room_for_it(offline):
    """Where id and prices have no room beside one another, the prices stand below."""
    lines = [line.rstrip() for line in offline.run("models", "--search", LLAMA, COLUMNS="45").stdout.splitlines()]
    assert lines == [LLAMA, "  In 0.10 · Out 0.32 · 131k tokens · tools", "  json"]
