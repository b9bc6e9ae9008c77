"""Warns, once per model, that a model in use has been retired."""

import inspect
import warnings
from pathlib import Path

from resilient_ai.deepinfra.catalogue.lookup import Catalogue, catalogue
from resilient_ai.deepinfra.catalogue.models import ModelInfo

_PACKAGE = str(Path(__file__).parents[2])
_warned: set[str] = set()


class RetiredModelWarning(UserWarning):
    """A model in use was withdrawn by the provider, which may answer with another one in its place."""


def warn_if_retired(id: str, *, models: Catalogue = catalogue) -> None:
    """Warn that a model is retired, once per model and process; say nothing of any other.

    The provider answers for a retired model with its replacement and without a word, at that model's price and
    quality, so the place that chooses a model should say it once.

    Args:
        id: Id, with or without a version.
        models: Where to look the model up.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_if_retired("upstage/SOLAR-0-70b-16bit")  # unknown to the catalogue
    >>> caught
    []
    """
    model = models.get(id)
    if model is None or not model.retired or model.id in _warned:
        return
    _warned.add(model.id)
    warnings.warn(_message(model, models), RetiredModelWarning, stacklevel=_level_outside())


def _level_outside() -> int:
    """Return the `stacklevel` of the nearest caller that is no part of this package: the code that named the model."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level - 1


def _message(model: ModelInfo, models: Catalogue) -> str:
    if model.deprecated_on is None:
        what = f"model {model.id!r} is no longer listed by DeepInfra (as of {models.as_of})"
    else:
        what = f"model {model.id!r} was retired by DeepInfra on {model.deprecated_on}"
    replacement = models.replacement(model.id)
    return what if replacement is None else f"{what}; use {replacement!r} instead"
