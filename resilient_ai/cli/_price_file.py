"""Of which day the prices of one's own are, for screens that show some of them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_ai.deepinfra.catalogue import Overrides
    from resilient_ai.settings import Settings

_PRICES = {"input_per_1m", "output_per_1m", "cached_input_per_1m", "cache_write_per_1m", "image"}


def prices_of_file(settings: "Settings", models: Iterable[str]) -> str:
    """Return what follows the day of the catalogue where prices of the file of the settings are among those of `models`."""
    from resilient_ai.deepinfra.catalogue import load_overrides  # noqa: PLC0415 - data that other commands need not read

    if settings.price_file is None:
        return ""
    overrides = load_overrides(settings.price_file)
    if not any(_PRICES & overrides.models.get(model, {}).keys() for model in models):
        return ""
    return f", those of {overrides.name} {day_of(overrides)}"


def day_of(overrides: "Overrides") -> str:
    """Return of which day the prices of a file are."""
    return "without a date" if overrides.as_of is None else f"as of {overrides.as_of}"
