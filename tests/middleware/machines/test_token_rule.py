"""TokenRule: tokens by the length of a text, learned from texts whose tokens were told."""

import pytest

from resilient_ai.middleware._machines.token_rule import TokenRule


def learned(*pairs):
    rule = TokenRule()
    for characters, tokens in pairs:
        rule.record(characters, tokens)
    return rule


@pytest.mark.parametrize("pairs", [(), ((100, 25),), ((100, 25), (200, 50))])
def test_too_little_is_nothing(pairs):
    """Fewer than three texts tell nothing."""
    assert learned(*pairs).tokens_of(100) is None


def test_a_line_with_what_every_prompt_has():
    """Twelve tokens of a template and one for three characters are found, for short and long texts."""
    rule = learned(*((characters, 12 + characters // 3) for characters in range(30, 300, 30)))
    assert (rule.tokens_of(0), rule.tokens_of(60), rule.tokens_of(3000)) == (12, 32, 1012)


def test_texts_of_one_length():
    """Where no line can be drawn, the tokens for a character are taken."""
    assert learned(*[(100, 40)] * 5).tokens_of(200) == 80


@pytest.mark.parametrize("pairs", [((100, 1), (200, 1), (300, 1)), ((1, 100), (2, 200), (3, 300)), ((0, 4),) * 3])
def test_what_no_text_can_be_is_not_believed(pairs):
    """A token for more than twenty characters, more than four tokens for one, and prompts without characters teach nothing."""
    assert learned(*pairs).tokens_of(100) is None


def test_a_text_has_a_token_at_least():
    """However the line falls, no text has less than one."""
    assert learned((100, 1), (200, 26), (300, 51)).tokens_of(4) == 1


def test_old_texts_are_forgotten():
    """When prompts change their language, a thousand texts later the new rule holds."""
    rule = learned(*((characters, characters // 4) for characters in range(40, 2000, 40)))
    for characters in (100, 200, 300, 400, 500) * 200:
        rule.record(characters, characters)
    assert rule.tokens_of(1000) == pytest.approx(1000, rel=0.02)
    assert rule.texts == pytest.approx(100, rel=0.02)
