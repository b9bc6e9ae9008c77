"""Text that a PostgreSQL can hold."""


def clean(text: str) -> str:
    r"""Return a text with a question mark for whatever PostgreSQL cannot hold: half of a surrogate pair, and zero.

    >>> clean("a\0b\ud800")
    'a?b?'
    """
    return text.encode("utf-8", "replace").decode().replace("\0", "?")
