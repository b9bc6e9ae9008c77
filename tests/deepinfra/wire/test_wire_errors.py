"""Refusals: five shapes of body and none at all, as one tree."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.errors import (
    AuthenticationFailed,
    BadRequest,
    ContextLengthExceeded,
    FeatureNotSupported,
    InsufficientBalance,
    InvalidResponse,
    ModelNotFound,
    Overloaded,
    RateLimited,
    RequestTooLarge,
    ServerFailed,
    StatusError,
)
from resilient_ai.deepinfra.wire.errors import embedded_error, malformed, read_error
from resilient_ai.deepinfra.wire.payload import Malformed


def error_of(status, body, **options):
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return read_error(status, data, options.pop("headers", {}), model="m", **options)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "Not authenticated", "type": "t", "param": None, "code": None}}, "Not authenticated"),
        ({"detail": {"error": "Model not found"}}, "Model not found"),
        ({"detail": {"message": "Model gone"}}, "Model gone"),
        ({"detail": "Not Found"}, "Not Found"),
        (
            {"detail": [{"loc": ["body", "inputs"], "msg": "Field required", "type": "missing"}]},
            "inputs: Field required",
        ),
        ({"detail": [{"message": "gone"}]}, "gone"),
        ({"detail": [{"msg": "one"}, {"loc": ["query", 0], "msg": "two"}, 3, {"loc": []}]}, "one; query.0: two"),
        ({"error": "Model not found"}, "Model not found"),
        ({"error": {"message": "Model busy, retry later"}}, "Model busy, retry later"),
        ({"message": "plain"}, "plain"),
        ({"error_type": "validation_error", "error_message": "ConnectionError"}, "ConnectionError"),
        ({"error_type": "validation_error"}, "validation_error"),
        ({"error": {"type": "overloaded"}}, "overloaded"),
        (b"<html>\n <h1>502   Bad\tGateway</h1></html>", "<html> <h1>502 Bad Gateway</h1></html>"),
        (b"upstream gone", "upstream gone"),
        (b"[1]", "[1]"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_every_shape_gives_its_message(body, message):
    """The sentence of the service is found wherever it stands."""
    assert str(error_of(418, body)) == f"'m' answered 418: {message}"


@pytest.mark.parametrize("body", [b"", b"  ", b"{}", {"error": None}, {"error": {}}, {"detail": []}, {"detail": [[]]}])
def test_a_body_without_a_reason_hides_nothing(body):
    """The status alone is enough."""
    error = error_of(503, body)

    assert (type(error), error.status, str(error)) == (Overloaded, 503, "'m' answered 503 without saying why")


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, BadRequest, False),
        (401, AuthenticationFailed, False),
        (402, InsufficientBalance, False),
        (404, ModelNotFound, False),
        (405, FeatureNotSupported, False),
        (413, RequestTooLarge, False),
        (422, BadRequest, False),
        (423, StatusError, False),
        (429, RateLimited, True),
        (500, ServerFailed, True),
        (503, Overloaded, True),
    ],
)
def test_the_status_decides_the_class(status, kind, retryable):
    """Each status has its class, and only passing failures may be repeated."""
    error = error_of(status, {"error": {"message": "boom", "code": 7, "param": "x"}})

    assert (type(error), error.status, error.retryable) == (kind, status, retryable)
    assert (error.code, error.param, error.model) == ("7", "x", "m")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "This model's maximum context length is 8192 tokens"}),
        (400, {"message": "no", "code": "context_length_exceeded"}),
        (422, {"message": "Input too long: 140000 input tokens, limit is 131072 for this model"}),
        (500, {"message": "Requested input length 99009 exceeds maximum input length 8192"}),
    ],
)
def test_a_prompt_that_is_too_long_is_never_repeated(status, error):
    """Message or code tell it, even where the status speaks of a fault of the service."""
    found = error_of(status, {"error": error})

    assert (type(found), found.status, found.retryable) == (ContextLengthExceeded, 400, False)
    assert str(found).startswith(f"'m' answered {status}: ")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, {"message": "Insufficient balance"}),
        (429, {"message": "quota", "code": "insufficient_quota"}),
        (402, {"message": "You have no credits left"}),
    ],
)
def test_an_empty_account_is_never_repeated(status, error):
    """An account without money is not a busy one."""
    found = error_of(status, {"error": error})

    assert (type(found), found.status, found.retryable) == (InsufficientBalance, 402, False)


def test_a_request_that_speaks_of_balance_is_no_empty_account():
    """A refusal of the request may quote what a user has written, which must not speak for the account."""
    found = error_of(422, {"error": {"message": "too long: 'insufficient funds, there is no balance'"}})

    assert (type(found), found.status) == (BadRequest, 422)


def test_a_fault_that_mentions_balance_stays_a_fault():
    """A 5xx is the service's failure, whatever its words."""
    assert type(error_of(500, {"error": "no load balance: insufficient balance"})) is ServerFailed


def test_the_body_is_kept_short():
    """A short body is kept parsed, a long one as its first 500 characters, and so is the message."""
    long = error_of(500, {"error": "x" * 9000})

    assert error_of(500, {"error": "x"}).body == {"error": "x"}
    assert len(long.body) == 500
    assert len(str(long)) < 600
    assert len(error_of(500, b"y" * 9000).body) == 500


