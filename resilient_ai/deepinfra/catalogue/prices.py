"""Prices calls by the catalogue, in exact decimals; an unknown price gives None, never zero."""

from decimal import Decimal

from resilient_ai.deepinfra.catalogue.lookup import Catalogue, catalogue

_TIER_FACTORS = {"default": Decimal(1), "priority": Decimal("1.5"), "flex": Decimal("0.8")}


class PriceTable:
    """What a call costs at list price, by model and amounts.

    For estimates before a call and for answers that state no cost; a cost the provider states goes before it. A
    running discount is left out, so that while it lasts the table says too much rather than too little. A retired
    model has its own last price, although the provider may bill the model that answers in its place.

    Every method takes amounts as the provider reports them and returns None, rather than raise, where the model, a
    needed price or tier is unknown, or where the amounts contradict one another: accounting never fails a call.

    Args:
        models: Where to look models up. The packaged data by default; `catalogue.with_models(...)` overrides prices.

    >>> table = PriceTable()
    >>> table.chat_cost("meta-llama/Llama-3.3-70B-Instruct-Turbo", input_tokens=1000, output_tokens=500)
    Decimal('0.00026')
    """

    def __init__(self, models: Catalogue = catalogue) -> None:
        self.models = models

    def __repr__(self) -> str:
        return f"PriceTable({self.models!r})"

    def chat_cost(
        self,
        model: str,
        *,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int = 0,
        cache_write_tokens: int = 0,
        service_tier: str | None = None,
    ) -> Decimal | None:
        """Price a chat or a completion.

        The cost is that of `Pricing.token_cost`, times 1.5 for the tier `priority`, 0.8 for `flex` and 1 for `default` and None.

        Args:
            model: Id, with or without a version.
            input_tokens: Tokens of the prompt, cached and written ones included.
            output_tokens: Tokens of the answer, reasoning included.
            cached_tokens: The part of `input_tokens` that was read from the prompt cache.
            cache_write_tokens: The part of `input_tokens` that was written to it.
            service_tier: The tier that served the call. A model without the tier that was asked for answers at the
                default one, so take it from the answer where there is one.

        Returns:
            USD, or None where it cannot be known.
        """
        info = self.models.get(model)
        if info is None:
            return None
        cost = info.pricing.token_cost(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            cache_write_tokens=cache_write_tokens,
        )
        return _at_tier(cost, service_tier)

    def embedding_cost(self, model: str, *, input_tokens: int, service_tier: str | None = None) -> Decimal | None:
        """Price embeddings: `input_tokens * input_price / 1e6`, times the factor of the tier.

        Args:
            model: Id, with or without a version.
            input_tokens: Tokens of all inputs together.
            service_tier: The tier that served the call.

        Returns:
            USD, or None where it cannot be known.

        >>> PriceTable().embedding_cost("BAAI/bge-m3", input_tokens=250_000)
        Decimal('0.0025')
        """
        info = self.models.get(model)
        return None if info is None else _at_tier(info.pricing.token_cost(input_tokens=input_tokens), service_tier)

    def image_cost(
        self, model: str, *, images: int, width: int | None = None, height: int | None = None, steps: int | None = None
    ) -> Decimal | None:
        """Price generated images; the formula is that of `ImagePricing.cost`.

        Args:
            model: Id, with or without a version.
            images: Number of images.
            width: Pixels; the model's default when None.
            height: Pixels; the model's default when None.
            steps: Inference steps; the model's default when None.

        Returns:
            USD, or None where it cannot be known, as with models billed by image token or by second.

        >>> PriceTable().image_cost("black-forest-labs/FLUX-1-schnell", images=1, width=768, height=512, steps=4)
        Decimal('0.00075')
        """
        info = self.models.get(model)
        if info is None or info.pricing.image is None:
            return None
        return info.pricing.image.cost(images=images, width=width, height=height, steps=steps)


def _at_tier(cost: Decimal | None, tier: str | None) -> Decimal | None:
    if cost is None or tier is None:
        return cost
    factor = _TIER_FACTORS.get(tier)
    return None if factor is None else cost * factor
