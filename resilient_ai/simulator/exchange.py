"""One model request from arrival to its last byte: key, body, fault, slot, answer, books."""

import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from time import monotonic
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from resilient_ai.simulator.connection import Connection
from resilient_ai.simulator.errors import WireError
from resilient_ai.simulator.faults import Fault
from resilient_ai.simulator.faulty import FaultySend
from resilient_ai.simulator.profiles import Profile, resolve
from resilient_ai.simulator.state import Simulator

_GZIP = 31  # zlib's window size for data with a gzip header


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What goes back: a whole body, or the events of a stream."""

    body: bytes | AsyncGenerator[bytes, None]
    media_type: str = "application/json"
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Exchange:
    """One request and what is known about it so far.

    Args:
        simulator: Whose books and faults apply.
        scope: The ASGI scope of the request.
        native: Whether the route speaks the native dialect.
    """

    def __init__(self, simulator: Simulator, scope: Scope, *, native: bool) -> None:
        self.simulator = simulator
        self.settings = simulator.settings
        self.scope = scope
        self.native = native
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.connection = Connection.of(scope)
        self.started = monotonic()
        self.key = ""
        self.body = b""
        self.data: dict[str, Any] = {}
        self.form: FormData | None = None
        self.model = ""
        self.hung_up = False

    @property
    def multipart(self) -> bool:
        """Whether the body is a form."""
        return self.headers.get(b"content-type", b"").startswith(b"multipart/form-data")

    @property
    def runtime_ms(self) -> int:
        """Milliseconds since the request arrived, at least one."""
        return max(1, round((monotonic() - self.started) * 1000))

    async def read(self, receive: Receive) -> None:
        """Check the key, take in the body, and find out which model is meant."""
        self.key = authenticate(self.headers, self.settings.keys)
        self.body = await _body(self.headers, receive, self.settings.max_body)
        if self.multipart:
            await self._read_form()
        else:
            self.data = _json(self.body, native=self.native)
        self.model = self._model()

    async def _read_form(self) -> None:
        async def replay() -> Message:  # noqa: RUF029  # an ASGI receive is awaited
            return {"type": "http.request", "body": self.body, "more_body": False}

        self.form = await Request(self.scope, replay).form(max_part_size=self.settings.max_body)
        self.data = {name: value for name, value in self.form.multi_items() if isinstance(value, str)}

    def _model(self) -> str:
        path: dict[str, str] = self.scope.get("path_params", {})
        if "deploy_id" in path:
            return f"deploy_id:{path['deploy_id']}"
        if "model" in path:
            version = [q[8:] for q in self.scope["query_string"].decode().split("&") if q.startswith("version=")]
            return f"{path['model']}:{unquote(version[0])}" if version else path["model"]
        model = self.data.get("model")
        return model if isinstance(model, str) else ""

    def profile(self) -> Profile:
        """The model's profile; 404 for a name nobody knows."""
        found = resolve(self.model, self.settings)
        if found is None:
            # guess: the service declares the short plain body; the message is its own example.
            message = "Model not found" if self.native else f"Model not found: {self.model}"
            raise WireError(404, message, param=None if self.native else "model")
        return found

    def charge(self, profile: Profile, cost: Decimal | None) -> None:
        """Put the cost of this request on the bill."""
        self.simulator.books.charge(profile.name, cost)


Handler = Callable[[Exchange], Awaitable[Reply]]


