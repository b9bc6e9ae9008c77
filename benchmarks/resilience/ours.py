"""One scenario of ours: `python -m benchmarks.resilience.ours SCENARIO URL` prints a line of JSON."""

import asyncio
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.resilience.bench import Bench, Finding
from benchmarks.resilience.scenarios_breaker import one_probe, provider_down, worst_case
from benchmarks.resilience.scenarios_broken import broken_stream, cut_stream, lost_image
from benchmarks.resilience.scenarios_cancels import cancels
from benchmarks.resilience.scenarios_capacity import capacity
from benchmarks.resilience.scenarios_outage import outage, recovery
from benchmarks.resilience.scenarios_timing import hung_chain, retry_after, silent_stream, trickle

REAL: dict[str, Callable[[Bench], Awaitable[Finding]]] = {
    "retry-after": retry_after,
    "trickle": trickle,
    "hung-chain": hung_chain,
    "cut-stream": cut_stream,
    "broken-stream": broken_stream,
    "provider-down": provider_down,
    "one-probe": one_probe,
    "worst-case": worst_case,
    "cancels": cancels,
    "silent-stream": silent_stream,
    "lost-image": lost_image,
}
VIRTUAL: dict[str, Callable[[Path], Finding]] = {"outage": outage, "recovery": recovery, "capacity": capacity}

_LIMIT = 100


def main() -> None:
    key, url = sys.argv[1:]
    warnings.simplefilter("ignore")
    logging.getLogger("resilient_ai").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        finding = VIRTUAL[key](home) if key in VIRTUAL else asyncio.run(_bounded(REAL[key](Bench(url, home))))
    print(json.dumps(asdict(finding)), flush=True)


async def _bounded(scenario: Awaitable[Finding]) -> Finding:
    try:
        async with asyncio.timeout(_LIMIT):
            return await scenario
    except TimeoutError:
        return Finding(f"stopped after {_LIMIT} s", holds=False)


if __name__ == "__main__":
    main()
