"""docs/middleware.md: every middleware with every option, in the order of the stack."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import resilient_ai.middleware
from resilient_ai import default_stack

SECTIONS = re.split(
    r"^## ", (Path(__file__).parents[1] / "docs" / "middleware.md").read_text(encoding="utf-8"), flags=re.MULTILINE
)
BY_NAME = {named[1]: section for section in SECTIONS if (named := re.match(r"`(\w+)`", section))}
MIDDLEWARE = [
    part
    for part in map(vars(resilient_ai.middleware).get, resilient_ai.middleware.__all__)
    if inspect.isclass(part) and inspect.iscoroutinefunction(part.__call__)
]


@pytest.mark.parametrize("part", MIDDLEWARE, ids=lambda part: part.__name__)
def test_each_middleware_has_a_section_with_all_its_options(part):
    """Whoever looks an option up finds it."""
    section = BY_NAME[part.__name__]
    options = [field.name for field in dataclasses.fields(part) if field.init]
    assert [option for option in options if f"`{option}`" not in section] == []


def test_the_sections_follow_the_default_order(monkeypatch, tmp_path):
    """What is not part of it comes last."""
    monkeypatch.setenv("RESILIENT_AI_HOME", str(tmp_path))
    order = [type(part).__name__ for part in default_stack()]
    shown = list(BY_NAME)
    assert [name for name in shown if name in order] == [name for name in dict.fromkeys(order) if name in shown]
    assert len(MIDDLEWARE) > len(order) / 2
