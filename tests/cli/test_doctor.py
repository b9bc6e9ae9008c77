import json

import pytest

from resilient_ai.cli import _checkup_money, checkup
from resilient_ai.simulator import serve

from ..stores.redis_server import start_redis  # noqa: TID252 - the tests have no package above them

KEY = "very-secret-key"


def checks(result):
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


def test_healthy_installation_is_in_order(shell):
    """Everything is found good, the stack is shown, and the key is not."""
    result = shell.run("doctor", DEEPINFRA_API_KEY=KEY)
    assert result.exit_code == 0
    assert result.stdout.count("✓") == 10
    assert "✗" not in result.stdout
    for part in ("Tracing", "ConcurrencyLimit", "DeepInfraProvider", "everything is in order"):
        assert part in result.stdout
    assert KEY not in result.output


def test_json_is_one_document(shell):
    """--json has every check with its status, and the stack."""
    document = json.loads(shell.run("doctor", "--json").stdout)
    assert document["ok"] is True
    assert {check["status"] for check in document["checks"]} == {"good"}
    assert document["stack"][-1]["name"] == "DeepInfraProvider"


def test_missing_key_is_wrong(shell):
    """Without a key nothing is asked of the service, and the exit code is 1."""
    result = shell.run("doctor", DEEPINFRA_API_KEY=None)
    assert result.exit_code == 1
    assert "✗  key" in result.stdout
    assert "see the lines marked ✗" in result.stdout
    assert "server" not in result.stdout


@pytest.mark.parametrize("variable", ["DEEPINFRA_TOKEN", "RESILIENT_AI_API_KEY"])
def test_key_may_come_from_elsewhere(shell, variable):
    """The doctor says where the key was found."""
    found = checks(shell.run("doctor", "--json", DEEPINFRA_API_KEY=None, **{variable: KEY}))
    assert found["key"]["status"] == "good"
    assert found["account"]["status"] == "good"


def test_refused_key_is_wrong(shell):
    """A key that the service refuses is found without spending anything."""
    result = shell.run("doctor", "--json", DEEPINFRA_API_KEY="bad")
    assert result.exit_code == 1
    assert checks(result)["account"]["detail"] == "the service refuses the key (status 401)"


def test_key_that_cannot_travel_is_wrong(shell):
    """A key with a line break is found when the client is built."""
    result = shell.run("doctor", "--json", DEEPINFRA_API_KEY="a b")
    assert (result.exit_code, checks(result)["client"]["status"]) == (1, "wrong")


def test_unknown_setting_is_wrong(shell):
    """A misspelt variable stops the check-up at the settings."""
    result = shell.run("doctor", "--json", RESILIENT_AI_ATTEMPT="3")
    assert "RESILIENT_AI_ATTEMPT" in checks(result)["settings"]["detail"]
    assert "home" not in checks(result)


def test_settings_name_their_sources(shell, tmp_path):
    """Variables and the file are named, so that nobody searches for where a value came from."""
    (tmp_path / "settings.toml").write_text("attempts = 2\n")
    detail = checks(shell.run("doctor", "--json", RESILIENT_AI_CONFIG="settings.toml"))["settings"]["detail"]
    assert detail == "from the environment (RESILIENT_AI_BASE_URL, RESILIENT_AI_HOME) and the file settings.toml"


def test_defaults_are_called_defaults(offline, tmp_path):
    """Where nothing is set, that is said."""
    found = checks(offline.run("doctor", "--json", RESILIENT_AI_HOME=None, XDG_DATA_HOME=str(tmp_path)))
    assert found["settings"]["detail"] == "all defaults"


def test_home_that_cannot_be_written_is_wrong(shell):
    """A folder that cannot be made is found, with the reason."""
    found = checks(shell.run("doctor", "--json", RESILIENT_AI_HOME="/proc/nowhere"))
    assert found["home"]["status"] == "wrong"
    assert "/proc/nowhere cannot be written" in found["home"]["detail"]


