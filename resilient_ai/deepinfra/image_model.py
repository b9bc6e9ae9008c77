"""Image models: pictures from words, edits and variations of pictures."""

from typing import TYPE_CHECKING, Any, Unpack

from typing_extensions import override

from resilient_ai.core.call import Call
from resilient_ai.core.operations import Image
from resilient_ai.core.options import ImageOptions
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import ImageResult
from resilient_ai.deepinfra.embedding_model import native_path
from resilient_ai.deepinfra.exchange import LARGE_LIMIT, Multipart, exchange
from resilient_ai.deepinfra.wire.images import (
    FormField,
    image_body,
    image_form,
    image_style,
    native_image_body,
)
from resilient_ai.deepinfra.wire.pictures import read_images, read_native_images

if TYPE_CHECKING:
    from resilient_ai.core.pipeline import Provider
    from resilient_ai.deepinfra.transport import Transport


class DeepInfraImageModel:
    """One image model without any middleware.

    >>> from resilient_ai.testing import ScriptedProvider, run
    >>> model = DeepInfraImageModel("black-forest-labs/FLUX-1-schnell", ScriptedProvider())
    >>> run(model.image("a lighthouse")).images[0].media_type
    'image/png'
    """

    def __init__(self, model: str, provider: "Provider") -> None:
        self.model = model
        self._pipeline = Pipeline(provider)

    async def image(self, prompt: str = "", **options: Unpack[ImageOptions]) -> ImageResult:
        """Return pictures."""
        return await self._pipeline.send(Image(model=self.model, prompt=prompt, **options))

    @override
    def __repr__(self) -> str:
        return f"DeepInfraImageModel({self.model!r})"


async def send_image(transport: "Transport", call: Call[Any], operation: Image) -> ImageResult:
    """Send an `Image` and read its pictures: the native route for words, the OpenAI one for edits and variations."""
    if operation.route == "native" or (operation.route == "auto" and not operation.images):
        body = native_image_body(operation, takes=image_style(operation.model))
        path = native_path(operation.model)
        async with exchange(transport, call, path, body, own_connection=True) as reply:
            return read_native_images(await reply.read(LARGE_LIMIT), operation=operation, headers=reply.headers)
    path, form = _openai_request(operation)
    async with exchange(transport, call, path, form, own_connection=True) as reply:
        return read_images(await reply.read(LARGE_LIMIT), operation=operation, headers=reply.headers)


def _openai_request(operation: Image) -> tuple[str, Multipart | dict[str, Any]]:
    if not operation.images:
        return "/openai/images/generations", image_body(operation)
    return f"/openai/images/{'edits' if operation.prompt else 'variations'}", _encode(image_form(operation))


def _encode(fields: list[FormField]) -> Multipart:
    import httpx  # noqa: PLC0415 - only forms need it here, and it takes long to import

    # httpx writes the form; the request it needs for that goes nowhere.
    files = [(name, (filename, content, media_type)) for name, filename, content, media_type in fields]
    form = httpx.Request("POST", "https://form.invalid", files=files)
    return Multipart(form.read(), form.headers["content-type"])
