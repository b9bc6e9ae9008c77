"""The books of budgets that `test_budget_conformance.py` tries: one line of BOOKS for each kind."""

from resilient_ai.stores import MemoryBudgets, RedisBudgets

from .ledgers import Place, Postgres, SQLiteFile, SQLiteMemory
from .redis_server import start_redis


class Memory(Place):
    shared = False
    knows_sends = False
    loses = False

    def make(self):
        return MemoryBudgets()


class Redis(Place):
    knows_sends = False

    def __init__(self, request):
        super().__init__(request)
        self._server = start_redis(request.getfixturevalue("tmp_path"))

    def make(self):
        return RedisBudgets(self._server.url)

    def lose(self):
        self._server.command("FLUSHALL")

    @property
    def source(self):
        return f"from resilient_ai.stores import RedisBudgets\nbook = RedisBudgets({self._server.url!r})"

    def close(self):
        super().close()
        self._server.stop()


BOOKS = {
    "memory": Memory,
    "postgres": Postgres,
    "redis": Redis,
    "sqlite": SQLiteFile,
    "sqlite-in-memory": SQLiteMemory,
}
