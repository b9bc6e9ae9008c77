"""One answer of a streamed chat, as far as its pieces must be told apart."""

from collections.abc import Mapping
from typing import Any

from resilient_ai.core.deltas import ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from resilient_ai.core.results import TokenLogprob
from resilient_ai.core.thinking import ThinkingSplitter
from resilient_ai.deepinfra.wire.choices import arguments_of, read_logprobs, reasoning_of, text_of
from resilient_ai.deepinfra.wire.payload import as_list, as_object, as_text


class _ToolCall:
    """What is known of a tool call; only what is new about it is handed on."""

    __slots__ = ("id", "name")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None


class StreamChoice:
    """Reads the pieces of one answer.

    Attributes:
        finish_reason: Why the answer ended, None while it has not.
        splitter: Tells reasoning from answer by tags; None once the answer itself has begun.
    """

    __slots__ = ("_index", "_logprobs", "_tools", "finish_reason", "splitter")

    def __init__(self, index: int) -> None:
        self.finish_reason: str | None = None
        self.splitter: ThinkingSplitter | None = ThinkingSplitter()
        self._index = index
        self._logprobs: list[TokenLogprob] = []
        self._tools: dict[int, _ToolCall] = {}

    @property
    def waiting(self) -> bool:
        """Whether log probabilities wait for the text they belong to."""
        return bool(self._logprobs)

    def take(self, fields: Mapping[str, Any], events: list[StreamEvent]) -> None:
        """Append the events of one entry of `choices`: a chat's delta, a whole message, or a completion's text.

        Raises:
            Malformed: If the content is neither a text nor null.
        """
        self._logprobs.extend(read_logprobs(fields.get("logprobs")) or ())
        delta = as_object(fields.get("delta")) or as_object(fields.get("message")) or {"content": fields.get("text")}
        reasoning = reasoning_of(delta)
        if reasoning:
            self._release(events)
            events.append(ReasoningDelta(reasoning, self._index))
        text = text_of(delta.get("content"))
        if text:
            self._write(text, events)
        if delta.get("tool_calls"):
            self._take_tool_calls(as_list(delta["tool_calls"]) or [], events)
        self.finish_reason = as_text(fields.get("finish_reason")) or self.finish_reason

    def conclude(self, events: list[StreamEvent]) -> None:
        """Append what was held back because it could have been the beginning of a tag."""
        self._release(events)
        if self._logprobs:
            self._emit("", events)

    def _write(self, text: str, events: list[StreamEvent]) -> None:
        if self.splitter is None:
            self._emit(text, events)
            return
        for kind, piece in self.splitter.feed(text):
            if kind == "text":
                # From the first text on the splitter has nothing left to find.
                self.splitter = None
                self._emit(piece, events)
            else:
                events.append(ReasoningDelta(piece, self._index))

    def _release(self, events: list[StreamEvent]) -> None:
        splitter, self.splitter = self.splitter, None
        for kind, piece in splitter.flush() if splitter else ():
            if kind == "text":
                self._emit(piece, events)
            else:
                events.append(ReasoningDelta(piece, self._index))

    def _emit(self, text: str, events: list[StreamEvent]) -> None:
        logprobs, self._logprobs = tuple(self._logprobs) or None, []
        events.append(TextDelta(text, self._index, logprobs))

    def _take_tool_calls(self, items: list[Any], events: list[StreamEvent]) -> None:
        for position, item in enumerate(items):
            fields = as_object(item) or {}
            function = as_object(fields.get("function")) or {}
            identity, name = as_text(fields.get("id")), as_text(function.get("name"))
            index = self._tool_index(fields.get("index"), identity, position if len(items) > 1 else None)
            call = self._tools.setdefault(index, _ToolCall())
            new_id, new_name = None if call.id else identity, None if call.name else name
            call.id, call.name = call.id or identity, call.name or name
            arguments = arguments_of(function)
            if new_id or new_name or arguments:
                events.append(ToolCallDelta(index, new_id, new_name, arguments, self._index))

    def _tool_index(self, given: Any, identity: str | None, position: int | None) -> int:
        if type(given) is int and given >= 0:
            return given
        last = max(self._tools, default=-1)
        if identity is None:
            return position if position is not None else max(last, 0)
        known = next((index for index, call in self._tools.items() if call.id == identity), None)
        if known is not None:
            return known
        # An id that comes late belongs to the call that still lacks one.
        return next((index for index, call in self._tools.items() if call.id is None), last + 1)
