"""Figures that are fetched: on a port or from a registry, each series once, whoever flushes or fetches at the same time."""

import asyncio
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily

from resilient_ai.core.errors import ConfigurationError
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.middleware import Metrics
from resilient_ai.observability import configure
from resilient_ai.observability._prometheus_reader import Turnstile
from resilient_ai.observability._prometheus_server import Server
from resilient_ai.testing import ScriptedProvider

pytestmark = pytest.mark.anyio

COUNT = "resilient_ai_request_duration_seconds_count"


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def asked(telemetry):
    """Send a call that is counted there."""
    stack = telemetry.applied_to([Metrics()])
    await Pipeline(ScriptedProvider(), stack).send(Chat(model="m", messages="hi"))


def scrape(port):
    """Fetch what a Prometheus would."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def series_of(text):
    """Return the names and labels of all lines."""
    return [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]


async def test_each_series_is_there_once():
    """After flushes, and for whoever comes at the same time as another one; without labels that say the same of all."""
    with configure("shop", prometheus=0, globally=False) as telemetry:
        await asked(telemetry)
        for _ in range(3):
            assert await asyncio.to_thread(telemetry.flush)

        def scrape_all():
            with ThreadPoolExecutor(16) as pool:
                return list(pool.map(scrape, [telemetry.prometheus_port] * 64))

        texts = await asyncio.to_thread(scrape_all)
    for text in texts:
        found = series_of(text)
        assert len(set(found)) == len(found)
        assert sum(line.startswith(COUNT) for line in found) == 1
        assert "otel_scope" not in text
    assert 'target_info{service_instance_id="' in texts[0]
    assert 'service_name="shop"' in texts[0]


def test_one_scrape_at_a_time():
    """Of two that come together one waits; each gets all there is."""

    class Slow:
        inside = most = 0

        def collect(self):
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.05)
            self.inside -= 1
            yield CounterMetricFamily("orders", "Orders", value=1)

    registry, slow = CollectorRegistry(), Slow()
    turnstile = Turnstile(registry)
    turnstile.register(slow)
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda _: generate_latest(registry), range(4)))
    assert slow.most == 1
    assert all(b"orders_total 1.0" in text for text in texts)
    turnstile.unregister(slow)
    assert generate_latest(registry) == b""


async def test_the_port_is_free_afterwards():
    """Nothing listens any more, and no thread is left."""
    with configure("shop", prometheus=0, globally=False) as telemetry:
        port = telemetry.prometheus_port
        assert COUNT not in await asyncio.to_thread(scrape, port)
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(scrape, port)
    socket.create_server(("127.0.0.1", port)).close()
    assert not [thread for thread in threading.enumerate() if thread.name == "resilient-ai-prometheus"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a process with threads is forked
async def test_a_forked_child_ends():
    """It has no thread that serves: it closes the socket, and takes nothing from its parent, which ends beside it as well."""
    with configure("shop", prometheus=0, globally=False) as telemetry:
        await asked(telemetry)
        from_child, told = os.pipe()
        held, let_go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(let_go)
            os.write(told, b"1" if telemetry.shutdown(10) else b"0")
            os.read(held, 1)
            os._exit(0)
        os.close(held)
        assert await asyncio.to_thread(os.read, from_child, 1) == b"1"
        assert COUNT in await asyncio.to_thread(scrape, telemetry.prometheus_port)
        started = time.monotonic()
        assert await asyncio.to_thread(telemetry.shutdown, 10)
        assert time.monotonic() - started < 0.9  # seconds; it waits one for a thread that does not end
    os.close(let_go)
    os.close(from_child)
    os.close(told)
    assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0


async def test_a_server_ends_once():
    """A second time there is nothing to do."""
    server = Server(CollectorRegistry(), "localhost", 0)
    server.end()
    server.end()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", server.port))


async def test_a_port_that_is_taken_is_said():
    """With its number and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"prometheus: 127.0.0.1:{port} cannot be listened on: Address"):
            configure("shop", prometheus=port, globally=False)


async def test_a_registry_that_the_application_serves():
    """Ours stand beside its own; afterwards its own are left."""
    registry = CollectorRegistry()
    Counter("orders", "Orders", registry=registry).inc()
    with configure("shop", prometheus=registry, globally=False) as telemetry:
        assert telemetry.prometheus_port is None
        await asked(telemetry)
        text = generate_latest(registry).decode()
        assert "orders_total 1.0" in text
        assert COUNT in text
    text = generate_latest(registry).decode()
    assert "orders_total 1.0" in text
    assert COUNT not in text


async def test_what_fails_later_takes_it_back(tmp_path):
    """A registry holds nothing of a set-up that was refused, and can be given again."""
    registry = CollectorRegistry()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="the process has a meter provider already"):
            refused(registry)
    assert generate_latest(registry) == b""


def refused(registry):
    """Set up for the process what it cannot have, as it says that it has a provider already."""
    from contextlib import ExitStack

    from resilient_ai.observability import _building

    with ExitStack() as undo:
        building = _building.Building({"service.name": "shop"}, undo, globally=True)
        building.add_prometheus(registry, "127.0.0.1")
        raise _building._taken("metrics")
