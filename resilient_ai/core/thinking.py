"""Reasoning that arrives inside the answer, between `<think>` tags."""

import re

OPEN = "<think>"
CLOSE = "</think>"
_CLOSE_ALONE = re.compile(r"</think>[ \t]*\n|\n[ \t]*</think>")


def split_thinking(text: str, reasoning: str | None = None) -> tuple[str, str | None]:
    r"""Return the answer and the reasoning of a whole text.

    Only a tag at the very beginning counts, so that an answer may speak of tags. Where a chat template has emitted the
    opening tag itself, the text begins with the reasoning and holds the closing tag alone, at the end of a line or on its own.

    >>> split_thinking("<think>17 * 23</think>391"), split_thinking("17 * 23</think>\n391"), split_thinking("391")
    (('391', '17 * 23'), ('391', '17 * 23'), ('391', None))
    """
    if reasoning:
        return text, reasoning.strip() or None
    opened = text.lstrip().startswith(OPEN)
    thought, closed, answer = text.partition(CLOSE)
    if opened or (OPEN not in thought and _CLOSE_ALONE.search(text)):
        return (answer.lstrip("\n ") if closed else ""), thought.lstrip().removeprefix(OPEN).strip() or None
    return text, None


class ThinkingSplitter:
    """Tells reasoning from answer while the text arrives, at any split of the tags.

    A tag that is only opened by the chat template cannot be seen here; `split_thinking` mends the whole text.

    >>> splitter = ThinkingSplitter()
    >>> [splitter.feed(piece) for piece in ("<thi", "nk>17", "</th", "ink>391")]
    [[], [('reasoning', '17')], [], [('text', '391')]]
    """

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._state = "start"
        self._held = ""

    def feed(self, text: str) -> list[tuple[str, str]]:
        """Return what is certain now, as pairs of "text" or "reasoning" and a piece."""
        if self._state == "text":
            return [("text", text)] if text else []
        self._held += text
        if self._state == "start":
            return self._decide()
        return self._answer() if self._state == "after" else self._reasoning()

    def _decide(self) -> list[tuple[str, str]]:
        head = self._held.lstrip()
        if len(head) < len(OPEN) and OPEN.startswith(head):
            return []
        if head.startswith(OPEN):
            self._state, self._held = "opened", head[len(OPEN) :]
            return self._reasoning()
        self._state = "text"
        return self._take("text", len(self._held))

    def _reasoning(self) -> list[tuple[str, str]]:
        if self._state == "opened":
            self._held = self._held.lstrip()
        thought, closing, rest = self._held.partition(CLOSE)
        if closing:
            pieces = self._take("reasoning", len(thought.rstrip()))
            self._state, self._held = "after", rest
            return pieces + self._answer()
        # What is held may end with the beginning of the closing tag, and with blanks that turn out to be the last.
        keep = next((size for size in range(len(CLOSE) - 1, 0, -1) if thought.endswith(CLOSE[:size])), 0)
        pieces = self._take("reasoning", len(thought[: len(thought) - keep].rstrip()))
        if pieces:
            self._state = "reasoning"
        return pieces

    def _answer(self) -> list[tuple[str, str]]:
        self._held = self._held.lstrip("\n ")
        if not self._held:
            return []
        self._state = "text"
        return self._take("text", len(self._held))

    def _take(self, kind: str, size: int) -> list[tuple[str, str]]:
        piece, self._held = self._held[:size], self._held[size:]
        return [(kind, piece)] if piece else []

    def flush(self) -> list[tuple[str, str]]:
        """Return what was held back when the text ends."""
        if self._state in {"opened", "reasoning"}:
            return self._take("reasoning", len(self._held.rstrip()))
        return self._take("text", len(self._held))
