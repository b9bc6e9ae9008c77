"""What is known of one model: its kind, limits, abilities and prices."""

from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Final, Literal, TypeAlias, get_args

ModelKind: TypeAlias = Literal["chat", "completion", "embedding", "image", "rerank", "asr", "tts", "ocr", "video"]
ModelStatus: TypeAlias = Literal["active", "retired", "presumed_removed", "unknown"]
ImageUnit: TypeAlias = Literal["image", "image_unit", "image_token", "second", "provider_unit"]
PriceConfidence: TypeAlias = Literal["high", "medium", "low"]

KINDS: Final[tuple[str, ...]] = get_args(ModelKind)
STATUSES: Final[tuple[str, ...]] = get_args(ModelStatus)
_IMAGE_UNITS: Final[tuple[str, ...]] = get_args(ImageUnit)
_MILLION = Decimal(1_000_000)
_NOTHING = Decimal(0)
_IMAGE_UNIT_PIXELS = 1024 * 1024
# Where a price other than 0 can be, in US dollars; farther out sums of prices would lose digits, or overflow.
_LEAST, _MOST = Decimal("1E-12"), Decimal(1_000_000_000)
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePricing:
    """The price of generated images, and what is needed to work it out.

    Args:
        unit: What one unit is. `image`: one image, of whatever size. `image_unit`: one image of 1024 x 1024 pixels
            made in `base_steps` steps. `image_token`, `second`, `provider_unit`: counted by the provider alone, so
            that no cost can be computed before the answer.
        usd_per_unit: USD for one unit.
        default_width: Pixels, used by the provider when the request names no size.
        default_height: Pixels, likewise.
        default_steps: Inference steps when the request names none; not always equal to `base_steps`.
        base_steps: Steps contained in one `image_unit`. None where steps do not change the price.

    Raises:
        ValueError: If the unit is unknown, or the price is none: negative, not finite, or not 0 and outside of 1e-12 to 1e9 USD.
        TypeError: If the price is not a Decimal.
    """

    unit: ImageUnit
    usd_per_unit: Decimal
    default_width: int | None = None
    default_height: int | None = None
    default_steps: int | None = None
    base_steps: int | None = None

    def __post_init__(self) -> None:
        one_of("unit", self.unit, _IMAGE_UNITS)
        _check_price("usd_per_unit", self.usd_per_unit)

    def cost(
        self, *, images: int = 1, width: int | None = None, height: int | None = None, steps: int | None = None
    ) -> Decimal | None:
        """Work out the USD for a number of images.

        With the unit `image`: `usd * images`. With `image_unit`:
        `usd * images * (width / 1024) * (height / 1024) * (steps / base_steps)`, without the last factor where
        `base_steps` is None. The one division comes last, so the result is exact to 28 digits.

        Args:
            images: Number of images, 0 or more.
            width: Pixels; the model's default when None. Ignored unless the unit is `image_unit`.
            height: Pixels, likewise.
            steps: Inference steps, likewise.

        Returns:
            USD, or None where the provider alone counts the units, or a number has no default or is out of range.

        >>> ImagePricing(unit="image_unit", usd_per_unit=Decimal("0.0005"), base_steps=1).cost(
        ...     width=768, height=512, steps=4
        ... )
        Decimal('0.00075')
        """
        if images < 0:
            return None
        if self.unit == "image":
            return self.usd_per_unit * images
        if self.unit != "image_unit":
            return None
        width = self.default_width if width is None else width
        height = self.default_height if height is None else height
        steps = self.default_steps if steps is None else steps
        if self.base_steps is None:
            steps = 1
        if width is None or height is None or steps is None or min(width, height, steps) < 1:
            return None
        return self.usd_per_unit * images * width * height * steps / (_IMAGE_UNIT_PIXELS * (self.base_steps or 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrice:
    """A price for something counted neither in tokens nor in images, such as a minute of speech.

    Args:
        unit: `minute` of audio heard, `1m_characters` spoken, `output_second` of video.
        usd_per_unit: USD for one unit.
    """

    unit: str
    usd_per_unit: Decimal

    def __post_init__(self) -> None:
        _check_price("usd_per_unit", self.usd_per_unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """The list price of a model, without discounts. None means unknown, never free.

    Args:
        input_per_1m: USD per million input tokens.
        output_per_1m: USD per million output tokens, reasoning included.
        cached_input_per_1m: USD per million input tokens that were read from the provider's prompt cache.
        cache_write_per_1m: USD per million input tokens that were written to it, to be kept for five minutes.
        image: Price of generated images.
        per_unit: Price of audio or video.

    Raises:
        ValueError: If a price is none: negative, not finite, or not 0 and outside of 1e-12 to 1e9 USD.
        TypeError: If a price is not a Decimal; a float would carry its rounding into every cost.
    """

    input_per_1m: Decimal | None = None
    output_per_1m: Decimal | None = None
    cached_input_per_1m: Decimal | None = None
    cache_write_per_1m: Decimal | None = None
    image: ImagePricing | None = None
    per_unit: UnitPrice | None = None

    def __post_init__(self) -> None:
        _check_price("input_per_1m", self.input_per_1m)
        _check_price("output_per_1m", self.output_per_1m)
        _check_price("cached_input_per_1m", self.cached_input_per_1m)
        _check_price("cache_write_per_1m", self.cache_write_per_1m)

    def token_cost(
        self, *, input_tokens: int = 0, output_tokens: int = 0, cached_tokens: int = 0, cache_write_tokens: int = 0
    ) -> Decimal | None:
        """Work out the USD for a number of tokens.

        The cost is `(fresh * input_price + cached * cached_price + written * write_price + output * output_price) / 1e6`, where
        `fresh = input - cached - written`. A price is needed only where its number of tokens is not 0.

        Args:
            input_tokens: Tokens of the prompt, cached and written ones included, as the provider's usage counts them.
            output_tokens: Tokens of the answer, reasoning included.
            cached_tokens: The part of `input_tokens` that was read from the prompt cache.
            cache_write_tokens: The part of `input_tokens` that was written to it.

        Returns:
            USD, exact; None where a needed price is unknown or the numbers contradict one another.

        >>> Pricing(input_per_1m=Decimal("0.10"), output_per_1m=Decimal("0.32")).token_cost(
        ...     input_tokens=1000, output_tokens=500
        ... )
        Decimal('0.00026')
        """
        # Asked for every answer, of which most have nothing to do with the prompt cache.
        fresh = _times(input_tokens - cached_tokens - cache_write_tokens, self.input_per_1m)
        answer = _times(output_tokens, self.output_per_1m)
        if fresh is None or answer is None:
            return None
        if not cached_tokens and not cache_write_tokens:
            return (fresh + answer) / _MILLION
        cached = _times(cached_tokens, self.cached_input_per_1m)
        written = _times(cache_write_tokens, self.cache_write_per_1m)
        return None if cached is None or written is None else (fresh + cached + written + answer) / _MILLION


def _times(tokens: int, price: Decimal | None) -> Decimal | None:
    if not tokens:
        return _NOTHING
    return None if tokens < 0 or price is None else tokens * price


@dataclass(frozen=True, slots=True, kw_only=True)
class Promo:
    """A running discount, which the provider bills instead of the list price and ends without notice.

    Args:
        discount_pct: Per cent taken off the list price.
        as_of: Day on which the discount was seen.
        input_per_1m: Discounted USD per million input tokens.
        output_per_1m: Discounted USD per million output tokens.
        cached_input_per_1m: Discounted USD per million cached input tokens.
    """

    discount_pct: Decimal
    as_of: date
    input_per_1m: Decimal | None = None
    output_per_1m: Decimal | None = None
    cached_input_per_1m: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is known of one model. None always means unknown, never no.

    Args:
        id: The name to send, such as `meta-llama/Llama-3.3-70B-Instruct-Turbo`. Case matters.
        org: The part of the id before the slash.
        kind: What the model does: `chat`, `completion`, `embedding`, `image`, `rerank`, `asr` (speech to text), `tts`
            (text to speech), `ocr` or `video`.
        family: Group of related models, such as `llama-3.3`.
        status: `active`, `retired` (announced, with a date), `presumed_removed` (no longer listed) or `unknown`.
        deprecated_on: Day on which a retired model was withdrawn.
        replaced_by: Id of the model that answers in place of a retired one.
        context_length: Tokens of prompt and answer together.
        max_output_tokens: Most tokens of one answer.
        max_input_tokens: Most tokens of one input of an embedding or rerank model.
        dimensions: Length of one embedding vector.
        parameters: Size as published, such as `70B`.
        parameters_active: Size of the part that works on one token, for mixtures of experts.
        quantization: Number format of the weights as served, such as `fp8`.
        input_modalities: What goes in: `text`, `image`, `audio`, `video`.
        output_modalities: What comes out: `text`, `image`, `audio`, `video`, `embedding`, `score`.
        tools: Calls functions.
        json: Answers in JSON when asked to.
        vision: Reads images.
        reasoning: Thinks before it answers, in tokens that are billed as output.
        code: Made for code, judged by its name.
        prompt_caching: Bills repeated prefixes of a prompt at a lower price.
        audio_input: Hears audio.
        video_input: Watches video.
        service_tiers: Tiers with a price of their own beside the default: `priority`, `flex`.
        pricing: List prices; for a retired model the last ones.
        price_as_of: ISO date on which the price was seen; for a few old records only the year, or year and month.
        price_confidence: `high`, `medium` or `low`, by number and age of the sources.
        promo: Discount that was running on its `as_of`.

    Raises:
        ValueError: If kind or status is not one of the values above.

    >>> ModelInfo(id="me/my-llama", org="me", kind="chat", status="active").retired
    False
    """

    id: str
    org: str
    kind: ModelKind
    family: str | None = None
    status: ModelStatus = "unknown"
    deprecated_on: date | None = None
    replaced_by: str | None = None
    context_length: int | None = None
    max_output_tokens: int | None = None
    max_input_tokens: int | None = None
    dimensions: int | None = None
    parameters: str | None = None
    parameters_active: str | None = None
    quantization: str | None = None
    input_modalities: tuple[str, ...] | None = None
    output_modalities: tuple[str, ...] | None = None
    tools: bool | None = None
    json: bool | None = None
    vision: bool | None = None
    reasoning: bool | None = None
    code: bool | None = None
    prompt_caching: bool | None = None
    audio_input: bool | None = None
    video_input: bool | None = None
    service_tiers: tuple[str, ...] | None = None
    pricing: Pricing = field(default_factory=Pricing)
    price_as_of: str | None = None
    price_confidence: PriceConfidence | None = None
    promo: Promo | None = None

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        one_of("status", self.status, STATUSES)

    @property
    def retired(self) -> bool:
        """True when the provider has withdrawn the model, or no longer lists it."""
        return self.status in {"retired", "presumed_removed"}


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError with the allowed values unless `value` is one of them."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _check_price(name: str, price: Decimal | None) -> None:
    if price is None:
        return
    if not isinstance(price, Decimal):  # pyright: ignore[reportUnnecessaryIsInstance]  # a float passes at run time
        raise TypeError(f"{name} must be a Decimal, got {price!r}")
    wrong = what_is_wrong_with(price)
    if wrong is not None:
        raise ValueError(f"{name} {wrong}")


def what_is_wrong_with(price: Decimal) -> str | None:
    """Return as part of a sentence why a number is no price in US dollars; None where it can be one."""
    if not price.is_finite() or price < 0:
        return f"must be a finite number >= 0, got {str(price)[:_SHOWN]}"
    if price and not _LEAST <= price <= _MOST:
        return f"must be 0, or from {_LEAST} to {_MOST} US dollars, got {str(price)[:_SHOWN]}"
    return None
