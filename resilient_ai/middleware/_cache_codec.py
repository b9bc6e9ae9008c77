"""Answers as bytes, and back."""

from collections.abc import Sequence
from typing import cast

import orjson

from resilient_ai.core.errors import OutputInvalid
from resilient_ai.core.results import ChatResult, ImageResult

# What belongs to one call and not to the answer; every hit gets its own.
_OF_THE_CALL = frozenset({"cost", "attempts", "cache", "cache_age", "saved", "maybe_billed", "refused", "considered"})
# Milliseconds since the first piece, and characters that had come by then.
Pace = Sequence[tuple[int, int]]


def why_not_kept(answer: ChatResult | ImageResult, *, truncated: bool) -> str | None:
    """Return why an answer is not worth keeping, as whoever asks again may get a better one; None where it is.

    Args:
        answer: The answer.
        truncated: Whether one that was cut short is kept all the same.
    """
    if isinstance(answer, ImageResult):
        return "a picture was held back" if any(image.flagged for image in answer.images) else None
    for choice in answer.choices:
        reason = choice.finish_reason
        if reason in {None, "content_filter", "error"} or (reason == "length" and not truncated):
            return f"it is not whole: its finish reason is {reason!r}"
        try:
            # What was cut short breaks off anywhere.
            for tool_call in choice.tool_calls if reason != "length" else ():
                tool_call.parsed()
        except OutputInvalid:
            return "the arguments of a tool call are not JSON"
    return None


def encode_chat(answer: ChatResult, pace: Pace = ()) -> bytes:
    """Return the answer as a line of JSON with its pace, and a line with itself.

    Raises:
        ValueError: If it holds something that JSON cannot say.
    """
    return b"%s\n%s" % (orjson.dumps(pace), answer.model_dump_json(exclude=set(_OF_THE_CALL)).encode())


def decode_chat(body: bytes) -> tuple[ChatResult, Pace]:
    """Return the answer and its pace.

    Raises:
        ValueError: If the body is damaged.
    """
    head, _, answer = body.partition(b"\n")
    pace = orjson.loads(head)
    if not isinstance(pace, list) or not all(map(_is_step, cast("list[object]", pace))):
        raise ValueError("the pace of the entry is damaged")
    return ChatResult.model_validate_json(answer), cast("Pace", pace)


def encode_image(answer: ImageResult) -> bytes:
    """Return the answer as a line of JSON, and the files.

    Raises:
        TypeError: If it holds something that JSON cannot say.
    """
    values = answer.model_dump(exclude={*_OF_THE_CALL, "images"})
    files = [image.data for image in answer.images]
    values["images"] = [
        {**image.model_dump(exclude={"data"}), "size": len(data)}
        for image, data in zip(answer.images, files, strict=True)
    ]
    return b"".join((orjson.dumps(values), b"\n", *files))


def decode_image(body: bytes) -> ImageResult:
    """Return the answer.

    Raises:
        ValueError: If the body is damaged.
    """
    line, _, files = body.partition(b"\n")
    values = orjson.loads(line)
    try:
        start = 0
        for image in values["images"]:
            size = image.pop("size")
            image["data"] = files[start : start + size]
            start += size
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("the list of pictures is damaged") from error
    if start != len(files):
        raise ValueError(f"the pictures have {start} bytes, the entry holds {len(files)}")
    return ImageResult.model_validate(values)


def _is_step(step: object) -> bool:
    if not isinstance(step, list):
        return False
    numbers = cast("list[object]", step)
    return len(numbers) == 2 and all(type(number) is int and number >= 0 for number in numbers)
