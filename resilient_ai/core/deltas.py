"""The pieces in which a streamed answer arrives."""

from dataclasses import dataclass

from resilient_ai.core.results import Cost, TokenLogprob, Usage


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer. `choice` tells the answers of a call with `n` > 1 apart."""

    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of what the model thinks aloud before it answers."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call: `id` and `name` come once, early or late; `arguments` are to be joined."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Restarted:
    """The answer begins again from nothing: forget every piece that came before this event.

    A stream delivers it only where `on_interrupt="restart"` was asked for, by the call or by `Resume`.
    """


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a whole answer.

    Args:
        finish_reasons: Why each choice ended, by its index.
        usage: Billed tokens, None where the service reported none.
        model: The model as the service named it.
        request_id: The service's name for the request.
        service_tier: The tier that served it, where the service says so.
        cost: What the service says the answer cost, None where it says nothing.
    """

    finish_reasons: tuple[str | None, ...]
    usage: Usage | None = None
    model: str | None = None
    request_id: str | None = None
    service_tier: str | None = None
    cost: Cost | None = None

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended: "stop", "length", "tool_calls", or what the service said."""
        return self.finish_reasons[0] if self.finish_reasons else None


StreamEvent = TextDelta | ReasoningDelta | ToolCallDelta | Restarted | Finished
