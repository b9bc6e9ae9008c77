"""Says what a model lacks to serve an operation, as far as the catalogue knows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resilient_ai.deepinfra.catalogue.lookup import Catalogue, catalogue
from resilient_ai.deepinfra.catalogue.models import ModelInfo

if TYPE_CHECKING:
    from resilient_ai.core.operations import Embed, Operation


@dataclass(frozen=True)
class CatalogueAbilities:
    """What models can do, as the catalogue knows it.

    For `Routing`, which passes over a model of a list that would refuse the call. Only what is known to be missing counts,
    and only what a model would refuse for or answer wrongly without: a model that does not reason is not passed over because
    of a `reasoning_effort`. A retired model can do what the one can that answers in its place.

    A prompt is too long where `characters / 6 + max_tokens` is above the tokens of the model's context, which is well below
    what a tokenizer counts: for a prompt near the limit the service decides.

    Args:
        models: Where to look models up; the packaged data by default.

    >>> from resilient_ai.core.operations import Chat, Embed
    >>> abilities = CatalogueAbilities()
    >>> abilities.lacks(Chat(model="BAAI/bge-m3", messages="hi"))
    'chat, as it is made for embedding'
    >>> abilities.dimensions(Embed(model="BAAI/bge-m3", texts="hi"))
    1024
    >>> abilities.output_limit("Qwen/Qwen3.6-35B-A3B")
    16384
    """

    models: Catalogue = catalogue

    def lacks(self, operation: "Operation[Any]") -> str | None:
        """Return what the model of `operation` lacks to serve it; None if nothing is known to be missing."""
        model = self._answering(operation.model)
        if model is None:
            return None
        from resilient_ai.deepinfra.catalogue._missing import missing  # noqa: PLC0415 - who looks up models needs no operations

        return next(missing(model, operation), None)

    def output_limit(self, model: str) -> int | None:
        """Return the most tokens that one answer of the model may have; None for a model whose longest answer is not known."""
        info = self._answering(model)
        if info is None or info.max_output_tokens is None:
            return None
        return min(info.max_output_tokens, info.context_length or info.max_output_tokens)

    def service_tiers(self, model: str) -> tuple[str, ...] | None:
        """Return the tiers the model offers beside the default one, such as "priority"; None if they are not known."""
        known = self._answering(model)
        return None if known is None else known.service_tiers

    def dimensions(self, operation: "Embed") -> int | None:
        """Return the numbers per vector that the model answers with; None for a model without known dimensions."""
        model = self._answering(operation.model)
        if model is None or model.dimensions is None:
            return None
        return operation.dimensions or model.dimensions

    def _answering(self, id: str) -> ModelInfo | None:
        model = self.models.get(id)
        if model is None or not model.retired:
            return model
        replacement = self.models.replacement(model.id)
        if replacement is not None:
            return self.models.get(replacement)
        # What is only no longer listed is that model still, if it answers at all.
        return model if model.status == "presumed_removed" else None
