"""The seconds the service asks to wait, in every way it may say so."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.deepinfra.wire.retry_after import LONGEST, read_retry_after

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 2.5 ", 2.5),
        ("2.", 2.0),
        ("100000", LONGEST),
        ("9" * 15, LONGEST),
        ("3, 9", 9.0),
        ("9, 3", 9.0),
        ("x, 4", 4.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT, 120", 120.0),
        ("5, Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", 30.0),
        ("Wed Oct 21 07:28:30 2026", 30.0),
        ("Wed, 21 Oct 2026 09:28:30 +0200", 30.0),
        ("Wed, 21 Oct 2036 07:28:30 GMT", LONGEST),
        ("Wed, 21 Oct 2026 07:27:00 GMT", None),
        ("Wed, 99 Oct 2026 99:27:00 GMT", None),
        ("", None),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("1_0", None),
        ("\u0661", None),
        ("9" * 400, None),
        ("soon", None),
    ],
)
def test_every_form_of_the_header(value, seconds):
    """Seconds, decimals and dates count, the largest of several; what makes no sense is as if it were not there."""
    assert read_retry_after({"retry-after": value, "date": DATE}) == seconds


def test_milliseconds_count_as_well():
    """`retry-after-ms` is read too, and the larger of the two headers counts."""
    assert read_retry_after({"retry-after-ms": "1500"}) == 1.5
    assert read_retry_after({"retry-after-ms": "1500", "retry-after": "1"}) == 1.5
    assert read_retry_after({"retry-after-ms": "1500", "retry-after": "2"}) == 2.0


def test_a_date_without_the_services_own_date():
    """Without `Date` the caller's clock decides; without either the date means nothing."""
    headers = {"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}

    assert read_retry_after(headers, now=50.0) == 10.0
    assert read_retry_after(headers) is None
    assert read_retry_after({}) is None


def test_the_largest_wins_whichever_header_it_is_in():
    """Milliseconds count beside a date too."""
    headers = {"retry-after-ms": "90000", "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": DATE}
    assert read_retry_after(headers) == 90.0


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process can be set on POSIX alone")
def test_a_date_without_a_zone_is_universal_time(monkeypatch):
    """Where this machine stands does not matter."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "XYZ-9")
        time.tzset()
        wait = read_retry_after({"retry-after": "Wed Oct 21 07:28:30 2026", "date": DATE})
    time.tzset()
    assert wait == 30.0


@given(st.text(max_size=60), st.text(max_size=40))
def test_no_header_is_too_odd(value, date):
    """Whatever stands in the headers, the answer is None or a wait of at most a day."""
    seconds = read_retry_after({"retry-after": value, "retry-after-ms": value, "date": date}, now=0.0)

    assert seconds is None or 0 <= seconds <= LONGEST


@pytest.mark.parametrize("text", ["mon" * 3000 + "!", "5," * 400, "Mon, " * 200 + "21 Oct 2026 07:28:30 GMT"])
def test_a_server_that_writes_a_book_names_no_time(text):
    """What is longer than any sane header is not looked into."""
    assert read_retry_after({"retry-after": text}, now=0.0) is None


def test_as_much_as_five_hundred_characters_are_read():
    """Many values are many, and one more character is too much."""
    assert read_retry_after({"retry-after": "1," * 249 + "30"}) == 30.0
    assert read_retry_after({"retry-after": "1," * 249 + "300"}) is None
    assert read_retry_after({"retry-after-ms": "1000," * 99 + "50000"}) == 50.0
    assert read_retry_after({"retry-after-ms": "1000," * 99 + "500000"}) == 50.0