@pytest.mark.parametrize("home", ["/etc/passwd", "/proc/nowhere"])
def test_a_ledger_that_cannot_be_is_doubtful(shell, home):
    """It is in memory alone, and so are the budgets that are counted in it."""
    budgets = '[{"limit": "25 USD", "per": "day"}]'
    found = checks(shell.run("doctor", "--json", RESILIENT_AI_HOME=home, RESILIENT_AI_BUDGETS=budgets))
    assert (found["ledger"]["status"], found["budgets"]["status"]) == ("doubtful", "doubtful")
    assert found["ledger"]["detail"].startswith("in memory only, as the home cannot be used")
    assert found["budgets"]["detail"] == "1 budget counted in memory, by each process for itself"
    off = checks(shell.run("doctor", "--json", RESILIENT_AI_LEDGER="off", RESILIENT_AI_BUDGETS=budgets))
    assert (off["ledger"]["status"], off["budgets"]["status"]) == ("good", "doubtful")


@pytest.mark.parametrize("width", [20, 30, 50, 80])
def test_nothing_is_cut_however_narrow_the_terminal(shell, width):
    """Paths are whole, and no line is too long; below sixty columns details stand below the names."""
    result = shell.run("doctor", COLUMNS=str(width))
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in result.stdout
    assert str(shell.folder / "home" / "ledger.sqlite") in "".join(result.stdout.split())
    assert (lines[0].rstrip() == "✓ version") == (width < 60)


def test_cache_is_looked_at(shell, tmp_path):
    """Where entries outlive the process, the doctor says how many there are; what cannot be used is wrong."""
    found = checks(shell.run("doctor", "--json"))
    assert (found["cache"]["status"], "0 vectors and answers are kept" in found["cache"]["detail"]) == ("good", True)
    shell.run("embed", "--text", "a", "--text", "b")
    assert "2 vectors and answers are kept" in checks(shell.run("doctor", "--json"))["cache"]["detail"]
    off = checks(shell.run("doctor", "--json", RESILIENT_AI_CACHE="off"))["cache"]
    assert (off["status"], off["detail"]) == ("good", "off, as the settings say")
    assert checks(shell.run("doctor", "--json", RESILIENT_AI_HOME="/proc/nowhere"))["cache"]["status"] == "doubtful"
    lost = checks(shell.run("doctor", "--json", RESILIENT_AI_CACHE_REDIS_URL="redis://:hunter2@127.0.0.1:1/0"))["cache"]
    assert (lost["status"], "cannot be used: it cannot be asked" in lost["detail"]) == ("wrong", True)
    assert "hunter2" not in lost["detail"]
    odd = checks(shell.run("doctor", "--json", RESILIENT_AI_CACHE_ENCRYPTION_KEYS="hunter2"))["cache"]
    assert (odd["status"], "hunter2" in odd["detail"]) == ("wrong", False)


