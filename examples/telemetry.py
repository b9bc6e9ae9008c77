"""Set up traces and metrics in one call, and look at both: spans in a file, figures on a port as a Prometheus fetches them.

In a service, `configure` would name a collector or a backend as well; see docs/observability.md.

    python examples/telemetry.py

The key is taken from DEEPINFRA_API_KEY, the server from RESILIENT_AI_BASE_URL if it is set. It needs the extra `prometheus`.
"""

import asyncio
import json
import tempfile
import urllib.request
from pathlib import Path

from resilient_ai import AsyncClient
from resilient_ai.observability import configure

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
SHOWN = ("resilient_ai_request_duration_seconds_count", "resilient_ai_cost_USD_total", "gen_ai_client_token_usage_sum")


async def work() -> None:
    """Ask once for an answer, twice for one that is cached, and a model that does not exist before one that does."""
    async with AsyncClient() as ai:
        await ai.chat(MODEL, "What is 17 * 23?", max_tokens=30)
        for _ in range(2):
            await ai.chat(MODEL, "What is 6 * 7?", temperature=0, max_tokens=30)
        await ai.chat(["nobody/no-such-model", MODEL], "Name a sea.", max_tokens=30)


def main() -> None:
    """Set up, work, and show what there was."""
    with tempfile.TemporaryDirectory() as folder:
        trace_file = Path(folder) / "spans.jsonl"
        # Log lines are off to keep this short; by default they are pretty in a terminal, and JSON in a container.
        with configure("example", environment="test", trace_file=trace_file, prometheus=0, logs="off") as telemetry:
            asyncio.run(work())
            telemetry.flush()
            address = f"http://127.0.0.1:{telemetry.prometheus_port}/metrics"
            with urllib.request.urlopen(address) as answer:
                figures = answer.read().decode().splitlines()
        spans = [json.loads(line) for line in trace_file.read_text().splitlines()]
    for span in spans:
        if span["name"].startswith("chat"):
            attributes = span["attributes"]
            about = [attributes.get(f"resilient_ai.{name}") for name in ("attempts", "cache.outcome", "cost.amount")]
            print("span:", span["name"], *about)
    for line in figures:
        if line.startswith(SHOWN):
            print("figure:", line)
    print(f"{len(spans)} spans")


if __name__ == "__main__":
    main()
