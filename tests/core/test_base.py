"""Frozen models, and complaints in one sentence."""

import pytest
from pydantic import Field, ValidationError, model_validator

from resilient_ai.core._base import FrozenModel, explain


class Boat(FrozenModel):
    name: str = "Ida"
    length: float = Field(default=5.0, gt=0)
    crew: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits(self):
        if self.length < len(self.crew):
            raise ValueError("crew: too many for the boat")
        return self


def complaint(hidden=frozenset(), **values):
    with pytest.raises(ValidationError) as caught:
        Boat(**values)
    return explain("Boat", caught.value, hidden=hidden)


def test_values_do_not_change():
    """A value cannot be changed and takes no unknown fields, NaN or infinity."""
    boat = Boat()
    with pytest.raises(ValidationError, match="frozen"):
        boat.name = "Eva"
    for length in (float("nan"), float("inf")):
        assert "finite" in str(complaint(length=length))


@pytest.mark.parametrize(
    ("values", "sentence", "field"),
    [
        ({"length": 0}, "Boat: length: input should be greater than 0, got 0", "length"),
        ({"crew": ("a", 5)}, "Boat: crew.1: input should be a valid string, got 5", "crew.1"),
        ({"length": 1, "crew": ("a", "b")}, "Boat: crew: too many for the boat", "crew"),
        ({"key": "secret"}, "Boat: key: there is no such field", "key"),
        (
            {"length": "x" * 99},
            f"Boat: length: input should be a valid number, unable to parse string as a number, got '{'x' * 79}...",
            "length",
        ),
    ],
)
def test_a_complaint_is_one_sentence(values, sentence, field):
    """It names the model, the field and the value; long values are cut, and the value of an unknown field is kept back."""
    error = complaint(**values)
    assert (str(error), error.field) == (sentence, field)


@pytest.mark.parametrize(
    ("crew", "shown"),
    [
        (("a", b"\xff\xff"), "bytes of length 2"),
        (("a", None), "None"),
        (("a", 5), "5"),
        (("a", {"secret": 1}), "dict of length 1"),
        (("a", object()), "object"),
    ],
)
def test_content_is_named_by_type_and_size(crew, shown):
    """A value below a hidden field shows what it is and not what it says."""
    assert str(complaint(hidden={"crew"}, crew=crew)).endswith(f", got {shown}")
