"""Every example runs against the simulator, as a program of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resilient_ai.simulator import serve

EXAMPLES = Path(__file__).parent.parent / "examples"
TELLING = {
    "blocking_thread_pool": "24 answers on 8 threads, 0.",
    "budgets": "50% of 0.0001 USD per day tenant=acme is spent",
    "cached_embeddings": "once more: 300 of 300 texts from the cache, 0 requests, 0 USD",
    "calm_cache": "in an outage: stale, ",
    "costs_per_tenant": "tenant acme: 5 sends",
    "fallback": "(served by meta-llama/Llama-3.3-70B-Instruct-Turbo after 2 requests)",
    "own_middleware": "answer: write to <address>",
    "routing": "the cheapest: meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
    "telemetry": "span: chat meta-llama/Llama-3.3-70B-Instruct-Turbo 0 hit 0.0",
    "tour": "ten stops done",
    "tracing_to_console": "chat meta-llama/Llama-3.3-70B-Instruct-Turbo",
}


@pytest.fixture(scope="module")
def service():
    with serve() as simulator:
        yield simulator


@pytest.fixture
def run(service, tmp_path):
    """Run a program as a user does, with an environment that leads to the simulator."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESILIENT_AI_")}
    environment |= {
        "DEEPINFRA_API_KEY": "key-of-the-test",
        "RESILIENT_AI_BASE_URL": service.base_url,
        "RESILIENT_AI_HOME": str(tmp_path / "home"),
        "PYTHONWARNINGS": "error",
    }

    def run(name, *arguments):
        return subprocess.run(
            [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )

    return run


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_runs_and_shows_what_it_promises(name, run):
    """It ends well, says nothing on the error channel, and prints the line that shows its point."""
    done = run(name)

    assert (done.returncode, done.stderr) == (0, "")
    assert TELLING[name] in done.stdout


def test_the_tour_leaves_its_pictures_where_it_is_told(run, tmp_path):
    """Its argument is a folder, made if need be."""
    done = run("tour", "pictures")

    assert done.returncode == 0
    assert [path.stem for path in (tmp_path / "pictures").iterdir()] == ["lighthouse"]


def test_the_second_run_of_a_program_finds_what_the_first_has_embedded(run):
    """Vectors outlive the process that asked for them."""
    first, second = (run("cached_embeddings").stdout for _ in range(2))

    assert first.startswith("at first: 0 of 300 texts from the cache, 4 requests")
    assert second.startswith("at first: 300 of 300 texts from the cache, 0 requests, 0 USD")
