"""Names as a server gave them, which may be anything."""

import re

# What names of models, answers and reasons to stop are made of. There is no "@" in it, as in addresses of people.
LONGEST_NAME = 200
_NAME = re.compile(r"[\w.:/+-]+", re.ASCII)


def told_name(text: str | None) -> str | None:
    """Return a name as a server gave it, None where it is none: too long, or with something in it that names do not have.

    >>> told_name("meta-llama/Llama-3.3-70B:turbo"), told_name("as you said: ann@example.org")
    ('meta-llama/Llama-3.3-70B:turbo', None)
    """
    return text if text and len(text) <= LONGEST_NAME and _NAME.fullmatch(text) else None
