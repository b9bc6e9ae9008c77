"""A list of models that is asked of the catalogue in place of being written down."""

from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from resilient_ai.core.checks import check_at_least, check_count, check_kind
from resilient_ai.deepinfra.catalogue.lookup import Catalogue, catalogue
from resilient_ai.deepinfra.catalogue.models import KINDS, STATUSES, ModelInfo, ModelKind, ModelStatus, one_of

if TYPE_CHECKING:
    from resilient_ai.core.operations import Operation

_OWN = frozenset({"limit", "catalogue"})


@dataclass(frozen=True, kw_only=True)
class ModelQuery:
    """The models that meet every condition, the cheapest first, as the catalogue knows them when it is called.

    A list that is written down ages with prices and retirements. A query is asked again whenever the catalogue changes, and
    costs nothing in between.

    Args:
        kind: As in `Catalogue.find`, like the others below; `chat` unless said otherwise, None for every kind.
        tools: Calls functions.
        vision: Reads images.
        json: Answers in JSON.
        reasoning: Thinks before it answers.
        code: Made for code.
        prompt_caching: Bills repeated prefixes at a lower price.
        status: `active` unless said otherwise; None for every status.
        max_input_price: USD per million input tokens, this price included.
        max_output_price: USD per million output tokens, this price included.
        min_context: Tokens.
        dimensions: Exact length of one vector.
        org: The part of the id before the slash, in any case.
        family: Such as `llama-3.3`, in any case.
        text: Part of the id, in any case.
        limit: Most models, of which the cheapest are taken; None for all.
        catalogue: Where to look; the packaged data by default, or a `LiveCatalogue`.

    Raises:
        ValueError: If an argument is none of its values; the message says which and what was given.

    >>> ModelQuery(text="llama-3.3", max_output_price=0.40).models()
    ('meta-llama/Llama-3.3-70B-Instruct-Turbo',)
    """

    kind: ModelKind | None = "chat"
    tools: bool | None = None
    vision: bool | None = None
    json: bool | None = None
    reasoning: bool | None = None
    code: bool | None = None
    prompt_caching: bool | None = None
    status: ModelStatus | None = "active"
    max_input_price: Decimal | float | None = None
    max_output_price: Decimal | float | None = None
    min_context: int | None = None
    dimensions: int | None = None
    org: str | None = None
    family: str | None = None
    text: str | None = None
    limit: int | None = None
    catalogue: Catalogue = field(default=catalogue, repr=False)

    def __post_init__(self) -> None:
        if self.kind is not None:
            one_of("kind", self.kind, KINDS)
        if self.status is not None:
            one_of("status", self.status, STATUSES)
        for name in ("tools", "vision", "json", "reasoning", "code", "prompt_caching"):
            check_kind(name, getattr(self, name), bool, None)
        for name in ("max_input_price", "max_output_price"):
            price = getattr(self, name)
            if price is not None:
                check_at_least(name, float(price) if isinstance(price, Decimal) else price, 0)
        for name in ("min_context", "dimensions", "limit"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), 1)
        for name in ("org", "family", "text"):
            check_kind(name, getattr(self, name), str, None)
        check_kind("catalogue", self.catalogue, Catalogue)

    def __call__(self, _operation: "Operation[Any]", /) -> tuple[str, ...]:
        """Return the ids for `Routing`, which asks at every call; the operation makes no difference here."""
        return self.models()

    def models(self) -> tuple[str, ...]:
        """Return the ids that meet the conditions now."""
        now = self.catalogue.models
        kept: tuple[tuple[ModelInfo, ...], tuple[str, ...]] | None = self.__dict__.get("_kept")
        if kept is None or kept[0] is not now:
            wanted = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in _OWN}
            found = self.catalogue.find(**wanted)[: self.limit]
            kept = now, tuple(model.id for model in found)
            object.__setattr__(self, "_kept", kept)
        return kept[1]

    def at(self, catalogue: Catalogue) -> "ModelQuery":
        """Return the same query of another catalogue, such as that of a client."""
        return replace(self, catalogue=catalogue)
