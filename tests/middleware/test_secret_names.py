"""Which names stand before secrets."""

import re
from pathlib import Path

import pytest

from resilient_ai.middleware import _secret_names
from resilient_ai.middleware._log_fields import presentable
from resilient_ai.middleware._secret_names import SAID_BEFORE, may_name_secrets, names_a_secret
from resilient_ai.middleware.redactor import Redactor

SECRET = [
    *("accessToken", "clientSecret", "dbPassword", "refreshToken", "sessionToken", "APIKey", "apikey", "X-API-Key"),
    *("api key", "api.key", "AWS_SECRET_ACCESS_KEY", "secret_key", "privateKey", "accountKey", "signing-key", "PWD"),
    *("passphrase", "passwd", "passwords", "password2", "passwordHash", "secretValue", "secrets", "Set-Cookie", "cookies"),
    *("Authorization", "credentials", "X-Amz-Signature", "\uff50assword", "pass\u200bword", " password ", "token_1"),
]  # fmt: skip
HARMLESS = [
    *("tokens", "max_tokens", "inputTokens", "input_tokens", "tokens2", "tokensValue", "token_count", "tokenizer", "keyboard"),
    *("key", "keys", "monkey", "author_key", "primaryKey", "cache_key", "password_policy", "secretary", "hash", "value", "s"),
    *("passed", "passenger", "signatures_seen", "1", "", "…"),
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET)
def test_names_of_secrets(name):
    """In every way of writing them: JSON and tags are masked by them, lines of the log leave them out."""
    assert names_a_secret(name)
    assert Redactor().value({name: "swordfish"}) == {name: "[key]"}
    assert presentable({name: "swordfish", "tags": {name: "swordfish", "a": 1}}) == {"tags": {"a": 1}}


@pytest.mark.parametrize("name", HARMLESS)
def test_names_of_other_things(name):
    """Counts of tokens, keys of a keyboard, and words that only begin alike."""
    assert not names_a_secret(name)
    assert Redactor().value({name: "swordfish"}) == {name: "swordfish"}
    assert presentable({name: "swordfish"}) == {name: "swordfish"}


@pytest.mark.parametrize("name", [name for name in SECRET if name.isascii()])
def test_a_text_names_what_json_names(name):
    """What is a secret in an object is one where the object is text."""
    assert may_name_secrets(name.lower())
    assert SAID_BEFORE.search(f'"{name.strip()}": "'.lower())
    assert Redactor().text(f'{{"{name.strip()}": "swordfish"}}') == f'{{"{name.strip()}": "[key]"}}'


@pytest.mark.parametrize("name", [name for name in HARMLESS if name])
def test_a_text_leaves_alone_what_json_does(name):
    """As an object and as a text."""
    assert Redactor().text(f'{{"{name}": "swordfish"}}') == f'{{"{name}": "swordfish"}}'


def test_the_names_are_those_of_the_docs():
    """Each word alone, and each kind of key."""
    text = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    words, kinds = re.search(
        r"if it ends in one of (.*?), or in\s`key` behind (.*?), however", text, re.DOTALL
    ).groups()
    told = {*re.findall(r"`(\w+)`", words), *(f"{kind} key" for kind in re.findall(r"`(\w+)`", kinds))}
    assert told == {*_secret_names.WORDS}


def test_the_end_of_a_long_name_counts():
    """However long it is, as it may come from anywhere."""
    assert names_a_secret("1" * 100_000 + "password")
    assert not names_a_secret("password" + "x" * 100_000)
