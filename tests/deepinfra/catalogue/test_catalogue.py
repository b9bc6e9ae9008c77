"""The package shows its public names and no others."""

import subprocess
import sys

import pytest

from resilient_ai.deepinfra import catalogue as package


def test_all_is_sorted_and_complete():
    """`__all__` is in order and equals the public names that are not modules."""
    for name in package._HOME_OF:
        getattr(package, name)
    modules = {
        "abilities",
        "changes",
        "client_catalogue",
        "ids",
        "live",
        "lookup",
        "models",
        "overrides",
        "prices",
        "query",
    }
    others = {"TYPE_CHECKING", "import_module", "retirement"}
    public = {name for name in vars(package) if not name.startswith("_")} - modules - others

    assert package.__all__ == sorted(package.__all__)
    assert set(package.__all__) == public


def test_looking_a_model_up_imports_no_event_loop():
    """What only a refresh needs is imported when it is asked for."""
    code = "import sys; from resilient_ai.deepinfra.catalogue import catalogue, ModelQuery; print('asyncio' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout == "False\n"


def test_a_name_that_does_not_exist_is_said_to():
    """A wrong name is the usual error."""
    with pytest.raises(AttributeError, match="has no attribute 'Cataloge'"):
        package.Cataloge  # noqa: B018 - asking is the point
