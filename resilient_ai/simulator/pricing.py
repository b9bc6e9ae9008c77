"""What a request costs, in exact decimals, from the catalogue's prices."""

from decimal import Decimal

from resilient_ai.deepinfra.catalogue import ImagePricing, Pricing

_MILLION = Decimal(1_000_000)
_TIER_FACTORS = {"priority": Decimal("1.5"), "flex": Decimal("0.8")}


def token_cost(
    pricing: Pricing, *, prompt: int, completion: int = 0, cached: int = 0, tier: str | None = None
) -> Decimal | None:
    """USD for a text request: `((prompt - cached) * in + cached * cached_in + completion * out) / 1e6 * tier_factor`.

    Args:
        pricing: Prices in USD per million tokens.
        prompt: Input tokens, the cached ones included.
        completion: Output tokens, the reasoning included.
        cached: Input tokens found in the prefix cache.
        tier: Service tier; `priority` costs 1.5 times, `flex` 0.8 times the standard price.

    Returns:
        `None` where a price that is needed is unknown.
    """
    price_in, price_out = pricing.input_per_1m, pricing.output_per_1m
    if price_in is None or (completion and price_out is None):
        return None
    # guess: the arithmetic of cached tokens and tiers is derived from the price list, not recorded.
    price_cached = price_in if pricing.cached_input_per_1m is None else pricing.cached_input_per_1m
    usd = (prompt - cached) * price_in + cached * price_cached + completion * (price_out or Decimal(0))
    return usd / _MILLION * _TIER_FACTORS.get(tier or "default", Decimal(1))


def image_cost(
    pricing: ImagePricing | None, *, images: int, width: int, height: int, steps: int | None
) -> Decimal | None:
    """USD for pictures: a price per picture, or one that grows with area and steps.

    Scaled by area the price is `usd * images * width/1024 * height/1024 * steps/base_steps`, the last factor only where
    the model is priced by steps. Other units (tokens, seconds) give `None`.
    """
    if pricing is None:
        return None
    if pricing.unit == "image":
        return pricing.usd_per_unit * images
    if pricing.unit != "image_unit":
        return None
    usd = pricing.usd_per_unit * images * Decimal(width) / 1024 * Decimal(height) / 1024
    if pricing.base_steps is None:
        return usd
    return usd * Decimal(steps or pricing.default_steps or pricing.base_steps) / pricing.base_steps


def as_float(cost: Decimal | None) -> float | None:
    """A cost as the wire writes it: a float of full precision, or null."""
    # guess: a model without a known price reports null.
    return None if cost is None else float(cost)
