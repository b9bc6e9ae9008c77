"""Variables of OpenTelemetry: what the SDK could not use is refused by the name of the variable."""

import os

import pytest

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.observability import configure
from resilient_ai.observability._environment import check_endpoint, check_variables, wrong_variables


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """An environment in which nobody has said anything of OpenTelemetry."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "a whole number >= 1, got '-1'"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon", "a whole number >= 1, got 'soon'"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "0", "a whole number >= 1, got '0'"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "9" * 99, "a whole number >= 1, got '9+'?"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-5", "a positive number, got '-5'"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1e300", "a positive number"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "nan", "a positive number"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "abc", "a positive number"),
        ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "0", "a positive number"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "x", "a whole number >= 0, got 'x'"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-1", "a whole number >= 0"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "unset", "a whole number >= 0, got 'unset'"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "bogus", "one of .'always_on', 'always_off', 'trace_based'., got 'bogus'"),
    ],
)
def test_what_cannot_be_used_is_refused(name, value, wanted, monkeypatch):
    """By the one call that sets everything up, before anything is."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name} must be {wanted}"):
        configure("shop", export="otlp", prometheus=0, globally=False)


def test_what_can_be_used(monkeypatch):
    """Numbers, and nothing at all."""
    given = {
        "OTEL_BSP_MAX_QUEUE_SIZE": " 4096 ",
        "OTEL_BSP_SCHEDULE_DELAY": "",
        "OTEL_METRIC_EXPORT_INTERVAL": "500.5",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5",
        "OTEL_SPAN_EVENT_COUNT_LIMIT": "0",
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "",
        "OTEL_METRICS_EXEMPLAR_FILTER": "always_off",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    check_variables()
    configure("shop", export="otlp", endpoint="http://127.0.0.1:1", signals=["traces"], globally=False).shutdown()


@pytest.mark.parametrize(("queue", "batch"), [("100", None), (None, "4000"), ("100", "101")])
def test_a_batch_is_no_larger_than_what_waits(queue, batch, monkeypatch):
    """Nor than the usual size of either."""
    for name, value in (("QUEUE_SIZE", queue), ("EXPORT_BATCH_SIZE", batch)):
        if value is not None:
            monkeypatch.setenv(f"OTEL_BSP_MAX_{name}", value)
    with pytest.raises(ConfigurationError, match="OTEL_BSP_MAX_EXPORT_BATCH_SIZE must not be above OTEL_BSP_MAX_QUEUE"):
        check_variables()


@pytest.mark.parametrize(
    ("value", "http", "grpc"),
    [
        ("http://collector:4318", True, True),
        ("https://collector.example/otlp", True, True),
        ("", True, True),
        ("collector:4317", False, True),
        ("dns://collector:4317", False, True),
        ("not a url", False, False),
        ("http://", False, False),
        ("http://collector:99999", False, False),
        ("http://collector:x", False, False),
        ("http://[::1", False, False),
        ("collector\n:1", False, False),
    ],
)
def test_addresses_of_a_collector(value, http, grpc, monkeypatch):
    """With a scheme for HTTP, also without one for gRPC; the sentence does not repeat it, as it may hold a password."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            for protocol, fits in (("http", http), ("grpc", grpc)):
                if fits:
                    check_endpoint("metrics", protocol)
                    continue
                with pytest.raises(ConfigurationError) as caught:
                    check_endpoint("metrics", protocol)
                assert str(caught.value) == f"{name} must be an address such as 'http://collector.example:4318'"
            check_endpoint("traces", "grpc") if "METRICS" in name else None


def test_only_a_collector_that_the_environment_names_is_looked_at(monkeypatch):
    """One that is given as an option counts instead."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url")
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_ENDPOINT must be an address"):
        configure("shop", export="otlp", globally=False)
    configure("shop", export="otlp", endpoint="http://127.0.0.1:1", signals=["traces"], globally=False).shutdown()


def test_where_to_look(monkeypatch):
    """The names of what is set, and nothing of what they hold."""
    assert wrong_variables() == "no variable OTEL_* is set"
    monkeypatch.setenv("OTEL_B", "swordfish")
    monkeypatch.setenv("OTEL_A", "swordfish")
    assert wrong_variables() == "it may be one of the variables OTEL_A, OTEL_B"
