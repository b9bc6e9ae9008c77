"""Models that fail: how often they are asked, and whether that was foretold."""

import asyncio

from benchmarks.resilience.bench import Bench, Finding, seconds_to_fail

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
        await ai.chat("ok/ours", "hi")
        brief = ai.with_options(timeout=1.5)  # too short to wait for a circuit
        for _ in range(_THRESHOLD):
            await seconds_to_fail(lambda: brief.chat(model, "hi"))
        wait = max((state.retry_after for state in ai.health().breakers if state.state == "open"), default=None)
        if wait is None:
            return Finding("the circuit does not open", False)
        before = await asyncio.to_thread(bench.requests, model)
        await asyncio.sleep(wait + 0.05)
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
