"""What is asked, by numbers, and the only right answer to each."""

import hashlib
import re
from array import array
from collections.abc import Sequence
from typing import Any

from resilient_ai.core.operations import Chat, Embed, Image, Operation, Stream
from resilient_ai.core.results import ChatResult, EmbedResult, ImageResult
from resilient_ai.middleware._cache_codec import decode_chat, decode_image
from resilient_ai.middleware._cache_entry import HEADER, unwrap
from resilient_ai.simulator.drawing import draw
from resilient_ai.simulator.text import answer
from resilient_ai.simulator.vectors import vector

CHAT_MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
EMBEDDER, DIMENSIONS = "sentence-transformers/all-MiniLM-L6-v2", 384
PAINTER = "black-forest-labs/FLUX-1-schnell"

_SIDE = 256

Order = tuple[str, Sequence[int]]

_NUMBER = re.compile(r"\d+")


def text_of(number: int) -> str:
    return f"the tide of day {number} comes in slowly"


def prompt_of(number: int) -> str:
    return f"Say: on day {number} the tide rose by {number * 7} inches, and fell again by {number * 3}."


def operation_of(order: Order) -> Operation[Any]:
    """Return what an order asks: "chat", "stream" and "image" have one number, "embed" has one for each text."""
    kind, numbers = order
    match kind:
        case "chat":
            return Chat(model=CHAT_MODEL, messages=prompt_of(numbers[0]), temperature=0)
        case "stream":
            return Stream(model=CHAT_MODEL, messages=prompt_of(numbers[0]), temperature=0)
        case "image":
            return Image(model=PAINTER, prompt=prompt_of(numbers[0]), seed=numbers[0], size=f"{_SIDE}x{_SIDE}")
    return Embed(model=EMBEDDER, texts=[text_of(number) for number in numbers])


def names_of(operation: Operation[Any]) -> list[str]:
    """Return short names of the entries of an operation: a chat and a stream of the same question share theirs."""
    if isinstance(operation, Embed):
        return [f"t{_NUMBER.findall(text)[0]}" for text in operation.texts]
    if isinstance(operation, Image):
        return [f"i{operation.seed}"]
    return [f"q{_NUMBER.findall(str(operation.messages))[0]}"]


def order_of(name: str) -> Order:
    """Return an order whose only entry has this name."""
    return {"t": "embed", "i": "image", "q": "chat"}[name[0]], [int(name[1:])]


def is_right(order: Order, result: Any) -> bool:
    """Return whether this is what the service answers."""
    kind, numbers = order
    if kind == "embed":
        rows = list(result.vectors)
        return len(rows) == len(numbers) and all(map(_is_vector, numbers, rows))
    if kind == "image":
        return [image.data for image in result.images] == [_picture(numbers[0])]
    return _is_answer(numbers[0], result)


def is_right_entry(name: str, entry: bytes) -> bool:
    """Return whether an entry as it lies in a store holds the right value."""
    number = int(name[1:])
    if name[0] == "t":
        _, kind, *_ = HEADER.unpack_from(entry)
        return _is_vector(number, array("d" if kind == b"d" else "f", entry[HEADER.size :]).tolist())
    if name[0] == "q":
        return _is_answer(number, decode_chat(unwrap(b"c", entry).body)[0])
    return decode_image(unwrap(b"i", entry).body).images[0].data == _picture(number)


def digest_of(result: Any) -> str:
    """Return what equal answers have in common, whichever process made them."""
    if isinstance(result, EmbedResult):
        content = str(list(result.vectors)).encode()
    elif isinstance(result, ImageResult):
        content = b"".join(image.data or b"" for image in result.images)
    else:
        content = result.text.encode()
    return hashlib.sha256(content).hexdigest()


def _is_vector(number: int, row: Sequence[float]) -> bool:
    return list(row) == vector(text_of(number), DIMENSIONS).tolist()


def _is_answer(number: int, result: ChatResult) -> bool:
    return result.text == answer(prompt_of(number)) and result.finish_reason == "stop"


def _picture(number: int) -> bytes:
    return draw(prompt_of(number), number, _SIDE, _SIDE, "jpeg")
