"""Every option of every middleware refuses nonsense when it is built, and says which option it was."""

import dataclasses
import math
import re

import pytest

from resilient_ai import middleware
from resilient_ai.deepinfra.catalogue import PriceTable
from resilient_ai.middleware import (
    Batching,
    Budget,
    Budgets,
    Cache,
    Candidate,
    Chaos,
    ChaosPlan,
    CircuitBreaker,
    Coalesce,
    ConcurrencyLimit,
    CostAccounting,
    Deadline,
    Hedge,
    Logging,
    Metrics,
    RateLimit,
    Redactor,
    Resume,
    Retry,
    Routing,
    Rule,
    Timeout,
    Tracing,
)
from resilient_ai.stores import MemoryBudgets, MemoryStore

NO_NUMBER = (math.nan, math.inf, -math.inf, 10**400, -1, True, "3", [1], object())
NUMBER = (*NO_NUMBER, None)
COUNT = (*NUMBER, 2.5, 3.0, 0)
LIMIT = (*NO_NUMBER, 2.5, 0)
SECONDS = (*NUMBER, 0, 0.0)
SHARE = (*NUMBER, 0, 1.5)
RATE = (*NUMBER, 1.5)
FLAG = (0, 1, None, "no", math.nan)
OBJECT = (True, 1, math.nan, "redis://host", ["a"], object(), MemoryStore)
CALLABLE = (True, 1, math.nan, "print", [])
NAMES = ("large", b"large", 3, True, None, math.nan, [1], [""], [None])
CHOICE = ("maybe", True, 1, None, math.nan, [])

OPTIONS = {
    Batching: {"size": (*COUNT, 1025), "in_flight": COUNT},
    Cache: {
        "answers": OBJECT,
        "embeddings": OBJECT,
        "ttl": (*NO_NUMBER, 0),
        "mode": CHOICE,
        "max_age": NO_NUMBER,
        "stale_while_revalidate": NUMBER,
        "stale_if_error": NUMBER,
        "jitter": RATE,
        "early_refresh": NUMBER,
        "always": FLAG,
        "keep_truncated": FLAG,
        "replay": CHOICE,
        "leases": OBJECT,
        "lease_time": SECONDS,
        "savings": OBJECT,
    },
    Coalesce: {"always": FLAG, "savings": OBJECT},
    Budget: {
        "limit": (math.nan, math.inf, 10**400, -1, True, [1], object(), 0, 2.5, None, "25 EUR", "much", 10_000_000),
        "per": (*CHOICE, "year"),
        "scope": (True, 1, None, ["tenant"], {"tenant": 1}, {"": "a"}, {"kind": "video"}),
        "hard": FLAG,
        "rolling": FLAG,
        "thresholds": (0.5, None, True, [0], [-1], ["1"], [math.nan], [101]),
        "name": (None, 1, True, []),
    },
    Budgets: {
        "budgets": (True, 1, None, math.nan, "25 USD", ["25 USD"], [None]),
        "book": (*OBJECT, None),
        "prices": (*OBJECT, None),
        "abilities": OBJECT,
        "unpriced": (*NO_NUMBER, 0, 2.5),
        "unreachable": CHOICE,
        "answer_tokens": COUNT,
    },
    Chaos: {
        "seed": (2.5, True, "3", None, math.nan, [1]),
        "fault_rate": RATE,
        "faults": (*NAMES, {"reset"}, [], ["flood"]),
        "latency_rate": RATE,
        "latency": (*NUMBER, (1,), (1, 2, 3), (2, 1), (-1, 1), (0, math.nan), (math.nan, 1), (0, math.inf), ("0", "1")),
        "hang_rate": RATE,
        "interrupt_rate": RATE,
        "only": CALLABLE,
    },
    CircuitBreaker: {
        "failure_ratio": SHARE,
        "minimum_throughput": COUNT,
        "consecutive_failures": COUNT,
        "sampling_duration": (*SECONDS, 5e-324, 0.0099, 86401),
        "break_duration": SECONDS,
        "break_duration_max": SECONDS,
        "probe_lease": SECONDS,
        "ramp": NUMBER,
    },
    ConcurrencyLimit: {
        "limit": COUNT,
        "initial": COUNT,
        "queue_size": (*NUMBER, 2.5),
        "adaptive": FLAG,
        "fleet": OBJECT,
    },
    CostAccounting: {"ledger": OBJECT, "prices": OBJECT, "on_settled": CALLABLE},
    Deadline: {"total": SECONDS},
    Hedge: {"quantile": (*SHARE, 1), "samples": (*COUNT, 201), "delay_min": SECONDS, "extra": SHARE},
    Logging: {"logger": (*OBJECT, "name"), "level": ("INFO", 15, None, math.nan, [])},
    RateLimit: {"requests": LIMIT, "tokens": LIMIT, "per": SECONDS, "burst": SHARE, "fleet": OBJECT},
    Resume: {"on_interrupt": CHOICE, "resumes": COUNT},
    Retry: {
        "attempts": COUNT,
        "wait_initial": SECONDS,
        "wait_max": SECONDS,
        "budget": (*NUMBER, 1000.5),
        "costly": (*NAMES, "image", ["video"]),
        "hedge": (*OBJECT, Hedge),
        "retry_on": CALLABLE,
        "on_retry": CALLABLE,
    },
    Routing: {
        "models": (*NAMES, ["a", "a"], ["auto"]),
        "abilities": OBJECT,
        "max_sends": COUNT,
        "embed_across_models": FLAG,
        "prefer": ("dearest", True, 1, math.nan, []),
        "prices": OBJECT,
        "explore": RATE,
        "rules": (True, 1, None, math.nan, "large", ["large"], [None]),
        "pin": (1, True, "", math.nan, []),
    },
    Rule: {
        "models": (*NAMES, [], ["a", "a"], ["auto"]),
        "tags": (True, 1, None, ["tenant"], {"tenant": 1}, {"": "a"}),
        "kinds": (*NAMES, ["video"]),
        "max_prompt_tokens": (*NO_NUMBER, 2.5),
        "strict": FLAG,
    },
    Timeout: {"first_token": SECONDS, "idle": SECONDS, "attempt": SECONDS},
    Tracing: {
        "tracer_provider": OBJECT,
        "provider_name": (True, 1, None, ["a"]),
        "conventions": ("1.40", True, 1, []),
        "capture": ("all", True, 1, []),
        "redactor": (*OBJECT, Redactor),
        "longest_part": COUNT,
        "backends": ("langfuse", ["splunk"], [1], True, 1),
        "tags": NAMES,
        "propagate": FLAG,
        "logger_provider": OBJECT,
        "events": ("span", "events", True, 1, None, []),
    },
    Metrics: {
        "meter_provider": OBJECT,
        "provider_name": (True, 1, None, ["a"]),
        "conventions": ("1.40", True, 1, []),
        "tenants": (*NUMBER, 2.5, 1001),
        "backends": ("langfuse", ["splunk"], [1], True, 1),
    },
    Redactor: {
        "builtin": ("email", ["passport"], [1], True),
        "patterns": ([], True, {"a": "("}, {"a": 1}, {"": "a"}),
        "replace": CALLABLE,
        "function": CALLABLE,
    },
}
# What an option needs beside it, so that it alone is at fault.
NEEDED = {
    Budget: {"limit": 1, "per": "day"},
    Budgets: {"budgets": [], "book": MemoryBudgets(), "prices": PriceTable()},
    Rule: {"models": ["a"]},
    Cache: {"answers": MemoryStore(), "embeddings": MemoryStore()},
    RateLimit: {"requests": 60},
}
CASES = [
    pytest.param(kind, name, value, id=f"{kind.__name__}({name}={re.sub(' at 0x[0-9a-f]+', '', repr(value)):.40})")
    for kind, options in OPTIONS.items()
    for name, values in options.items()
    for value in values
]


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_nonsense_is_refused(kind, name, value):
    """It is a `ValueError` whose sentence begins with the name of the option, whatever was given."""
    with pytest.raises(ValueError, match=rf"^{name} must ") as caught:
        kind(**{**NEEDED.get(kind, {}), name: value})
    assert type(caught.value) is ValueError


