"""Where cached answers and the book of sends are kept: in memory, on disk, in SQLite or Redis; and limits a fleet shares."""

from resilient_ai.stores._ledger_queries import LedgerRow, LedgerSend, LedgerTotal
from resilient_ai.stores.disk import DiskStore
from resilient_ai.stores.encrypted import EncryptedStore
from resilient_ai.stores.memory import MemoryStore
from resilient_ai.stores.redis_fleet import RedisFleet
from resilient_ai.stores.redis_store import RedisStore
from resilient_ai.stores.sqlite_ledger import SQLiteLedger
from resilient_ai.stores.tiered import TieredStore

__all__ = [
    "DiskStore",
    "EncryptedStore",
    "LedgerRow",
    "LedgerSend",
    "LedgerTotal",
    "MemoryStore",
    "RedisFleet",
    "RedisStore",
    "SQLiteLedger",
    "TieredStore",
]
