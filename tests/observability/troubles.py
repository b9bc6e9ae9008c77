"""A client in all the troubles that boards and alerts tell of, seeded, against the simulator."""

import asyncio
from dataclasses import replace

from resilient_ai import AsyncClient, Budget, CallRejected, ProviderError, Settings, default_stack
from resilient_ai.middleware import ConcurrencyLimit, Hedge, Metrics, Retry, Tracing
from resilient_ai.simulator import Fault

CHAT, SMALL = "meta-llama/Llama-3.3-70B-Instruct-Turbo", "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo"
SPARE, EMBEDDER = "zai-org/GLM-5.2", "BAAI/bge-m3"


class Troubles:
    """A client whose figures go to `telemetry`, by the names of some conventions, and a simulated service that goes wrong.

    Attributes:
        calls: How many calls were made.
    """

    def __init__(self, sim, telemetry, home, conventions="1.41"):
        self._sim = sim
        self.calls = 0
        budgets = [
            Budget(limit="5 USD", per="day"),
            Budget(limit="0.000001 USD", per="day", scope={"tenant": "poor"}, name="poor"),
        ]
        stack = telemetry.applied_to(default_stack(Settings(home=home, budgets=budgets, auto_models=[SMALL, CHAT])))
        self.ai = AsyncClient(
            "key-of-the-test", base_url=sim.base_url, stack=[_suited(layer, conventions) for layer in stack]
        )
        self._broken = AsyncClient("key-of-the-test", base_url=sim.base_url, stack=[Tracing(_Broken())])

    async def __aenter__(self):
        await self.ai.__aenter__()
        await self._broken.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self._broken.__aexit__(*error)
        await self.ai.__aexit__(*error)

    async def happen(self, seed):
        """Let all of it go wrong once."""
        for trouble in (self._failures, self._slowness, self._repetition, self._outage, self._routes, self._refusals):
            await trouble(seed)
            self._sim.faults.clear()

    async def _failures(self, seed):
        """Failures that retries make good, and streams that break and are paid for all the same; more at once than may be."""
        self._sim.faults.rate(Fault.status(500), 0.10, seed=seed, model=CHAT)
        self._sim.faults.rate(Fault.status(429, retry_after=0.05), 0.10, seed=seed + 1, model=CHAT)
        self._sim.faults.rate(Fault.cut(after=4), 0.15, seed=seed + 2, model=CHAT)
        await self._all(*(self.ai.chat(CHAT, f"{seed}/{number}", max_tokens=30) for number in range(40)))
        await self._all(*(self._stream(f"{seed}/{number}") for number in range(40)))

    async def _slowness(self, seed):
        """Answers of which half come late and are hedged, so that some second requests win and some lose."""
        for number in range(12):
            slow = [Fault.delay(0.3)] if number % 2 else [Fault.delay(0.15), Fault.delay(0.5)]
            for fault in slow if number > 3 else ():
                self._sim.faults.script(SMALL, fault)
            await self._all(self.ai.chat(SMALL, f"{seed}/{number}", max_tokens=5))
            self._sim.faults.clear()

    async def _repetition(self, seed):
        """The same again: out of the cache, together with others who ask it, and with the beginning of a prompt."""
        texts = [f"{seed} {number}" for number in range(20)]
        for _ in range(2):
            await self._all(self.ai.embed(EMBEDDER, texts))
        await self._all(*(self.ai.chat(CHAT, f"same {seed}", temperature=0, max_tokens=9) for _ in range(5)))
        history = "tides rise and fall twice a day " * 40
        for number in range(3):
            await self._all(self.ai.chat(SPARE, f"{history} {seed}/{number}", max_tokens=9))

    async def _outage(self, seed):
        """A model that is down, so that its circuit opens and others are asked; who names it alone and has no time is refused."""
        self._sim.faults.outage(SPARE)
        for number in range(6):
            await self._all(self.ai.chat([SPARE, SMALL], f"{seed}/{number}", max_tokens=9))
        await self._all(self.ai.with_options(timeout=1).chat(SPARE, f"alone {seed}", max_tokens=9))

    async def _routes(self, seed):
        """Calls that leave it to us which model answers; in some of them the first choice fails."""
        for number in range(4):
            if number % 2:
                self._sim.faults.script(SMALL, Fault.status(503), times=3)
            await self._all(self.ai.chat("auto", f"auto {seed}/{number}", max_tokens=9))

    async def _refusals(self, seed):
        """A tenant without money, and a tracer that is no good."""
        poor = self.ai.with_options(tags={"tenant": "poor"})
        await self._all(poor.chat(CHAT, f"poor {seed}", max_tokens=900))
        await self._broken.chat(SMALL, "untraced", max_tokens=9)

    async def _stream(self, prompt):
        async with self.ai.stream(CHAT, prompt, max_tokens=30) as stream:
            await stream.result()

    async def _all(self, *calls):
        self.calls += len(calls)
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, ProviderError | CallRejected):
                raise result


class _Broken:
    """A tracer provider, and its tracer, that are no good."""

    def get_tracer(self, *_, **__):
        return self

    def start_span(self, *_, **__):
        raise OSError("no span")


def _suited(layer, conventions):
    """Let a layer do soon what it does at length, and report by the right names."""
    if isinstance(layer, Metrics):
        return replace(layer, conventions=conventions)
    if isinstance(layer, Retry):
        hedge = Hedge(samples=1, quantile=0.5, extra=1.0, delay_min=0.05)
        return replace(layer, wait_initial=0.05, hedge=hedge)
    if isinstance(layer, ConcurrencyLimit):
        return replace(layer, limit=8)
    return layer
