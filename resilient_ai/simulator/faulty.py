"""The answer of a request that meets a fault: an ASGI `send` that misbehaves."""

from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.types import Message, Send

from resilient_ai.simulator.connection import Connection
from resilient_ai.simulator.faults import Fault

_GARBAGE = b'data: {"choices": [{"index": 0, "delta": {"cont#@!\n\n'


def ping(newline: str = "\n") -> bytes:
    """A comment line that keeps a stream alive."""
    return f": ping - {datetime.now(UTC).isoformat(sep=' ')}{newline}{newline}".encode()


def error_event(message: str, *, native: bool) -> bytes:
    """An error inside a stream."""
    if native:
        body: dict[str, Any] = {"error_type": "inference_error", "error_message": message}
    else:
        # guess: the service's own error event on the OpenAI routes is not known.
        body = {"error": {"message": message, "type": "server_error", "param": None, "code": None}}
    return b"data: " + orjson.dumps(body) + b"\n\n"


class FaultySend:
    """Passes messages on until the fault's moment has come.

    Args:
        send: Where the messages go.
        connection: The socket under them, to wait on and to break.
        fault: What goes wrong; its kind is one of those that happen during an answer.
        ping_interval: Seconds between pings of a stall that keeps pinging.
    """

    def __init__(self, send: Send, connection: Connection, fault: Fault, ping_interval: float) -> None:
        self._send = send
        self._connection = connection
        self._fault = fault
        self._ping_interval = ping_interval
        self._start: Message = {}
        self._started = False
        self._ended = False
        self._bodies = 0

    @property
    def ended(self) -> bool:
        """Whether the answer has broken off, so that nothing more of it is sent."""
        return self._ended

    async def __call__(self, message: Message) -> None:
        if self._ended:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        streamed = self._started or bool(message.get("more_body"))
        await self._begin(message, streamed=streamed)
        self._bodies += 1
        if self._fault.kind == "trickle":
            await self._trickle(message)
        elif self._bodies <= self._fault.after and message.get("more_body"):
            await self._send(message)
        elif self._bodies == self._fault.after + 1 or not streamed:
            await self._strike(message, streamed=streamed)
        else:
            await self._send(message)

    async def _begin(self, message: Message, *, streamed: bool) -> None:
        if self._started:
            return
        self._started = True
        if not streamed and self._fault.kind in {"garbage", "error_event", "truncated"}:
            length = len(self._replacement(message["body"], streamed=False))
            headers = [(k, v) for k, v in self._start["headers"] if k != b"content-length"]
            self._start = {**self._start, "headers": [*headers, (b"content-length", str(length).encode())]}
        await self._send(self._start)

    def _replacement(self, body: bytes, *, streamed: bool) -> bytes:
        if self._fault.kind == "garbage":
            return _GARBAGE
        if self._fault.kind == "error_event":
            event = error_event(self._fault.message, native=self._fault.native)
            return event if streamed else event[len(b"data: ") :]
        return body[: len(body) // 2]

    async def _strike(self, message: Message, *, streamed: bool) -> None:
        body = message.get("body", b"")
        if self._fault.kind == "cut":
            await self._part(b"" if streamed else body[: len(body) // 2])
            self._ended = True
            await self._connection.abort(reset=self._fault.reset)
        elif self._fault.kind == "stall":
            half = 0 if streamed else len(body) // 2
            await self._part(body[:half])
            await self._stall()
            await self._send({**message, "body": body[half:]})
        elif self._fault.kind == "garbage" and streamed:
            await self._part(_GARBAGE)
            await self._send(message)
        else:
            self._ended = True
            replacement = self._replacement(body, streamed=streamed)
            await self._send({"type": "http.response.body", "body": replacement, "more_body": False})

    async def _part(self, body: bytes) -> None:
        if body:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _stall(self) -> None:
        left = self._fault.seconds
        step = self._ping_interval if self._fault.pings else left
        while left > 0 and await self._connection.pause(min(step, left)):
            left -= step
            if self._fault.pings:
                await self._part(ping())

    async def _trickle(self, message: Message) -> None:
        body: bytes = message.get("body", b"")
        for position in range(len(body)):
            await self._part(body[position : position + 1])
            if not await self._connection.pause(self._fault.seconds):
                self._ended = True
                return
        if not message.get("more_body"):
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
