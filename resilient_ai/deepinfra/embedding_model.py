"""Embedding models."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote

from typing_extensions import override

from resilient_ai.core.call import Call
from resilient_ai.core.operations import Embed
from resilient_ai.core.options import EmbedOptions
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import EmbedResult
from resilient_ai.deepinfra.exchange import LARGE_LIMIT, exchange
from resilient_ai.deepinfra.wire.embeddings import (
    embedding_body,
    native_embedding_body,
    read_embeddings,
    read_native_embeddings,
)

if TYPE_CHECKING:
    from resilient_ai.core.pipeline import Provider
    from resilient_ai.deepinfra.transport import Transport


class DeepInfraEmbeddingModel:
    """One embedding model without any middleware; a call holds at most 1,024 texts.

    >>> from resilient_ai.testing import ScriptedProvider, run
    >>> len(run(DeepInfraEmbeddingModel("BAAI/bge-m3", ScriptedProvider()).embed(["a", "b"])).vectors)
    2
    """

    def __init__(self, model: str, provider: "Provider") -> None:
        self.model = model
        self._pipeline = Pipeline(provider)

    async def embed(self, texts: str | Sequence[str], **options: Unpack[EmbedOptions]) -> EmbedResult:
        """Return one vector per text, in input order."""
        return await self._pipeline.send(Embed(model=self.model, texts=texts, **options))

    @override
    def __repr__(self) -> str:
        return f"DeepInfraEmbeddingModel({self.model!r})"


async def send_embed(transport: "Transport", call: Call[Any], operation: Embed) -> EmbedResult:
    """Send an `Embed` and read its vectors; `normalize` takes the native route, which alone knows it."""
    if operation.normalize is None:
        async with exchange(transport, call, "/openai/embeddings", embedding_body(operation)) as reply:
            return read_embeddings(await reply.read(LARGE_LIMIT), operation=operation, headers=reply.headers)
    path = native_path(operation.model)
    async with exchange(transport, call, path, native_embedding_body(operation)) as reply:
        return read_native_embeddings(await reply.read(LARGE_LIMIT), operation=operation, headers=reply.headers)


def native_path(model: str) -> str:
    """Return the native route of a model: slashes stay, a pinned version becomes a query.

    >>> native_path("BAAI/bge-m3"), native_path("a/b:v1"), native_path("deploy_id:42")
    ('/inference/BAAI/bge-m3', '/inference/a/b?version=v1', '/inference/deploy/42')
    """
    if model.startswith("deploy_id:"):
        return f"/inference/deploy/{quote(model.removeprefix('deploy_id:'))}"
    name, _, version = model.rpartition(":") if ":" in model else (model, "", "")
    return f"/inference/{quote(name)}" + (f"?version={quote(version)}" if version else "")
