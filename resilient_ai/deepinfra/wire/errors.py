"""Refusals of the service: five shapes of body, and none at all, as one tree of errors.

    1  {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}      OpenAI routes
    2  {"detail": {"error": ...}}                                               native routes
    3  {"detail": "..."}                                                        unknown paths
    4  {"detail": [{"loc": [...], "msg": ..., "type": ...}]}                    validation on native routes
    5  {"error": "..."}                                                         catalogue and deployments

Proxies answer with HTML, plain text or nothing. Whatever the body is, the status alone is enough for an error.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from resilient_ai.core.errors import (
    ContextLengthExceeded,
    InsufficientBalance,
    ProviderError,
    StatusError,
    status_error_type,
)
from resilient_ai.deepinfra.wire.payload import (
    EXCERPT,
    Malformed,
    as_list,
    as_object,
    as_text,
    dump,
    header_request_id,
    request_id_of,
    unreadable,
)
from resilient_ai.deepinfra.wire.retry_after import read_retry_after

_CONTEXT = re.compile(
    r"maximum context length|input too long|requested input length|"
    r"exceeds? (?:the )?(?:maximum )?(?:context|input) (?:length|window)",
    re.IGNORECASE,
)
_BALANCE = re.compile(
    r"\b(?:insufficient|not enough|no|low|zero|negative)\b.{0,20}\b(?:balance|funds|credits?)\b", re.IGNORECASE
)
_BALANCE_CODES = frozenset(
    {"insufficient_balance", "insufficient_quota", "insufficient_funds", "billing_hard_limit_reached"}
)
_ABOUT_THE_ACCOUNT = frozenset({401, 402, 403, 429})
_KEY = re.compile(r"\b(Bearer\s+|jwt:)[^\s\"',;<>]+", re.IGNORECASE)
_REDACTED = "[redacted]"
_ASSUMED_STATUS = 500
_SIGNS = ("error", "error_message", "error_type", "detail")


@dataclass(frozen=True, slots=True)
class _Complaint:
    message: str | None = None
    code: str | None = None
    param: str | None = None


def read_error(
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    model: str,
    now: float | None = None,
) -> StatusError:
    """Return the error for an answer with status 4xx or 5xx.

    Two cases go by what the service says and not by its status, so that they are neither repeated nor held against the
    service: a prompt that is too long is a `ContextLengthExceeded` with status 400 (some models say it with 500), and an
    empty account is an `InsufficientBalance` with status 402. The message always names the status that came.

    Args:
        status: The HTTP status.
        body: The body as it came; JSON, HTML, text or nothing.
        headers: Headers of the answer.
        model: The model that was asked.
        now: Seconds since 1970, for a `Retry-After` date that comes without a `Date`.

    >>> error = read_error(429, b'{"error": {"message": "Model busy, retry later"}}', {}, model="m")
    >>> type(error).__name__, str(error), error.retryable
    ('RateLimited', "'m' answered 429: Model busy, retry later", True)
    """
    text = _redacted(body.decode("utf-8", "replace"))
    parsed = _parsed(text)
    return _error(
        status,
        _complaint(parsed) if parsed is not None else _Complaint(_shown(text)),
        body=parsed if parsed is not None and len(text) <= EXCERPT else text[:EXCERPT],
        retry_after=read_retry_after(headers, now=now),
        model=model,
        request_id=request_id_of(parsed or {}, headers),
    )


def embedded_error(body: Mapping[str, Any], headers: Mapping[str, str], *, model: str) -> StatusError | None:
    """Return the error that a body or a stream event of status 200 tells of, None if it tells of none.

    Where it names no status it is taken for a 500, which may be repeated.

    >>> type(embedded_error({"error": {"message": "boom"}}, {}, model="m")).__name__
    'ServerFailed'
    """
    if not any(body.get(sign) for sign in _SIGNS):
        return None
    text = _redacted(dump(body))
    parsed = _parsed(text) or body
    error = _error(
        _status_inside(parsed),
        _complaint(parsed),
        body=parsed if len(text) <= EXCERPT else text[:EXCERPT],
        retry_after=None,
        model=model,
        request_id=header_request_id(headers),
    )
    error.in_answer = True
    return error


def malformed(
    error: Malformed, body: Mapping[str, Any], data: bytes, headers: Mapping[str, str], *, model: str
) -> ProviderError:
    """Return the error for a body of status 200 without an answer: the failure it tells of, else that it cannot be read."""
    return embedded_error(body, headers, model=model) or unreadable(str(error), data, model=model, headers=headers)


def _error(
    status: int, complaint: _Complaint, *, body: object, retry_after: float | None, model: str, request_id: str | None
) -> StatusError:
    words = complaint.message or ""
    kind, effective = status_error_type(status), status
    if complaint.code == "context_length_exceeded" or _CONTEXT.search(words):
        kind, effective = ContextLengthExceeded, 400
    elif status < _ASSUMED_STATUS and _tells_of_balance(status, complaint.code, words):
        kind, effective = InsufficientBalance, 402
    return kind(
        f"{model!r} answered {status}: {words}" if words else f"{model!r} answered {status} without saying why",
        status=effective,
        code=complaint.code,
        param=complaint.param,
        body=body,
        retry_after=retry_after,
        model=model,
        request_id=request_id,
    )


def _tells_of_balance(status: int, code: str | None, words: str) -> bool:
    # The words of other refusals may repeat what a user has written.
    return code in _BALANCE_CODES or (status in _ABOUT_THE_ACCOUNT and _BALANCE.search(words) is not None)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return as_object(orjson.loads(text))
    except orjson.JSONDecodeError:
        return None


def _complaint(body: Mapping[str, Any]) -> _Complaint:
    error, detail = body.get("error"), body.get("detail")
    inner = as_object(error) or as_object(detail) or {}
    first = as_object((as_list(detail) or [None])[0]) or {}
    candidates = (
        as_text(error),
        as_text(inner.get("message")),
        as_text(inner.get("error")),
        as_text(detail),
        _joined(as_list(detail) or []),
        as_text(body.get("message")),
        as_text(body.get("error_message")),
        as_text(inner.get("type")),
        as_text(body.get("error_type")),
    )
    code = inner.get("code")
    return _Complaint(
        message=_shown(next(filter(None, candidates), "")),
        code=as_text(code) or (str(code) if type(code) is int else None),
        param=as_text(inner.get("param")) or (_path(first) or None),
    )


def _joined(items: list[Any]) -> str:
    entries = [entry for item in items if (entry := as_object(item)) is not None]
    return "; ".join(
        f"{_path(entry)}: {message}" if _path(entry) else message
        for entry in entries
        if (message := as_text(entry.get("msg")) or as_text(entry.get("message")))
    )


def _path(entry: Mapping[str, Any]) -> str:
    parts = [str(part) for part in as_list(entry.get("loc")) or [] if isinstance(part, str | int)]
    return ".".join(parts[1:] if parts[:1] == ["body"] else parts)


def _status_inside(body: Mapping[str, Any]) -> int:
    inner = as_object(body.get("error")) or as_object(body.get("detail")) or {}
    for source in (inner, body):
        for name in ("status", "status_code", "code"):
            value = source.get(name)
            if type(value) is int and 400 <= value <= 599:
                return value
    return _ASSUMED_STATUS


def _redacted(text: str) -> str:
    return _KEY.sub(rf"\g<1>{_REDACTED}", text)


def _shown(text: str) -> str:
    # Split at most so far: an error page may have megabytes.
    return " ".join(text[: 4 * EXCERPT].split())[:EXCERPT]