class ModelRoute:
    """An ASGI endpoint that lets a handler answer model requests.

    Args:
        simulator: Whose books and faults apply.
        name: The route's name in the statistics.
        handler: Makes the reply, or raises `WireError`.
        native: Whether refusals take the native shape.
    """

    def __init__(self, simulator: Simulator, name: str, handler: Handler, *, native: bool = False) -> None:
        self._simulator = simulator
        self._name = name
        self._handler = handler
        self._native = native

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(self._simulator, scope, native=self._native)
        self._simulator.books.arrived()
        try:
            await self._exchange(exchange, receive, send)
        finally:
            self._simulator.books.left()

    async def _exchange(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        books, settings = self._simulator.books, self._simulator.settings
        try:
            await exchange.read(receive)
        except WireError as error:
            books.named(exchange.model, self._name)
            await self._refuse(error, send)
            return
        books.named(exchange.model, self._name)
        if not books.acquire(exchange.model, exchange.key, settings.limit):
            await self._refuse(WireError(429, "Rate limited", shape="short", retry_after=settings.retry_after), send)
            return
        try:
            fault = self._simulator.faults.next(exchange.model)
            await self._answer(exchange, fault, send)
        finally:
            books.release(exchange.model, exchange.key)

    async def _answer(self, exchange: Exchange, fault: Fault | None, send: Send) -> None:
        if fault is not None:
            if fault.kind == "drop":
                self._simulator.books.answered(0)
                await exchange.connection.abort(reset=fault.reset)
                return
            if fault.kind in {"status", "html"}:
                await self._refuse(_refusal(fault), send)
                return
            if fault.kind == "delay":
                await exchange.connection.pause(fault.seconds)
            else:
                send = FaultySend(send, exchange.connection, fault, exchange.settings.ping_interval)
        try:
            reply = await self._handler(exchange)
        except WireError as error:
            await self._refuse(error, send)
            return
        self._simulator.books.answered(reply.status)
        await send_reply(reply, exchange, send)

    async def _refuse(self, error: WireError, send: Send) -> None:
        self._simulator.books.answered(error.status)
        await send_error(error, send, native=self._native)


def _refusal(fault: Fault) -> WireError:
    return WireError(fault.code, fault.message, shape=fault.shape, retry_after=fault.retry_after)


async def send_error(error: WireError, send: Send, *, native: bool) -> None:
    """Answer with a refusal."""
    body, media_type = error.render(native=native)
    extra = () if error.retry_after is None else ((b"retry-after", f"{error.retry_after:g}".encode()),)
    await _whole(body, media_type, error.status, extra, send)


async def send_reply(reply: Reply, exchange: Exchange, send: Send) -> None:
    """Answer with a reply; a stream goes out one event at a time and stops when nobody listens any more."""
    if isinstance(reply.body, bytes):
        await _whole(reply.body, reply.media_type, reply.status, reply.headers, send)
        return
    headers = [(b"content-type", reply.media_type.encode()), *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    try:
        async for event in reply.body:
            await send({"type": "http.response.body", "body": event, "more_body": True})
            if exchange.connection.gone:
                exchange.hung_up = True
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        # Closed here and now, so that the bill is settled before the slot is given back.
        await reply.body.aclose()


async def _whole(
    body: bytes, media_type: str, status: int, extra: tuple[tuple[bytes, bytes], ...], send: Send
) -> None:
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", media_type.encode()), length, *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def authenticate(headers: dict[bytes, bytes], keys: frozenset[str] | None) -> str:
    """The API key of a request, from `Authorization: Bearer` in any case or `xi-api-key`; 401 without a good one."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else ""
    key = key or headers.get(b"xi-api-key", b"").decode("latin-1").strip()
    accepted = key in keys if keys is not None else bool(key) and not key.startswith("bad")
    if not accepted:
        raise WireError(401, "Not authenticated", shape="openai")
    return key


async def _body(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"gzip":
        body = _gunzip(body, limit)
    elif encoding != b"identity":
        # guess: other encodings are documented as not accepted; the status is not.
        raise WireError(415, f"Unsupported content encoding: {encoding.decode('latin-1')}")
    if len(body) > limit:
        raise WireError(413, "Request body too large")  # guess: the body of a 413 is not known.
    return body


def _gunzip(body: bytes, limit: int) -> bytes:
    try:
        return zlib.decompressobj(_GZIP).decompress(body, limit + 1)
    except zlib.error as error:
        raise WireError(400, "Invalid gzip body") from error  # guess: a broken body is nowhere documented.


def _json(body: bytes, *, native: bool) -> dict[str, Any]:
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # guess: the framework's usual answer to a body that is no JSON.
        raise WireError(
            422, "JSON decode error", shape="validation" if native else None, kind="json_invalid"
        ) from error
    if not isinstance(data, dict):
        message = "Input should be a valid dictionary"
        raise WireError(422, message, shape="validation" if native else None, kind="dict_type")
    return data
