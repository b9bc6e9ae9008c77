"""What spans say about a call: settings, counts and outcomes, never content."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from resilient_ai.core import semconv as names
from resilient_ai.core._told import told_name
from resilient_ai.core.call import FOR_NOTHING, Call
from resilient_ai.core.errors import AttemptTimeout, BudgetExceeded, BudgetUnavailable, DeadlineExceeded
from resilient_ai.core.operations import Conversation, Embed, Image, Sampling
from resilient_ai.core.results import ChatResult, EmbedResult, ImageResult, Result, Usage
from resilient_ai.middleware._conventions import Conventions
from resilient_ai.middleware._outcome import error_type, told_word

Attribute = str | bool | int | float | Sequence[str]
Attributes = dict[str, Attribute]

# Sets of attributes to begin with that are kept, as nearly all calls begin alike.
_MOST_KEPT = 1024
_LARGEST_INT = 2**63 - 1  # what a span can hold; a seed may be larger
_SETTINGS = (
    ("top_k", names.REQUEST_TOP_K),
    ("top_p", names.REQUEST_TOP_P),
    ("max_tokens", names.REQUEST_MAX_TOKENS),
    ("temperature", names.REQUEST_TEMPERATURE),
    ("frequency_penalty", names.REQUEST_FREQUENCY_PENALTY),
    ("presence_penalty", names.REQUEST_PRESENCE_PENALTY),
    ("service_tier", names.SERVICE_TIER),
)
_SAMPLING_FIELDS = frozenset({*dict(_SETTINGS), "n", "reasoning_effort", "response_format", "seed", "stop"})
_OUTPUT_TYPES = {"text": "text", "regex": "text", "json_object": "json", "json_schema": "json"}
# The words of the service; others are looked at more closely.
_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter"})
_WHO = {"user": names.USER_ID, "session": names.SESSION_ID}
_TAGS = {**_WHO, "conversation": names.CONVERSATION_ID, "tenant": names.TENANT}


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


@lru_cache(maxsize=_MOST_KEPT)
def start_of(kind: str, provider: str, model: str, origin: str) -> tuple[str, Mapping[str, Attribute]]:
    """Return the name of the span of a call, and the five attributes that a sampler may decide by.

    >>> name, begun = start_of("embed", "deepinfra", "BAAI/bge-m3", "")
    >>> name, begun["gen_ai.operation.name"]
    ('embeddings BAAI/bge-m3', 'embeddings')
    """
    operation = names.OPERATION_NAMES[kind]
    begun: Attributes = {
        names.OPERATION_NAME: operation,
        names.PROVIDER_NAME: provider,
        names.REQUEST_MODEL: model,
        **server_of(origin),
    }
    return f"{operation} {model}".rstrip(), MappingProxyType(begun)


# The functions from here on add to what is `found`, and only what is known: a span would keep None as if it were a value. One
# mapping for all of a call is the cheapest way, and each of them is filled for every call.


def add_request(found: Attributes, call: Call[Any], shown: Sequence[str] = ()) -> None:
    """Add what was asked, as far as it is a setting, and the tags of the call that are `shown`."""
    operation = call.operation
    found[names.CALL_ID] = call.id
    if call.tags:
        _add_tags(found, call.tags, shown)
    if isinstance(operation, Sampling):
        if operation.kind == "stream":
            found[names.REQUEST_STREAM] = True
        if not _SAMPLING_FIELDS.isdisjoint(operation.model_fields_set):  # most calls set none
            _add_sampling(found, operation)
    elif isinstance(operation, Embed):
        found[names.BATCH_SIZE] = len(operation.texts)
        if operation.dimensions is not None:
            found[names.EMBEDDINGS_DIMENSION_COUNT] = operation.dimensions
        if "encoding" in operation.model_fields_set:
            found[names.REQUEST_ENCODING_FORMATS] = [operation.encoding]
    elif isinstance(operation, Image):
        found[names.OUTPUT_TYPE] = "image"
        _add_number_and_seed(found, operation)
        if operation.size is not None:
            found[names.IMAGE_SIZE] = operation.size


def _add_tags(found: Attributes, tags: Mapping[str, str], shown: Sequence[str]) -> None:
    for tag, name in _TAGS.items():
        if tag in tags:
            found[name] = tags[tag]
    told = [f"{tag}:{tags[tag]}" for tag in shown if tag in tags]
    if told:
        found[names.TAGS] = told


def _add_sampling(found: Attributes, operation: Sampling[Any]) -> None:
    _add_number_and_seed(found, operation)
    if operation.response_format is not None:
        found[names.OUTPUT_TYPE] = _OUTPUT_TYPES[operation.response_format.type]
    if operation.stop:
        found[names.REQUEST_STOP_SEQUENCES] = list(operation.stop)
    for field, name in _SETTINGS:
        value: Attribute | None = getattr(operation, field)
        if value is not None:
            found[name] = value
    if isinstance(operation, Conversation) and operation.reasoning_effort is not None:
        found[names.REQUEST_REASONING_LEVEL] = operation.reasoning_effort


def _add_number_and_seed(found: Attributes, operation: Sampling[Any] | Image) -> None:
    if operation.n != 1:
        found[names.REQUEST_CHOICE_COUNT] = operation.n
    seed = operation.seed
    if seed is not None and abs(seed) <= _LARGEST_INT:
        found[names.REQUEST_SEED] = seed


def who_attributes(tags: Mapping[str, str]) -> Attributes:
    """Return for whom a call is, as backends want it on every span; never `gen_ai.*`."""
    return {name: tags[tag] for tag, name in _WHO.items() if tag in tags} if tags else {}


def add_result(found: Attributes, call: Call[Any], result: Result, conventions: Conventions) -> None:
    """Add what came back. Usage is left out for a cache hit: nobody counted or billed those tokens this time.

    A server may write anything where an id or the name of a model belongs; what is no name is left out.
    """
    if result.request_id is not None and (told := told_name(result.request_id)) is not None:
        found[names.RESPONSE_ID] = told
    model = result.model
    if model == call.operation.model or told_word(model) is not None:
        found[names.RESPONSE_MODEL] = model
    if isinstance(result, ChatResult):
        reasons: list[str] = []
        for choice in result.choices:
            reason = choice.finish_reason
            if reason:
                reasons.append(reason if reason in _REASONS else told_word(reason) or "other")
            elif conventions == "latest":
                reasons.append("error")
        if reasons:
            found[names.RESPONSE_FINISH_REASONS] = reasons
    elif isinstance(result, EmbedResult):
        found[names.EMBEDDINGS_DIMENSION_COUNT] = result.dimensions
    elif isinstance(result, ImageResult):
        found[names.IMAGE_COUNT] = len(result.images)
    if result.usage is not None and call.record.cache not in FOR_NOTHING:
        _add_usage(found, result.usage, conventions)


def _add_usage(found: Attributes, usage: Usage, conventions: Conventions) -> None:
    if usage.input_tokens is not None:
        found[names.USAGE_INPUT_TOKENS] = usage.input_tokens
    if usage.output_tokens is not None:
        found[names.USAGE_OUTPUT_TOKENS] = usage.output_tokens
    if usage.cached_tokens:
        found[names.USAGE_CACHE_READ] = usage.cached_tokens
    if usage.reasoning_tokens:
        found[names.USAGE_REASONING] = usage.reasoning_tokens
    if usage.cache_write_tokens:
        if conventions != "latest":
            found[names.USAGE_CACHE_CREATION] = usage.cache_write_tokens
        if conventions != "1.41":
            found[names.USAGE_CACHE_WRITE] = usage.cache_write_tokens


def add_record(found: Attributes, call: Call[Any], result: Result | None, fallbacks: Collection[str] = ()) -> None:
    """Add what the call took: attempts, cache, cost, its route, and which of the `fallbacks` has served it."""
    record = call.record
    found[names.ATTEMPTS] = record.sends
    if record.cache != "off":
        found[names.CACHE_OUTCOME] = record.cache
    if record.age is not None:
        found[names.CACHE_AGE] = record.age
    if record.considered:
        first = next((entry for entry in record.considered if entry.place == 1), None)
        if first is not None:
            found[names.ROUTE] = first.model
            found[names.ROUTE_REASON] = first.why
    if fallbacks and result is not None and result.served_by in fallbacks:
        found[names.FALLBACK_MODEL] = result.served_by
    cost = record.cost_of(result)
    if cost is None:
        if record.costs:  # of none of them it is known
            found[names.COST_COMPLETE] = False
        return
    found[names.COST_AMOUNT] = float(cost.amount)
    found[names.COST_CURRENCY] = cost.currency
    found[names.COST_SOURCE] = cost.source
    if cost.wasted:
        found[names.COST_WASTED] = float(cost.wasted)
    if not cost.complete:
        found[names.COST_COMPLETE] = False


def add_error(found: Attributes, error: BaseException) -> None:
    """Add what kind of failure it was; never its message, which may quote the prompt."""
    found[names.ERROR_TYPE] = error_type(error)
    found[names.ERROR_CLASS] = type(error).__name__
    if isinstance(error, AttemptTimeout):
        found[names.TIMEOUT_PHASE] = error.timer
    elif isinstance(error, DeadlineExceeded):
        found[names.TIMEOUT_PHASE] = "total"
    elif isinstance(error, BudgetExceeded | BudgetUnavailable) and error.shown_as:
        found[names.BUDGET_NAME] = error.shown_as
