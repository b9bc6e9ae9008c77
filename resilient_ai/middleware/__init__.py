"""The middleware, one file each; `resilient_ai.presets` puts them in order."""

if __name__ != "resilient_ai.middleware":
    raise ImportError(
        f"this package is `resilient_ai.middleware`; importing it as {__name__!r} would give every class a second identity"
    )

from resilient_ai.middleware.batching import Batching
from resilient_ai.middleware.budget import Budget
from resilient_ai.middleware.budgets import Budgets
from resilient_ai.middleware.cache import Cache
from resilient_ai.middleware.chaos import Chaos, ChaosPlan
from resilient_ai.middleware.circuit_breaker import CircuitBreaker
from resilient_ai.middleware.coalesce import Coalesce
from resilient_ai.middleware.concurrency_limit import ConcurrencyLimit
from resilient_ai.middleware.cost import CostAccounting
from resilient_ai.middleware.deadline import Deadline
from resilient_ai.middleware.hedge import Hedge
from resilient_ai.middleware.logging import Logging
from resilient_ai.middleware.metrics import Metrics
from resilient_ai.middleware.rate_limit import RateLimit
from resilient_ai.middleware.redactor import Redactor
from resilient_ai.middleware.resume import Resume
from resilient_ai.middleware.retry import Retry
from resilient_ai.middleware.routing import Candidate, Routing, Rule
from resilient_ai.middleware.timeout import Timeout
from resilient_ai.middleware.tracing import Tracing

__all__ = [
    "Batching",
    "Budget",
    "Budgets",
    "Cache",
    "Candidate",
    "Chaos",
    "ChaosPlan",
    "CircuitBreaker",
    "Coalesce",
    "ConcurrencyLimit",
    "CostAccounting",
    "Deadline",
    "Hedge",
    "Logging",
    "Metrics",
    "RateLimit",
    "Redactor",
    "Resume",
    "Retry",
    "Routing",
    "Rule",
    "Timeout",
    "Tracing",
]
