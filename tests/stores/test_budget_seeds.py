"""Which new counters are looked up together."""

from dataclasses import replace

from resilient_ai.core.budgets import Charge
from resilient_ai.stores._budget_seeds import groups_of, new_life, span

ONE = Charge(key="a", slice=60, first=0, amount=7, limit=9, until=120, scope={"tenant": "a", "team": "t"})


def test_scopes_that_name_the_same_tags_are_one_group():
    """Whatever their values and the order of the tags; another window, other tags or another kind is another."""
    other = replace(ONE, key="b", scope={"team": "u", "tenant": "b"})
    apart = [
        replace(ONE, first=60),
        replace(ONE, until=180),
        replace(ONE, scope={"tenant": "a"}),
        replace(ONE, scope={**ONE.scope, "kind": "chat"}),
        replace(ONE, scope={**ONE.scope, "kind": "embed"}),
    ]
    first, *others = groups_of([ONE, *apart, other])
    assert (first.names, first.kinds, first.charges) == (("team", "tenant"), None, [ONE, other])
    assert [first.values(charge) for charge in first.charges] == [("t", "a"), ("u", "b")]
    assert [group.charges for group in others] == [[charge] for charge in apart]
    assert [group.kinds for group in others][3:] == [("chat", "stream"), ("embed",)]
    assert span(ONE) == ("a", 0, 60)


def test_no_two_lives_are_the_same():
    """And each fits into a counter's column."""
    lives = {new_life() for _ in range(1_000)}
    assert len(lives) == 1_000
    assert all(0 <= life < 2**62 for life in lives)
