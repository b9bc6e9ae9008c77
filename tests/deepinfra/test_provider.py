"""What the provider refuses when it is built."""

import math

import pytest

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.deepinfra.provider import DeepInfraProvider


@pytest.mark.parametrize("seconds", [0, -1.0, math.inf, math.nan, True, "5", None])
def test_the_time_for_a_connection_is_a_positive_number_of_seconds(seconds):
    """No time, endless time and what is no number are refused."""
    with pytest.raises(ConfigurationError) as caught:
        DeepInfraProvider(api_key="k", connect_timeout=seconds)
    assert str(caught.value) == f"connect_timeout must be a positive number of seconds, got {seconds!r}"
