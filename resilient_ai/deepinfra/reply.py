"""An answer on its way: its head, and its body within bounds."""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

import httpx

from resilient_ai.core.errors import InvalidResponse, ProviderError
from resilient_ai.deepinfra.connection_errors import translate

Inflate = Callable[[bytes], bytes]

# Seconds to wait for the end of a body whose content is complete, so that its connection can be used again.
_DRAIN = 0.5
# Seconds to wait for the body of a refusal.
_EXCERPT = 1.0

# Bytes behind the end of a compressed body that are ignored, such as padding.
_PADDING = 1024

# The loop holds tasks weakly; these must live until they are done.
_drains: set[asyncio.Task[None]] = set()


@runtime_checkable
class AbortableBody(Protocol):
    """A body whose connection can be dropped without waiting."""

    @property
    def at_end(self) -> bool:
        """Whether the whole body has arrived."""
        ...

    def abort(self) -> None:
        """Drop the connection."""
        ...


class Reply:
    """An answer whose head has arrived and whose body is still on its way.

    Attributes:
        status: The HTTP status.
        headers: The headers, names in lower case; several of one name are joined by a comma.
    """

    __slots__ = ("_body", "_chunks", "_loop", "headers", "status")

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = _joined(response.headers.raw)
        body = response.stream
        if not isinstance(body, httpx.AsyncByteStream):
            raise TypeError("an answer of a synchronous httpx transport cannot be read here")
        self._body = body
        self._chunks: AsyncIterator[bytes] | None = None
        self._loop = asyncio.get_running_loop()

    async def chunk(self) -> bytes:
        """Return the next bytes as they came; empty at the end."""
        if self._chunks is None:
            self._chunks = aiter(self._body)
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            return b""
        except httpx.HTTPError as error:
            raise translate(error) from error

    async def read(self, limit: int) -> bytes:
        """Return the whole body, decompressed.

        Args:
            limit: Bytes after which the body is refused, counted after decompression.

        Raises:
            InvalidResponse: If it is longer, or compressed in a way that was not asked for.
        """
        try:
            inflate = _inflater(self.headers.get("content-encoding", ""), limit)
            parts: list[bytes] = []
            size = 0
            while chunk := await self.chunk():
                parts.append(inflate(chunk))
                size += len(parts[-1])
                if size > limit:
                    raise _too_long(limit)  # noqa: TRY301 - the connection is dropped below for every reason alike
            return parts[0] if len(parts) == 1 else b"".join(parts)
        except BaseException:
            self.abort()
            raise

    async def excerpt(self, limit: int) -> bytes:
        """Return the beginning of the body, for the error it explains: what arrives whole within a second, else nothing.

        The status is known already, so a body that is too long, damaged or slow must not hide it.
        """
        try:
            async with asyncio.timeout(_EXCERPT):
                return await self.read(limit)
        except (ProviderError, TimeoutError):
            return b""

    def finish(self) -> None:
        """Let the connection be used again if its body ends within half a second, else drop it."""
        if not getattr(self._body, "at_end", False):
            task = self._loop.create_task(self._drain())
            _drains.add(task)
            task.add_done_callback(_drains.discard)

    async def _drain(self) -> None:
        whole = False
        try:
            with contextlib.suppress(TimeoutError, ProviderError):
                async with asyncio.timeout(_DRAIN):
                    while await self.chunk():
                        pass
                whole = True
        finally:
            if not whole:  # also when it is cancelled with its loop
                self.abort()

    def abort(self) -> None:
        """Drop the connection at once; from any thread, any number of times."""
        try:
            inside = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            inside = False
        if inside:
            self._close()
        else:
            # A loop that has closed has closed its sockets with it.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        if isinstance(self._body, AbortableBody):
            self._body.abort()
        else:
            task = self._loop.create_task(self._body.aclose())
            _drains.add(task)
            task.add_done_callback(_drains.discard)


def _inflater(encoding: str, limit: int) -> Inflate:
    """Return what decompresses a body piece by piece: of at most twice `limit` bytes, and some padding, at most `limit`."""
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return bytes
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise InvalidResponse(f"the body is encoded as {encoding[:40]!r}, which was not asked for", retryable=False)
    machine = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip and zlib are told apart by their first bytes
    taken = made = behind = 0

    def inflate(chunk: bytes) -> bytes:
        nonlocal taken, made, behind
        # Compressed bytes need not make any: blocks may be empty, and a header endless.
        taken += len(chunk)
        if taken > 2 * limit + _PADDING:
            raise _too_long(limit)
        behind += len(chunk) if machine.eof else 0
        try:
            data = b"" if machine.eof else machine.decompress(chunk, limit - made + 1)
        except zlib.error as error:
            raise InvalidResponse("the compressed body is damaged") from error
        made += len(data)
        if made > limit:
            raise _too_long(limit)
        if behind + len(machine.unused_data) > _PADDING:
            raise InvalidResponse("the compressed body goes on behind its end", retryable=False)
        return data

    return inflate


def _joined(raw: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for key, value in raw:
        name, text = key.decode("latin-1").lower(), value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _too_long(limit: int) -> InvalidResponse:
    return InvalidResponse(f"the body is longer than {limit} bytes", retryable=False)
