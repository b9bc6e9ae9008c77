"""The one warning of a store about entries that are not what it wrote."""

from resilient_ai.core.log import Log

_log = Log("resilient_ai.stores")


class FirstRefused:
    """Warns at the first entry that a store refuses, and never again.

    With a wrong secret nothing goes wrong and nothing is found: without a word in the log it would look like a cache that is not
    used. Every entry of a large cache may be refused, so that one word is enough.

    Args:
        warning: What it says, with `%s` for the place of the store.
        place: Where the entries lie, without secrets.
    """

    def __init__(self, warning: str, place: str) -> None:
        self._warning = warning
        self._place = place
        self._said = False

    def note(self, refused: int) -> None:
        """Warn where `refused`, of one trip or of all so far, is not 0."""
        if refused and not self._said:
            self._said = True
            _log.warning(self._warning, self._place)
