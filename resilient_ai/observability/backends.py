"""Where traces, metrics and log lines can be sent: addresses, headers made of your keys, and what each place can take.

    telemetry = configure("shop", backend=langfuse(public_key=..., secret_key=...))

A preset knows two things of a backend: how to reach it, and by which further attributes of a call's span it shows cost, speed,
users and conversations (`attributes`, which are names for `Tracing(backends=...)`).
"""

import base64
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from typing_extensions import override

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.middleware._backends import checked_backends

Signal = Literal["traces", "metrics", "logs"]
Protocol = Literal["http", "grpc"]

SIGNALS: tuple[Signal, ...] = get_args(Signal)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TRACES: tuple[Signal, ...] = ("traces",)


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A place that takes telemetry by OTLP. Its keys are never shown.

    Args:
        name: What it is called in messages.
        endpoint: Its base address; over HTTP `/v1/traces` and the like are added. None leaves it to the variables
            `OTEL_EXPORTER_OTLP_*`.
        headers: Sent with everything.
        trace_headers: Sent with spans, in addition.
        protocol: "http" or "grpc".
        signals: What it takes: "traces", "metrics", "logs".
        attributes: Names for `Tracing(backends=...)`.
        delta: Whether metrics tell what has been added since the last time, instead of all there was.

    Raises:
        ConfigurationError: If one of them is wrong.

    >>> Backend(name="collector", endpoint="https://collector.example", headers={"x-key": "secret"})  # doctest: +ELLIPSIS
    Backend(name='collector', endpoint='https://collector.example', headers={'x-key': '***'}, protocol='http', ...)
    """

    name: str
    endpoint: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    trace_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    protocol: Protocol = "http"
    signals: Collection[Signal] = SIGNALS
    attributes: Collection[str] = ()
    delta: bool = False

    def __post_init__(self) -> None:
        """Check everything; a key that no header can carry would be quoted by whoever fails to send it."""
        _check_endpoint(self.name, self.endpoint)
        check_headers(f"{self.name}: headers", self.headers)
        check_headers(f"{self.name}: trace_headers", self.trace_headers)
        if self.protocol not in get_args(Protocol):
            raise ConfigurationError(
                f"{self.name}: protocol must be one of {get_args(Protocol)}, got {self.protocol!r}"
            )
        check_signals(f"{self.name}: signals", self.signals)
        try:
            object.__setattr__(self, "attributes", checked_backends(self.attributes))
        except ValueError as error:
            raise ConfigurationError(f"{self.name}: attributes: {error}") from None
        object.__setattr__(self, "headers", {name.lower(): value for name, value in self.headers.items()})
        object.__setattr__(self, "trace_headers", {name.lower(): value for name, value in self.trace_headers.items()})

    def headers_for(self, signal: Signal) -> dict[str, str]:
        """Return the headers of one kind of request."""
        return {**self.headers, **(self.trace_headers if signal == "traces" else {})}

    @override
    def __repr__(self) -> str:
        masked = dict.fromkeys({**self.headers, **self.trace_headers}, "***")
        return (
            f"Backend(name={self.name!r}, endpoint={self.endpoint!r}, headers={masked!r}, protocol={self.protocol!r}, "
            f"signals={tuple(self.signals)!r}, attributes={tuple(self.attributes)!r}, delta={self.delta!r})"
        )


def langfuse(*, public_key: str, secret_key: str, host: str = "https://cloud.langfuse.com") -> Backend:
    """Langfuse: traces alone, over HTTP alone.

    Args:
        public_key: Of the project, `pk-lf-...`.
        secret_key: Of the project, `sk-lf-...`.
        host: The region, such as `https://us.cloud.langfuse.com`, or a server of your own.

    >>> langfuse(public_key="pk", secret_key="sk").endpoint
    'https://cloud.langfuse.com/api/public/otel'
    """
    return Backend(
        name="langfuse",
        endpoint=f"{_base('langfuse', host)}/api/public/otel",
        # Without the version what arrives is shown minutes later.
        headers={"authorization": _basic(_key("public_key", public_key), _key("secret_key", secret_key)),
                 "x-langfuse-ingestion-version": "4"},
        signals=_TRACES,
        attributes=("langfuse",),
    )  # fmt: skip


def phoenix(
    *,
    endpoint: str = "http://localhost:6006",
    api_key: str | None = None,
    project: str | None = None,
    protocol: Protocol = "http",
) -> Backend:
    """Phoenix: traces alone. It prices tokens by itself, so tell it the prices of your models.

    Args:
        endpoint: The server, or `https://app.phoenix.arize.com/s/` and your space; by gRPC `http://localhost:4317`.
        api_key: Where the server asks for one.
        project: Where spans are shown; None for its default.
        protocol: "http" or "grpc".

    >>> phoenix(project="shop").headers
    {'x-project-name': 'shop'}
    """
    headers = {} if api_key is None else {"authorization": f"Bearer {_key('api_key', api_key)}"}
    if project is not None:
        headers["x-project-name"] = project
    return Backend(
        name="phoenix",
        endpoint=_base("phoenix", endpoint),
        headers=headers,
        protocol=protocol,
        signals=_TRACES,
        attributes=("phoenix",),
    )


def logfire(*, token: str, region: Literal["us", "eu"] = "us", endpoint: str | None = None) -> Backend:
    """Logfire: everything, over HTTP alone.

    Args:
        token: A write token.
        region: Where the project is.
        endpoint: A server of your own, instead of a region.

    >>> logfire(token="secret", region="eu").endpoint
    'https://logfire-eu.pydantic.dev'
    """
    _check_one_of("logfire", "region", region, ("us", "eu"))
    return Backend(
        name="logfire",
        endpoint=_base("logfire", endpoint or f"https://logfire-{region}.pydantic.dev"),
        headers={"authorization": _key("token", token)},
        attributes=("logfire",),
    )


def datadog(*, api_key: str, site: str = "datadoghq.com", endpoint: str | None = None) -> Backend:
    """Datadog's LLM Observability, without an agent: over HTTP alone; metrics tell what was added, as its intake wants them.

    It prices tokens by itself, and reads no cost from spans: what calls cost is the metric `resilient_ai.cost`.

    Args:
        api_key: Of the organisation.
        site: Such as `datadoghq.eu`.
        endpoint: An address of your own, instead of a site.

    >>> datadog(api_key="secret", site="datadoghq.eu").endpoint
    'https://otlp.datadoghq.eu'
    """
    return Backend(
        name="datadog",
        endpoint=_base("datadog", endpoint or f"https://otlp.{site}"),
        headers={"dd-api-key": _key("api_key", api_key)},
        trace_headers={"dd-otlp-source": "llmobs"},
        attributes=("datadog",),
        delta=True,
    )


def honeycomb(
    *,
    api_key: str,
    region: Literal["us", "eu"] = "us",
    metrics_dataset: str | None = None,
    protocol: Protocol = "http",
    endpoint: str | None = None,
) -> Backend:
    """Honeycomb: everything. Its timeline of agents shows calls with the tags "agent" and "conversation".

    Args:
        api_key: An ingest key.
        region: Where the team is.
        metrics_dataset: Where metrics go; None for its default.
        protocol: "http" or "grpc".
        endpoint: An address of your own, such as a Refinery, instead of a region.

    >>> honeycomb(api_key="secret").endpoint
    'https://api.honeycomb.io'
    """
    _check_one_of("honeycomb", "region", region, ("us", "eu"))
    host = "https://api.eu1.honeycomb.io" if region == "eu" else "https://api.honeycomb.io"
    headers = {"x-honeycomb-team": _key("api_key", api_key)}
    return Backend(
        name="honeycomb",
        endpoint=_base("honeycomb", endpoint or host),
        headers=headers if metrics_dataset is None else {**headers, "x-honeycomb-dataset": metrics_dataset},
        protocol=protocol,
        attributes=("honeycomb",),
    )


def signoz(
    *,
    ingestion_key: str | None = None,
    region: str = "us",
    protocol: Protocol = "http",
    endpoint: str | None = None,
) -> Backend:
    """SigNoz: everything. It prices tokens by rules of yours.

    Args:
        ingestion_key: Of SigNoz Cloud; a server of your own needs none.
        region: Of SigNoz Cloud: "us", "eu" or "in".
        protocol: "http" or "grpc".
        endpoint: A server of your own, such as `http://localhost:4318`, instead of a region.

    >>> signoz(ingestion_key="secret").endpoint
    'https://ingest.us.signoz.cloud:443'
    """
    if endpoint is None and ingestion_key is None:
        raise ConfigurationError("signoz: SigNoz Cloud needs an ingestion_key, and a server of your own its endpoint")
    return Backend(
        name="signoz",
        endpoint=_base("signoz", endpoint or f"https://ingest.{region}.signoz.cloud:443"),
        headers={} if ingestion_key is None else {"signoz-ingestion-key": _key("ingestion_key", ingestion_key)},
        protocol=protocol,
        attributes=("signoz",),
    )


def grafana(*, endpoint: str, instance_id: str | None = None, token: str | None = None) -> Backend:
    """Grafana Cloud, or whatever takes OTLP for a Grafana of your own: everything, over HTTP alone.

    Args:
        endpoint: The gateway, `https://otlp-gateway-....grafana.net/otlp`; or a collector, Tempo, Alloy of your own.
        instance_id: Of the stack, for Grafana Cloud.
        token: Of an access policy that may write, for Grafana Cloud.

    >>> grafana(endpoint="http://localhost:4318").headers
    {}
    """
    if (instance_id is None) != (token is None):
        raise ConfigurationError("grafana: instance_id and token belong together; give both, or neither")
    headers: dict[str, str] = {}
    if instance_id is not None and token is not None:
        headers["authorization"] = _basic(_key("instance_id", instance_id), _key("token", token))
    return Backend(name="grafana", endpoint=_base("grafana", endpoint), headers=headers, attributes=("grafana",))


def check_headers(what: str, headers: object) -> None:
    """Raise `ConfigurationError` unless these can be headers."""
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"{what} must be a mapping of headers, got an object of type {type(headers).__name__}")
    for name, value in cast("Mapping[object, object]", headers).items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"{what}: {name!r:.60} cannot be the name of a header")
        check_header(f"{what}: the value of the header {name!r}", value)


def check_header(what: str, value: object) -> None:
    """Raise `ConfigurationError` unless a header can carry it; the message does not hold it."""
    if (
        not isinstance(value, str)
        or not value
        or not value.isascii()
        or not value.isprintable()
        or value != value.strip()
    ):
        raise ConfigurationError(f"{what} must be a text of printable ASCII, without a space or line break at its ends")


def check_signals(what: str, value: object) -> None:
    """Raise `ConfigurationError` unless it is a collection of signals."""
    given: set[object] = set()
    if isinstance(value, Collection) and not isinstance(value, str):
        given = set(cast("Collection[object]", value))
    if not given or given - set(SIGNALS):
        raise ConfigurationError(f"{what} must be some of {SIGNALS}, got {value!r:.80}")


def _check_endpoint(name: str, endpoint: object) -> None:
    if endpoint is None:
        return
    fits = False
    if isinstance(endpoint, str) and endpoint.isprintable() and " " not in endpoint:
        try:
            parts = urlsplit(endpoint)
            fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            parts = urlsplit("")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigurationError(f"{name}: endpoint must not hold a password or a query; keys go into headers")
    if not fits:
        raise ConfigurationError(f"{name}: endpoint must be an address such as 'https://collector.example:4318'")


def _check_one_of(name: str, option: str, value: object, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name}: {option} must be one of {tuple(allowed)}, got {value!r:.40}")


def _base(name: str, endpoint: object) -> str:
    _check_endpoint(name, endpoint)
    return str(endpoint).rstrip("/")


def _key(option: str, value: str) -> str:
    check_header(option, value)
    return value


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
