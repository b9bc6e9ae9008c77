"""What cost accounting adds to a call: CPU of the calling thread, with and without it, in one interleaved run.

A chat, and a stream of 20 pieces, go through a pipeline whose provider answers at once, with usage and a figure of the service.
The ledger is a file and the price table is the catalogue's; nobody listens. What the ledger's own thread does behind the call is
not in the figure. Each round measures both, so that a noisy machine is noisy for both; the figure is the difference of the best
rounds, as what else the machine does only ever adds, and beside it stands that of the medians.

`python -m benchmarks.accounting --rounds 30`
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from resilient_ai.core.call import Call
from resilient_ai.core.deltas import Finished, TextDelta
from resilient_ai.core.operations import Chat, Stream
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.core.results import ChatResult, Choice, Cost, Usage
from resilient_ai.core.streams import StreamResult
from resilient_ai.deepinfra.catalogue import PriceTable
from resilient_ai.middleware import CostAccounting
from resilient_ai.stores import SQLiteLedger
from resilient_ai.testing import ScriptedSource

MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
MESSAGES = [{"role": "user", "content": "Which city is the capital of Switzerland? Answer in one word."}]
CALLS = 500
AIM = 15.0  # microseconds

USAGE = Usage(input_tokens=1000, output_tokens=500)
COST = Cost(amount=Decimal("0.00026"), source="provider")
ANSWER = ChatResult(
    model=MODEL, served_by=MODEL, usage=USAGE, cost=COST, choices=(Choice(text="Bern.", finish_reason="stop"),)
)
PIECES = [TextDelta("Bern ") for _ in range(20)]
FINISHED = Finished(("stop",), USAGE, cost=COST)


class Provider:
    """Answers at once."""

    origin = "https://bench.test/v1"

    async def __call__(self, call: Call[Any]) -> Any:
        call.send_started()
        if call.operation.kind == "stream":
            return StreamResult(ScriptedSource([PIECES, [FINISHED]]), model=MODEL, first=PIECES[:1], clock=call.clock)
        return ANSWER

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""


async def chat(pipeline: Pipeline) -> None:
    await pipeline.send(Chat(model=MODEL, messages=MESSAGES))


async def stream(pipeline: Pipeline) -> None:
    result = await pipeline.send(Stream(model=MODEL, messages=MESSAGES))
    await result.result()


WORKS: dict[str, Callable[[Pipeline], Awaitable[None]]] = {"chat": chat, "stream": stream}


async def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {name: {"without": [], "with": []} for name in WORKS}
    with tempfile.TemporaryDirectory() as folder:
        ledger = SQLiteLedger(Path(folder) / "ledger.sqlite")
        pipelines = {
            "without": Pipeline(Provider()),
            "with": Pipeline(Provider(), [CostAccounting(ledger, PriceTable())]),
        }
        for number in range(rounds + 1):
            for name, work in WORKS.items():
                for which, pipeline in pipelines.items():
                    started = time.thread_time()
                    for _ in range(CALLS):
                        await work(pipeline)
                    spent = (time.thread_time() - started) / CALLS
                    await ledger.flush()
                    if number:  # the first round warms up
                        found[name][which].append(spent * 1e6)
        await ledger.aclose()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    found = asyncio.run(measure(rounds))
    print(f"CPU of the calling thread per call, {rounds} interleaved rounds, Python {sys.version.split()[0]}\n")
    print(f"{'':<18}{'without':>12}{'with':>12}{'added':>12}{'aim':>10}")
    for name, both in found.items():
        for how, pick in (("best", min), ("median", statistics.median)):
            without, with_it = pick(both["without"]), pick(both["with"])
            print(f"{name:<10}{how:<8}{without:>9.1f} µs{with_it:>9.1f} µs{with_it - without:>9.1f} µs{AIM:>7.0f} µs")


if __name__ == "__main__":
    main()