def test_no_middleware_is_missing():
    """The table above has every exported middleware; plans of chaos and candidates are what comes out of one, no options."""
    exported = {getattr(middleware, name) for name in middleware.__all__}
    assert exported - set(OPTIONS) == {Candidate, ChaosPlan}


@pytest.mark.parametrize("kind", OPTIONS)
def test_no_option_is_missing(kind):
    """The table above has every option, so that a new one is checked as well."""
    assert {field.name for field in dataclasses.fields(kind) if field.init} == set(OPTIONS[kind])


def test_an_address_is_not_shown():
    """What is given in place of a fleet may be an address with a password."""
    with pytest.raises(ValueError, match=r"^fleet must be None or an object with") as caught:
        ConcurrencyLimit(fleet="redis://:hunter2@host")
    assert "hunter2" not in str(caught.value)


NEIGHBOURS = {
    (CostAccounting, "ledger"): "opened closed aclose",
    (CostAccounting, "prices"): "chat_cost embedding_cost image_cost",
    (Budgets, "book"): "charge settle spent aclose",
    (ConcurrencyLimit, "fleet"): "acquire release hold aclose share reachable",
    (RateLimit, "fleet"): "reserve settle aclose share reachable",
    (Coalesce, "savings"): "spared",
    (Cache, "leases"): "acquire_lease release_lease",
}


@pytest.mark.parametrize(
    ("kind", "option", "missing"),
    [(*where, member) for where, members in NEIGHBOURS.items() for member in members.split()],
)
def test_a_neighbour_that_lacks_a_member(kind, option, missing):
    """It is refused when the middleware is built, and not at the first call, or when the client is closed."""
    others = NEEDED.get(kind, {})
    members = dict.fromkeys(NEIGHBOURS[kind, option].split(), lambda *_: None)

    kind(**{**others, option: type("Neighbour", (), members)()})
    del members[missing]

    with pytest.raises(ValueError, match=f"{option} must be .* an object with .*{missing}"):
        kind(**{**others, option: type("Neighbour", (), members)()})
