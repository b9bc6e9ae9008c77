"""A store around another that keeps values encrypted."""

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.protocols import CacheStore, StoreUsage
from resilient_ai.stores._first_refused import FirstRefused

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

_NAME_SIZE = 32
_BYTES_AT_ONCE = 2**17  # about 2 ms of work, after which other tasks have their turn
_PASSED_ON = frozenset({"open", "timeout", "faults", "held", "delete_matching", "acquire_lease", "release_lease"})
_REFUSED = (
    "encrypted cache store over a %s: an entry cannot be decrypted and is not used; it was damaged, or encrypted with another"
    " key, and all processes that share the store need the same keys"
)


class EncryptedStore:
    """Keep values encrypted in another store, so that whoever reads its file or its Redis reads nothing of them.

    Values are encrypted with Fernet (AES-128 in CBC mode with an HMAC) together with a digest of their key, so that one that was
    put under another key is a miss. Keys are not encrypted; those of the cache are digests already. A value takes about 100 bytes
    more than it has. It costs some 50 us for 4 KiB, in the event loop; after each 128 KiB other tasks have their turn.

    What cannot be decrypted is a miss, counted in `refused`, and stays where it is, as another process may have the key for it.
    To change the key put the new one in front, in all processes, and take the old one away when its entries have ended.

    The store has `open`, `timeout`, `faults`, `usage`, `scan`, `delete_matching` and the leases if the other one has them.

    Args:
        inner: The store that keeps what was encrypted.
        keys: One or several keys as `new_key` makes them. The first encrypts, all decrypt.

    Raises:
        ConfigurationError: If the package `cryptography` is missing, or a key is none; it is never shown.

    >>> from resilient_ai.stores import MemoryStore
    >>> EncryptedStore(MemoryStore(max_bytes=1000), EncryptedStore.new_key())
    EncryptedStore(MemoryStore(max_bytes=1000), 1 key)
    """

    def __init__(self, inner: CacheStore, keys: str | bytes | Sequence[str | bytes]) -> None:
        self.inner = inner
        self.refused = 0
        self._first_refused = FirstRefused(_REFUSED, type(inner).__name__)
        several = [keys] if isinstance(keys, str | bytes) else list(keys)
        self._fernet = _fernet(several)
        self._keys = f"{len(several)} key{'s' if len(several) > 1 else ''}"

    def __repr__(self) -> str:
        return f"EncryptedStore({self.inner!r}, {self._keys})"

    @staticmethod
    def new_key() -> str:
        """Return a new key: 44 characters, to be kept where secrets are kept."""
        return str(_package().Fernet.generate_key(), "ascii")

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the entries that are there, fresh, and can be decrypted."""
        return await self._opened(await self.inner.get_many(keys))

    async def set_many(self, entries: Mapping[str, bytes], *, ttl: float | None = None) -> None:
        """Encrypt `entries`, and have them kept for `ttl` seconds."""
        sealed: dict[str, bytes] = {}
        async for key, value in _in_turns(entries):
            token = self._fernet.encrypt(_name(key) + value)
            # Without the text form, which would take a third more.
            sealed[key] = base64.urlsafe_b64decode(token)
        await self.inner.set_many(sealed, ttl=ttl)

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget these entries."""
        await self.inner.delete_many(keys)

    async def clear(self) -> None:
        """Forget everything."""
        await self.inner.clear()

    async def aclose(self) -> None:
        """Close the other store."""
        await self.inner.aclose()

    def __getattr__(self, name: str) -> Any:
        if name in _PASSED_ON:
            return getattr(self.inner, name)
        if name in _WRAPPED:
            return _WRAPPED[name](self, getattr(self.inner, name))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    async def _opened(self, sealed: Mapping[str, bytes]) -> dict[str, bytes]:
        invalid = _package().InvalidToken
        found: dict[str, bytes] = {}
        async for key, row in _in_turns(sealed):
            try:
                text = self._fernet.decrypt(base64.urlsafe_b64encode(row))
            except invalid:
                text = b""
            if hmac.compare_digest(text[:_NAME_SIZE], _name(key)):
                found[key] = text[_NAME_SIZE:]
            else:
                self.refused += 1
                self._first_refused.note(1)
        return found


def _usage(store: EncryptedStore, usage: Callable[[], Any]) -> Callable[[], Any]:
    async def encrypted() -> Sequence[StoreUsage]:
        first, *others = [replace(line, name=f"{line.name}, encrypted") for line in await usage()]
        return (replace(first, refused=first.refused + store.refused), *others)

    return encrypted


def _scan(store: EncryptedStore, scan: Callable[[], AsyncIterator[Mapping[str, bytes]]]) -> Callable[[], Any]:
    async def decrypted() -> AsyncIterator[Mapping[str, bytes]]:
        async for page in scan():
            found = await store._opened(page)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            if found:
                yield found

    return decrypted


_WRAPPED: Mapping[str, Callable[[EncryptedStore, Any], Callable[[], Any]]] = {"usage": _usage, "scan": _scan}


async def _in_turns(values: Mapping[str, bytes]) -> AsyncIterator[tuple[str, bytes]]:
    """Return `values`, and let other tasks have their turn after so many bytes."""
    size = 0
    for key, value in values.items():
        if size >= _BYTES_AT_ONCE:
            size = 0
            await asyncio.sleep(0)
        yield key, value
        size += len(value) + _NAME_SIZE


def _name(key: str) -> bytes:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_NAME_SIZE).digest()


def _package() -> Any:
    try:
        from cryptography import fernet  # noqa: PLC0415 - only users of the store need it
    except ImportError:
        raise ConfigurationError(
            "the package cryptography is missing; install it with: pip install 'resilient-ai[encryption]'"
        ) from None
    return fernet


def _fernet(keys: Sequence[str | bytes]) -> "MultiFernet":
    package = _package()
    if not keys:
        raise ConfigurationError("keys: there must be one at least")
    return cast("MultiFernet", package.MultiFernet([_one(key, place) for place, key in enumerate(keys, start=1)]))


def _one(key: str | bytes, place: int) -> Any:
    try:
        return _package().Fernet(key)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"keys: each must be as EncryptedStore.new_key() makes it, 32 bytes in base64; number {place} is not"
        ) from None
