"""Which model a conversation keeps to."""

from collections import OrderedDict


class Pins:
    """Remembers a model for each conversation, until it has been silent for too long or too many came after it.

    Args:
        most: Conversations that are remembered at most.
        silence: Seconds after which one is forgotten.

    >>> pins = Pins(most=2, silence=3600.0)
    >>> pins.keep("a", "m", 0.0); pins.get("a", 3600.0), pins.get("a", 3600.1), pins.get("b", 0.0)
    ('m', None, None)
    """

    __slots__ = ("_known", "_most", "_silence")

    def __init__(self, *, most: int, silence: float) -> None:
        self._most = most
        self._silence = silence
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, conversation: str, now: float) -> str | None:
        """Return the model of a conversation, None where none is known."""
        model, used = self._known.get(conversation, (None, 0.0))
        return model if now - used <= self._silence else None

    def keep(self, conversation: str, model: str, now: float) -> None:
        """Take note that `model` has served a conversation."""
        self._known[conversation] = (model, now)
        self._known.move_to_end(conversation)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
