"""Names of spans, events and attributes, as text, so that no package of conventions has to be installed.

`gen_ai.*`, `server.*` and `error.type` follow the OpenTelemetry semantic conventions 1.41.1; `resilient_ai.*` are ours.
"""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.1"
SCOPE = "resilient_ai"

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_TOP_K = "gen_ai.request.top_k"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
REQUEST_STOP_SEQUENCES = "gen_ai.request.stop_sequences"
REQUEST_REASONING_LEVEL = "gen_ai.request.reasoning.level"
REQUEST_ENCODING_FORMATS = "gen_ai.request.encoding_formats"
EMBEDDINGS_DIMENSION_COUNT = "gen_ai.embeddings.dimension.count"
OUTPUT_TYPE = "gen_ai.output.type"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens"
USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens"

SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"
HTTP_STATUS = "http.response.status_code"
USER_ID = "user.id"
SESSION_ID = "session.id"

OUTCOME = "resilient_ai.outcome"
CALL_ID = "resilient_ai.call.id"
ATTEMPTS = "resilient_ai.attempts"
RETRIES = "resilient_ai.retries"
ERROR_CLASS = "resilient_ai.error.class"
TENANT = "resilient_ai.tenant"
CACHE_OUTCOME = "resilient_ai.cache.outcome"
COST_AMOUNT = "resilient_ai.cost.amount"
COST_CURRENCY = "resilient_ai.cost.currency"
COST_SOURCE = "resilient_ai.cost.source"
COST_WASTED = "resilient_ai.cost.wasted"
COST_COMPLETE = "resilient_ai.cost.complete"
SERVICE_TIER = "resilient_ai.request.service_tier"
BATCH_SIZE = "resilient_ai.request.batch_size"
IMAGE_COUNT = "resilient_ai.image.count"
IMAGE_SIZE = "resilient_ai.image.size"
STREAM_OUTCOME = "resilient_ai.stream.outcome"
TIMEOUT_PHASE = "resilient_ai.timeout.phase"
FALLBACK_MODEL = "resilient_ai.fallback.model"
ATTEMPT_NUMBER = "resilient_ai.attempt.number"
ATTEMPT_KIND = "resilient_ai.attempt.kind"
ATTEMPT_MODEL = "resilient_ai.attempt.model"
ATTEMPT_OUTCOME = "resilient_ai.attempt.outcome"
RETRY_DELAY = "resilient_ai.retry.delay"
RETRY_DELAY_SOURCE = "resilient_ai.retry.delay_source"
FALLBACK_FROM = "resilient_ai.fallback.from"
FALLBACK_TO = "resilient_ai.fallback.to"
CIRCUIT_NAME = "resilient_ai.circuit_breaker.name"
CIRCUIT_STATE = "resilient_ai.circuit_breaker.state"

SPAN_ATTEMPT = "resilient_ai.attempt"
EVENT_RETRY = "resilient_ai.retry"
EVENT_FALLBACK = "resilient_ai.fallback"
EVENT_CIRCUIT = "resilient_ai.circuit_breaker.transition"

# There is no word for drawing in the conventions; a predefined one that fits must be used, and a picture is content.
OPERATION_NAMES = {
    "chat": "chat",
    "stream": "chat",
    "complete": "text_completion",
    "embed": "embeddings",
    "image": "generate_content",
}
