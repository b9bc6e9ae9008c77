"""Looks models up by id, by what they can do and by what they cost."""

from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal

from resilient_ai.deepinfra.catalogue._data import Snapshot, read
from resilient_ai.deepinfra.catalogue.models import KINDS, STATUSES, ModelInfo, ModelKind, ModelStatus, one_of


class Catalogue:
    """The models of DeepInfra as they stood on one day.

    Without arguments it is the data of the package, read from disk on first use (a few milliseconds, once). Prices
    and models change within weeks, so `as_of` says how old the data is and `with_models` puts newer records in.

    Args:
        models: Records to use in place of the packaged ones.
        as_of: Day of these records. Given with `models`, and only then.

    Raises:
        ValueError: If only one of the two is given, or two records have one id.

    >>> catalogue = Catalogue()
    >>> [model.id for model in catalogue.find(kind="embedding", org="BAAI", dimensions=768)]
    ['BAAI/bge-base-en-v1.5']
    """

    def __init__(self, models: Iterable[ModelInfo] | None = None, *, as_of: date | None = None) -> None:
        if (models is None) != (as_of is None):
            raise ValueError("models and as_of go together: give both, or neither for the packaged data")
        self._packaged = models is None
        self._held = None if models is None or as_of is None else Snapshot(as_of, _by_id(models))

    def __repr__(self) -> str:
        if self._packaged:
            return "Catalogue()"
        return f"Catalogue(<{len(self)} models>, as_of={self.as_of!r})"

    def __len__(self) -> int:
        return len(self._snapshot.by_id)

    def __iter__(self) -> Iterator[ModelInfo]:
        return iter(self.models)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.get(id) is not None

    @property
    def as_of(self) -> date:
        """Day on which the data as a whole held; a price carries its own day in `price_as_of`."""
        return self._snapshot.as_of

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """Every record, retired ones included, in the order of the ids; the same object as long as nothing has changed."""
        return self._snapshot.models

    def get(self, id: str) -> ModelInfo | None:
        """Look one model up by its exact id.

        Args:
            id: `NAME`, or `NAME:VERSION` for a pinned version, which has the record of its name. Case matters.

        Returns:
            The record; None for an unknown id and for a private deployment (`deploy_id:...`).

        >>> Catalogue().get("BAAI/bge-m3").dimensions
        1024
        """
        by_id = self._snapshot.by_id
        if id in by_id or id.startswith("deploy_id:"):
            return by_id.get(id)
        name, _, version = id.rpartition(":")
        return by_id.get(name) if version else None

    def find(
        self,
        kind: ModelKind | None = None,
        *,
        tools: bool | None = None,
        vision: bool | None = None,
        json: bool | None = None,
        reasoning: bool | None = None,
        code: bool | None = None,
        prompt_caching: bool | None = None,
        status: ModelStatus | None = "active",
        max_input_price: Decimal | float | None = None,
        max_output_price: Decimal | float | None = None,
        min_context: int | None = None,
        dimensions: int | None = None,
        org: str | None = None,
        family: str | None = None,
        text: str | None = None,
    ) -> tuple[ModelInfo, ...]:
        """Find the models that meet every condition given, the cheapest first.

        Where something is unknown of a model, the model meets no condition on it, neither `tools=True` nor
        `tools=False`.

        Args:
            kind: `chat`, `completion`, `embedding`, `image`, `rerank`, `asr`, `tts`, `ocr` or `video`.
            tools: Calls functions.
            vision: Reads images.
            json: Answers in JSON.
            reasoning: Thinks before it answers.
            code: Made for code.
            prompt_caching: Bills repeated prefixes at a lower price.
            status: `active` unless said otherwise; None for every status.
            max_input_price: USD per million input tokens, this price included.
            max_output_price: USD per million output tokens, this price included.
            min_context: Tokens; compared with the context length, or with the longest input of a model without one.
            dimensions: Exact length of one vector.
            org: The part of the id before the slash, in any case.
            family: Such as `llama-3.3`, in any case.
            text: Part of the id, in any case.

        Returns:
            Records by price, then id. The price is the sum of input and output price per million tokens, or that of
            one unit, or of one image with the model's defaults; a model without a known price comes last.

        Raises:
            ValueError: If kind or status is not one of its values; the message names them.

        >>> [model.id for model in Catalogue().find("chat", text="llama-3.3", max_output_price=0.40)]
        ['meta-llama/Llama-3.3-70B-Instruct-Turbo']
        """
        if kind is not None:
            one_of("kind", kind, KINDS)
        if status is not None:
            one_of("status", status, STATUSES)
        exact = {
            "kind": kind,
            "status": status,
            "tools": tools,
            "vision": vision,
            "json": json,
            "reasoning": reasoning,
            "code": code,
            "prompt_caching": prompt_caching,
            "dimensions": dimensions,
        }
        wanted = {name: value for name, value in exact.items() if value is not None}
        found = (
            model
            for model in self.models
            if all(getattr(model, name) == value for name, value in wanted.items())
            and _at_most(model.pricing.input_per_1m, max_input_price)
            and _at_most(model.pricing.output_per_1m, max_output_price)
            and _at_least(model.context_length or model.max_input_tokens, min_context)
            and (org is None or model.org.lower() == org.lower())
            and (family is None or (model.family or "").lower() == family.lower())
            and (text is None or text.lower() in model.id.lower())
        )
        return tuple(sorted(found, key=_by_price))

    def replacement(self, id: str) -> str | None:
        """Name the active model that stands in for a retired one, through any number of retirements.

        Returns:
            An id; None if the model is unknown or not retired, or if no active model stands in for it.

        >>> Catalogue().replacement("Qwen/QwQ-32B")
        'Qwen/Qwen3-32B'
        """
        model = self.get(id)
        seen: set[str] = set()
        while model is not None and model.retired and model.replaced_by is not None and model.id not in seen:
            seen.add(model.id)
            model = self.get(model.replaced_by)
        return model.id if seen and model is not None and model.status == "active" else None

    def with_models(self, *models: ModelInfo) -> "Catalogue":
        """Make a copy with further records, each in place of the one with the same id if there is one.

        For prices that have moved, and for private models that should have a cost.

        >>> mine = ModelInfo(id="me/my-llama", org="me", kind="chat", status="active")
        >>> "me/my-llama" in Catalogue().with_models(mine)
        True
        """
        by_id = self._snapshot.by_id | _by_id(models)
        return Catalogue(by_id.values(), as_of=self.as_of)

    @property
    def _snapshot(self) -> Snapshot:
        if self._held is None:
            self._held = read()
        return self._held


def _by_id(models: Iterable[ModelInfo]) -> dict[str, ModelInfo]:
    by_id: dict[str, ModelInfo] = {}
    for model in sorted(models, key=lambda model: model.id):
        if model.id in by_id:
            raise ValueError(f"two records have the id {model.id!r}")
        by_id[model.id] = model
    return by_id


def _at_most(price: Decimal | None, limit: Decimal | float | None) -> bool:
    # Through str, because the float 0.3 is less than the Decimal 0.3.
    return limit is None or (price is not None and price <= Decimal(str(limit)))


def _at_least(tokens: int | None, limit: int | None) -> bool:
    return limit is None or (tokens is not None and tokens >= limit)


def _by_price(model: ModelInfo) -> tuple[bool, Decimal, str]:
    price = _comparable_price(model)
    return price is None, price or Decimal(0), model.id


def _comparable_price(model: ModelInfo) -> Decimal | None:
    pricing = model.pricing
    if pricing.image is not None:
        return pricing.image.cost()
    if pricing.per_unit is not None:
        return pricing.per_unit.usd_per_unit
    if pricing.input_per_1m is None:
        return None
    return pricing.input_per_1m + (pricing.output_per_1m or 0)


catalogue = Catalogue()
