"""Known vectors and new ones, put together so that none is misplaced."""

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from resilient_ai.core.call import Call, Next
from resilient_ai.core.errors import InvalidResponse
from resilient_ai.core.results import EmbedResult
from resilient_ai.core.vectors import Vectors


async def send_texts(call: Call[EmbedResult], proceed: Next[EmbedResult], texts: Sequence[str]) -> EmbedResult:
    """Send `texts` in place of all; an answer with more or fewer vectors is none."""
    operation = call.operation.model_copy(update={"texts": tuple(texts)})
    result = await proceed(call.replace(operation=operation))
    if len(result.vectors) != len(texts):
        raise InvalidResponse(f"{len(result.vectors)} vectors came back for {len(texts)} texts", model=call.model)
    return result


def is_own(call: Call[Any], result: EmbedResult) -> bool:
    """Return whether the model that was asked answered, and not a fallback."""
    return result.served_by in {"", call.model}


def comparable(call: Call[Any], fresh: EmbedResult, known: "Mapping[str, array[float]]") -> bool:
    """Return whether new and known vectors share a space, which those of two models or of two versions of one do not."""
    return is_own(call, fresh) and fresh.dimensions == len(next(iter(known.values())))


def in_order(vectors: "Mapping[str, array[float]]", keys: Sequence[str]) -> Vectors:
    """Return the vectors in the order of `keys`, side by side."""
    return Vectors.join(Vectors(vectors[key], len(vectors[key])) for key in keys)
