"""Redactor: what tells of a person or opens a door is masked, ordinary text is left alone, and no text makes it slow."""

import random
import re
import string
import time

import pytest

from resilient_ai.middleware.redactor import Found, Redactor

KEY = "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to ann.b+c@mail.example.org.", "write to [email]."),
        ("<ann@example.org>,bob@example.co.uk", "<[email]>,[email]"),
        ("?to=ann%40example.org&x=1", "?to=[email]&x=1"),
        ("Jörg@müller.de und jörg@xn--mller-kva.de", "[email] und [email]"),
        (f"{'x' * 100}@example.org", f"{'x' * 36}[email]"),
        ("card 4111 1111 1111 1111 5500-0000-0000-0004", "card [card] [card]"),
        ("4111111111111111", "[card]"),
        ("378282246310005/3782 822463 10005", "[card]/[card]"),
        ("4111.1111.1111.1111\u00a0x", "[card]\u00a0x"),
        ("4111 1111 1111 1111 12", "[card] 12"),
        ("n4111111111111111n", "n[card]n"),
        ("1234 4111 1111 1111 1111", "1234 [card]"),
        ("call +49 (0) 431 880-1234 now", "call [phone] now"),
        ("+14155550132, 0049 431 8801234", "[phone], [phone]"),
        ("0431 880-1234 or 01511 2345678 or (0431) 8801234", "[phone] or [phone] or [phone]"),
        ("06 12 34 56 78", "[phone]"),
        ("(415) 555-0132, 1-415-555-0132, 415.555.0132", "[phone], [phone], [phone]"),
        ("Tel:01511234567", "Tel:[phone]"),
        (f"the key {KEY}.", "the key [key]."),
        ("sk-abcdefghijklmnop ghp_0123456789abcdefghij", "[key] [key]"),
        ("AKIAIOSFODNN7EXAMPLE", "[key]"),
        (f"jwt:{JWT}", "jwt:[key]"),
        ("Authorization: Bearer swordfish1", "Authorization: Bearer [key]"),
        ("authorization: basic c3dvcmQ=", "authorization: basic [key]"),
        ('{"api_key": "swordfish", "max_tokens": 4096}', '{"api_key": "[key]", "max_tokens": 4096}'),
        ("https://x.org/a?token=swordfish&b=c", "https://x.org/a?token=[key]&b=c"),
        ("redis://ann:swordfish@db:6379/0", "redis://[key]@db:6379/0"),
        ("İ password=swordfish", "İ password=[key]"),
        (f"a {PEM} b {PEM} c", "a [private_key] b [private_key] c"),
        (f"a {PEM[:60]}", "a [private_key]"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nx", "[private_key]"),
    ],
)
def test_what_is_masked(text, masked):
    """Each kind in the forms in which it is met; what stands around it is kept."""
    assert Redactor().text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "The mean range at Kiel is 0.411111111111111 m, 17 * 23 = 391, 4.123456789012345 and -3,4111111111111111.",
        "2024-01-02T10:20:30.123456Z, 01.02.2024 10:20, 05/06/2024, 1700000000000, 1700000000123456789",
        "192.168.100.200 and 10.0.0.1:8080, pages 100-200, 1 000 000 000, ISO 9001",
        "4111 1111 1111 1112",
        "550e8400-e29b-41d4-a716-446655440000 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0bd15d6c15b0f00a08",
        "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8-Turbo-Preview and task-oriented risk-averse-decisions",
        "@pytest.mark.anyio def f(token: int = 12345, tokens=4096): mail me @home, a@b",
        "The bearer is tired, a basic idea, the secret of it: no",
        "-----BEGIN PUBLIC KEY-----",
        "",
    ],
)
def test_what_is_left_alone(text):
    """Measurements, dates, addresses of machines, ids, hashes, names of models, code and prose are no secrets."""
    assert Redactor().text(text) == text


def test_only_what_is_asked_for():
    """Kinds may be chosen."""
    text = "ann@example.org, 4111 1111 1111 1111"
    assert Redactor(builtin=["email"]).text(text) == "[email], 4111 1111 1111 1111"
    assert Redactor(builtin=[]).text(text) == text
    assert Redactor(builtin=["email"]).value({"password": "x"}) == {"password": "x"}


def test_patterns_of_the_users():
    """They come first, as text or compiled; finding nothing at all is no find."""
    redactor = Redactor(patterns={"case": r"C-\d+|", "ship": re.compile("(?i)vega|gawain")})
    assert redactor.text("C-17 on VEGA for ann@example.org") == "[case] on [ship] for [email]"


def test_the_user_says_what_stands_instead():
    """A function is given what was found, whose repr does not tell it, and returns the text in its place."""
    seen = []

    def replace(found):
        seen.append(found)
        return f"<{len(found.text)}>"

    assert Redactor(replace=replace).text("ann@example.org +14155550132") == "<15> <12>"
    assert seen == [Found("email", "ann@example.org"), Found("phone", "+14155550132")]
    assert repr(seen[0]) == "Found(name='email')"