def test_redis_that_answers_is_good(shell, tmp_path):
    """Where limits are shared, the doctor asks the Redis that is set."""
    redis = start_redis(tmp_path)
    try:
        found = checks(shell.run("doctor", "--json", RESILIENT_AI_REDIS_URL=redis.url))
    finally:
        redis.stop()
    assert found["redis"]["status"] == "good"
    assert found["redis"]["detail"].startswith(f"{redis.url} answers after ")


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        (
            "redis://:hunter2@127.0.0.1:1/0",
            "redis://127.0.0.1:1/0 cannot be reached (ConnectionError): limits are not shared",
        ),
        ("http://:hunter2@127.0.0.1", "url: must begin with one of redis://, rediss://, unix://"),
    ],
)
def test_redis_that_cannot_be_reached_is_wrong(shell, url, detail):
    """The address is shown without its password, with what is wrong."""
    result = shell.run("doctor", "--json", RESILIENT_AI_REDIS_URL=url)
    found = checks(result)
    assert (result.exit_code, found["redis"]["status"]) == (1, "wrong")
    assert found["redis"]["detail"].startswith(detail)
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("unreachable", "advice"),
    [("refuse", "calls that hard budgets count are refused"), ("allow", "budgets count nothing")],
)
def test_money_that_cannot_be_counted_is_wrong(shell, unreachable, advice):
    """A ledger and a Redis at closed ports are found, each with what becomes of calls, and no password is shown."""
    pytest.importorskip("psycopg")
    result = shell.run(
        "doctor",
        "--json",
        RESILIENT_AI_LEDGER_URL="postgresql://me:hunter2@127.0.0.1:1/db",
        RESILIENT_AI_BUDGET_REDIS_URL="redis://:hunter2@127.0.0.1:1/0",
        RESILIENT_AI_BUDGETS='[{"limit": "25 USD", "per": "day"}]',
        RESILIENT_AI_BUDGET_UNREACHABLE=unreachable,
    )
    found = checks(result)
    assert result.exit_code == 1
    assert found["ledger"]["status"] == found["budgets"]["status"] == "wrong"
    assert found["ledger"]["detail"].startswith("postgresql://127.0.0.1:1/db cannot be asked")
    assert found["ledger"]["detail"].endswith("Connection refused: what calls cost is not written down")
    assert "redis://127.0.0.1:1/0" in found["budgets"]["detail"]
    assert found["budgets"]["detail"].endswith(advice)
    assert "hunter2" not in result.output


def test_budgets_of_the_ledger_fail_with_it(shell):
    """Without a Redis of their own they are counted in the ledger."""
    pytest.importorskip("psycopg")
    env = {"RESILIENT_AI_BUDGETS": '[{"limit": "25 USD", "per": "day"}]'}
    good = checks(shell.run("doctor", "--json", **env))["budgets"]
    assert (good["status"], good["detail"].startswith("1 budget counted in ")) == ("good", True)
    away = shell.run("doctor", "--json", RESILIENT_AI_LEDGER_URL="postgresql://127.0.0.1:1/db", **env)
    assert checks(away)["budgets"]["status"] == "wrong"


