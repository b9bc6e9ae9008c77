"""What spans say about a call: settings, counts and outcomes, never content."""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from resilient_ai.core.call import Call
from resilient_ai.core.errors import AttemptTimeout, BudgetExceeded, BudgetUnavailable, DeadlineExceeded, StatusError
from resilient_ai.core.operations import Conversation, Embed, Image, Sampling
from resilient_ai.core.results import ChatResult, Cost, EmbedResult, ImageResult, Result, Usage
from resilient_ai.middleware import _semconv as names
from resilient_ai.middleware._conventions import Conventions
from resilient_ai.middleware._outcome import error_type

Attribute = str | bool | int | float | Sequence[str]
Attributes = dict[str, Attribute]
# Where None stands for what is not known, and is taken out by `known`.
Loose = dict[str, Attribute | None]

_LARGEST_INT = 2**63 - 1  # what a span can hold; a seed may be larger
_OUTPUT_TYPES = {"text": "text", "regex": "text", "json_object": "json", "json_schema": "json"}
_WHO = {"user": names.USER_ID, "session": names.SESSION_ID}
_TAGS = {**_WHO, "conversation": names.CONVERSATION_ID, "tenant": names.TENANT}
# The values of tags that stand behind the name of a budget.
_SCOPE = re.compile(r" ?\b[^ =]+=.*")


@lru_cache(maxsize=64)
def server_of(origin: str) -> Mapping[str, Attribute]:
    """Return the address and port of an origin.

    >>> server_of("https://api.deepinfra.com/v1")
    {'server.address': 'api.deepinfra.com', 'server.port': 443}
    """
    parts = urlsplit(origin)
    if not parts.hostname:
        return {}
    return {
        names.SERVER_ADDRESS: parts.hostname,
        names.SERVER_PORT: parts.port or (80 if parts.scheme == "http" else 443),
    }


def start_attributes(call: Call[Any], provider: str) -> Attributes:
    """Return the five attributes that a sampler may decide by."""
    return {
        names.OPERATION_NAME: names.OPERATION_NAMES[call.operation.kind],
        names.PROVIDER_NAME: provider,
        names.REQUEST_MODEL: call.model,
        **server_of(call.origin),
    }


def request_attributes(call: Call[Any], shown: Sequence[str] = ()) -> Loose:
    """Return what was asked, as far as it is a setting, and the tags of the call that are `shown`."""
    operation = call.operation
    found: Loose = {names.CALL_ID: call.id}
    if call.tags:
        found |= {name: call.tags.get(tag) for tag, name in _TAGS.items()}
        found[names.TAGS] = [f"{tag}:{call.tags[tag]}" for tag in shown if tag in call.tags] or None
    if isinstance(operation, Sampling):
        found |= _sampling_attributes(operation)
    elif isinstance(operation, Embed):
        found[names.BATCH_SIZE] = len(operation.texts)
        found[names.EMBEDDINGS_DIMENSION_COUNT] = operation.dimensions
        if "encoding" in operation.model_fields_set:
            found[names.REQUEST_ENCODING_FORMATS] = [operation.encoding]
    elif isinstance(operation, Image):
        found[names.OUTPUT_TYPE] = "image"
        found[names.REQUEST_CHOICE_COUNT] = operation.n if operation.n != 1 else None
        found[names.REQUEST_SEED] = _fitting(operation.seed)
        found[names.IMAGE_SIZE] = operation.size
    return found


def _sampling_attributes(operation: Sampling[Any]) -> Loose:
    wanted = operation.response_format
    return {
        names.OUTPUT_TYPE: _OUTPUT_TYPES[wanted.type] if wanted else None,
        names.REQUEST_CHOICE_COUNT: operation.n if operation.n != 1 else None,
        names.REQUEST_SEED: _fitting(operation.seed),
        names.REQUEST_STREAM: True if operation.kind == "stream" else None,
        names.REQUEST_TOP_K: operation.top_k,
        names.REQUEST_TOP_P: operation.top_p,
        names.REQUEST_MAX_TOKENS: operation.max_tokens,
        names.REQUEST_TEMPERATURE: operation.temperature,
        names.REQUEST_FREQUENCY_PENALTY: operation.frequency_penalty,
        names.REQUEST_PRESENCE_PENALTY: operation.presence_penalty,
        names.REQUEST_STOP_SEQUENCES: list(operation.stop) or None,
        names.REQUEST_REASONING_LEVEL: operation.reasoning_effort if isinstance(operation, Conversation) else None,
        names.SERVICE_TIER: operation.service_tier,
    }


