"""What stands in Redis for a `RedisStore`: names of rows, patterns over them, values in envelopes, scripts."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b

from resilient_ai.stores._envelope import Envelopes, Refused
from resilient_ai.stores._redis_links import Command

KEYS_AT_ONCE = 512
_KEYS_PER_ANSWER = 16  # so that an answer is short, and many of them are many signs of life
_BYTES_AT_ONCE = 2**20  # of values in one write, unless one value alone is larger
_FOREVER = 10**9  # seconds beyond which Redis need not know when a row ends
# Rows that another version of this package lays out differently have other names.
_LAYOUT = "v1:"

ACQUIRE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
SIZES = """
local size = 0
for _, row in ipairs(KEYS) do
  local answer = redis.pcall('STRLEN', row)
  if type(answer) == 'number' then size = size + answer end
end
return size
"""


class Rows:
    """The rows under one prefix.

    Args:
        prefix: What the names of all rows begin with.
        secret: What values are sealed with; None uses what everybody knows.
    """

    def __init__(self, prefix: str, secret: str | bytes | None) -> None:
        self._values = _bytes(f"{prefix}{_LAYOUT}")
        self._leases = _bytes(f"{prefix}lease:")
        self._envelopes = Envelopes(_sealing_key(secret))

    def name(self, key: str) -> bytes:
        """Return the name of the row of a value."""
        return self._values + _bytes(key)

    def lease(self, key: str) -> bytes:
        """Return the name of the row of a lease, which is never that of a value."""
        return self._leases + _bytes(key)

    def key(self, name: bytes) -> str:
        """Return the key of the row of a value."""
        key = name[len(self._values) :]
        try:
            return key.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # a row of somebody else, which is no entry but goes with `clear`
            return key.decode("utf-8", "surrogateescape")

    def glob(self, pattern: str) -> bytes:
        """Return Redis's own pattern for at least those rows whose keys match; its `?` is a byte, ours a character."""
        parts = re.split(r"(\?+|\*+)", pattern)
        return _literal(self._values) + b"".join(
            part.encode() + b"*" * part.startswith("?") if part[:1] in ("?", "*") else _literal(_bytes(part))
            for part in parts
        )

    def writes(self, entries: Mapping[str, bytes], *, created: float, ttl: float | None) -> Iterator[list[Command]]:
        """Return the commands that write values, in groups to be sent together."""
        ends = () if ttl is None or ttl > _FOREVER else ("PX", milliseconds(ttl))
        group: list[Command] = []
        size = 0
        for key, value in entries.items():
            if group and (len(group) == KEYS_AT_ONCE or size + len(value) > _BYTES_AT_ONCE):
                yield group
                group, size = [], 0
            name = self.name(key)
            # With its prefix, so that a value that was copied to another one is none there.
            envelope = self._envelopes.seal(value, name=name, created=created, ttl=ttl)
            group.append(("SET", name, envelope, *ends))
            size += len(value)
        if group:
            yield group

    def reads(self, keys: Sequence[str]) -> list[Command]:
        """Return the commands that read values, to be sent together."""
        names = [self.name(key) for key in keys]
        return [("MGET", *names[n : n + _KEYS_PER_ANSWER]) for n in range(0, len(names), _KEYS_PER_ANSWER)]

    def read(self, keys: Sequence[str], values: Sequence[object], *, now: float) -> tuple[dict[str, bytes], list[str]]:
        """Return the values that are genuine and fresh, and the keys of those that are not what was written there."""
        found: dict[str, bytes] = {}
        refused: list[str] = []
        for key, value in zip(keys, values, strict=True):
            if not isinstance(value, bytes):
                continue
            try:
                payload = self._envelopes.unseal(value, name=self.name(key), now=now)
            except Refused:
                refused.append(key)
            else:
                if payload is not None:
                    found[key] = payload
        return found, refused


def groups(keys: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Return the different ones of `keys`, in groups to be asked for together."""
    names = tuple(dict.fromkeys(keys))
    for first in range(0, len(names), KEYS_AT_ONCE):
        yield names[first : first + KEYS_AT_ONCE]


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, at least 1, and as many as Redis can count at most."""
    return max(1, math.ceil(min(seconds, _FOREVER) * 1000))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _literal(text: bytes) -> bytes:
    return re.sub(rb"([\\*?\[\]^-])", rb"\\\1", text)


def _sealing_key(secret: str | bytes | None) -> bytes:
    if secret is None:
        return b"resilient_ai: finds damage only"
    if not secret:
        raise ValueError("secret must not be empty; None seals with what everybody knows")
    return blake2b(secret.encode() if isinstance(secret, str) else secret, digest_size=32).digest()
