"""One answer of a streamed chat, as far as its pieces must be told apart."""

from collections.abc import Mapping
from typing import Any

from resilient_ai.core.deltas import ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from resilient_ai.core.results import TokenLogprob
from resilient_ai.core.thinking import ThinkingSplitter
from resilient_ai.deepinfra.wire.choices import (
    MAX_TOOL_CALLS,
    arguments_of,
    read_logprobs,
    reasoning_of,
    text_of,
    too_many_tool_calls,
)
from resilient_ai.deepinfra.wire.payload import as_list, as_object, as_text


class _ToolCall:
    """What is known of a tool call; only what is new about it is handed on."""

    __slots__ = ("id", "name")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None


class _ToolCalls:
    """The tool calls of one answer, each found without a look at the others."""

    __slots__ = ("_by_id", "_by_index", "_last", "_without_id")

    def __init__(self) -> None:
        self._by_index: dict[int, _ToolCall] = {}
        self._by_id: dict[str, int] = {}
        self._without_id: dict[int, None] = {}  # in the order in which they began
        self._last = -1  # the largest index

    def index(self, given: Any, identity: str | None, position: int | None) -> int:
        """Return the index a piece belongs to: the given one, else that of its id, else by order."""
        if type(given) is int and given >= 0:
            return given
        if identity is None:
            return position if position is not None else max(self._last, 0)
        known = self._by_id.get(identity)
        if known is not None:
            return known
        # An id that comes late belongs to the call that still lacks one.
        return next(iter(self._without_id), self._last + 1)

    def learn(self, index: int, identity: str | None, name: str | None) -> tuple[str | None, str | None]:
        """Return what of id and name is new about a call, which begins where it is not known.

        Raises:
            Malformed: If there are too many calls.
        """
        call = self._by_index.get(index)
        if call is None:
            call = self._begin(index)
        new_id, new_name = None if call.id else identity, None if call.name else name
        if new_id:
            call.id = new_id
            self._by_id.setdefault(new_id, index)
            del self._without_id[index]
        call.name = call.name or name
        return new_id, new_name

    def _begin(self, index: int) -> _ToolCall:
        if len(self._by_index) >= MAX_TOOL_CALLS:
            raise too_many_tool_calls()
        call = self._by_index[index] = _ToolCall()
        self._without_id[index] = None
        self._last = max(self._last, index)
        return call


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
        self._tools = _ToolCalls()

    @property
    def waiting(self) -> bool:
        """Whether log probabilities wait for the text they belong to."""
        return bool(self._logprobs)

    def take(self, fields: Mapping[str, Any], events: list[StreamEvent]) -> None:
        """Append the events of one entry of `choices`: a chat's delta, a whole message, or a completion's text.

        Raises:
            Malformed: If the content is neither a text nor null, or there are too many tool calls.
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
            index = self._tools.index(fields.get("index"), identity, position if len(items) > 1 else None)
            new_id, new_name = self._tools.learn(index, identity, name)
            arguments = arguments_of(function)
            if new_id or new_name or arguments:
                events.append(ToolCallDelta(index, new_id, new_name, arguments, self._index))
