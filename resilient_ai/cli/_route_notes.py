"""What the catalogue has to say of the models of a route, beside why each stands where it does."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resilient_ai.core.call import Call
    from resilient_ai.core.operations import Operation
    from resilient_ai.core.results import Considered
    from resilient_ai.deepinfra.catalogue import Catalogue, ModelInfo


def noted(
    found: "Sequence[Considered]",
    call: "Call[Any]",
    catalogue: "Catalogue",
    refuses: "Callable[[Call[Any]], str | None]",
) -> "list[Considered]":
    """Return the models with what speaks against each.

    One that is known to lack something, or for which a budget refuses the call whatever is left of it, has no place, also if it
    is alone.
    """
    from resilient_ai.deepinfra.catalogue import CatalogueAbilities  # noqa: PLC0415 - slow to import

    abilities, operation = CatalogueAbilities(catalogue), call.operation
    told: list[Considered] = []
    for one in found:
        place, lack = one.place, abilities.lacks(operation.on(one.model))
        # A model has no price for what it cannot do, and no budget is to blame for that.
        never = None if lack is not None else refuses(call.replace(operation=operation.on(one.model)))
        why = one.why if lack is None else one.why.removesuffix(", no price known")
        notes = [] if lack is None else [f"lacks {lack}"]
        notes += [] if never is None else [never]
        notes += _status(one.model, catalogue)
        if lack is None:
            notes += _lengths(catalogue.get(catalogue.replacement(one.model) or one.model), operation)
        if lack is not None or never is not None:
            place = None
        said = [note for note in notes if note not in why]
        told.append(one.model_copy(update={"place": place, "why": "; ".join([why, *said])}))
    return told


def _status(model: str, catalogue: "Catalogue") -> Iterator[str]:
    info = catalogue.get(model)
    if info is None:
        if not model.startswith("deploy_id:"):
            yield "not in the catalogue"
        return
    if info.status == "presumed_removed":
        yield "no longer listed by the service"
    elif info.retired:
        instead = catalogue.replacement(info.id)
        yield "retired" if instead is None else f"retired, use {instead}"


def _lengths(info: "ModelInfo | None", operation: "Operation[Any]") -> Iterator[str]:
    """Yield whether the call may be too long, by a guess at its tokens; what is so long in any language, the model lacks."""
    if info is None:
        return
    from resilient_ai.core.operations import Embed, Sampling  # noqa: PLC0415 - as above
    from resilient_ai.inspection import prompt_tokens  # noqa: PLC0415 - as above

    tokens = prompt_tokens(operation)
    if isinstance(operation, Sampling):
        most, tokens = info.context_length, tokens + (operation.max_tokens or 0)
    else:
        most = info.max_input_tokens if isinstance(operation, Embed) else None
    if most is not None and tokens > most:
        yield f"may be too long: about {tokens:,} tokens, and it takes {most:,}"
