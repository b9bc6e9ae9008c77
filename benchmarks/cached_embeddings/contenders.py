"""Who takes part, where each one lives, and what is aimed at."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """One line of the table.

    Args:
        label: What the table calls it.
        returns: What the reader gets, by which only like is compared with like.
        package: The package whose version is shown; None for what is ours or needs none. Others run in the peers' environment.
        redis: Whether it needs a Redis.
    """

    label: str
    returns: str
    package: str | None = None
    redis: bool = False


@dataclass(frozen=True)
class Goal:
    """The texts per second of `ours` are at least `factor` times those of `other`."""

    ours: str
    other: str
    factor: float


CONTENDERS = {
    "dict": Contender("dict of bytes", "arrays"),
    "dict-lists": Contender("dict of bytes", "lists"),
    "sqlite": Contender("sqlite3, IN (500), one thread", "bytes"),
    "ours-memory": Contender("resilient_ai, MemoryStore", "arrays"),
    "ours-memory-lists": Contender("resilient_ai, MemoryStore", "lists"),
    "ours-disk": Contender("resilient_ai, DiskStore", "arrays"),
    "ours-disk-lists": Contender("resilient_ai, DiskStore", "lists"),
    "ours-tiered": Contender("resilient_ai, memory before disk", "arrays"),
    "ours-tiered-lists": Contender("resilient_ai, memory before disk", "lists"),
    "ours-tiered-cold": Contender("resilient_ai, empty memory before disk", "arrays"),
    "ours-redis": Contender("resilient_ai, RedisStore", "arrays", redis=True),
    "ours-redis-lists": Contender("resilient_ai, RedisStore", "lists", redis=True),
    "langchain-memory": Contender("LangChain CacheBackedEmbeddings, in memory", "lists", "langchain-classic"),
    "langchain-files": Contender("LangChain CacheBackedEmbeddings, files", "lists", "langchain-classic"),
    "litellm-memory": Contender("LiteLLM, in memory", "lists", "litellm"),
    "litellm-redis": Contender("LiteLLM, Redis, 500 texts a call", "lists", "litellm", redis=True),
}

# 40,000 texts/s from disk is the aim on a machine whose plain sqlite3 loop makes 68,000: the ratio holds on any.
DISK_AIM = 40_000
GOALS = (Goal("ours-disk", "sqlite", 0.59), Goal("ours-memory-lists", "langchain-memory", 3.0))
