"""What goes wrong in telemetry itself: it never reaches a call, is logged once for each kind, and counted."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

from resilient_ai.core.log import Log

Component = Literal["tracing", "metrics", "logging"]

# Names of exceptions can be made up without end.
_MOST_KINDS = 256

_log = Log()
_counts: dict[Component, int] = {}
_known: set[tuple[str, str, str]] = set()


def passed_over(component: Component, work: str, fault: BaseException) -> None:
    """Count a fault, and log it if it is the first of its kind. Its message is left out, as it may quote a prompt.

    Args:
        component: Whose fault it is.
        work: What could not be done, as the end of the sentence "tracing could not ...".
        fault: What was raised.
    """
    _counts[component] = _counts.get(component, 0) + 1
    kind = (component, work, type(fault).__name__)
    if kind not in _known and len(_known) < _MOST_KINDS:
        _known.add(kind)
        with suppress(Exception):  # it may be the handler of this logger that is at fault
            _log.warning("%s could not %s: %s", *kind)


def fault_counts() -> Mapping[Component, int]:
    """Return how many faults of each component this process has passed over."""
    return dict(_counts)