def test_a_function_of_the_users_comes_last():
    """It sees the whole text, masked already."""
    seen = []

    def no_names(text):
        seen.append(text)
        return text.replace("Ann", "X")

    assert Redactor(function=no_names).text("Ann: ann@example.org") == "X: [email]"
    assert seen == ["Ann: [email]"]


@pytest.mark.parametrize("options", [{"replace": lambda found: None}, {"function": lambda text: b""}])
def test_a_function_that_returns_no_text(options):
    """It is an error, and not taken for the text."""
    with pytest.raises(TypeError, match="must return a text, got"):
        Redactor(**options).text("ann@example.org")


def test_json_values():
    """Texts in lists and objects, names of fields, numbers of cards; whatever a secret's name stands before; nothing else."""
    value = {
        "ann@example.org": [("+14155550132", 1.5), None, True],
        "card": 4111111111111111,
        "stamp": 1700000000123456789,
        "count": 17,
        "X-API-Key": ["a", 1],
        "refresh_token": "a",
        "password": None,
        "max_tokens": 20,
        "raw": b"\x00",
        4111111111111111: 4111111111111111.0,
    }
    assert Redactor().value(value) == {
        "[email]": [["[phone]", 1.5], None, True],
        "card": "[card]",
        "stamp": 1700000000123456789,
        "count": 17,
        "X-API-Key": "[key]",
        "refresh_token": "[key]",
        "password": None,
        "max_tokens": 20,
        "raw": "[bytes]",
        "[card]": 4111111111111111.0,
    }
    assert Redactor(patterns={"case": r"\d{6}"}).value([104711, 17]) == ["[case]", 17]


def test_what_is_nested_too_deep_is_not_told():
    """An object that holds itself ends, and so does a list of ten thousand levels."""
    loop = {}
    loop["again"] = loop
    deep = "ann@example.org"
    for _ in range(10_000):
        deep = [deep]
    for value in (loop, deep):
        assert "[nested too deep]" in repr(Redactor().value(value))
        assert "ann" not in repr(Redactor().value(value))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"builtin": ["mail"]},
            r"builtin must be some of \['card', 'email', 'key', 'phone', 'private_key'\], got \['mail'\]",
        ),
        ({"builtin": "email"}, "builtin must be a list of names, got 'email'"),
        ({"patterns": {"case": "("}}, r"patterns must be regular expressions, got '\(' for 'case': missing"),
        ({"patterns": {"case": 3}}, "patterns must be regular expressions, got 3 for 'case': first argument"),
        ({"replace": "x"}, "replace must be a function or None, got 'x'"),
        ({"function": 3}, "function must be a function or None, got 3"),
    ],
)
def test_options_are_checked(options, sentence):
    """A kind or pattern that is none is refused when the redactor is made."""
    with pytest.raises(ValueError, match=sentence):
        Redactor(**options)


HOSTILE = {
    "letters": "a",
    "mails without an end": "a@",
    "mails without a dot": "a@aaaa",
    "one mail of dots": "a@" + "a.",
    "dots": ".",
    "digits": "4",
    "groups of cards": "4111 ",
    "groups that nearly are cards": "4111 1111 1111 1112 ",
    "digits apart": "4 ",
    "digits and blanks": "1      ",
    "plus": "+1 ",
    "brackets": "(0",
    "zeros": "00 ",
    "tokens": "token=",
    "tokens and blanks": "token    ",
    "tokens of digits": "token=11111",
    "bearers": "bearer ",
    "addresses": "://a:",
    "dashes": "-",
    "beginnings of keys": "-----BEGIN PRIVATE KEY",
    "private keys without an end": "-----BEGIN RSA PRIVATE KEY-----",
    "keys": "sk-",
    "long words": "aB3" * 7 + ".",
    "underscores": "_",
    "spaces": " ",
    "newlines": "\n",
    "letters that grow": "İ@",
    "percent signs": "%40a",
    "words before a mail": "ann " * 20 + "a@b.de",
}


def seconds_for(text):
    """Return the least CPU time of a few runs."""
    redactor, best = Redactor(), float("inf")
    for _ in range(5):
        started = time.process_time()
        redactor.text(text)
        best = min(best, time.process_time() - started)
    return best


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_text_makes_it_slow(unit):
    """Eight times the text takes about eight times as long, where it would take sixty-four times as long if it were looked at again."""
    size = 8_000
    short = (unit * size)[:size]
    long = (unit * size * 8)[: size * 8]
    assert seconds_for(long) < 30 * max(seconds_for(short), 0.0002)


def test_a_secret_hides_in_no_random_text():
    """Wherever in a long random text they stand, all kinds are found."""
    chance = random.Random(5)
    letters = string.ascii_letters + " ,;\n!?\"'()"
    secrets = ["ann@example.org", "4111 1111 1111 1111", "+49 431 8801234", f"sk-{KEY}", PEM, "Bearer swordfish1"]
    for _ in range(300):
        noise = ["".join(chance.choices(letters, k=chance.randrange(50))) for _ in secrets]
        text = " ".join(part for pair in zip(noise, chance.sample(secrets, len(secrets)), strict=True) for part in pair)
        masked = Redactor().text(text)
        assert not re.search("example|1111|8801234|aB3d|MIIE|swordfish", masked), text
