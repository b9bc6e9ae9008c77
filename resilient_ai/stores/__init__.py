"""Where cached answers and the book of sends are kept: in memory, on disk, in SQLite or Redis; and limits a fleet shares."""

from resilient_ai.stores.disk import DiskStore
from resilient_ai.stores.encrypted import EncryptedStore
from resilient_ai.stores.memory import MemoryStore
from resilient_ai.stores.memory_budgets import MemoryBudgets
from resilient_ai.stores.postgres_ledger import PostgresLedger
from resilient_ai.stores.redis_budgets import RedisBudgets
from resilient_ai.stores.redis_fleet import RedisFleet
from resilient_ai.stores.redis_store import RedisStore
from resilient_ai.stores.sqlite_ledger import SQLiteLedger
from resilient_ai.stores.tiered import TieredStore

__all__ = [
    "DiskStore",
    "EncryptedStore",
    "MemoryBudgets",
    "MemoryStore",
    "PostgresLedger",
    "RedisBudgets",
    "RedisFleet",
    "RedisStore",
    "SQLiteLedger",
    "TieredStore",
]
