"""Pictures inside JSON: base64, data URIs and addresses, as answers of the image routes bring them."""

import binascii
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from resilient_ai.core.media import media_type_of
from resilient_ai.core.operations import Image as ImageOperation
from resilient_ai.core.results import Image, ImageResult
from resilient_ai.deepinfra.wire.errors import malformed
from resilient_ai.deepinfra.wire.payload import (
    Malformed,
    as_list,
    as_money,
    as_object,
    as_text,
    load_object,
    provider_cost,
    request_id_of,
)
from resilient_ai.deepinfra.wire.usage import read_native_usage, read_usage

_SEED_END = 2**64


def read_images(data: bytes, *, operation: ImageOperation, headers: Mapping[str, str]) -> ImageResult:
    """Return the pictures of an OpenAI route: generations, edits or variations.

    Args:
        data: The body of an answer with status 200.
        operation: What was asked.
        headers: Headers of the answer.

    Raises:
        StatusError: If the body tells of a failure in spite of its status.
        InvalidResponse: If there is no picture, or one is not the bytes of a picture.
    """
    body = load_object(data, model=operation.model, headers=headers)
    try:
        rows = [as_object(row) or {} for row in as_list(body.get("data")) or []]
        images = _pictures(
            (row.get("b64_json") or row.get("url"), None, as_text(row.get("revised_prompt"))) for row in rows
        )
    except Malformed as error:
        raise malformed(error, body, data, headers, model=operation.model) from error
    usage, cost = read_usage(as_object(body.get("usage")))
    cost = as_money(body.get("estimated_cost")) if cost is None else cost
    return _result(body, images, operation, headers).model_copy(
        update={"usage": usage, "cost": provider_cost(cost, model=operation.model)}
    )


def read_native_images(data: bytes, *, operation: ImageOperation, headers: Mapping[str, str]) -> ImageResult:
    """Return the pictures of the native route, whether they stand in `images` or, in Cog's form, in `output`.

    Raises:
        StatusError: If the body tells of a failure in spite of its status.
        InvalidResponse: If there is no picture, or one is not the bytes of a picture.
    """
    body = load_object(data, model=operation.model, headers=headers)
    try:
        found = body.get("images") or body.get("output")
        sources: list[Any] = [found] if isinstance(found, str) else as_list(found) or []
        flags = as_list(body.get("nsfw_content_detected")) or []
        images = _pictures(
            (source, flags[position] if position < len(flags) else None, None)
            for position, source in enumerate(sources)
        )
    except Malformed as error:
        raise malformed(error, body, data, headers, model=operation.model) from error
    usage, cost = read_native_usage(body)
    return _result(body, images, operation, headers).model_copy(
        update={"usage": usage, "cost": provider_cost(cost, model=operation.model)}
    )


def data_uri(data: bytes) -> str:
    """Return the bytes of a picture as a data URI.

    >>> data_uri(b"GIF89a")
    'data:image/gif;base64,R0lGODlh'
    """
    return f"data:{media_type_of(data) or 'application/octet-stream'};base64,{b64encode(data).decode()}"


def _result(
    body: Mapping[str, Any], images: tuple[Image, ...], operation: ImageOperation, headers: Mapping[str, str]
) -> ImageResult:
    seed = body.get("seed")
    return ImageResult(
        model=as_text(body.get("model")) or operation.model,
        served_by=operation.model,
        request_id=request_id_of(body, headers),
        images=images,
        seed=seed if type(seed) is int and 0 <= seed < _SEED_END else None,
    )


def _pictures(sources: Iterable[tuple[Any, Any, str | None]]) -> tuple[Image, ...]:
    images = tuple(
        _picture(source, position, flag, revised) for position, (source, flag, revised) in enumerate(sources)
    )
    if not images:
        raise Malformed("it has no picture")
    return images


def _picture(source: Any, position: int, flag: Any, revised_prompt: str | None) -> Image:
    text = as_text(source)
    if text is None:
        raise Malformed(f"picture {position} is missing")
    if text.startswith(("http://", "https://")):
        raise Malformed(f"picture {position} is an address ({_place(text)}), and the client never fetches one")
    data = _bytes(text, position)
    media_type = media_type_of(data)
    if media_type is None:
        raise Malformed(f"picture {position} is not a PNG, JPEG, WebP, GIF or SVG")
    return Image(
        data=data,
        media_type=media_type,
        flagged=flag if isinstance(flag, bool) else None,
        revised_prompt=revised_prompt,
    )


def _bytes(text: str, position: int) -> bytes:
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            return unquote_to_bytes(text)
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError as error:
        raise Malformed(f"picture {position} is not base64") from error


def _place(url: str) -> str:
    # The query of a signed address opens the picture to whoever reads the log.
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    return host or "without a host"
