"""Ids in the styles that the service uses."""

import random
import string
from typing import Literal

_ALPHABET = string.ascii_letters + string.digits
_random = random.Random()


def letters(length: int) -> str:
    """Letters and digits."""
    return "".join(_random.choices(_ALPHABET, k=length))


def hexadecimal(length: int) -> str:
    """Lower-case hex digits."""
    return f"{_random.getrandbits(4 * length):0{length}x}"


def request_id() -> str:
    """A native request id."""
    return f"R{letters(23)}"


def tool_call_id(style: Literal["call", "chatcmpl-tool", "functions"], name: str, index: int) -> str:
    """A tool call's id in the style of a model family."""
    if style == "functions":
        return f"functions.{name}:{index}"
    return f"chatcmpl-tool-{hexadecimal(16)}" if style == "chatcmpl-tool" else f"call_{letters(24)}"
