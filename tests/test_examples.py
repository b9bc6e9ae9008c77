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
    "cached_embeddings": "once more: 300 of 300 texts from the cache, 0 requests, 0 USD",
    "costs_per_tenant": "tenant acme: 5 sends",
    "fallback": "(served by meta-llama/Llama-3.3-70B-Instruct-Turbo after 2 requests)",
    "own_middleware": "answer: write to <address>",
    "tour": "ten stops done",
    "tracing_to_console": "chat meta-llama/Llama-3.3-70B-Instruct-Turbo",
}


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs_and_shows_what_it_promises(program, tmp_path):
    """It ends well, says nothing on the error channel, and prints the line that shows its point."""
    with serve() as simulator:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RESILIENT_AI_")}
        environment |= {
            "DEEPINFRA_API_KEY": "key-of-the-test",
            "RESILIENT_AI_BASE_URL": simulator.base_url,
            "RESILIENT_AI_HOME": str(tmp_path / "home"),
            "PYTHONWARNINGS": "error",
        }
        done = subprocess.run(  # noqa: S603 - our own programs
            [sys.executable, str(program)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )

    assert (done.returncode, done.stderr) == (0, "")
    assert TELLING[program.stem] in done.stdout
