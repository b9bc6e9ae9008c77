"""What decides the price of an operation, as it is sent: a field in `extra` wins over that of the operation."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from resilient_ai.core.operations import Image, Operation, Sampling

_SIZE = re.compile(r"\s*(\d{1,6})\s*x\s*(\d{1,6})\s*")
_DECIDING = frozenset(
    {
        "model",
        "n",
        "num_images",
        "max_tokens",
        "max_completion_tokens",
        "size",
        "width",
        "height",
        "num_inference_steps",
        "service_tier",
    }
)


class Sent(NamedTuple):
    """What decides a price.

    Attributes:
        model: The model that is asked.
        number: Answers, or pictures.
        longest: Tokens that an answer may have, None where nothing that can be read bounds it.
        width, height, steps: Of pictures, None for the model's default.
        tier: The service tier that is asked for.
    """

    model: str
    number: int
    longest: int | None
    width: int | None
    height: int | None
    steps: int | None
    tier: str | None


def as_sent(operation: Operation[Any]) -> Sent:
    """Return what decides the price of an operation.

    >>> from resilient_ai.core.operations import Chat
    >>> as_sent(Chat(model="m", messages="hi", max_tokens=5, extra={"max_tokens": "2000", "n": 4.0}))[:3]
    ('m', 4, 2000)
    """
    number: int = getattr(operation, "n", 1)
    longest = operation.max_tokens if isinstance(operation, Sampling) else None
    (width, height), steps = (None, None), None
    if isinstance(operation, Image):
        (width, height), steps = operation.width_and_height or (None, None), operation.steps
    tier: str | None = getattr(operation, "service_tier", None)
    sent = Sent(operation.model, number, longest, width, height, steps, tier)
    extra = operation.extra
    return sent if _DECIDING.isdisjoint(extra) else _with(sent, extra)


def _with(sent: Sent, extra: Mapping[str, Any]) -> Sent:
    width, height = sent.width, sent.height
    size = _SIZE.fullmatch(str(extra["size"])) if "size" in extra else None
    if size is not None:
        width, height = int(size[1]), int(size[2])
    longest = sent.longest
    for name in ("max_tokens", "max_completion_tokens"):
        if name in extra:
            longest = _whole(extra[name], None)
    number = sent.number
    for name in ("n", "num_images"):
        if name in extra:
            number = _whole(extra[name], 1) or 1
    return Sent(
        model=str(extra.get("model", sent.model)),
        number=number,
        longest=longest,
        width=_whole(extra.get("width", width), width),
        height=_whole(extra.get("height", height), height),
        steps=_whole(extra.get("num_inference_steps", sent.steps), sent.steps),
        tier=str(extra["service_tier"]) if extra.get("service_tier") is not None else sent.tier,
    )


def _whole(value: object, other: int | None) -> int | None:
    """Return a number as a lenient service may read it, rounded up; `other` where it is none above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return other
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return other
    return math.ceil(number) if 0 < number < math.inf else other
