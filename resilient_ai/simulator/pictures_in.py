"""The pictures in a prompt: read from data URIs, never fetched."""

import base64
import binascii
import io
from urllib.parse import urlsplit

from PIL import Image, UnidentifiedImageError

from resilient_ai.simulator.errors import WireError

_LARGEST = 20 * 1024 * 1024
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 210),
    "yellow": (240, 220, 60),
    "orange": (240, 150, 40),
    "purple": (140, 60, 170),
    "black": (15, 15, 15),
    "grey": (128, 128, 128),
    "white": (245, 245, 245),
}


def describe(url: str) -> str:
    """What a model sees in a picture given as data URI or address.

    Raises:
        WireError: 400 if the picture cannot be had: a host that ends in `.invalid`, an unreadable or too large file.
    """
    if not url.startswith("data:"):
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in {"http", "https"} or not host or host.endswith(".invalid"):
            raise _failure(f"cannot fetch {url[:100]}")
        return f"a picture from {host}"
    header, _, payload = url.partition(",")
    try:
        data = base64.b64decode(payload, validate=True) if header.endswith(";base64") else b""
    except binascii.Error as error:
        raise _failure("invalid base64") from error
    if len(data) > _LARGEST:
        raise _failure("larger than 20 MB")  # guess: the limit is documented, the refusal is not.
    return _seen(data)


def _seen(data: bytes) -> str:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            width, height, kind = picture.width, picture.height, picture.format
            pixel = picture.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise _failure("not a jpg, png, webp or gif") from error
    colour = pixel if isinstance(pixel, tuple) else (0, 0, 0)
    name = min(_COLOURS, key=lambda c: sum((a - b) ** 2 for a, b in zip(_COLOURS[c], colour, strict=False)))
    return f"a {width} by {height} {kind} picture, mostly {name}"


def _failure(reason: str) -> WireError:
    return WireError(400, f"Failed to download one or more images: {reason}")
