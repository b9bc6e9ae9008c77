"""The package shows its public names and no others."""

from resilient_ai.deepinfra import catalogue as package


def test_all_is_sorted_and_complete():
    """`__all__` is in order and equals the public names that are not modules."""
    modules = {"abilities", "ids", "lookup", "models", "prices", "retirement"}
    public = {name for name in vars(package) if not name.startswith("_")} - modules

    assert package.__all__ == sorted(package.__all__)
    assert set(package.__all__) == public
