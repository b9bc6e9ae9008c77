"""How an answer that broke off is asked to go on, and how the rest is joined to it."""

import math
from collections.abc import Iterable, Sequence

from resilient_ai.core.deltas import ReasoningDelta, StreamEvent, TextDelta
from resilient_ai.core.messages import AssistantMessage
from resilient_ai.core.operations import Stream
from resilient_ai.core.transcript import Transcript

_CHARACTERS_PER_TOKEN = 4


def why_not_continued(operation: Stream, transcript: Transcript) -> str | None:
    """Return why an answer that broke off cannot be continued, None where it can."""
    form = operation.response_format
    if operation.n > 1:
        return "several answers cannot be continued"
    if form is not None and form.type != "text":
        return f"an answer of the form {form.type!r} cannot be continued"
    if operation.logprobs:
        return "the log probabilities of an answer cannot be continued"
    if transcript.calls_tools:
        return "a tool call had begun"
    text = transcript.text
    if not text.strip():
        return "no text had arrived"
    if transcript.result().text != text:
        return "thoughts stand within its text"
    return None


def continuation(operation: Stream, transcript: Transcript) -> tuple[Stream, "Seam"]:
    """Return the operation that asks for the rest of an answer, and what joins the rest to it."""
    text = transcript.text
    last = operation.messages[-1]
    if isinstance(last, AssistantMessage) and not last.tool_calls:
        begun, earlier = last, operation.messages[:-1]
    else:
        begun, earlier = AssistantMessage(), operation.messages
    whole = (begun.content or "") + text
    # Models go on badly after a blank at the end, and most chat templates cut it off.
    message = begun.model_copy(update={"content": whole.rstrip()})
    changes: dict[str, object] = {"messages": (*earlier, message)}
    if operation.max_tokens is not None:
        arrived = len(text) + len(transcript.result().reasoning or "")
        changes["max_tokens"] = max(1, operation.max_tokens - math.ceil(arrived / _CHARACTERS_PER_TOKEN))
    return operation.model_copy(update=changes), Seam(whole, text)


class Seam:
    r"""Joins the rest of an answer to what the reader has, and leaves out what the reader has already.

    Left out are the whole of what was said so far, where the rest begins with it, and the blanks at its end. Less than the
    whole is never taken for a repetition: many answers say a word twice.

    Args:
        *said: The text that was sent to be continued, and the part of it that the reader has.

    >>> seam = Seam("One, two, ")
    >>> [seam.feed(piece) for piece in ("One, ", "two, three", ", four")]
    ['', 'three', ', four']
    >>> Seam("One, two, ").feed(" two and a half")
    'two and a half'
    """

    def __init__(self, *said: str) -> None:
        blanks = said[0][len(said[0].rstrip()) :]
        bodies = [body for text in said for body in (text.rstrip(), text.strip())]
        repetitions = {blanks, *bodies, *(body + blanks for body in bodies)} - {""}
        self._repetitions = sorted(repetitions, key=len, reverse=True)
        self._held = ""
        self._is_open = True

    def join(self, events: Iterable[StreamEvent]) -> Sequence[StreamEvent]:
        """Return the events that the reader shall get: what is new, without the thoughts about it."""
        shown: list[StreamEvent] = []
        for event in events:
            if isinstance(event, ReasoningDelta):
                continue
            text = self.feed(event.text) if isinstance(event, TextDelta) else self.flush()
            if text:
                shown.append(TextDelta(text))
            if not isinstance(event, TextDelta):
                shown.append(event)
        return shown

    def feed(self, text: str) -> str:
        """Return what of `text`, and of what was held before, is certain to be new."""
        if not self._is_open:
            return text
        self._held += text
        if any(len(known) > len(self._held) and known.startswith(self._held) for known in self._repetitions):
            return ""
        return self.flush()

    def flush(self) -> str:
        """Return what was held, without the repetition."""
        self._is_open = False
        held, self._held = self._held, ""
        repeated = next((known for known in self._repetitions if held.startswith(known)), "")
        return held[len(repeated) :]
