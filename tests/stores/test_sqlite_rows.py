"""Reports as rows."""

import sqlite3
from contextlib import closing
from decimal import Decimal

import pytest

from resilient_ai.core.ledger import SendClosed, SendOpened
from resilient_ai.stores._sqlite_rows import write
from resilient_ai.stores._sqlite_schema import MEMORY, connect

BEGIN = SendOpened(send_id="s", call_id="c", at=1.0, kind="chat", model="m", attempt=1)


@pytest.fixture
def book():
    connection, _ = connect(MEMORY, full=False)
    with closing(connection):
        yield connection


def test_a_group_is_written_whole_or_not_at_all(book):
    """A report that cannot be written takes back the others of its transaction."""
    end = SendClosed(send_id="s", state="settled", cost=Decimal(1), error=object())
    with pytest.raises(sqlite3.Error, match="type 'object' is not supported"):
        write(book, 1, [BEGIN, end])
    assert not book.in_transaction
    assert book.execute("SELECT count(*) FROM sends").fetchall() == [(0,)]


def test_a_transaction_that_the_database_took_back(book):
    """As it does when the disk is full: the error arrives as it is."""
    book.execute("CREATE TRIGGER full BEFORE INSERT ON sends BEGIN SELECT RAISE(ROLLBACK, 'disk is full'); END")
    with pytest.raises(sqlite3.Error, match="disk is full"):
        write(book, 1, [BEGIN])
    book.execute("DROP TRIGGER full")
    write(book, 1, [BEGIN])
    assert book.execute("SELECT session, send_id FROM sends").fetchall() == [(1, "s")]


@pytest.mark.parametrize(
    ("cost", "text"),
    [("1E-19", "0.0000000000000000001"), ("1E+3", "1000"), ("-0.5", "-0.5"), ("0", "0"), ("NaN", None)],
)
def test_amounts_are_plain_decimal_text(book, cost, text):
    """Without an exponent, and nothing that is not a number."""
    write(book, 1, [BEGIN, SendClosed(send_id="s", state="settled", cost=Decimal(cost))])
    assert book.execute("SELECT cost FROM sends").fetchall() == [(text,)]


def test_tags_without_a_column_are_json(book):
    """Sorted by name; a send without any has none."""
    tags = {"team": "ü", "city": "Rome", "tenant": "t"}
    write(book, 1, [BEGIN, SendOpened(send_id="t", call_id="c", at=1.0, kind="chat", model="m", attempt=1, tags=tags)])
    rows = book.execute("SELECT tenant, tags FROM sends ORDER BY send_id").fetchall()
    assert rows == [(None, None), ("t", '{"city": "Rome", "team": "ü"}')]
