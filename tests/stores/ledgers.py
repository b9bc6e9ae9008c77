"""The ledgers that `test_ledger_conformance.py` tries: one line of LEDGERS for each kind."""

import asyncio

from resilient_ai.stores import PostgresLedger, SQLiteLedger

from .postgres_server import shared_postgres


class Place:
    """Where the books of one kind lie during one test; a subclass says how they are opened.

    `shared` says whether a second object, and another process, finds what the first has written, `knows_sends` whether a book of
    budgets is a ledger too, and `loses` whether `lose` makes it forget its counters behind its back.
    """

    shared = True
    knows_sends = True
    loses = True

    def __init__(self, request):
        self.request = request
        self._opened = []

    def make(self):
        """Return a new book there."""
        raise NotImplementedError

    @property
    def source(self):
        """Lines of Python that make a book there and call it `book`, for other processes; None where it is not shared."""
        return None

    def lose(self):
        """Make the book forget its counters, as an accident would."""
        raise NotImplementedError

    def open(self):
        """Return a new book, which is closed at the end of the test."""
        self._opened.append(self.make())
        return self._opened[-1]

    def close(self):
        """Close all books, then whatever else the place is made of."""
        for book in self._opened:
            asyncio.run(book.aclose())


class SQLiteFile(Place):
    def __init__(self, request):
        super().__init__(request)
        self._path = request.getfixturevalue("tmp_path") / "ledger.db"

    def make(self):
        return SQLiteLedger(self._path)

    def lose(self):
        self._path.unlink()

    @property
    def source(self):
        return f"from resilient_ai.stores import SQLiteLedger\nbook = SQLiteLedger({str(self._path)!r})"


class SQLiteMemory(Place):
    shared = False
    loses = False

    def make(self):
        return SQLiteLedger(":memory:")


class Postgres(Place):
    def __init__(self, request):
        super().__init__(request)
        self._url = shared_postgres(request).ready_database()
        self._folder = request.getfixturevalue("tmp_path") / "home"

    def make(self):
        return PostgresLedger(self._url, folder=self._folder)

    def lose(self):
        shared_postgres(self.request).command("TRUNCATE resilient_ai.counters", url=self._url)

    @property
    def source(self):
        folder = str(self._folder)
        return (
            f"from resilient_ai.stores import PostgresLedger\nbook = PostgresLedger({self._url!r}, folder={folder!r})"
        )


LEDGERS = {
    "postgres": Postgres,
    "sqlite": SQLiteFile,
    "sqlite-in-memory": SQLiteMemory,
}
