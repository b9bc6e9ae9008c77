"""Which text of the OpenTelemetry conventions spans and metrics follow."""

import os
from typing import Literal, get_args

Conventions = Literal["1.41", "latest", "both"]

_OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
_NEWEST = "gen_ai_latest_experimental"


def conventions_of(chosen: Conventions | None) -> Conventions:
    """Return what was chosen; for None what the environment asks for, else "1.41", the last that was released.

    Raises:
        ValueError: If there are no such conventions.

    >>> conventions_of("both")
    'both'
    """
    if chosen is None:
        asked = {word.strip() for word in os.environ.get(_OPT_IN, "").split(",")}
        return "latest" if _NEWEST in asked else "1.41"
    if chosen not in get_args(Conventions):
        raise ValueError(f"conventions must be None or one of {get_args(Conventions)}, got {chosen!r}")
    return chosen
