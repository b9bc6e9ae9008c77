"""What an error of a PostgreSQL says: whether the server may be blamed, and whether anything was committed."""

from resilient_ai.stores._postgres_link import Unreachable

# Data, a rule of a table, a row named twice, a row too large: it will not be better the next time.
_OF_DATA = ("21", "22", "23", "54")
# The server has broken off, or the connection has.
_BROKEN_OFF = ("08", "57P")


def of_data(error: Exception) -> bool:
    """Whether what was to be written is at fault, so that the server will never take it."""
    import psycopg  # noqa: PLC0415  # only whoever uses it has it

    if isinstance(error, psycopg.Error):
        return (error.sqlstate or "").startswith(_OF_DATA) or type(error) is psycopg.DataError
    return not isinstance(error, Unreachable)


def certain(error: Exception) -> bool:
    """Whether it is certain that a transaction that ended with it was not committed."""
    import psycopg  # noqa: PLC0415  # only whoever uses it has it

    if isinstance(error, psycopg.Error):
        return error.sqlstate is not None and not error.sqlstate.startswith(_BROKEN_OFF)
    return True
