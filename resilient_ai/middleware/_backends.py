"""What some backends want to find on a span beside the conventions, to show cost, speed and conversations rightly.

All of it goes on the span of the call alone: an attempt that told of cost or models would be counted again.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from resilient_ai.core.checks import check_names
from resilient_ai.middleware._span_attributes import Attributes

_SECOND = 1_000_000_000  # nanoseconds


class Facts(NamedTuple):
    """What is known of a call at its end.

    Args:
        cost: US dollars, 0 where nothing was sent for it, None where not known.
        started: When it began, in nanoseconds since 1970.
        first_chunk: Seconds from then to the first content of a stream, None without one.
        tags: The tags of the call.
        shown: Those that are shown on its span, each as "name:value".
    """

    cost: float | None
    started: int
    first_chunk: float | None
    tags: Mapping[str, str]
    shown: Collection[str]


def _langfuse(facts: Facts) -> Attributes:
    # Without a cost Langfuse prices what it finds itself, so a cached answer says that it cost nothing.
    found: Attributes = {}
    if facts.cost is not None:
        found["langfuse.observation.cost_details"] = orjson.dumps({"total": facts.cost}).decode()
    if facts.first_chunk is not None:
        at = datetime.fromtimestamp(facts.started / _SECOND + facts.first_chunk, UTC)
        found["langfuse.observation.completion_start_time"] = at.isoformat()
    if facts.shown:
        found["langfuse.trace.tags"] = list(facts.shown)
    return found


def _openinference(facts: Facts) -> Attributes:
    found: Attributes = {} if facts.cost is None else {"llm.cost.total": facts.cost}
    if facts.shown:
        found["tag.tags"] = list(facts.shown)
    conversation = facts.tags.get("conversation")
    if conversation is not None and "session" not in facts.tags:
        found["session.id"] = conversation
    return found


def _logfire(facts: Facts) -> Attributes:
    found: Attributes = {} if facts.cost is None else {"operation.cost": facts.cost}
    if facts.first_chunk is not None:
        found["gen_ai.client.operation.time_to_first_chunk"] = facts.first_chunk
    return found


def _honeycomb(facts: Facts) -> Attributes:
    agent = facts.tags.get("agent")
    return {} if agent is None else {"gen_ai.agent.name": agent}


def _signoz(facts: Facts) -> Attributes:
    return {} if facts.first_chunk is None else {"gen_ai.server.ttft": facts.first_chunk}


def _openlit(facts: Facts) -> Attributes:
    return {} if facts.cost is None else {"gen_ai.usage.cost": facts.cost}


def _nothing(_: Facts) -> Attributes:
    return {}


_BACKENDS: Mapping[str, Callable[[Facts], Attributes]] = {
    # It reads the conventions, and prices tokens by itself.
    "datadog": _nothing,
    "grafana": _openlit,
    "honeycomb": _honeycomb,
    "langfuse": _langfuse,
    "logfire": _logfire,
    "openinference": _openinference,
    "openlit": _openlit,
    "phoenix": _openinference,
    "signoz": _signoz,
}


# Boards that were made for OpenLIT, as Grafana has some, take cost from a histogram.
_READ_COSTS = frozenset({"grafana", "openlit"})

# Those that were set up for the whole process.
_remembered: list[tuple[str, ...]] = [()]


def remember_backends(names: Collection[str]) -> None:
    """Let every `Tracing` and `Metrics` without backends of its own report for these, from now on."""
    _remembered[0] = checked_backends(names)


def remembered_backends() -> tuple[str, ...]:
    """Return those that were set up for the whole process, none by default."""
    return _remembered[0]


def checked_backends(given: Collection[str]) -> tuple[str, ...]:
    """Return names of backends, each once.

    Raises:
        ValueError: If there is none of that name.

    >>> checked_backends(["phoenix", "langfuse", "phoenix"])
    ('phoenix', 'langfuse')
    """
    check_names("backends", given)
    unknown = [name for name in given if name not in _BACKENDS]
    if unknown:
        raise ValueError(f"backends must be of {sorted(_BACKENDS)}, got {unknown!r}")
    return tuple(dict.fromkeys(given))


def reads_costs(backends: Collection[str]) -> bool:
    """Return whether one of them takes what calls cost from a histogram.

    >>> reads_costs(["langfuse"]), reads_costs(["langfuse", "openlit"])
    (False, True)
    """
    return not _READ_COSTS.isdisjoint(backends)


def backend_attributes(backends: Collection[str], facts: Facts) -> Attributes:
    """Return what all of some backends want to find.

    >>> backend_attributes(["logfire"], Facts(cost=0.5, started=0, first_chunk=None, tags={}, shown=[]))
    {'operation.cost': 0.5}
    """
    found: Attributes = {}
    for name in backends:
        found |= _BACKENDS[name](facts)
    return found
