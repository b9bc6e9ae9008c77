"""DeepInfra as the leaf of a pipeline, and the factories of its bare models."""

import hashlib
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from typing_extensions import override

from resilient_ai._version import __version__
from resilient_ai.core.call import Call
from resilient_ai.core.checks import check_seconds
from resilient_ai.core.errors import ConfigurationError, InvalidInput
from resilient_ai.core.operations import Stream
from resilient_ai.deepinfra.catalogue import warn_if_retired
from resilient_ai.deepinfra.embedding_model import DeepInfraEmbeddingModel, send_embed
from resilient_ai.deepinfra.exchange import is_header
from resilient_ai.deepinfra.image_model import DeepInfraImageModel, send_image
from resilient_ai.deepinfra.language_model import DeepInfraLanguageModel, send_chat, send_complete, send_stream

if TYPE_CHECKING:
    import httpx

    from resilient_ai.deepinfra.catalogue.ids import ChatModel, CompletionModel, EmbeddingModel, ImageModel

R = TypeVar("R")

BASE_URL = "https://api.deepinfra.com/v1"
KEY_VARIABLES = ("DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN", "DEEPINFRA_API_TOKEN")
_LOOPBACK = re.compile(r"^(localhost|127(\.\d{1,3}){3}|::1)$")
_SENDERS = {
    "chat": send_chat,
    "stream": send_stream,
    "complete": send_complete,
    "embed": send_embed,
    "image": send_image,
}


class DeepInfraProvider:
    """Sends operations to DeepInfra, or to any server that speaks its wire, one request each.

    Alone it is the bare models; in a `Pipeline` it is the leaf.

    Args:
        api_key: The key; by default the first of DEEPINFRA_API_KEY, DEEPINFRA_TOKEN, DEEPINFRA_API_TOKEN that is set. It goes to
            `base_url` and nowhere else.
        base_url: The part of the address before `/openai` and `/inference`. Plain `http` is for this machine only.
        http: An `httpx.AsyncClient` or `httpx.AsyncBaseTransport` of your own, for proxies, certificates, limits; you close it.
        headers: Sent with every request.
        connect_timeout: Seconds for a connection.

    Attributes:
        transport: What opens connections, for whatever else is asked of the same server.

    Raises:
        ConfigurationError: If there is no key, or a value cannot be used.

    >>> DeepInfraProvider(api_key="secret")
    DeepInfraProvider(base_url='https://api.deepinfra.com/v1')
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str = BASE_URL,
        http: "httpx.AsyncClient | httpx.AsyncBaseTransport | None" = None,
        headers: Mapping[str, str] | None = None,
        connect_timeout: float = 5.0,
    ) -> None:
        try:
            check_seconds("connect_timeout", connect_timeout)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self.origin = _checked_url(base_url)
        from resilient_ai.deepinfra.transport import Transport  # noqa: PLC0415 - a network library takes long to import

        own = _checked_headers({"User-Agent": f"resilient-ai/{__version__}", **(headers or {})})
        key = _find_key(api_key)
        self.account = hashlib.blake2b(key.encode(), digest_size=8, person=b"resilient_ai").hexdigest()
        self.transport = Transport(self.origin, key, own, http=http, connect_timeout=connect_timeout)

    async def __call__(self, call: Call[R], /) -> R:
        """Send the operation of `call` once and read its answer."""
        operation = call.operation
        if operation.fallbacks:
            raise InvalidInput(
                "model: a list of models needs Routing in the stack", field="model", value=operation.models
            )
        if isinstance(operation, Stream) and operation.on_interrupt not in {None, "raise"}:
            raise InvalidInput(
                f"on_interrupt: {operation.on_interrupt!r} needs Resume in the stack",
                field="on_interrupt",
                value=operation.on_interrupt,
            )
        warn_if_retired(operation.model)
        # The kind of an operation fixes its result type, which no type checker can follow through a table.
        send = cast("Any", _SENDERS[operation.kind])
        return cast("R", await send(self.transport, call, operation))

    def language_model(self, model: "ChatModel | CompletionModel | str") -> DeepInfraLanguageModel:
        """Return a language model without any middleware."""
        return DeepInfraLanguageModel(model, self)

    def embedding_model(self, model: "EmbeddingModel | str") -> DeepInfraEmbeddingModel:
        """Return an embedding model without any middleware."""
        return DeepInfraEmbeddingModel(model, self)

    def image_model(self, model: "ImageModel | str") -> DeepInfraImageModel:
        """Return an image model without any middleware."""
        return DeepInfraImageModel(model, self)

    async def aclose(self) -> None:
        """Close the connections that were opened here."""
        await self.transport.aclose()

    @override
    def __repr__(self) -> str:
        return f"DeepInfraProvider(base_url={self.origin!r})"


def _find_key(api_key: str | None) -> str:
    key = api_key if api_key is not None else next(filter(None, map(os.environ.get, KEY_VARIABLES)), "")
    key = key.strip()
    if not key:
        raise ConfigurationError(
            "no API key: pass api_key=..., or set DEEPINFRA_API_KEY (DEEPINFRA_TOKEN and DEEPINFRA_API_TOKEN work as well); "
            "keys are made at https://deepinfra.com/dash/api_keys"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("api_key: holds a space, a line break or a character no key has")
    return key


def _checked_url(base_url: str) -> str:
    url = base_url.rstrip("/").removesuffix("/openai")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"base_url: must be like {BASE_URL!r}, got {base_url!r}")
    if parts.username or parts.password:
        raise ConfigurationError("base_url: must not hold a user or password")
    if parts.scheme == "http" and not _LOOPBACK.match(parts.hostname):
        raise ConfigurationError(f"base_url: the key must not travel unencrypted; use https instead of {base_url!r}")
    return url


def _checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not is_header(name, value):
            raise ConfigurationError(f"headers: {name!r} holds a line break or a character no header may have")
    return headers