def test_a_redis_of_budgets_that_evicts_is_doubtful(shell, tmp_path):
    """It answers, and will forget what was spent once its memory is full."""
    redis = start_redis(tmp_path)
    try:
        redis.command("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
        found = checks(shell.run("doctor", "--json", RESILIENT_AI_BUDGET_REDIS_URL=redis.url))["budgets"]
    finally:
        redis.stop()
    assert found["status"] == "doubtful"
    assert found["detail"] == (
        f"0 budgets counted in {redis.url}, which throws keys away where its memory is full (maxmemory-policy allkeys-lru),"
        " and what was spent of budgets among them; set it to noeviction"
    )


def test_a_redis_of_budgets_that_answers_is_good(shell, tmp_path):
    """It is asked, also where no budget is set yet."""
    redis = start_redis(tmp_path)
    try:
        found = checks(shell.run("doctor", "--json", RESILIENT_AI_BUDGET_REDIS_URL=redis.url))
    finally:
        redis.stop()
    assert found["budgets"]["status"] == "good"
    assert found["budgets"]["detail"].startswith(f"0 budgets counted in {redis.url}, which answers after ")


@pytest.mark.parametrize("name", ["LEDGER_URL", "BUDGET_REDIS_URL"])
def test_an_address_of_money_that_is_none_is_wrong(shell, name):
    """What was meant to be one is not shown."""
    result = shell.run("doctor", "--json", **{f"RESILIENT_AI_{name}": "mysql://me:hunter2@127.0.0.1:1/db"})
    check = checks(result)["ledger" if name == "LEDGER_URL" else "budgets"]
    assert (result.exit_code, check["status"], "hunter2" in result.output) == (1, "wrong", False)


def test_a_ledger_that_says_nothing_is_not_waited_for_for_ever(shell, monkeypatch):
    """After its patience the check-up says that nothing came."""
    monkeypatch.setattr(_checkup_money, "_PATIENCE", 0.0)
    found = checks(shell.run("doctor", "--json"))
    assert found["ledger"]["detail"].startswith("the ledger gave no answer within 0 s")


def test_a_ledger_that_is_off_is_not_looked_at(shell):
    """That is a wish, and no fault."""
    found = checks(shell.run("doctor", "--json", RESILIENT_AI_LEDGER="off"))
    assert (found["ledger"]["status"], found["ledger"]["detail"]) == ("good", "off, as the settings say")


def test_prices_of_one_s_own_are_read(shell, tmp_path):
    """A file says how many models it is about, or what is wrong with it."""
    file = tmp_path / "prices.toml"
    file.write_text('[models."me/mine"]\nkind = "chat"\ninput_per_1m = 0.5\n')
    good = checks(shell.run("doctor", "--json", RESILIENT_AI_PRICE_FILE=str(file)))["prices"]
    assert (good["status"], good["detail"]) == ("good", f"{file} has those of 1 model, without a date")
    missing = shell.run("doctor", RESILIENT_AI_PRICE_FILE="nowhere.toml", COLUMNS="200").stdout
    assert missing.count("nowhere.toml: cannot be read: No such file or directory") == 1
    file.write_text("prices = 1")
    wrong = shell.run("doctor", "--json", RESILIENT_AI_PRICE_FILE=str(file))
    assert (wrong.exit_code, checks(wrong)["prices"]["status"]) == (1, "wrong")
    assert str(file) in checks(wrong)["prices"]["detail"]


def test_server_that_is_not_there_is_wrong(shell):
    """A refused connection is one line."""
    found = checks(shell.run("doctor", "--json", "--base-url", "http://127.0.0.1:9/v1"))
    assert found["server"]["status"] == "wrong"
    assert found["server"]["detail"].startswith("http://127.0.0.1:9/v1: ")


def test_server_of_another_kind_is_wrong(shell, simulator):
    """An address that lists no models is told from one that does not answer, and the key cannot be tried there."""
    found = checks(shell.run("doctor", "--json", "--base-url", f"{simulator.url}/v2"))
    assert "lists no models (status 404)" in found["server"]["detail"]
    assert found["account"]["detail"] == "the key could not be tried (status 404)"
    assert found["account"]["status"] == "doubtful"


def test_small_limit_is_doubtful(offline):
    """An account that takes fewer requests at once than the client sends is pointed out, but not wrong."""
    with serve(limit=50) as simulator:
        result = offline.run("doctor", "--json", "--base-url", simulator.base_url, DEEPINFRA_API_KEY="key")
    assert (result.exit_code, checks(result)["account"]["status"]) == (0, "doubtful")
    assert "RESILIENT_AI_CONCURRENCY=50" in checks(result)["account"]["detail"]


def test_silent_server_is_not_waited_for_for_ever(shell, monkeypatch):
    """After its patience the check-up says that nothing came."""
    monkeypatch.setattr(checkup, "_PATIENCE", 0.0)
    assert "did not answer within 0 s" in checks(shell.run("doctor", "--json"))["server"]["detail"]


def test_wrong_clock_is_wrong(shell, monkeypatch):
    """A clock that is far from the server's is found, whichever way it is off."""
    monkeypatch.setattr(checkup, "_APART", -1.0)
    result = shell.run("doctor", "--json")
    assert (result.exit_code, checks(result)["clock"]["status"]) == (1, "wrong")


def test_missing_package_is_wrong(shell, monkeypatch):
    """A package that is not installed is named."""
    monkeypatch.setattr(checkup, "_PACKAGES", ("httpx", "no-such-package"))
    result = shell.run("doctor")
    assert (result.exit_code, "missing: no-such-package" in result.stdout) == (1, True)


def test_server_without_a_clock_is_doubtful():
    """A server that tells no time leaves the clock open."""
    findings = checkup.Findings()
    checkup._clock(findings, "")
    assert findings.checks[0].status == "doubtful"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b""])
def test_answer_that_is_no_object_is_empty(body):
    """Whatever a server answers, the check-up goes on."""
    assert checkup._json(body) == {}
