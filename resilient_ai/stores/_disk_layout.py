"""How entries and leases are laid out as rows of the database of a `DiskStore`, and what they are called there."""

import re
from hashlib import blake2b
from typing import NamedTuple

from resilient_ai.stores._envelope import Envelopes, Refused

# Names of entries are of hexadecimal digits and those of leases are not, so each kind lies in a range of its own.
FIRST_NAME, BEHIND_NAMES = "0", "g"
LEASES, BEHIND_LEASES = "lease:", "lease;"

_IS_NAME = re.compile(r"[0-9a-f]{16,128}").fullmatch


class Row(NamedTuple):
    """A row that is to be written.

    Args:
        name: What it is found by.
        stored: Its age among all rows, in seconds since 1970; the oldest is evicted first.
        ends: When it may go before any that is fresh, in seconds since 1970; None for never.
        called: The key in bytes, where its name is a digest of it.
        envelope: Its value.
    """

    name: str
    stored: float
    ends: float | None
    called: bytes | None
    envelope: bytes


def entry(envelopes: Envelopes, key: str, value: bytes, *, created: float, ttl: float | None) -> Row:
    """Return the row of an entry."""
    name, called = row_name(key), in_bytes(key)
    envelope = envelopes.seal(value, name=called, created=created, ttl=ttl)
    return Row(name, created, None if ttl is None else created + ttl, None if name == key else called, envelope)


def lease(envelopes: Envelopes, key: str, holder: str, *, created: float, ttl: float) -> Row:
    """Return the row of a lease. As it counts as stored when it ends, one that is held is never the oldest."""
    envelope = envelopes.seal(in_bytes(holder), name=lease_seal(key), created=created, ttl=ttl)
    return Row(lease_name(key), created + ttl, created + ttl, None, envelope)


def row_name(key: str) -> str:
    """Return the name of the row of `key`: the key where it is 16 to 128 hexadecimal digits, or else a digest of it."""
    return key if _IS_NAME(key) else blake2b(in_bytes(key), digest_size=32).hexdigest()


def lease_name(key: str) -> str:
    """Return the name of the row of the lease of `key`."""
    return f"{LEASES}{row_name(key)}"


def lease_seal(key: str) -> bytes:
    """Return what the lease of `key` is sealed with: no key is the same in bytes."""
    return b"\xff" + in_bytes(key)


def in_bytes(key: str) -> bytes:
    """Return `key` in bytes, those included that are no proper text."""
    return key.encode("utf-8", "surrogatepass")


def key_of(name: str, called: object) -> str:
    """Return the key of a row that has this name and says what it is called, which nothing says where that is its name.

    Raises:
        Refused: If a row that is called so has another name.

    >>> key_of(row_name("Tom"), b"Tom"), key_of("ab" * 16, None) == "ab" * 16
    ('Tom', True)
    """
    if called is None:
        return name
    try:
        key = called.decode("utf-8", "surrogatepass") if isinstance(called, bytes) else ""
    except UnicodeDecodeError:
        key = ""
    if row_name(key) != name:
        raise Refused("a row is not called as its name says")
    return key


def name_range(prefix: str) -> tuple[str | None, str]:
    """Return where names that begin with `prefix` begin, None if there cannot be any, and what lies behind them all."""
    start = None if prefix.strip("0123456789abcdef") else max(FIRST_NAME, prefix)
    return start, min(BEHIND_NAMES, prefix + BEHIND_NAMES)


def next_name(name: str) -> str:
    """Return where to go on behind `name`: no name lies between it and the same with a 0 behind it."""
    return f"{name}0"
