"""What the cache of a client knows: keys, reasons, figures, and forgetting."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from typing_extensions import override

from resilient_ai.core.cache_stats import CacheStats
from resilient_ai.core.call import Call
from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.operations import Operation
from resilient_ai.middleware import Cache


class ClientCache:
    """The cache of a client, seen with the tags and the cache options of that client or view.

    >>> from resilient_ai import AsyncClient, Chat
    >>> ai = AsyncClient(api_key="secret")
    >>> len(ai.cache.key(Chat(model="m", messages="hi", temperature=0)))
    96
    """

    def __init__(self, cache: Cache, tags: Mapping[str, str], call_of: Callable[[Operation[Any]], Call[Any]]) -> None:
        self._cache = cache
        self._tags = tags
        self._call_of = call_of

    def key(self, operation: Operation[Any]) -> str | None:
        """Return the name of the entry of an operation: 16 digits for the tenant, 16 for the model, 64 for everything else.

        Returns:
            96 hexadecimal digits; None where the operation holds something that JSON cannot say, so that it is never cached.

        Raises:
            InvalidInput: If it is an `Embed` of several texts, each of which has an entry of its own; see `keys`.
        """
        keys = self._cache.keys(self._call_of(operation))
        if keys is not None and len(keys) > 1:
            raise InvalidInput(f"operation: {len(keys)} texts have {len(keys)} keys; ask for keys()", field="operation")
        return None if keys is None else keys[0]

    def keys(self, operation: Operation[Any]) -> list[str] | None:
        """Return the names of all entries of an operation: one per text of an `Embed`, in their order, one for any other."""
        return self._cache.keys(self._call_of(operation))

    async def why_miss(self, operation: Operation[Any]) -> str | None:
        """Return why an operation would not be answered from the cache, in words; None where it would be. Nothing is sent."""
        return await self._cache.why_miss(self._call_of(operation))

    async def stats(self) -> CacheStats:
        """Return what was found and missed since the client was made, and what the stores hold."""
        return await self._cache.stats()

    async def forget(self, *, tenant: str | None = None, model: str | None = None) -> int:
        """Delete the entries of a tenant, of a model (of a list, the one that was asked first), or of both; return how many.

        A view with the tag "tenant" deletes those of that tenant alone, and refuses to delete another one's; else everything is
        deleted where neither is named. What is under way meanwhile may be kept after it, and another process that keeps copies in
        its memory (`TieredStore`) may give them out for up to a minute longer.

        Raises:
            InvalidInput: If one of the two is no text, or the tenant is not that of the view.
            TypeError: If a store of the user's own cannot find entries by their keys.
        """
        for name, value in (("tenant", tenant), ("model", model)):
            given = cast("object", value)
            if given is not None and not isinstance(given, str):
                raise InvalidInput(f"{name}: a text or None, got {value!r}", field=name, value=value)
        own = self._tags.get("tenant")
        if own is not None and tenant not in {None, own}:
            raise InvalidInput(
                f"tenant: this view is about {own!r} alone, got {tenant!r}", field="tenant", value=tenant
            )
        return await self._cache.forget(tenant=own if tenant is None else tenant, model=model)

    @override
    def __repr__(self) -> str:
        return f"ClientCache({self._cache!r})"
