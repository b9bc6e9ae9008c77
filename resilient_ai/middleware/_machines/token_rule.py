"""How many tokens a text has, learned from texts whose tokens were told."""

# What the sums keep with every further text, so that about the last hundred decide.
_KEPT = 0.99
# Below so many texts, and outside of these tokens for a character, nothing learned is believed.
_ENOUGH = 3
_FEWEST, _MOST = 0.05, 4.0


class TokenRule:
    """A line through the texts of one model: so many tokens for a character, and so many that every prompt has besides.

    It is the line of least squares over recent texts, older ones counting less. Where they are all of one length, which tells
    nothing of a line, it is their tokens for a character.

    >>> rule = TokenRule()
    >>> for characters in (100, 200, 300): rule.record(characters, 10 + characters // 5)
    >>> rule.tokens_of(1000)
    210
    """

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        # In one piece, so that whoever asks while another thread records, or from a finalizer, sees sums that belong together.
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)

    @property
    def texts(self) -> float:
        """How many texts decide."""
        return self._sums[0]

    def record(self, characters: int, tokens: int) -> None:
        """Take in a text."""
        count, x, y, xx, xy = self._sums
        self._sums = (
            count * _KEPT + 1,
            x * _KEPT + characters,
            y * _KEPT + tokens,
            xx * _KEPT + characters * characters,
            xy * _KEPT + characters * tokens,
        )

    def tokens_of(self, characters: int) -> int | None:
        """Return about how many tokens so many characters are, None where too little is known."""
        count, x, y, xx, xy = self._sums
        if count < _ENOUGH * _KEPT or not x:
            return None
        spread = count * xx - x * x
        slope = (count * xy - x * y) / spread if spread > 0.01 * x * x else y / x
        if not _FEWEST <= slope <= _MOST:
            return None
        return max(1, round(y / count + slope * (characters - x / count)))
