"""A whole answer as a stream."""

from collections import deque
from collections.abc import Sequence

from resilient_ai.core.clock import Clock, SystemClock
from resilient_ai.core.deltas import Finished, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from resilient_ai.core.results import ChatResult

_FINEST = 20  # milliseconds; pieces that come closer together are replayed as one


class Replay:
    """A source of events that replays an answer, at once or at a pace.

    Args:
        answer: The answer.
        pace: Milliseconds since the first piece, and characters (of the reasoning, then of the text) that had come by then;
            nothing gives everything at once. It is kept for one answer of text alone; others come at once.
        clock: Waits between the pieces.
    """

    finishing = False

    def __init__(self, answer: ChatResult, *, pace: Sequence[tuple[int, int]] = (), clock: Clock | None = None) -> None:
        choice = answer.choices[0]
        plain = len(answer.choices) == 1 and not choice.tool_calls and not choice.logprobs
        self._answer = answer
        self._pace = deque(pace if plain else ())
        self._clock = clock or SystemClock()
        self._waited = 0  # milliseconds
        self._given = 0  # characters

    async def read(self) -> Sequence[StreamEvent] | None:
        """Return the next piece when it is time for it; the last comes with `Finished`."""
        while self._pace:
            at, reached = self._pace.popleft()
            if at > self._waited:
                await self._clock.sleep((at - self._waited) / 1000)
                self._waited = at
            if self._pace and (events := self._between(self._given, reached)):
                self._given = reached
                return events
        if not self._given:
            return events_of(self._answer)
        return [*self._between(self._given, None), _closing(self._answer)]

    def conclude(self) -> Sequence[StreamEvent]:
        """Return nothing: the events end with `Finished`."""
        return ()

    def abort(self) -> None:
        """Do nothing: there is no connection."""

    def _between(self, start: int, end: int | None) -> list[StreamEvent]:
        choice = self._answer.choices[0]
        thoughts = choice.reasoning or ""
        events: list[StreamEvent] = []
        if thought := thoughts[start:end]:
            events.append(ReasoningDelta(thought))
        if said := choice.text[max(0, start - len(thoughts)) : None if end is None else max(0, end - len(thoughts))]:
            events.append(TextDelta(said))
        return events


def events_of(answer: ChatResult) -> list[StreamEvent]:
    """Return an answer as the events a stream would have given."""
    events: list[StreamEvent] = []
    for choice in answer.choices:
        if choice.reasoning:
            events.append(ReasoningDelta(choice.reasoning, choice.index))
        if choice.text:
            events.append(TextDelta(choice.text, choice.index, choice.logprobs))
        events.extend(
            ToolCallDelta(index, call.id, call.name, call.arguments, choice.index)
            for index, call in enumerate(choice.tool_calls)
        )
    return [*events, _closing(answer)]


def _closing(answer: ChatResult) -> Finished:
    reasons = tuple(choice.finish_reason for choice in answer.choices)
    return Finished(reasons, answer.usage, answer.model, answer.request_id, answer.service_tier, answer.cost)


class PaceRecorder:
    """Writes down at which pace the text of a stream comes.

    >>> from resilient_ai.testing import ManualClock
    >>> clock = ManualClock()
    >>> recorder = PaceRecorder(clock)
    >>> recorder([TextDelta("Hel")]); clock.now += 0.25; recorder([TextDelta("lo")])
    >>> recorder.pace
    [(0, 3), (250, 5)]
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began: float | None = None
        self._reached = 0
        self.pace: list[tuple[int, int]] = []

    def __call__(self, events: Sequence[StreamEvent]) -> None:
        """Take note of what has just arrived."""
        length = sum(len(event.text) for event in events if isinstance(event, TextDelta | ReasoningDelta))
        if not length:
            return
        now = self._clock.monotonic()
        if self._began is None:
            self._began = now
        self._reached += length
        at = round((now - self._began) * 1000)
        if len(self.pace) > 1 and at - self.pace[-1][0] < _FINEST:
            at = self.pace.pop()[0]
        self.pace.append((at, self._reached))
