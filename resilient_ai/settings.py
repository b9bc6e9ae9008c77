"""Settings: from arguments, then the environment, then a TOML file."""

import os
from collections.abc import Iterable
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError
from typing_extensions import override

from resilient_ai.core._base import explain
from resilient_ai.core.errors import ConfigurationError
from resilient_ai.deepinfra.provider import BASE_URL
from resilient_ai.middleware._backends import checked_backends
from resilient_ai.middleware.budget import Budget, refuse_float

PREFIX = "RESILIENT_AI_"
FILE_VARIABLE = "RESILIENT_AI_CONFIG"

# All settings that are no single value, with an example of each.
_LISTS = {
    "budgets": '[{"limit": "25 USD", "per": "day"}]',
    "auto_models": '["org/model", "org/other"]',
    "trace_backends": '["langfuse"]',
    "trace_tags": '["feature"]',
}


class Settings(BaseSettings):
    """What the default stack is built with.

    A value comes from the arguments, else from the environment (`RESILIENT_AI_` and the name in capitals), else from the TOML
    file that RESILIENT_AI_CONFIG names, else it is the default. A name that does not exist is an error wherever it stands.

    Args:
        api_key: The key; see `DeepInfraProvider` for where else it is looked up.
        base_url: The server.
        home: Folder of the cache and the ledger; by default the platform's own folder for application data.
        timeout: Seconds for a whole call: queueing, tries, waits, fallbacks and body. Above 0.
        attempt_timeout: Seconds for one try; what takes longer is tried again, or the next model is asked. Above 0.
        first_token_timeout: Seconds until a stream delivers its first content. Above 0.
        idle_timeout: Seconds between two pieces of a stream. Above 0.
        connect_timeout: Seconds for a connection. Above 0.
        attempts: Tries of a send in all, the first included. At least 1.
        hedge: "on" sends a second request beside one that is slower than most, which costs up to 5 % more; "off" never.
        on_interrupt: What is done about a stream that breaks after content has arrived: "raise", "restart" or "continue".
        concurrency: Requests in flight per model at most; how many the service takes is found out below that. At least 1; the
            service takes 200.
        requests_per_minute: Requests to each model in a minute; None for any number. At least 1.
        tokens_per_minute: Tokens to and from each model in a minute; None for any number. At least 1.
        redis_url: A Redis through which a fleet of processes shares these limits; None for a process on its own.
        batch_size: Texts per embedding request, 1 to 1,024.
        batches_in_flight: Embedding requests of one call at the same time. At least 1.
        coalesce: "on" lets identical calls under way share one send; "off" sends each.
        cache: What calls that say nothing do: "on", "read" (keep nothing new), "write" or "refresh" (send, and replace what is
            kept); or "off" for no cache at all.
        cache_answers: "repeatable" caches what has temperature 0 or a seed, "all" everything.
        cache_answers_on_disk: Whether answers may reach the disk as embeddings do; they hold what users wrote.
        cache_memory: Bytes of each cache in memory.
        cache_disk: Bytes of the cache on disk.
        cache_ttl: Seconds an entry is fresh; None for ever.
        cache_max_age: Seconds an entry may be old to be an answer; None is any.
        cache_stale_while_revalidate: Seconds after its time for which an entry is still an answer, while a new one is fetched.
        cache_stale_if_error: Seconds after its time for which an entry is an answer where asking again fails.
        cache_replay: How a stream is replayed: "at_once", or at the pace that was "recorded".
        cache_redis_url: A Redis in which answers and vectors are kept for all processes that name it, instead of on disk; what
            one of them is asking for, the others wait for.
        cache_secret: Seals what is in that Redis, so that nobody without it can put anything there; the same for all processes.
        cache_encryption_keys: Fernet keys with commas between, with which entries on disk or in Redis are encrypted; the first
            encrypts, all decrypt.
        ledger: "on", or "off" for no book of costs on disk.
        ledger_url: A PostgreSQL in which costs and budgets are kept for all hosts that name it, instead of on disk.
        budgets: What may be spent, in which time and by which calls, each as a `Budget`.
        budget_redis_url: A Redis in which budgets are counted for all hosts that name it, instead of where costs are.
        budget_unpriced: US dollars that a request counts with while no price of its model is known; None refuses such requests
            where a hard budget counts them. Above 0, and no float.
        budget_unreachable: What becomes of calls of hard budgets while what was spent cannot be asked for: "refuse" or "allow".
        auto_models: What the model "auto" stands for, in order.
        auto_prefer: Which of them is asked first: the "cheapest", the "fastest", or a "balanced" choice; None keeps the order.
        price_file: A TOML file with prices of your own, in place of those of the catalogue.
        catalogue_refresh: Seconds between two looks at the provider's lists of models and prices; None for none. At least 60.
        trace_backends: Backends for which spans and figures have what they look for beside the conventions; None for those that
            `resilient_ai.observability.configure` has set up. See `Tracing`.
        trace_capture: Where prompts and answers go: "none", "spans", "events" or "both"; None does what
            `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says.
        trace_tags: Names of tags that spans may show, beside user, session, conversation and tenant.
        metric_tenants: How many tenants metrics tell apart by name, 0 to 1000; 0 tells none apart.

    Raises:
        ConfigurationError: If a value or a name is wrong.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, allow_inf_nan=False)

    api_key: SecretStr | None = None
    base_url: str = BASE_URL
    home: Path | None = None
    timeout: float = Field(default=600.0, gt=0)
    attempt_timeout: float = Field(default=300.0, gt=0)
    first_token_timeout: float = Field(default=60.0, gt=0)
    idle_timeout: float = Field(default=60.0, gt=0)
    connect_timeout: float = Field(default=5.0, gt=0)
    attempts: int = Field(default=3, ge=1)
    hedge: Literal["on", "off"] = "off"
    on_interrupt: Literal["raise", "restart", "continue"] = "raise"
    concurrency: int = Field(default=200, ge=1)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    redis_url: SecretStr | None = None
    batch_size: int = Field(default=96, ge=1, le=1024)
    batches_in_flight: int = Field(default=4, ge=1)
    coalesce: Literal["on", "off"] = "on"
    cache: Literal["on", "off", "read", "write", "refresh"] = "on"
    cache_answers: Literal["repeatable", "all"] = "repeatable"
    cache_answers_on_disk: bool = False
    cache_memory: int = Field(default=64 << 20, ge=1 << 20)
    cache_disk: int = Field(default=2 << 30, ge=1 << 20)
    cache_ttl: float | None = Field(default=None, gt=0)
    cache_max_age: float | None = Field(default=None, ge=0)
    cache_stale_while_revalidate: float = Field(default=0.0, ge=0)
    cache_stale_if_error: float = Field(default=0.0, ge=0)
    cache_replay: Literal["at_once", "recorded"] = "at_once"
    cache_redis_url: SecretStr | None = None
    cache_secret: SecretStr | None = Field(default=None, min_length=1)
    cache_encryption_keys: SecretStr | None = Field(default=None, min_length=1)
    ledger: Literal["on", "off"] = "on"
    ledger_url: SecretStr | None = Field(default=None, min_length=1)
    budgets: tuple[Budget, ...] = ()
    budget_redis_url: SecretStr | None = Field(default=None, min_length=1)
    budget_unpriced: Decimal | None = Field(default=None, gt=0)
    budget_unreachable: Literal["refuse", "allow"] = "refuse"
    auto_models: tuple[str, ...] = ()
    auto_prefer: Literal["cheapest", "fastest", "balanced"] | None = None
    price_file: Path | None = None
    catalogue_refresh: float | None = Field(default=None, ge=60)
    trace_backends: Annotated[tuple[str, ...], AfterValidator(checked_backends)] | None = None
    trace_capture: Literal["none", "spans", "events", "both"] | None = None
    trace_tags: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    metric_tenants: int = Field(default=0, ge=0, le=1000)

    def __init__(self, **values: Any) -> None:
        _refuse_unknown_variables()
        try:
            super().__init__(**values)
        except ValidationError as error:
            said = str(explain("settings", error, known=type(self).model_fields))
            raise ConfigurationError(said.replace("input should be", "must be")) from None
        except SettingsError as error:
            raise ConfigurationError(_unreadable(str(error))) from None

    @field_validator("home", "price_file", mode="before")
    @classmethod
    def _is_not_empty(cls, given: object) -> object:
        # An empty path is the folder one happens to be in.
        if isinstance(given, str) and not given.strip():
            raise ValueError("must not be empty")
        return given

    @field_validator(*_LISTS, mode="before")
    @classmethod
    def _is_a_list(cls, given: object, info: ValidationInfo) -> object:
        if not isinstance(given, list | tuple | None):
            raise ValueError(f"must be a list such as {_LISTS[info.field_name or '']}")  # noqa: TRY004 - which pydantic does not take
        return cast("object", given)

    @field_validator("budget_unpriced", mode="before")
    @classmethod
    def _is_exact(cls, given: object) -> object:
        refuse_float("it", given)
        return given

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get(FILE_VARIABLE)
        if not path:
            return init_settings, env_settings
        if not Path(path).is_file():
            raise ConfigurationError(f"{FILE_VARIABLE}: there is no file {path!r}")
        try:
            file: InitSettingsSource = TomlConfigSettingsSource(settings_cls, Path(path))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path}: cannot be read as TOML: {error}") from error
        return init_settings, env_settings, file


def _unreadable(said: str) -> str:
    """Return what is wrong with a value that is no JSON, in our words; pydantic names the field in its own."""
    field = next(name for name in _LISTS if f'"{name}"' in said)
    return f"settings: {field}: {PREFIX}{field.upper()} is no JSON; write a list such as '{_LISTS[field]}'"


def _refuse_unknown_variables() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {FILE_VARIABLE}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
    if unknown:
        told = [f"{name}{_meant(name, known)}" for name in unknown]
        raise ConfigurationError(f"the environment holds unknown settings: {', '.join(told)}")


def _meant(name: str, known: Iterable[str]) -> str:
    # All begin alike, which would make any two of them close.
    close = get_close_matches(name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], n=1)
    return f" (did you mean {PREFIX}{close[0]}?)" if close else ""
