"""The envelope around a value on disk: what it is, when it was made, how long it holds, and a seal over all of that.

magic (3) | version (1) | created_at (8) | ttl (8) | flags (1) | seal (16) | payload
"""

import hmac
import math
import struct
from hashlib import blake2b

_HEADER = struct.Struct(">3sBddB")
_MAGIC = b"RAI"
_VERSION = 1
_NO_FLAGS = 0
_SEAL_SIZE = 16
_OVERHEAD = _HEADER.size + _SEAL_SIZE

CLOCK_SKEW = 300.0  # seconds by which two clocks that write the same store may disagree


class Refused(Exception):
    """A row is not what this store wrote there."""


def seal(payload: bytes, *, secret: bytes, key: str, created: float, ttl: float | None) -> bytes:
    """Put `payload` into an envelope that is only valid under `key`.

    >>> envelope = seal(b"hi", secret=b"s" * 32, key="k", created=1000.0, ttl=60.0)
    >>> unseal(envelope, secret=b"s" * 32, key="k", now=1060.0)
    b'hi'
    >>> unseal(envelope, secret=b"s" * 32, key="k", now=1060.1) is None
    True
    """
    header = _HEADER.pack(_MAGIC, _VERSION, created, math.inf if ttl is None else ttl, _NO_FLAGS)
    return b"".join((header, _stamp(secret, key, header, payload), payload))


def unseal(envelope: bytes, *, secret: bytes, key: str, now: float) -> bytes | None:
    """Return the payload, or None where it is too old or comes from a future that the clocks cannot explain.

    Raises:
        Refused: If the envelope is not one of ours, was changed, or belongs to another key.
    """
    if len(envelope) < _OVERHEAD:
        raise Refused(f"an envelope has at least {_OVERHEAD} bytes, this one has {len(envelope)}")
    header, stamp, payload = envelope[: _HEADER.size], envelope[_HEADER.size : _OVERHEAD], envelope[_OVERHEAD:]
    # Checked before anything inside is believed.
    if not hmac.compare_digest(stamp, _stamp(secret, key, header, payload)):
        raise Refused("the seal does not fit the value and its key")
    magic, version, created, ttl, flags = _HEADER.unpack(header)
    if (magic, version, flags) != (_MAGIC, _VERSION, _NO_FLAGS):
        raise Refused(f"unknown kind of envelope: {magic!r} version {version}, flags {flags}")
    fresh = created <= now + CLOCK_SKEW and now - created <= ttl
    return payload if fresh else None


def _stamp(secret: bytes, key: str, header: bytes, payload: bytes) -> bytes:
    name = key.encode("utf-8", "surrogatepass")
    digest = blake2b(len(name).to_bytes(4, "big"), digest_size=_SEAL_SIZE, key=secret)
    for part in (name, header, payload):
        digest.update(part)
    return digest.digest()
