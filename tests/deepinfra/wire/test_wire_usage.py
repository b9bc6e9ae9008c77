"""Usage blocks, with the miscounts of Google's models put right."""

from decimal import Decimal

import pytest

from resilient_ai.deepinfra.wire.usage import read_native_usage, read_usage


def block(prompt, completion, total, reasoning):
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


@pytest.mark.parametrize(
    ("raw", "output", "total"),
    [
        (block(19, 84, 1184, 1081), 1165, 1184),
        (block(9, 1124, 1133, 1541), 2665, 2674),
        (block(10, 100, 150, 40), 140, 150),
        (block(10, 100, 110, 40), 100, 110),
        (block(10, 100, 110, 0), 100, 110),
        (block(10, 100, 110, None), 100, 110),
        (block(None, 100, None, 140), 240, 240),
        (block(None, 100, 140, 40), 100, 100),
        (block(10, None, None, 40), None, 10),
    ],
)
def test_reasoning_that_was_left_out_is_added(raw, output, total):
    """Reasoning larger than the completion, or a total of all three, shows that the completion lacks it."""
    usage, cost = read_usage(raw)

    assert (usage.output_tokens, usage.total_tokens, cost) == (output, total, None)
    assert usage.raw == raw


def test_all_details():
    """Cached, written and reasoning tokens are parts; the cost keeps its digits."""
    usage, cost = read_usage(
        {
            "prompt_tokens": 2000,
            "completion_tokens": 100,
            "total_tokens": 2100,
            "estimated_cost": 0.0009284,
            "prompt_tokens_details": {"cached_tokens": 1536, "cache_write_tokens": 64},
            "completion_tokens_details": {"reasoning_tokens": 61},
        }
    )

    assert (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens) == (2000, 1536, 64)
    assert (usage.output_tokens, usage.reasoning_tokens) == (100, 61)
    assert cost == Decimal("0.0009284")


@pytest.mark.parametrize("raw", [None, {}])
def test_no_block_is_no_usage(raw):
    """What was not reported is None, never zero."""
    assert read_usage(raw) == (None, None)


@pytest.mark.parametrize("count", [-1, 1.5, "7", True, None, 10**13, [7], float("inf"), float("nan")])
def test_an_absurd_count_is_unknown(count):
    """Negative, broken, huge and foreign values are None, and the block is kept."""
    usage, cost = read_usage({"prompt_tokens": count, "completion_tokens": 3, "estimated_cost": None})

    assert (usage.input_tokens, usage.output_tokens, cost) == (None, 3, None)


def test_a_part_larger_than_its_whole_is_unknown():
    """More cached tokens than tokens cannot be."""
    details = {"cached_tokens": 11, "cache_write_tokens": 11}
    usage, _ = read_usage({"prompt_tokens": 10, "prompt_tokens_details": details})
    both, _ = read_usage({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 6}})
    unknown, _ = read_usage({"prompt_tokens_details": details})

    assert (usage.cached_tokens, usage.cache_write_tokens) == (None, None)
    assert (both.cached_tokens, both.cache_write_tokens) == (6, None)
    assert (unknown.cached_tokens, unknown.cache_write_tokens) == (11, 11)


@pytest.mark.parametrize("cost", [-0.1, True, "0.1", float("nan"), float("inf"), 10**13])
def test_an_absurd_cost_is_unknown(cost):
    """A cost that cannot be is None, and no failure."""
    assert read_usage({"prompt_tokens": 1, "estimated_cost": cost})[1] is None


def test_native_status():
    """`inference_status` names tokens and cost; `input_tokens` stands in where it does not."""
    status = {"status": "succeeded", "cost": 4.5e-08, "tokens_input": 9, "tokens_generated": 0}
    usage, cost = read_native_usage({"input_tokens": 8, "inference_status": status})
    short, _ = read_native_usage({"input_tokens": 8})

    assert (usage.input_tokens, usage.output_tokens, usage.raw, cost) == (9, 0, status, Decimal("4.5E-8"))
    assert (short.input_tokens, short.output_tokens, short.raw) == (8, None, None)
    assert read_native_usage({"inference_status": {"cost": 1}}) == (None, Decimal(1))
