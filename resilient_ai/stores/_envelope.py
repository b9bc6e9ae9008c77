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
_HEADER_SIZE = _HEADER.size
_OVERHEAD = _HEADER_SIZE + _SEAL_SIZE

CLOCK_SKEW = 300.0  # seconds by which two clocks that write the same store may disagree


class Refused(Exception):
    """A row is not what this store wrote there."""


class Envelopes:
    """Puts payloads into envelopes that are only valid under their names, and takes them out again.

    Args:
        secret: What the seals are made with, 1 to 64 bytes. It is taken in once, as a store reads hundreds of values at a time.

    >>> envelopes = Envelopes(b"s" * 32)
    >>> envelope = envelopes.seal(b"hi", name=b"k", created=1000.0, ttl=60.0)
    >>> envelopes.unseal(envelope, name=b"k", now=1060.0)
    b'hi'
    >>> envelopes.unseal(envelope, name=b"k", now=1060.1) is None
    True
    """

    def __init__(self, secret: bytes) -> None:
        self._keyed = blake2b(digest_size=_SEAL_SIZE, key=secret)

    def seal(self, payload: bytes, *, name: bytes, created: float, ttl: float | None) -> bytes:
        """Put `payload`, made at `created`, into an envelope that holds for `ttl` seconds, or for ever where it is None."""
        header = _HEADER.pack(_MAGIC, _VERSION, created, math.inf if ttl is None else ttl, _NO_FLAGS)
        return b"".join((header, self._stamp(name, header, payload), payload))

    def unseal(self, envelope: bytes | None, *, name: bytes, now: float) -> bytes | None:
        """Return the payload, or None where it is too old or comes from a future that the clocks cannot explain.

        Raises:
            Refused: If there is no envelope, or it is not one of ours, was changed, or belongs to another name.
        """
        if envelope is None or len(envelope) < _OVERHEAD:
            raise Refused(f"an envelope has at least {_OVERHEAD} bytes")
        header, payload = envelope[:_HEADER_SIZE], envelope[_OVERHEAD:]
        # Checked before anything inside is believed.
        if not hmac.compare_digest(envelope[_HEADER_SIZE:_OVERHEAD], self._stamp(name, header, payload)):
            raise Refused("the seal does not fit the value and its name")
        magic, version, created, ttl, flags = _HEADER.unpack(header)
        if (magic, version, flags) != (_MAGIC, _VERSION, _NO_FLAGS):
            raise Refused(f"unknown kind of envelope: {magic!r} version {version}, flags {flags}")
        fresh = created <= now + CLOCK_SKEW and now - created <= ttl
        return payload if fresh else None

    def _stamp(self, name: bytes, header: bytes, payload: bytes) -> bytes:
        digest = self._keyed.copy()
        digest.update(b"".join((len(name).to_bytes(4, "big"), name, header)))
        digest.update(payload)
        return digest.digest()
