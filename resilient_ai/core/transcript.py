"""What a stream has delivered so far, put together."""

from collections.abc import Iterable
from typing import Any

from resilient_ai.core.deltas import Finished, ReasoningDelta, Restarted, StreamEvent, TextDelta, ToolCallDelta
from resilient_ai.core.results import ChatResult, TokenLogprob
from resilient_ai.core.thinking import split_thinking


class _ToolCall:
    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class _Choice:
    __slots__ = ("logprobs", "reasoning", "text", "tool_calls")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.tool_calls: dict[int, _ToolCall] = {}
        self.logprobs: list[TokenLogprob] = []

    def fields(self, index: int, finish_reason: str | None) -> dict[str, Any]:
        text, reasoning = split_thinking("".join(self.text), "".join(self.reasoning) or None)
        calls = [
            {"id": call.id or f"call_{position}", "name": call.name, "arguments": "".join(call.arguments)}
            for position, call in sorted(self.tool_calls.items())
            if call.name
        ]
        return {
            "index": index,
            "text": text,
            "reasoning": reasoning,
            "tool_calls": calls,
            "finish_reason": finish_reason,
            "logprobs": tuple(self.logprobs) or None,
        }


class Transcript:
    """Joins the events of a stream into the `ChatResult` that a call without streaming would have given.

    >>> transcript = Transcript("m")
    >>> transcript.add([TextDelta("Hel"), TextDelta("lo"), Finished(("stop",))])
    >>> transcript.result().text, transcript.result().finish_reason
    ('Hello', 'stop')

    Attributes:
        model: The model that is asked, which is `served_by` of the answer.
        finished: The last event of a whole answer, None before it has come.
    """

    __slots__ = ("_choices", "finished", "model")

    def __init__(self, model: str) -> None:
        self.model = model
        self._choices: dict[int, _Choice] = {}
        self.finished: Finished | None = None

    def add(self, events: Iterable[StreamEvent]) -> None:
        """Take in what has just arrived."""
        for event in events:
            if isinstance(event, TextDelta):
                choice = self._choice(event.choice)
                choice.text.append(event.text)
                if event.logprobs:
                    choice.logprobs.extend(event.logprobs)
            elif isinstance(event, ReasoningDelta):
                self._choice(event.choice).reasoning.append(event.text)
            elif isinstance(event, ToolCallDelta):
                self._add_tool_call(event)
            elif isinstance(event, Restarted):
                self._choices.clear()
            else:
                self.finished = event

    @property
    def text(self) -> str:
        """The text of the first choice as it came."""
        return "".join(self._choice(0).text)

    def sizes(self) -> list[tuple[int, int]]:
        """Return for every text that has come, reasoning and calls of tools included, its pieces and its characters."""
        parts: list[list[str]] = []
        for choice in self._choices.values():
            parts += [choice.text, choice.reasoning]
            parts += [[call.name, *call.arguments] for call in choice.tool_calls.values()]
        return [(sum(map(bool, pieces)), sum(map(len, pieces))) for pieces in parts]

    @property
    def calls_tools(self) -> bool:
        """Whether a piece of a tool call has come."""
        return any(choice.tool_calls for choice in self._choices.values())

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
        return choice

    def _add_tool_call(self, delta: ToolCallDelta) -> None:
        calls = self._choice(delta.choice).tool_calls
        call = calls.get(delta.index)
        if call is None:
            call = calls[delta.index] = _ToolCall()
        call.id = call.id or delta.id or ""
        call.name = call.name or delta.name or ""
        if delta.arguments:
            call.arguments.append(delta.arguments)

    def result(self) -> ChatResult:
        """Return what there is; without `Finished` it is a partial answer, whose finish reasons are None."""
        done = self.finished
        reasons = done.finish_reasons if done else ()
        count = max([1, len(reasons), *(index + 1 for index in self._choices)])
        empty = _Choice()
        choices = [
            self._choices.get(index, empty).fields(index, reasons[index] if index < len(reasons) else None)
            for index in range(count)
        ]
        return ChatResult.model_validate(
            {
                "model": (done and done.model) or self.model,
                "served_by": self.model,
                "usage": done and done.usage,
                "request_id": done and done.request_id,
                "service_tier": done and done.service_tier,
                "cost": done and done.cost,
                "choices": choices,
            }
        )
