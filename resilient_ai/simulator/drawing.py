"""Pictures drawn from a prompt and a seed."""

import io
import random
from functools import lru_cache
from typing import Literal
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageOps

Format = Literal["jpeg", "png", "webp", "svg"]

# The formats are loaded here and not inside the server's loop, which must not wait for files.
Image.init()


@lru_cache(maxsize=128)
def draw(prompt: str, seed: int, width: int, height: int, kind: Format) -> bytes:
    r"""The bytes of a picture; the same arguments give the same bytes.

    >>> draw("a lighthouse", 7, 64, 64, "png")[:4]
    b'\x89PNG'
    """
    chance = random.Random(f"{prompt}\n{seed}")
    low, high, accent = (_colour(chance) for _ in range(3))
    if kind == "svg":
        return _svg(prompt, width, height, low, accent)
    gradient = Image.linear_gradient("L").rotate(chance.choice([0, 90, 180, 270])).resize((width, height))
    picture = ImageOps.colorize(gradient, low, high)
    pen = ImageDraw.Draw(picture)
    for _ in range(chance.randint(3, 6)):
        x, y = chance.randrange(width), chance.randrange(height)
        radius = chance.randrange(min(width, height) // 16, min(width, height) // 4)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=accent if chance.random() < 0.5 else high)
    pen.text((width // 32, height // 32), prompt[:80].encode("ascii", "replace").decode(), fill="white")
    target = io.BytesIO()
    picture.save(target, kind, **_OPTIONS[kind])
    return target.getvalue()


_OPTIONS: dict[Format, dict[str, int]] = {
    "jpeg": {"quality": 85},
    "png": {"compress_level": 1},
    "webp": {"quality": 80, "method": 0},
}


def _colour(chance: random.Random) -> tuple[int, int, int]:
    return chance.randrange(256), chance.randrange(256), chance.randrange(256)


def _svg(prompt: str, width: int, height: int, low: tuple[int, int, int], accent: tuple[int, int, int]) -> bytes:
    circle = f'<circle cx="{width // 2}" cy="{height // 2}" r="{min(width, height) // 4}" fill="rgb{accent}"/>'
    ground = f'<rect width="{width}" height="{height}" fill="rgb{low}"/>'
    title = f"<title>{escape(prompt)}</title>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
    return f"{head}{title}{ground}{circle}</svg>".encode()


def format_of(model: str) -> Format:
    """The file format of a model's pictures; most send JPEG."""
    if "vector" in model:
        return "svg"
    if model.startswith(("stabilityai/", "CompVis/", "runwayml/", "PrunaAI/")):
        return "png"
    return "webp" if model.startswith(("Qwen/", "Wan-AI/")) else "jpeg"
