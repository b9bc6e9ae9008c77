"""Native inference: one address, and the model decides what is done."""

import orjson

from resilient_ai.simulator.completions import native_text
from resilient_ai.simulator.embeddings import native_embeddings
from resilient_ai.simulator.errors import WireError
from resilient_ai.simulator.exchange import Exchange, Reply
from resilient_ai.simulator.ids import request_id
from resilient_ai.simulator.images import native_images
from resilient_ai.simulator.rerank import native_rerank


async def inference(exchange: Exchange) -> Reply:
    """Answer a native request in the way of its model's kind; with a webhook it is only said to be queued."""
    profile = exchange.profile()
    if exchange.data.get("webhook"):
        # The result is never delivered: the simulator opens no connection of its own.
        queued = {"status": "queued", "runtime_ms": 0, "cost": 0.0, "tokens_generated": None, "tokens_input": None}
        return Reply(body=orjson.dumps({"request_id": request_id(), "inference_status": queued}))
    kind = profile.info.kind
    if kind == "image":
        return await native_images(exchange, profile)
    if kind == "embedding":
        return await native_embeddings(exchange, profile)
    if kind == "rerank":
        return await native_rerank(exchange, profile)
    if kind in {"chat", "completion", "ocr"}:
        return await native_text(exchange, profile)
    # Sound and video are not simulated.
    raise WireError(405, f"Inference is not simulated for model: {profile.name}")
