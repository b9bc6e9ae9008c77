"""How long the service asks to wait."""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST = 86_400.0
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?")
# A date may hold the comma that also parts two headers.
_DATE = re.compile(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6},? [0-9A-Za-z][0-9A-Za-z:+ -]{0,40}", re.IGNORECASE)
_MOST_TEXT = 500  # characters of all values together; a server that writes more names no time


def read_retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds the service asks to wait, at most one day, or None where it names no time that makes sense.

    `Retry-After` is read as seconds, with decimals, or as a date, which counts from the service's own `Date`, so that a
    clock that is wrong here does no harm. Of several values the largest counts.

    Args:
        headers: Headers of the answer, with names in lower case or found whatever their case.
        now: Seconds since 1970 for a date that comes without a `Date`; None then ignores it.

    >>> read_retry_after({"retry-after": "2.5"}), read_retry_after({"retry-after-ms": "700"})
    (2.5, 0.7)
    >>> read_retry_after({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"})
    30.0
    """
    waits = [seconds / 1000.0 for seconds in _numbers(headers.get("retry-after-ms", "")[:_MOST_TEXT])]
    text = headers.get("retry-after", "")
    if len(text) > _MOST_TEXT:
        text = ""
    dates: list[str] = _DATE.findall(text)
    if dates:
        text = _DATE.sub("", text)
        since = _timestamp(headers.get("date", ""))
        since = now if since is None else since
        times = [_timestamp(date) for date in dates]
        waits += [time - since for time in times if time is not None and since is not None]
    sane = [wait for wait in (*waits, *_numbers(text)) if wait >= 0]
    return min(LONGEST, max(sane)) if sane else None


def _numbers(text: str) -> list[float]:
    return [float(part) for item in text.split(",") if _NUMBER.fullmatch(part := item.strip())]


def _timestamp(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
