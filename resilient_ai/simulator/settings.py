"""Options of the simulator, checked when it is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

Variant = Literal["A", "B"]
ToolDeltas = Literal["whole", "split"]

_BASE = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


class Options(TypedDict, total=False):
    """The fields of `Settings`, as keyword arguments."""

    limit: int
    ping_interval: float
    token_delay: float
    first_token_delay: float
    keys: frozenset[str] | None
    retry_after: float | None
    flex_hold: float
    flex_refused: bool
    embedding_cost: bool
    strict_aspect_ratio: bool
    crlf: bool
    max_body: int
    variants: Mapping[str, Variant]
    tool_deltas: Mapping[str, ToolDeltas]
    private_models: Mapping[str, str]
    deployments: Mapping[str, str]


def _no_variants() -> dict[str, Variant]:
    return {}


def _no_tool_deltas() -> dict[str, ToolDeltas]:
    return {}


def _private_models() -> dict[str, str]:
    return {"simulator/private-chat": _BASE}


def _deployments() -> dict[str, str]:
    return {"simulator-deploy": _BASE}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the simulated service behaves.

    Args:
        limit: Requests in flight per model and key before 429 is answered. At least 1.
        ping_interval: Seconds of silence in a stream before a comment line is sent. Above 0.
        token_delay: Seconds before each piece of a stream. 0 sends as fast as the socket takes it.
        first_token_delay: Seconds between the headers of a stream and its first piece, filled with pings.
        keys: Accepted API keys. `None` accepts every key that does not begin with "bad".
        retry_after: Seconds named in `Retry-After` of a 429. `None` sends no such header, as the service does.
        flex_hold: Seconds for which a request of the tier `flex` is held before it starts.
        flex_refused: Answer 429 to `flex` requests once they have been held.
        embedding_cost: Report `estimated_cost` in the usage of the OpenAI embeddings route.
        strict_aspect_ratio: Refuse `width` and `height` for models that take `aspect_ratio`; otherwise ignore them.
        crlf: End the lines of a stream with CR LF.
        max_body: Largest request body in bytes, unpacked, before 413 is answered.
        variants: Stream variant by model id, where the model's own choice is not wanted.
        tool_deltas: How tool calls are streamed by model id: in one piece or several.
        private_models: Private model ids, each with the public model that answers for it.
        deployments: Deployment ids, each with the public model that answers for it.

    Raises:
        ValueError: If a number is out of its range.

    >>> Settings(limit=2).limit
    2
    """

    limit: int = 200
    ping_interval: float = 15.0
    token_delay: float = 0.0
    first_token_delay: float = 0.0
    keys: frozenset[str] | None = None
    retry_after: float | None = None
    flex_hold: float = 0.0
    flex_refused: bool = False
    embedding_cost: bool = False
    strict_aspect_ratio: bool = True
    crlf: bool = False
    max_body: int = 128 * 1024 * 1024
    variants: Mapping[str, Variant] = field(default_factory=_no_variants)
    tool_deltas: Mapping[str, ToolDeltas] = field(default_factory=_no_tool_deltas)
    private_models: Mapping[str, str] = field(default_factory=_private_models)
    deployments: Mapping[str, str] = field(default_factory=_deployments)

    def __post_init__(self) -> None:
        for name in ("limit", "max_body"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)!r}")
        if self.ping_interval <= 0:
            raise ValueError(f"ping_interval must be > 0, got {self.ping_interval!r}")
        for name in ("token_delay", "first_token_delay", "flex_hold"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)!r}")
