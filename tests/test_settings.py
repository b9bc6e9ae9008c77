"""Settings: where they come from, and what is refused."""

import os
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.middleware import Budget
from resilient_ai.settings import _LISTS, FILE_VARIABLE, PREFIX, Settings


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path):
    """No setting of the machine reaches these tests."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(monkeypatch, tmp_path):
    """Write the TOML file of settings."""

    def write(text):
        path = tmp_path / "settings.toml"
        path.write_text(text)
        monkeypatch.setenv(FILE_VARIABLE, str(path))
        return path

    return write


def test_defaults():
    """They are those that the documentation names."""
    assert Settings().model_dump() == {
        "api_key": None,
        "base_url": "https://api.deepinfra.com/v1",
        "home": None,
        "timeout": 600.0,
        "attempt_timeout": 300.0,
        "first_token_timeout": 60.0,
        "idle_timeout": 60.0,
        "connect_timeout": 5.0,
        "attempts": 3,
        "hedge": "off",
        "on_interrupt": "raise",
        "concurrency": 200,
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "redis_url": None,
        "batch_size": 96,
        "batches_in_flight": 4,
        "coalesce": "on",
        "cache": "on",
        "cache_answers": "repeatable",
        "cache_answers_on_disk": False,
        "cache_memory": 64 * 2**20,
        "cache_disk": 2 * 2**30,
        "cache_ttl": None,
        "cache_max_age": None,
        "cache_stale_while_revalidate": 0.0,
        "cache_stale_if_error": 0.0,
        "cache_replay": "at_once",
        "cache_redis_url": None,
        "cache_secret": None,
        "cache_encryption_keys": None,
        "ledger": "on",
        "ledger_url": None,
        "budgets": (),
        "budget_redis_url": None,
        "budget_unpriced": None,
        "budget_unreachable": "refuse",
        "auto_models": (),
        "auto_prefer": None,
        "price_file": None,
        "catalogue_refresh": None,
        "trace_backends": None,
        "trace_capture": None,
        "trace_tags": (),
        "metric_tenants": 0,
    }


def test_budgets_from_the_environment_and_from_the_file(file, monkeypatch):
    """They are JSON in the one and tables in the other, and are checked as `Budget` checks them."""
    expected = (Budget(limit="25 USD", per="day", scope={"tenant": "a"}), Budget(limit="0.5", per="month", hard=False))
    file(
        '[[budgets]]\nlimit = "25 USD"\nper = "day"\nscope = {tenant = "a"}\n[[budgets]]\nlimit = "0.5"\nper = "month"\nhard = false'
    )
    assert Settings().budgets == expected
    text = (
        '[{"limit": "25 USD", "per": "day", "scope": {"tenant": "a"}}, {"limit": "0.5", "per": "month", "hard": false}]'
    )
    monkeypatch.setenv("RESILIENT_AI_BUDGETS", text)
    assert Settings(home=Path("h")).budgets == expected
    monkeypatch.setenv("RESILIENT_AI_BUDGETS", '[{"limit": "0 USD", "per": "day"}]')
    with pytest.raises(ConfigurationError, match="limit must be US dollars above 0"):
        Settings()
    monkeypatch.setenv("RESILIENT_AI_BUDGETS", '[{"limit": "1 USD", "pr": "day"}]')
    with pytest.raises(ConfigurationError, match="budgets"):
        Settings()


def test_a_list_that_is_none_is_told_how_to_write_one(monkeypatch):
    """In words that fit where it stands: the variable, and what a list of its kind looks like."""
    for name, example in (
        ("budgets", '[{"limit": "25 USD", "per": "day"}]'),
        ("auto_models", '["org/model", "org/other"]'),
        ("trace_tags", '["feature"]'),
    ):
        monkeypatch.setenv(f"RESILIENT_AI_{name.upper()}", "25 USD per day")
        with pytest.raises(ConfigurationError) as caught:
            Settings()
        assert str(caught.value) == (
            f"settings: {name}: RESILIENT_AI_{name.upper()} is no JSON; write a list such as '{example}'"
        )
        monkeypatch.setenv(f"RESILIENT_AI_{name.upper()}", '{"limit": "5 USD"}')
        with pytest.raises(ConfigurationError) as caught:
            Settings()
        assert str(caught.value) == f"settings: {name}: must be a list such as {example}, got {{'limit': '5 USD'}}"
        monkeypatch.delenv(f"RESILIENT_AI_{name.upper()}")


def test_every_list_has_an_example():
    """A new setting that is no single value needs one, for whoever writes it into a variable."""
    assert set(_LISTS) == {name for name, field in Settings.model_fields.items() if "tuple" in str(field.annotation)}


def test_what_unpriced_requests_count_with_is_no_float(file, monkeypatch):
    """As a limit; text and whole numbers are exact."""
    file("budget_unpriced = 0.01")
    sentence = "settings: budget_unpriced: it must not be a float, which is hardly ever exact: write '0.01', got 0.01"
    with pytest.raises(ConfigurationError) as caught:
        Settings()
    assert str(caught.value) == sentence
    file('budget_unpriced = "0.01"')
    assert Settings().budget_unpriced == Decimal("0.01")
    monkeypatch.setenv("RESILIENT_AI_BUDGET_UNPRICED", "0.02")
    assert Settings().budget_unpriced == Decimal("0.02")
    assert Settings(budget_unpriced=1).budget_unpriced == 1


def test_a_limit_is_no_float_in_the_settings_either(file, monkeypatch):
    """`Budget` takes none, and so neither does a file or a variable."""
    file('[[budgets]]\nlimit = 0.5\nper = "day"')
    with pytest.raises(ConfigurationError, match=r"limit must not be a float, .*: write '0\.5 USD', got 0\.5"):
        Settings()
    monkeypatch.setenv("RESILIENT_AI_BUDGETS", '[{"limit": 0.5, "per": "day"}]')
    with pytest.raises(ConfigurationError, match=r"write '0\.5 USD'"):
        Settings()
    monkeypatch.setenv("RESILIENT_AI_BUDGETS", '[{"limit": 5, "per": "day"}]')
    assert Settings().budgets == (Budget(limit=5, per="day"),)


@pytest.mark.parametrize("name", ["home", "price_file"])
def test_a_path_is_not_empty(monkeypatch, name):
    """It would be the folder that one happens to be in, and the book of costs with it."""
    monkeypatch.setenv(f"RESILIENT_AI_{name.upper()}", "")
    with pytest.raises(ConfigurationError) as caught:
        Settings()
    assert str(caught.value) == f"settings: {name}: must not be empty, got ''"


def test_arguments_go_before_the_environment_and_that_before_the_file(file, monkeypatch):
    """Each place is asked for what the ones before it leave open."""
    file('attempts = 7\ntimeout = 70\nconcurrency = 77\nhome = "/from/file"')
    monkeypatch.setenv("RESILIENT_AI_ATTEMPTS", "8")
    monkeypatch.setenv("RESILIENT_AI_TIMEOUT", "80.5")
    found = Settings(attempts=9)
    assert (found.attempts, found.timeout, found.concurrency, found.home, found.batch_size) == (
        *(9, 80.5, 77),
        Path("/from/file"),
        96,
    )


def test_an_empty_name_of_a_file_names_none(monkeypatch):
    """As a variable that was set to nothing."""
    monkeypatch.setenv(FILE_VARIABLE, "")
    assert Settings().attempts == 3


def test_a_file_of_its_own_kind_is_not_looked_for(tmp_path):
    """Neither `.env` nor anything else in the working directory is read."""
    (tmp_path / ".env").write_text("RESILIENT_AI_ATTEMPTS=9")
    assert Settings().attempts == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attempts": 0}, "settings: attempts: must be greater than or equal to 1, got 0"),
        ({"timeout": 0}, "settings: timeout: must be greater than 0, got 0"),
        ({"timeout": float("nan")}, "settings: timeout: must be"),
        ({"timeout": float("inf")}, "settings: timeout: must be a finite number, got inf"),
        ({"connect_timeout": -1}, "settings: connect_timeout: must be greater than 0, got -1"),
        ({"concurrency": 0}, "settings: concurrency: "),
        ({"batch_size": 1025}, "settings: batch_size: must be less than or equal to 1024, got 1025"),
        ({"batches_in_flight": 0}, "settings: batches_in_flight: "),
        ({"cache": "maybe"}, "settings: cache: must be 'on', 'off', 'read', 'write' or 'refresh', got 'maybe'"),
        ({"ledger": None}, "settings: ledger: must be 'on' or 'off', got None"),
        ({"cache_answers": "some"}, "settings: cache_answers: must be 'repeatable' or 'all', got 'some'"),
        ({"cache_memory": 1}, "settings: cache_memory: must be greater than or equal to 1048576, got 1"),
        ({"cache_disk": "much"}, "settings: cache_disk: must be a valid integer"),
        ({"cache_secret": ""}, "settings: cache_secret: "),
        ({"coalesce": "no"}, "settings: coalesce: must be 'on' or 'off', got 'no'"),
        ({"cache_max_age": -1}, "settings: cache_max_age: must be greater than or equal to 0, got -1"),
        ({"cache_replay": "slow"}, "settings: cache_replay: must be 'at_once' or 'recorded', got 'slow'"),
        ({"cache_ttl": 0}, "settings: cache_ttl: must be greater than 0, got 0"),
        ({"trace_backends": ["splunk"]}, "settings: trace_backends: backends must be of"),
        (
            {"trace_capture": "all"},
            "settings: trace_capture: must be 'none', 'spans', 'events' or 'both', got 'all'",
        ),
        ({"trace_tags": [""]}, "settings: trace_tags"),
        ({"metric_tenants": 1001}, "settings: metric_tenants: must be less than or equal to 1000, got 1001"),
    ],
)
def test_values_are_checked(values, message):
    """One sentence names the field and the value."""
    with pytest.raises(ConfigurationError) as caught:
        Settings(**values)
    assert str(caught.value).startswith(message)


def test_a_value_of_the_environment_is_checked(monkeypatch):
    """As one that was given."""
    monkeypatch.setenv("RESILIENT_AI_ATTEMPTS", "many")
    with pytest.raises(ConfigurationError, match="settings: attempts: must be a valid integer"):
        Settings()


def test_an_unknown_argument_is_refused():
    """By its name, without its value, which may be a misspelled secret."""
    with pytest.raises(ConfigurationError) as caught:
        Settings(api_kye="hunter2")
    assert str(caught.value) == "settings: api_kye: there is no such field; did you mean 'api_key'?"


def test_unknown_variables_are_refused(monkeypatch):
    """All of them by name, without their values; others than ours are none of our business."""
    monkeypatch.setenv("RESILIENT_AI_ATEMPTS", "hunter2")
    monkeypatch.setenv("RESILIENT_AI_ZZZZ", "hunter2")
    monkeypatch.setenv("RESILIENT_AI_API_KYE", "hunter2")
    monkeypatch.setenv("RESILIENT_AIR", "1")
    with pytest.raises(ConfigurationError) as caught:
        Settings()
    assert str(caught.value) == (
        "the environment holds unknown settings: RESILIENT_AI_API_KYE (did you mean RESILIENT_AI_API_KEY?),"
        " RESILIENT_AI_ATEMPTS (did you mean RESILIENT_AI_ATTEMPTS?), RESILIENT_AI_ZZZZ"
    )


def test_an_unknown_name_in_the_file_is_refused(file):
    """By its name."""
    file('[client]\nkey = "hunter2"')
    with pytest.raises(ConfigurationError) as caught:
        Settings()
    assert str(caught.value) == "settings: client: there is no such field"


@pytest.mark.parametrize("text", ["attempts = ", "attempts = 1\nattempts = 2", "[", "\x00"])
def test_a_file_that_is_no_toml(file, text):
    """It is named."""
    path = file(text)
    with pytest.raises(ConfigurationError) as caught:
        Settings()
    assert str(caught.value).startswith(f"{path}: cannot be read as TOML: ")


def test_a_file_that_is_not_text(file):
    """It is no TOML either."""
    path = file("")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="cannot be read as TOML"):
        Settings()


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_is_not_there(monkeypatch, name):
    """A name that was given is a promise that there is a file."""
    monkeypatch.setenv(FILE_VARIABLE, name)
    with pytest.raises(ConfigurationError, match=f"RESILIENT_AI_CONFIG: there is no file '{name}'"):
        Settings()


def test_the_key_is_not_shown(monkeypatch):
    """Wherever it comes from."""
    monkeypatch.setenv("RESILIENT_AI_API_KEY", "hunter2")
    settings = Settings()
    assert settings.api_key == SecretStr("hunter2")
    assert "hunter2" not in f"{settings!r} {settings}"


def test_settings_cannot_be_changed():
    """What a stack was built with stays true."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().attempts = 5
