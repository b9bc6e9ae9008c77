"""Chat completions in pieces: from the bytes of a body to the events of a stream."""

from collections.abc import Mapping
from typing import Any

import orjson

from resilient_ai.core.deltas import Finished, StreamEvent, TextDelta
from resilient_ai.core.errors import InvalidResponse, ProviderError
from resilient_ai.core.replay import events_of
from resilient_ai.deepinfra.wire.chat import read_chat
from resilient_ai.deepinfra.wire.choices import MAX_CHOICES, choice_index
from resilient_ai.deepinfra.wire.errors import embedded_error
from resilient_ai.deepinfra.wire.payload import (
    EXCERPT,
    Malformed,
    as_list,
    as_object,
    as_text,
    header_request_id,
    load_json,
    provider_cost,
    unreadable,
)
from resilient_ai.deepinfra.wire.sse import EventReader
from resilient_ai.deepinfra.wire.stream_choice import StreamChoice
from resilient_ai.deepinfra.wire.usage import read_usage

MAX_EVENT = 32 * 1024 * 1024
_DONE = b"[DONE]"
_BLANK = b"\xef\xbb\xbf \t\r\n"


class ChatEvents:
    r"""Turns the body of a streamed chat into events, whatever the split of its bytes and the habits of the model.

    Usage may come in any chunk, in several, or not at all: the last counts. Reasoning comes in a field of its own or between
    tags. A piece of a tool call finds its call by index, by id or by order. A chunk that tells of a failure raises it. A
    service that answers with one whole JSON body instead of a stream is understood.

    Args:
        model: The model that was asked.
        headers: Headers of the answer.
        n: How many answers were asked for; all of them must have ended before the stream is `finishing`.
        max_event: Bytes that one event, or a whole body instead of a stream, may have.

    Attributes:
        finishing: Whether every answer has its finish reason, so that nothing but usage can follow.
        done: Whether the end mark was seen; what follows it is passed over.

    >>> events = ChatEvents(model="m")
    >>> events.feed(b'data: {"choices": [{"index": 0, "delta": {"content": "Bern."}, "finish_reason": "stop"}]}\n\n')
    [TextDelta(text='Bern.', choice=0, logprobs=None)]
    >>> events.finishing, events.conclude()[-1].finish_reason
    (True, 'stop')
    """

    def __init__(
        self, *, model: str, headers: Mapping[str, str] | None = None, n: int = 1, max_event: int = MAX_EVENT
    ) -> None:
        self.finishing = False
        self.done = False
        self._model = model
        self._headers: Mapping[str, str] = headers or {}
        self._n = n
        self._reader = EventReader(max_event=max_event)
        self._max_event = max_event
        self._choices: dict[int, StreamChoice] = {}
        self._plain = False  # the answer of choice 0 has begun, so that its text is handed on as it comes
        self._delivered = False
        self._failure: ProviderError | None = None
        self._usage: Mapping[str, Any] | None = None
        self._names: dict[str, str] = {}
        self._head: bytes | None = None  # the first bytes, None while nothing but blanks has come
        self._streams = False  # the body is known to be a stream, and its end mark has not come
        self._whole = bytearray()  # a body that is no stream but one JSON object

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """Return the events that these bytes complete; often none, for keep-alives and chunks without content.

        Once content has been handed over, or the answer has ended, a failure lets the events before it through and is raised by
        the next call.

        Raises:
            StatusError: If the service reports a failure.
            InvalidResponse: If an event is not JSON, not a chunk, or too long.
        """
        if self._failure is not None:
            raise self._failure
        events: list[StreamEvent] = []
        payload = b""
        try:
            for payload in self._reader.feed(chunk) if self._streams else self._first(chunk):
                try:
                    body = orjson.loads(payload) if payload[:1] == b"{" else self._unusual(payload)
                except orjson.JSONDecodeError:
                    body = load_json(payload)
                if self.done:
                    break
                # Nearly every chunk is a piece of text and nothing else; whatever is not so simple goes the long way.
                text = _only_text(body) if self._plain else None
                if text:
                    events.append(TextDelta(text))
                else:
                    self._take(body, events)
        except orjson.JSONDecodeError:
            self._fail(self._unreadable("an event of the stream is not JSON", payload), events)
        except Malformed as error:
            self._fail(self._unreadable(str(error), payload), events)
        except ProviderError as error:
            self._fail(error, events)
        self._delivered = self._delivered or bool(events)
        return events

    def conclude(self) -> list[StreamEvent]:
        """Return the closing events once the body has ended; the last is `Finished`.

        Raises:
            StatusError: If the service reported a failure.
            InvalidResponse: If the answer is not whole: an answer has no finish reason and the end mark is missing, or there
                is no answer at all.
        """
        if self._failure is not None and not self.finishing:
            raise self._failure
        if self._whole:
            return self._conclude_whole(bytes(self._whole))
        # The end mark counts even where the connection ended before its empty line.
        self.done = self.done or (self._reader.flush() or b"").strip() == _DONE
        if not (self.done or self.finishing):
            raise self._unreadable("the stream ended without a finish reason and without [DONE]", self._head or b"")
        if not self._choices:
            raise self._unreadable("the stream ended without an answer", self._head or b"")
        events: list[StreamEvent] = []
        for choice in self._choices.values():
            choice.conclude(events)
        events.append(self._finished())
        return events

    def _first(self, chunk: bytes) -> list[bytes]:
        """Find out what kind of body it is, and go on with one that is no stream."""
        if self.done:
            return []
        if self._head is None:
            head = chunk.lstrip(_BLANK)
            if not head:
                return self._reader.feed(chunk)
            self._head = head[:EXCERPT]
            self._streams = not head.startswith(b"{")
        if self._streams:
            return self._reader.feed(chunk)
        self._whole += chunk
        if len(self._whole) > self._max_event:
            raise InvalidResponse(
                f"the answer of {self._model!r} is longer than {self._max_event} bytes", model=self._model
            )
        return []

    def _unusual(self, payload: bytes) -> dict[str, Any]:
        """Return the object of a payload that does not begin with one: blank, the end mark, or out of order."""
        text = payload.strip()
        if text == _DONE:
            self.done, self._streams = True, False
        body = as_object(load_json(text)) if text and not self.done else {}
        if body is None:
            raise Malformed("an event of the stream is JSON but not an object")
        return body

    def _take(self, body: Mapping[str, Any], events: list[StreamEvent]) -> None:
        self._usage = as_object(body.get("usage")) or self._usage
        for name in ("id", "model", "service_tier"):
            value = as_text(body.get(name))
            if value is not None:
                self._names[name] = value
        choices = body.get("choices")
        if not choices:
            error = embedded_error(body, self._headers, model=self._model)
            if error is not None:
                raise error
            return
        for position, item in enumerate((as_list(choices) or [None])[:MAX_CHOICES]):
            fields = as_object(item)
            if fields is None:
                raise Malformed("the choices of a chunk are not a list of objects")
            index = choice_index(fields, position)
            self._choices.setdefault(index, StreamChoice(index)).take(fields, events)
        first = self._choices.get(0)
        self._plain = first is not None and first.splitter is None and not first.waiting
        self.finishing = len(self._choices) >= self._n and all(one.finish_reason for one in self._choices.values())

    def _fail(self, error: ProviderError, events: list[StreamEvent]) -> None:
        self._failure = error
        # Behind the end it takes nothing from the answer, whether or not it came in the same bytes.
        if not (events and (self._delivered or self.finishing)):
            raise error

    def _unreadable(self, what: str, data: bytes) -> InvalidResponse:
        return unreadable(what, data, model=self._model, headers=self._headers)

    def _finished(self) -> Finished:
        reasons = tuple(
            choice.finish_reason if (choice := self._choices.get(index)) else None
            for index in range(max(self._choices) + 1)
        )
        usage, amount = read_usage(self._usage)
        return Finished(
            reasons,
            usage=usage,
            cost=provider_cost(amount, model=self._model),
            model=self._names.get("model"),
            request_id=self._names.get("id") or header_request_id(self._headers),
            service_tier=self._names.get("service_tier"),
        )

    def _conclude_whole(self, data: bytes) -> list[StreamEvent]:
        answer = read_chat(data, model=self._model, headers=self._headers)
        self._usage = answer.usage.raw if answer.usage else None
        return events_of(answer)


def _only_text(body: Mapping[str, Any]) -> str | None:
    """Return the text of a chunk that holds a piece of the first answer and nothing else, None for any other."""
    try:
        (choice,) = body["choices"]
        delta = choice["delta"]
        text = delta["content"]
        if (
            text.__class__ is str
            and choice["finish_reason"] is None
            and choice["index"] == 0
            and body.get("usage") is None
            and choice.get("logprobs") is None
            and not (delta.get("tool_calls") or delta.get("reasoning_content") or delta.get("reasoning"))
        ):
            return text
    except (KeyError, TypeError, ValueError):
        pass
    return None
