"""Images: the bodies of the native and the OpenAI routes, and answers as bytes of pictures."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from resilient_ai.core.errors import InvalidInput
from resilient_ai.core.media import SUFFIXES, media_type_of
from resilient_ai.core.operations import Image
from resilient_ai.deepinfra.wire.payload import dump, with_extra
from resilient_ai.deepinfra.wire.pictures import data_uri, read_images, read_native_images

__all__ = [
    "FormField",
    "Takes",
    "image_body",
    "image_form",
    "image_style",
    "native_image_body",
    "read_images",
    "read_native_images",
    "standard_size",
]

Takes = Literal["size", "aspect_ratio", "cog"]
FormField = tuple[str, str | None, bytes, str]

_STYLES: Mapping[str, Takes] = {
    "stabilityai/sd3.5": "aspect_ratio",
    "stabilityai/sd3.5-medium": "aspect_ratio",
    "stabilityai/sdxl-turbo": "aspect_ratio",
    "stability-ai/sdxl": "cog",
}
_SIDE = range(256, 1441, 32)
_AREA = 1024 * 1024


def image_style(model: str) -> Takes:
    """Return how a model wants to be told the size of a picture on the native route; "size" for models not known here.

    >>> image_style("stabilityai/sd3.5"), image_style("black-forest-labs/FLUX-1-schnell")
    ('aspect_ratio', 'size')
    """
    return _STYLES.get(model, "size")


def native_image_body(operation: Image, *, takes: Takes) -> dict[str, Any]:
    """Return the body for the native route; the model stands in the path.

    Args:
        operation: What is asked; at most one source image, and no mask.
        takes: "size" for `width` and `height`, "aspect_ratio" for a ratio, "cog" for a size within `{"input": ...}`.

    Raises:
        InvalidInput: If the model takes a ratio and the size is not the standard size of one, or the other way round; or if the
            route has no field for what was given.

    >>> native_image_body(Image(model="m", prompt="dusk", aspect_ratio="1:1", seed=7), takes="size")
    {'prompt': 'dusk', 'width': 1024, 'height': 1024, 'seed': 7}
    """
    body: dict[str, Any] = {"prompt": operation.prompt}
    body |= {"aspect_ratio": ratio} if takes == "aspect_ratio" and (ratio := _ratio(operation)) else {}
    if takes != "aspect_ratio" and (size := _size(operation)):
        body["width"], body["height"] = size
    if operation.n != 1:
        body["num_outputs" if takes == "cog" else "num_images"] = operation.n
    body |= _native_options(operation)
    if len(operation.images) > 1:
        raise InvalidInput(
            "images: the native route takes one source image", field="images", value=len(operation.images)
        )
    if operation.mask is not None:
        raise InvalidInput("mask: the native route takes no mask; use route='openai'", field="mask")
    if operation.images:
        body["image"] = data_uri(operation.images[0])
    body = with_extra(body, operation.extra)
    return {"input": body} if takes == "cog" else body


def image_body(operation: Image) -> dict[str, Any]:
    """Return the body for the OpenAI route of pictures from words.

    Raises:
        InvalidInput: If a field is given that this route does not have, or a ratio that has no standard size.

    >>> image_body(Image(model="m", prompt="dusk", size="512x512"))
    {'model': 'm', 'prompt': 'dusk', 'size': '512x512', 'n': 1, 'response_format': 'b64_json'}
    """
    for name in ("seed", "steps", "guidance_scale", "negative_prompt"):
        if getattr(operation, name) is not None:
            raise InvalidInput(f"{name}: only the native route has it", field=name, value=getattr(operation, name))
    body: dict[str, Any] = {"model": operation.model, "prompt": operation.prompt}
    return with_extra(body | _openai_options(operation), operation.extra)


def image_form(operation: Image) -> list[FormField]:
    """Return the form for the OpenAI routes of pictures from pictures: an edit with a prompt, else a variation.

    Returns:
        Tuples of name, file name or None, content and media type. Several sources are all called `image`.

    Raises:
        InvalidInput: If a variation has more than one source, or a ratio has no standard size.

    >>> form = image_form(Image(model="m", prompt="at night", images=b"GIF89a"))
    >>> [field[0] for field in form], form[-1]
    (['model', 'prompt', 'n', 'response_format', 'image'], ('image', 'image.gif', b'GIF89a', 'image/gif'))
    """
    fields: dict[str, Any] = {"model": operation.model}
    if operation.prompt:
        fields |= {"prompt": operation.prompt} | _native_options(operation)
    elif len(operation.images) > 1:
        count = len(operation.images)
        raise InvalidInput(f"images: a variation has one source image, got {count}", field="images", value=count)
    form = _form(with_extra(fields | _openai_options(operation), operation.extra))
    form += [_file("image", data) for data in operation.images]
    return form if operation.mask is None else [*form, _file("mask", operation.mask)]


def standard_size(ratio: str) -> tuple[int, int] | None:
    """Return the largest size of exactly that ratio with sides of 256 to 1440, multiples of 32, and at most 1024x1024 pixels.

    >>> standard_size("1:1"), standard_size("16:9"), standard_size("99:98")
    ((1024, 1024), (1024, 576), None)
    """
    across, down = (int(side) for side in ratio.split(":"))
    common = math.gcd(across, down)
    across, down = across // common, down // common
    scales = range(_SIDE.stop // max(across, down), 0, -1)
    sizes = ((across * scale, down * scale) for scale in scales)
    return next((size for size in sizes if size[0] in _SIDE and size[1] in _SIDE and size[0] * size[1] <= _AREA), None)


def _size(operation: Image) -> tuple[int, int] | None:
    if operation.aspect_ratio is None:
        return operation.width_and_height
    size = standard_size(operation.aspect_ratio)
    if size is None:
        raise InvalidInput(
            f"aspect_ratio: {operation.model!r} takes a size, and {operation.aspect_ratio!r} has no standard one",
            field="aspect_ratio",
            value=operation.aspect_ratio,
        )
    return size


def _ratio(operation: Image) -> str | None:
    size = operation.width_and_height
    if size is None:
        return operation.aspect_ratio
    common = math.gcd(*size)
    across, down = size[0] // common, size[1] // common
    ratio = "21:9" if (across, down) == (7, 3) else "9:21" if (across, down) == (3, 7) else f"{across}:{down}"
    if max(across, down) > 99 or standard_size(ratio) != size:
        raise InvalidInput(
            f"size: {operation.model!r} takes an aspect_ratio, and {operation.size!r} is not the standard size of one",
            field="size",
            value=operation.size,
        )
    return ratio


def _native_options(operation: Image) -> dict[str, Any]:
    fields = {
        "num_inference_steps": operation.steps,
        "guidance_scale": operation.guidance_scale,
        "negative_prompt": operation.negative_prompt,
        "seed": operation.seed,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _openai_options(operation: Image) -> dict[str, Any]:
    size = _size(operation)
    fields: dict[str, Any] = {"size": f"{size[0]}x{size[1]}"} if size else {}
    fields |= {"n": operation.n, "response_format": "b64_json"}
    return fields if operation.user is None else fields | {"user": operation.user}


def _form(fields: Mapping[str, Any]) -> list[FormField]:
    return [
        (name, None, (value if isinstance(value, str) else dump(value)).encode(), "text/plain; charset=utf-8")
        for name, value in fields.items()
    ]


def _file(name: str, data: bytes) -> FormField:
    media_type = media_type_of(data) or "application/octet-stream"
    return name, f"{name}{SUFFIXES.get(media_type, '')}", data, media_type
