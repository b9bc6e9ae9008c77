"""Warns, once per model, that a model in use has been retired."""

import warnings

from resilient_ai.deepinfra.catalogue.lookup import Catalogue, catalogue
from resilient_ai.deepinfra.catalogue.models import ModelInfo

_warned: set[str] = set()


class RetiredModelWarning(UserWarning):
    """A model in use was withdrawn by the provider, which may answer with another one in its place."""


def warn_if_retired(id: str, *, models: Catalogue = catalogue, stacklevel: int = 2) -> None:
    """Warn that a model is retired, once per model and process; say nothing of any other.

    The provider answers for a retired model with its replacement and without a word, at that model's price and
    quality, so the place that chooses a model should say it once.

    Args:
        id: Id, with or without a version.
        models: Where to look the model up.
        stacklevel: As of `warnings.warn`; 2 names the caller of this function.

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
    warnings.warn(_message(model, models), RetiredModelWarning, stacklevel=stacklevel)


def _message(model: ModelInfo, models: Catalogue) -> str:
    if model.deprecated_on is None:
        what = f"model {model.id!r} is no longer listed by DeepInfra (as of {models.as_of})"
    else:
        what = f"model {model.id!r} was retired by DeepInfra on {model.deprecated_on}"
    replacement = models.replacement(model.id)
    return what if replacement is None else f"{what}; use {replacement!r} instead"
