"""Reranking: one score for each document, in the order of the documents."""

from itertools import repeat

import orjson

from resilient_ai.simulator.errors import WireError
from resilient_ai.simulator.exchange import Exchange, Reply
from resilient_ai.simulator.generation import admit
from resilient_ai.simulator.ids import request_id
from resilient_ai.simulator.pricing import as_float, token_cost
from resilient_ai.simulator.profiles import Profile
from resilient_ai.simulator.schemas import RerankRequest
from resilient_ai.simulator.tokens import count
from resilient_ai.simulator.validation import parse
from resilient_ai.simulator.vectors import vector

_DIMENSIONS = 256


async def native_rerank(exchange: Exchange, profile: Profile) -> Reply:
    """Score documents against one query, or against one query each."""
    request = parse(RerankRequest, exchange.data, native=True)
    tier = await admit(exchange, profile, request.service_tier)
    queries = _queries(request)
    pairs = list(zip(queries, request.documents, strict=False))
    tokens = sum(count(query) + count(document) for query, document in pairs)
    cost = token_cost(profile.info.pricing, prompt=tokens, tier=tier)
    exchange.charge(profile, cost)
    body = {
        "scores": [score(query, document) for query, document in pairs],
        "input_tokens": tokens,
        "request_id": request_id(),
        "inference_status": {
            "status": "succeeded",
            "runtime_ms": exchange.runtime_ms,
            "cost": as_float(cost),
            "tokens_generated": 0,
            "tokens_input": tokens,
        },
    }
    return Reply(body=orjson.dumps(body))


def score(query: str, document: str) -> float:
    """How near a document is to a query, from 0 to 1."""
    likeness = sum(a * b for a, b in zip(vector(query, _DIMENSIONS), vector(document, _DIMENSIONS), strict=True))
    return round(min(1.0, max(0.0, (likeness + 1) / 2)), 4)


def _queries(request: RerankRequest) -> list[str]:
    size = len(request.documents)
    if request.queries is not None:
        if len(request.queries) not in {1, size}:
            # guess: what happens to lists of different lengths is not known.
            raise WireError(422, "queries and documents differ in length", shape="validation", loc=("queries",))
        return request.queries * (size if len(request.queries) == 1 else 1)
    if request.query is None:
        raise WireError(422, "Field required", shape="validation", loc=("query",), kind="missing")
    return list(repeat(request.query, size))
