"""What all readers of JSON share: numbers that are none, and figures that cannot be meant."""

import json
import logging
import math
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_ai.core.results import Cost
from resilient_ai.deepinfra.wire.chat import read_chat
from resilient_ai.deepinfra.wire.payload import as_money, load_json, provider_cost

ODD = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1.5E+999", "1" * 400, "-" + "1" * 310 + ".5"]
TEXT = st.text(max_size=9) | st.sampled_from([*ODD[:5], ":NaN,", "\\\\NaN", '"NaN', '\\\\"1e400,'])
JSON = st.recursive(
    st.none() | st.integers(-(2**53), 2**53) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def finite(value):
    """The same with None for each number that is none."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TestNumbers:
    """Numbers that are none."""

    @pytest.mark.parametrize("odd", ODD)
    def test_a_number_that_is_none_is_not_known(self, odd):
        """Wherever it stands, and with its neighbours left as they are."""
        assert load_json(odd.encode()) is None
        assert load_json(f'{{"é🌊": {odd},"b":[{odd} ,1.5,{odd}]}}'.encode()) == {"é🌊": None, "b": [None, 1.5, None]}

    @given(JSON)
    def test_all_else_stays_what_it_is(self, value):
        """Texts that look like such a number are texts."""
        assert load_json(json.dumps(value, ensure_ascii=False).encode()) == finite(value)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[NaN",
            "[1e400",
            "[nan]",
            "[NaNs]",
            "[01]",
            "[1e400x]",
            r'["\NaN"]',
            r'["\ud800:NaN,"]',
            '["\x01NaN"]',
            "-",
        ],
    )
    def test_what_is_no_json_stays_none(self, text):
        """Nothing is made up, least of all inside of a text."""
        with pytest.raises(orjson.JSONDecodeError) as caught:
            load_json(text.encode())
        assert caught.value.__context__ is None

    def test_not_for_ever(self):
        """A body full of them is refused, as it would be read again for each."""
        assert load_json(b"[%s]" % b",".join([b"NaN"] * 32)) == [None] * 32
        with pytest.raises(orjson.JSONDecodeError):
            load_json(b"[%s]" % b",".join([b"NaN"] * 33))

    @pytest.mark.parametrize("odd", ODD)
    def test_an_answer_is_not_lost_for_its_bill(self, odd):
        """It was paid for; what is not known of its cost and its tokens is None."""
        usage = f'{{"prompt_tokens": 9, "completion_tokens": {odd}, "estimated_cost": {odd}}}'
        body = f'{{"choices": [{{"message": {{"content": "Bern."}}, "finish_reason": "stop"}}], "usage": {usage}}}'
        answer = read_chat(body.encode(), model="m", headers={})
        assert (answer.text, answer.usage.input_tokens, answer.usage.output_tokens, answer.cost) == (
            "Bern.",
            9,
            None,
            None,
        )


class TestMoney:
    """Figures of what something cost."""

    @pytest.mark.parametrize("value", [-0.0, 0.0, 0])
    def test_nothing_has_no_sign(self, value):
        """A zero is shown as one."""
        assert not as_money(value).is_signed()
        assert str(provider_cost(as_money(value), model="m")) in {"0 USD", "0.0 USD"}

    @pytest.mark.parametrize("amount", ["0", "0.0000097", "999.99", "1000"])
    def test_what_is_believed(self, amount):
        """Up to a thousand dollars, with all digits."""
        assert provider_cost(Decimal(amount), model="m") == Cost(amount=Decimal(amount), source="provider")

    def test_a_figure_that_cannot_be_meant_counts_as_not_told(self, caplog):
        """More than a thousand dollars for one request; the log has it once for each model."""
        with caplog.at_level(logging.WARNING, "resilient_ai"):
            found = [
                provider_cost(Decimal(amount), model=model) for model in ("x/a", "x/b") for amount in (1001, 10**12)
            ]
        assert found == [None] * 4
        assert [record.getMessage().split(" is not")[0] for record in caplog.records] == [
            "x/a is said to have cost 1001 USD for one request, which",
            "x/b is said to have cost 1001 USD for one request, which",
        ]

    def test_whoever_makes_models_up_fills_no_memory(self, caplog):
        """Beyond a thousand models nothing more is kept, or told."""
        with caplog.at_level(logging.CRITICAL, "resilient_ai"):
            for number in range(1100):
                provider_cost(Decimal(2000), model=f"made-up/{number}")
        with caplog.at_level(logging.WARNING, "resilient_ai"):
            assert provider_cost(Decimal(2000), model="one/more") is None
        assert not caplog.records
