"""Which model answers under a name, and with which habits."""

from dataclasses import dataclass
from typing import Literal

from resilient_ai.deepinfra.catalogue import Catalogue, ModelInfo, catalogue
from resilient_ai.simulator.settings import Settings, ToolDeltas, Variant

Reasoning = Literal["none", "field", "tag", "hidden"]
"""Where a model's thoughts appear: nowhere because it has none, in `reasoning_content`, inline in `<think>`, or unseen."""

_DEFAULT_MAX_TOKENS = 16384
_UNKNOWN_CONTEXT = 32768


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A model as the simulator plays it."""

    name: str
    info: ModelInfo
    reasoning: Reasoning
    usage_bug: Literal["none", "total_inclusive", "total_exclusive"]
    variant: Variant
    tool_deltas: ToolDeltas
    call_ids: Literal["call", "chatcmpl-tool", "functions"]

    @property
    def context(self) -> int:
        """Tokens of input and output together."""
        return self.info.context_length or _UNKNOWN_CONTEXT

    @property
    def caches_prompts(self) -> bool:
        """Whether a repeated prefix is reported and billed at the cached price."""
        return bool(self.info.prompt_caching) or self.info.pricing.cached_input_per_1m is not None

    def output_limit(self, prompt_tokens: int, asked: int | None) -> int:
        """Most output tokens for a request: what was asked, within the context, 16384 when nothing was asked."""
        return min(asked or _DEFAULT_MAX_TOKENS, self.context - prompt_tokens)


def resolve(name: str, settings: Settings, models: Catalogue = catalogue) -> Profile | None:
    """The profile behind a model name, `NAME:VERSION`, `deploy_id:ID` or private name; `None` if there is none."""
    if name.startswith("deploy_id:"):
        base = settings.deployments.get(name.removeprefix("deploy_id:"))
        return None if base is None else _public(base, name, settings, models)
    if name in settings.private_models:
        return _public(settings.private_models[name], name, settings, models)
    return _public(name, None, settings, models)


def _public(name: str, alias: str | None, settings: Settings, models: Catalogue) -> Profile | None:
    info = models.get(name)
    if info is None:
        return None
    replacement = models.replacement(info.id) if info.retired else None
    forwarded = models.get(replacement) if replacement is not None else None
    # guess: a retired model answers as its replacement and under that name; one without a replacement still answers.
    info = forwarded or info
    return _profile(alias or info.id, info, settings)


def _profile(name: str, info: ModelInfo, settings: Settings) -> Profile:
    reasoning = _reasoning(info)
    google = info.id.startswith(("google/gemini", "google/gemma"))
    # Variant B was seen on recent models only, and those reason; the older ones keep the older form.
    variant: Variant = "B" if google or reasoning != "none" else "A"
    variant = settings.variants.get(info.id, variant)
    split: ToolDeltas = "split" if variant == "B" else "whole"
    return Profile(
        name=name,
        info=info,
        reasoning=reasoning,
        usage_bug=_usage_bug(info.id) if google else "none",
        variant=variant,
        tool_deltas=settings.tool_deltas.get(info.id, split),
        call_ids=_call_ids(info.id),
    )


def _reasoning(info: ModelInfo) -> Reasoning:
    if not info.reasoning:
        return "none"
    if info.id.startswith("google/"):
        return "hidden"
    return "tag" if "DeepSeek-R1" in info.id else "field"


def _usage_bug(model: str) -> Literal["total_inclusive", "total_exclusive"]:
    return "total_exclusive" if "pro" in model else "total_inclusive"


def _call_ids(model: str) -> Literal["call", "chatcmpl-tool", "functions"]:
    if "Llama-3.3" in model:
        return "chatcmpl-tool"
    # guess: Kimi models keep the ids of their own template.
    return "functions" if "Kimi" in model else "call"
