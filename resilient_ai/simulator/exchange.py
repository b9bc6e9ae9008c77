"""One model request from arrival to its last byte: key, body, fault, slot, answer, books."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from time import monotonic
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from resilient_ai.simulator.bill import Charge
from resilient_ai.simulator.connection import Connection
from resilient_ai.simulator.errors import ClientGoneError, WireError
from resilient_ai.simulator.faults import Fault
from resilient_ai.simulator.faulty import FaultySend
from resilient_ai.simulator.intake import authenticate, parse_object, read_body
from resilient_ai.simulator.profiles import Profile, resolve
from resilient_ai.simulator.state import Simulator

_TURN = 8  # events of a stream that are sent before other connections have their turn


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
        self.held = 0.0

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
        self.body = await read_body(self.headers, receive, self.settings.max_body)
        if self.multipart:
            await self._read_form()
        else:
            self.data = parse_object(self.body, native=self.native)
        self.model = self._model()

    async def close(self) -> None:
        """Let go of uploaded files."""
        if self.form is not None:
            await self.form.close()

    async def _read_form(self) -> None:
        async def replay() -> Message:  # an ASGI receive is awaited
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
        found = resolve(self.model, self.settings, self.simulator.catalogue)
        if found is None:
            # guess: the service declares the short plain body; the message is its own example.
            message = "Model not found" if self.native else f"Model not found: {self.model}"
            raise WireError(404, message, param=None if self.native else "model")
        return found

    async def hold(self, seconds: float) -> None:
        """Let the request wait before it is worked on.

        Raises:
            ClientGoneError: If the client hangs up meanwhile.
        """
        if not await self.connection.pause(seconds):
            raise ClientGoneError

    def charge(self, profile: Profile, cost: Decimal | None, *, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Put the cost of this request on the bill."""
        key = self.headers.get(b"idempotency-key", b"").decode("latin-1")
        self.simulator.books.charge(
            Charge(key=key, model=profile.name, cost=cost, input_tokens=input_tokens, output_tokens=output_tokens)
        )


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
            await exchange.close()
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
                exchange.held = fault.seconds
            else:
                send = FaultySend(send, exchange.connection, fault, exchange.settings.ping_interval)
        try:
            if exchange.held:
                await exchange.hold(exchange.held)
            reply = await self._handler(exchange)
        except WireError as error:
            await self._refuse(error, send)
            return
        except ClientGoneError:
            self._simulator.books.answered(0)  # guess: a request nobody waits for is neither served nor billed.
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
    sent = 0
    try:
        async for event in reply.body:
            await send({"type": "http.response.body", "body": event, "more_body": True})
            sent += 1
            if sent % _TURN == 0:
                # Let other connections have their turn, and this one notice that its client has left.
                await asyncio.sleep(0)
            # guess: where the answer breaks off nothing more is generated for it.
            if exchange.connection.gone or (isinstance(send, FaultySend) and send.ended):
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        # Closed here and now, so that the bill is settled before the slot is given back.
        await reply.body.aclose()


async def _whole(body: bytes, media_type: str, status: int, extra: tuple[tuple[bytes, bytes], ...], send: Send) -> None:
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", media_type.encode()), length, *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
