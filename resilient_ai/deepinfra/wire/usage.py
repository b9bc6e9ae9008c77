"""Billed tokens, with the service's known miscounts put right."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from resilient_ai.core.results import Usage
from resilient_ai.deepinfra.wire.payload import as_count, as_money, as_object


def read_usage(raw: Mapping[str, Any] | None) -> tuple[Usage | None, Decimal | None]:
    """Return the usage block of an OpenAI route and the cost it names.

    For Google's models the service reports `completion_tokens` without the reasoning, and a total with or without it. So
    where the reasoning is larger than the completion, or the total is the sum of all three, reasoning is added to the output:

        output = completion + reasoning    if reasoning > completion or total == prompt + completion + reasoning

    A count that is negative or not a number, or a part that is larger than its whole, is None.

    Args:
        raw: The block as it came; None or empty where the service sent none.

    Returns:
        The usage, with the block in `raw`, and the cost in USD; each None where the service did not say.

    >>> usage, cost = read_usage({"prompt_tokens": 19, "completion_tokens": 84, "total_tokens": 1184,
    ...     "completion_tokens_details": {"reasoning_tokens": 1081}, "estimated_cost": 9.68e-05})
    >>> usage.output_tokens, usage.total_tokens, cost
    (1165, 1184, Decimal('0.0000968'))
    """
    if not raw:
        return None, None
    prompt = as_count(raw.get("prompt_tokens"))
    completion = as_count(raw.get("completion_tokens"))
    reasoning = as_count((as_object(raw.get("completion_tokens_details")) or {}).get("reasoning_tokens"))
    details = as_object(raw.get("prompt_tokens_details")) or {}
    cached = _part_of(prompt, as_count(details.get("cached_tokens")))
    written = as_count(details.get("cache_write_tokens"))
    usage = Usage(
        input_tokens=prompt,
        output_tokens=_output(prompt, completion, as_count(raw.get("total_tokens")), reasoning),
        cached_tokens=cached,
        cache_write_tokens=_part_of(None if prompt is None else prompt - (cached or 0), written),
        reasoning_tokens=reasoning,
        raw=raw,
    )
    return usage, as_money(raw.get("estimated_cost"))


def read_native_usage(body: Mapping[str, Any]) -> tuple[Usage | None, Decimal | None]:
    """Return the tokens and the cost that `inference_status` of a native route names.

    >>> read_native_usage({"input_tokens": 9, "inference_status": {"cost": 4.5e-08, "tokens_input": 9}})[1]
    Decimal('4.5E-8')
    """
    status = as_object(body.get("inference_status")) or {}
    tokens = as_count(status.get("tokens_input"))
    if tokens is None:
        tokens = as_count(body.get("input_tokens"))
    output = as_count(status.get("tokens_generated"))
    known = tokens is not None or output is not None
    usage = Usage(input_tokens=tokens, output_tokens=output, raw=status or None) if known else None
    return usage, as_money(status.get("cost"))


def _output(prompt: int | None, completion: int | None, total: int | None, reasoning: int | None) -> int | None:
    if completion is None or not reasoning:
        return completion
    summed = prompt is not None and total == prompt + completion + reasoning
    return completion + reasoning if summed or reasoning > completion else completion


def _part_of(whole: int | None, part: int | None) -> int | None:
    return None if whole is not None and part is not None and part > whole else part
