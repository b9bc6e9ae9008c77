"""Models that fail: how often they are asked, and whether that was foretold."""

import asyncio

from benchmarks.resilience.bench import Bench, Finding, seconds_to_fail
from resilient_ai.core.errors import CircuitOpen

_THRESHOLD = 5
_CALLERS = 100


async def provider_down(bench: Bench) -> Finding:
    dead, sends = "down/ours", []
    async with bench.client() as ai:
        for _ in range(5):
            answer = await ai.chat([dead, "ok/ours"], "hi")
            sends.append(bench.requests(dead) - sum(sends))
            assert answer.served_by == "ok/ours"
    text = f"{sum(sends)} dead sends ({' + '.join(map(str, sends))})"
    return Finding(text, sum(sends) <= _THRESHOLD and sends[-1] == 0)


async def one_probe(bench: Bench) -> Finding:
    model = f"fails{_THRESHOLD}/ours"
    async with bench.client() as ai:
        error: BaseException | None = None
        for _ in range(3 * _THRESHOLD):
            _, error = await seconds_to_fail(lambda: ai.chat(model, "hi"))
            if isinstance(error, CircuitOpen):
                break
        if not isinstance(error, CircuitOpen):
            return Finding("the circuit does not open", False)
        before = bench.requests(model)
        await asyncio.sleep(error.retry_after + 0.05)
        view = ai.with_options(timeout=5.0)
        callers = [asyncio.create_task(seconds_to_fail(lambda: view.chat(model, "hi"))) for _ in range(_CALLERS)]
        await asyncio.sleep(0.7)  # the answer to a probe takes 1 s
        probes = await asyncio.to_thread(bench.requests, model) - before
        served = sum(error is None for _, error in await asyncio.gather(*callers))
    return Finding(f"{probes} probe{'s' * (probes != 1)}", probes == 1 and served >= 1)


async def worst_case(bench: Bench) -> Finding:
    models = ["down/ours-1", "down/ours-2"]
    async with bench.client() as ai:
        foretold = ai.describe(models=len(models)).worst_case.sends
        await seconds_to_fail(lambda: ai.chat(models, "hi"))
    requests = sum(bench.requests(model) for model in models)
    return Finding(f"{requests} requests, {foretold} foretold", requests <= foretold <= 6)
