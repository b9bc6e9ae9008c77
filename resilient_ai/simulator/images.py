"""Pictures, on the OpenAI routes and on the native one."""

import base64
import binascii
import io
import random
import time
from dataclasses import dataclass
from decimal import Decimal
from math import sqrt
from typing import Any

import orjson
from PIL import Image, UnidentifiedImageError
from starlette.datastructures import FormData, UploadFile

from resilient_ai.simulator.drawing import draw, format_of
from resilient_ai.simulator.errors import WireError, unsupported
from resilient_ai.simulator.exchange import Exchange, Reply
from resilient_ai.simulator.ids import request_id
from resilient_ai.simulator.image_schemas import ImageRequest, NativeImageRequest, VariationRequest
from resilient_ai.simulator.jsonlike import is_object
from resilient_ai.simulator.pricing import as_float, image_cost
from resilient_ai.simulator.profiles import Profile
from resilient_ai.simulator.validation import parse

RATIOS = ("1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "9:16", "9:21")
BY_RATIO = frozenset({"stabilityai/sd3.5", "stabilityai/sd3.5-medium", "stabilityai/sdxl-turbo"})
_MOST_SEED = 2**32


@dataclass(frozen=True, kw_only=True)
class Order:
    """Pictures to be made."""

    profile: Profile
    prompt: str
    count: int
    width: int
    height: int
    steps: int | None
    seed: int

    def cost(self) -> Decimal | None:
        """USD for all of them."""
        pricing = self.profile.info.pricing.image
        return image_cost(pricing, images=self.count, width=self.width, height=self.height, steps=self.steps)

    def files(self) -> list[bytes]:
        """The files, drawn."""
        kind = format_of(self.profile.info.id)
        return [draw(self.prompt, self.seed + i, self.width, self.height, kind) for i in range(self.count)]


async def generations(exchange: Exchange) -> Reply:
    """Draw pictures for a prompt."""
    return _openai(exchange, parse(ImageRequest, exchange.data))


async def edits(exchange: Exchange) -> Reply:
    """Draw pictures for a prompt and at least one source picture."""
    request = parse(ImageRequest, exchange.data)
    return _openai(exchange, request, sources=_sources(exchange.form))


async def variations(exchange: Exchange) -> Reply:
    """Draw pictures after a source picture."""
    request = parse(VariationRequest, exchange.data)
    return _openai(exchange, request, sources=_sources(exchange.form))


def _openai(exchange: Exchange, request: ImageRequest, sources: int = 0) -> Reply:
    profile = exchange.profile()
    if profile.info.kind != "image":
        # guess: the answer for a model of another kind is not known.
        raise unsupported("Image generation", profile.name, "model")
    width, height = (int(side) for side in request.size.split("x"))
    _check_size(profile, width, height, native=False)
    prompt = f"{request.prompt} (after {sources} pictures)" if sources else request.prompt
    order = _order(
        profile, prompt, (width, height), count=request.n, steps=request.num_inference_steps, seed=request.seed
    )
    exchange.charge(profile, order.cost())
    data = [
        {"b64_json": base64.b64encode(file).decode(), "revised_prompt": None, "url": None} for file in order.files()
    ]
    return Reply(body=orjson.dumps({"created": int(time.time()), "data": data}))


async def native_images(exchange: Exchange, profile: Profile) -> Reply:
    """Draw pictures in the native dialect: parameters in, data URIs and the seed out."""
    cog = exchange.data.get("input")
    if is_object(cog):
        cog = {**cog, "num_images": cog.get("num_outputs", 1)}
    request = parse(NativeImageRequest, cog if is_object(cog) else exchange.data, native=True)
    if request.image is not None:
        _check_source(request.image)
    width, height = _native_size(exchange, profile, request)
    steps = request.num_inference_steps
    order = _order(profile, request.prompt, (width, height), count=request.num_images, steps=steps, seed=request.seed)
    exchange.charge(profile, order.cost())
    kind = "svg+xml" if (kind := format_of(profile.info.id)) == "svg" else kind
    uris = [f"data:image/{kind};base64,{base64.b64encode(file).decode()}" for file in order.files()]
    status: dict[str, Any] = {
        "status": "succeeded",
        "runtime_ms": exchange.runtime_ms,
        "cost": as_float(order.cost()),
        "tokens_generated": None,
        "tokens_input": None,
    }
    if is_object(cog):
        body: dict[str, Any] = {"output": uris, "status": "succeeded", "error": None, "logs": "", "request_id": None}
    else:
        unsafe = [False] * order.count
        body = {"images": uris, "nsfw_content_detected": unsafe, "seed": order.seed, "request_id": request_id()}
    return Reply(body=orjson.dumps({**body, "inference_status": status}))


def _order(
    profile: Profile, prompt: str, size: tuple[int, int], *, count: int, steps: int | None, seed: int | None
) -> Order:
    drawn = random.randrange(_MOST_SEED) if seed is None else seed
    return Order(profile=profile, prompt=prompt, count=count, width=size[0], height=size[1], steps=steps, seed=drawn)


def _native_size(exchange: Exchange, profile: Profile, request: NativeImageRequest) -> tuple[int, int]:
    pricing = profile.info.pricing.image
    usual = (pricing.default_width if pricing else None) or 1024, (pricing.default_height if pricing else None) or 1024
    if profile.info.id in BY_RATIO:
        # guess: whether these models refuse or ignore width and height is not known.
        if exchange.settings.strict_aspect_ratio and (request.width or request.height):
            raise WireError(422, "width and height are not supported, use aspect_ratio")
        return _by_ratio(request.aspect_ratio or "1:1", usual[0])
    width, height = request.width or usual[0], request.height or usual[1]
    _check_size(profile, width, height, native=True)
    return width, height


def _by_ratio(ratio: str, side: int) -> tuple[int, int]:
    """Sides in steps of 32 pixels, of the area of a square with the usual side."""
    if ratio not in RATIOS:
        raise WireError(
            422, f"Input should be one of {', '.join(RATIOS)}", shape="validation", loc=("aspect_ratio",), kind="enum"
        )
    across, down = (int(part) for part in ratio.split(":"))
    scale = side / sqrt(across * down)
    return round(across * scale / 32) * 32, round(down * scale / 32) * 32


def _check_size(profile: Profile, width: int, height: int, *, native: bool) -> None:
    """422 for sides that the model cannot draw."""
    family = profile.info.id
    if "FLUX" in family:
        good = all(side % 32 == 0 and 256 <= side <= 1440 for side in (width, height))
        rule = "multiples of 32 from 256 to 1440"
    else:
        # guess: the limits of other families are not documented.
        good, rule = all(64 <= side <= 4096 for side in (width, height)), "from 64 to 4096"
    if not good:
        message = f"width and height must be {rule}, got {width}x{height}"
        # guess: the words and the status of this refusal are not known.
        raise WireError(422, message, param=None if native else "size")


def _sources(form: FormData | None) -> int:
    files = [] if form is None else [f for f in form.getlist("image") if isinstance(f, UploadFile)]
    if not files:
        raise WireError(422, "Field required", param="image", code="missing_required_parameter")
    for file in files:
        _open(file.file.read(), param="image")
    return len(files)


def _check_source(image: str) -> None:
    payload = image.partition(",")[2] if image.startswith("data:") else image
    try:
        data = base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise WireError(422, "image is no data URI") from error  # guess: as for the sizes.
    _open(data, param=None)


def _open(data: bytes, param: str | None) -> None:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.verify()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise WireError(422, "image cannot be read", param=param) from error  # guess: as for the sizes.