def who_attributes(tags: Mapping[str, str]) -> Attributes:
    """Return for whom a call is, as backends want it on every span; never `gen_ai.*`."""
    return known({name: tags.get(tag) for tag, name in _WHO.items()}) if tags else {}


def result_attributes(result: Result, conventions: Conventions, *, cached: bool) -> Loose:
    """Return what came back. Usage is left out for a cache hit: nobody counted or billed those tokens this time."""
    found: Loose = {
        names.RESPONSE_ID: result.request_id,
        names.RESPONSE_MODEL: result.model,
    }
    if isinstance(result, ChatResult):
        unknown = "error" if conventions == "latest" else None
        reasons = [choice.finish_reason or unknown for choice in result.choices]
        found[names.RESPONSE_FINISH_REASONS] = [reason for reason in reasons if reason is not None] or None
    elif isinstance(result, EmbedResult):
        found[names.EMBEDDINGS_DIMENSION_COUNT] = result.dimensions
    elif isinstance(result, ImageResult):
        found[names.IMAGE_COUNT] = len(result.images)
    if result.usage is not None and not cached:
        found |= _usage_attributes(result.usage, conventions)
    return found


def _usage_attributes(usage: Usage, conventions: Conventions) -> Loose:
    written = usage.cache_write_tokens or None
    return {
        names.USAGE_INPUT_TOKENS: usage.input_tokens,
        names.USAGE_OUTPUT_TOKENS: usage.output_tokens,
        names.USAGE_CACHE_READ: usage.cached_tokens or None,
        names.USAGE_CACHE_CREATION: None if conventions == "latest" else written,
        names.USAGE_CACHE_WRITE: None if conventions == "1.41" else written,
        names.USAGE_REASONING: usage.reasoning_tokens or None,
    }


def record_attributes(call: Call[Any], result: Result | None, fallbacks: Collection[str] = ()) -> Loose:
    """Return what the call took: attempts, cache, cost, its route, and which of the `fallbacks` has served it."""
    record = call.record
    cost = record.cost_of(result)
    first = next((entry for entry in record.considered if entry.place == 1), None) if record.considered else None
    return {
        names.ATTEMPTS: record.sends,
        names.CACHE_OUTCOME: record.cache if record.cache != "off" else None,
        names.CACHE_AGE: record.age,
        names.ROUTE: None if first is None else first.model,
        names.ROUTE_REASON: None if first is None else first.why,
        names.FALLBACK_MODEL: result.served_by if result and result.served_by in fallbacks else None,
        **_cost_attributes(cost),
    }


def _cost_attributes(cost: Cost | None) -> Loose:
    if cost is None:
        return {}
    return {
        names.COST_AMOUNT: float(cost.amount),
        names.COST_CURRENCY: cost.currency,
        names.COST_SOURCE: cost.source,
        names.COST_WASTED: float(cost.wasted) if cost.wasted else None,
        names.COST_COMPLETE: None if cost.complete else False,
    }


def error_attributes(error: BaseException) -> Attributes:
    """Return what kind of failure it was; never its message, which may quote the prompt."""
    found: Loose = {
        names.ERROR_TYPE: error_type(error),
        names.ERROR_CLASS: type(error).__name__,
    }
    if isinstance(error, AttemptTimeout):
        found[names.TIMEOUT_PHASE] = error.timer
    elif isinstance(error, DeadlineExceeded):
        found[names.TIMEOUT_PHASE] = "total"
    elif isinstance(error, BudgetExceeded | BudgetUnavailable):
        found[names.BUDGET_NAME] = _SCOPE.sub("", error.budget) or None
    return known(found)


def attempt_end_attributes(error: BaseException | None, cost: Cost | None) -> Attributes:
    """Return how one attempt ended."""
    found: Loose = {names.COST_AMOUNT: None if cost is None else float(cost.amount)}
    if error is not None:
        found |= error_attributes(error)
        found[names.HTTP_STATUS] = error.status if isinstance(error, StatusError) else None
    return known(found)


def _fitting(number: int | None) -> int | None:
    return number if number is not None and abs(number) <= _LARGEST_INT else None


def known(found: Mapping[str, Attribute | None]) -> Attributes:
    """Return what is known: a span would keep None as if it were a value."""
    return {name: value for name, value in found.items() if value is not None}