def test_the_key_is_never_repeated():
    """A service that repeats the key does not get it into an error, a log or a traceback."""
    body = {"error": {"message": "bad key; sent: Bearer k-0987654321, jwt:abc.def"}}
    error = error_of(401, body)

    assert "k-" not in str(error)
    assert "abc" not in str(error)
    assert "k-" not in str(error.body)
    assert "Bearer [redacted], jwt:[redacted]" in str(error)


def test_a_body_as_long_as_is_kept_is_kept_whole():
    """Five hundred characters stay parsed, one more is text, also behind status 200."""
    for length, kind in ((500, dict), (501, str)):
        body = {"error": "x" * (length - len(orjson.dumps({"error": ""})))}
        behind = embedded_error(body, {}, model="m")
        assert type(error_of(500, body).body) is kind
        assert behind is not None
        assert behind.body == (body if kind is dict else orjson.dumps(body).decode()[:500])


def test_the_key_is_never_repeated_behind_status_200():
    """A stream event that repeats the key does not get it into an error either."""
    error = embedded_error({"error": {"message": "sent: Bearer k-0987654321"}}, {}, model="m")

    assert str(error) == "'m' answered 500: sent: Bearer [redacted]"
    assert error.body == {"error": {"message": "sent: Bearer [redacted]"}}


def test_a_validation_error_names_its_parameter():
    """On native routes the first entry's place is the parameter; the code is text or a number, else unknown."""
    error = error_of(422, {"detail": [{"loc": ["body", "inputs", 0], "msg": "Field required"}, {"loc": ["x"]}]})

    assert (error.param, error.code) == ("inputs.0", None)
    assert error_of(422, {"error": {"message": "no", "code": 1.5}}).code is None
    assert error_of(422, {"error": {"message": "no", "param": ""}}).param is None


def test_headers_tell_wait_and_name():
    """`Retry-After` and the request id come along."""
    headers = {"retry-after": "3", "x-request-id": "r1"}

    assert error_of(429, b"", headers=headers).retry_after == 3.0
    assert error_of(429, b"", headers=headers).request_id == "r1"
    assert error_of(429, {"request_id": "r2"}, headers=headers).request_id == "r2"


def test_a_date_to_wait_for_counts_from_the_callers_time():
    """Where the service sends no `Date`, `now` takes its place."""
    assert error_of(429, b"", headers={"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, now=50.0).retry_after == 10.0


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ({"error": {"message": "boom"}}, ServerFailed, 500),
        ({"error": "boom"}, ServerFailed, 500),
        ({"error": {"message": "busy", "code": 429}}, RateLimited, 429),
        ({"error": {"message": "busy"}, "status": 503}, Overloaded, 503),
        ({"detail": {"error": "busy", "status_code": 429}}, RateLimited, 429),
        ({"error": {"message": "boom", "code": 7}}, ServerFailed, 500),
        ({"error": {"message": "boom", "code": 400}}, BadRequest, 400),
        ({"error": {"message": "boom", "code": 399}}, ServerFailed, 500),
        ({"error": {"message": "boom", "code": 599}}, ServerFailed, 599),
        ({"error": {"message": "boom", "code": 600}}, ServerFailed, 500),
        ({"error_type": "validation_error", "error_message": "ConnectionError: x"}, ServerFailed, 500),
        ({"error": {"message": "x", "code": "context_length_exceeded"}}, ContextLengthExceeded, 400),
    ],
)
def test_a_failure_behind_status_200(body, kind, status):
    """The status inside counts; without one the failure is taken for one that passes."""
    error = embedded_error(body, {"x-request-id": "r1"}, model="m")

    assert (type(error), error.status, error.request_id) == (kind, status, "r1")


def test_no_failure_is_none():
    """A body without the words of a failure tells of none."""
    assert embedded_error({"error": None, "choices": []}, {}, model="m") is None


def test_a_body_without_an_answer_is_the_failure_it_tells_of():
    """What status 200 brought is a refusal where it says so, else an answer that cannot be read, with its beginning."""
    missing, headers = Malformed("choices is missing"), {"x-request-id": "r1"}
    told = malformed(missing, {"error": {"message": "busy", "code": 429}}, b"...", headers, model="m")
    silent = malformed(missing, {"odd": 1}, b'{"odd": 1}', headers, model="m")

    assert (type(told), str(told)) == (RateLimited, "'m' answered 429: busy")
    assert (type(silent), str(silent)) == (InvalidResponse, "the answer of 'm' cannot be read: choices is missing")
    assert (silent.excerpt, silent.model) == ('{"odd": 1}', "m")
    assert {told.request_id, silent.request_id} == {"r1"}


def test_a_failure_nested_too_deeply_is_still_one():
    """A body that cannot be written out again still gives its message."""
    deep = []
    for _ in range(900):
        deep = [deep]
    error = embedded_error({"error": {"message": "boom", "more": deep}}, {}, model="m")

    assert str(error) == "'m' answered 500: boom"


@given(st.integers(400, 599), st.binary(max_size=80))
def test_no_body_is_too_odd(status, body):
    """Any bytes give an error of the right status or of one of the two that go by their words."""
    error = read_error(status, body, {}, model="m")

    assert error.status in {status, 400, 402}
