"""A tour in ten stops: everything the client does, one short function each.

Run it with a key of DeepInfra in DEEPINFRA_API_KEY, or against any server that speaks its wire, with RESILIENT_AI_BASE_URL set
as well:

    python examples/tour.py                    # pictures go to a temporary folder
    python examples/tour.py pictures/          # or to a folder of yours
"""

import ast
import asyncio
import math
import re
import sys
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path

from resilient_ai import (
    AsyncClient,
    AuthenticationFailed,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    ReasoningDelta,
    ResilientAIError,
    TextDelta,
    catalogue,
    user,
)

LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
FAMILIES = (LLAMA, "Qwen/Qwen3-32B", "deepseek-ai/DeepSeek-V3.2", "mistralai/Mistral-Small-3.2-24B-Instruct-2506")
CODER = "Qwen/Qwen3-Coder-480B-A35B-Instruct-Turbo"
SEES = "google/gemma-3-27b-it"
EMBEDS = "BAAI/bge-m3"
DRAWS = "black-forest-labs/FLUX-1-schnell"


async def generation(ai: AsyncClient) -> None:
    """Ask models of several families the same question, all at once."""
    question = "In one sentence: what is a circuit breaker in software?"
    answers = await asyncio.gather(*(ai.chat(model, question, max_tokens=600) for model in FAMILIES))
    for answer in answers:
        print(f"  {answer.served_by}: {answer.text.strip()} [{answer.cost}]")


async def streaming(ai: AsyncClient) -> None:
    """Read an answer while it is written; a reasoning model's thoughts come as events of their own."""
    thoughts = 0
    async with ai.stream("Qwen/Qwen3-32B", "Why is the sky blue? One sentence.", max_tokens=800) as stream:
        print("  ", end="")
        async for event in stream:
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
            elif isinstance(event, ReasoningDelta):
                thoughts += len(event.text)
        answer = await stream.result()
    print(f"\n  {answer.finish_reason}, {thoughts} characters of thought before it [{answer.cost}]")


def tide_times(port: str) -> dict[str, str]:
    """Look up today's tide times of a port."""
    return {"port": port, "high": "04:12", "low": "10:25"}


async def tools(ai: AsyncClient) -> None:
    """Let the model call a function of ours and answer with what it returned."""
    run = await ai.run_tools(LLAMA, "When is high tide in Emden today?", tools=[tide_times])
    for step in run.steps:
        print(f"  {step.call.name}({step.call.arguments}) -> {step.output}")
    print(f"  {run.answer.text.strip()}")


async def vision(ai: AsyncClient) -> None:
    """Show a picture to a model that reads images: bytes, a path or a URL."""
    answer = await ai.chat(SEES, user("Which colour fills this picture?", red_square(64)), max_tokens=60)
    print(f"  {answer.text.strip()}")


def red_square(size: int) -> bytes:
    """Return a PNG without the help of an image library."""
    rows = (b"\x00" + b"\xdc\x28\x28" * size) * size

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = size.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def code(ai: AsyncClient) -> None:
    """Ask for a function, and look at what came before anybody runs it."""
    task = "Write a Python function that reverses the words of a sentence. Answer with one code block alone."
    answer = await ai.chat(CODER, task, temperature=0, max_tokens=400)
    block = re.search(r"```(?:python)?\n(.*?)```", answer.text, re.DOTALL)
    source = block.group(1) if block else answer.text
    try:
        names = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    except SyntaxError as error:
        print(f"  this is no Python: {error}")
    else:
        print(f"  {len(source.splitlines())} lines that parse, with {', '.join(names)}()")


async def search(ai: AsyncClient) -> None:
    """Find the text whose vector lies nearest to that of a question."""
    texts = [
        "The harbour closes its lock gates two hours before low tide.",
        "Bicycles may be taken on the ferry outside of the rush hour.",
        "The lighthouse shows two white flashes every ten seconds.",
    ]
    question = "What light does the lighthouse show?"
    documents = await ai.embed(EMBEDS, texts)
    asked = (await ai.embed(EMBEDS, question)).vectors[0]
    scores = [cosine(asked, vector) for vector in documents.vectors]
    best = max(range(len(texts)), key=scores.__getitem__)
    print(f"  {question} -> {texts[best]} ({scores[best]:.2f}, {documents.dimensions} dimensions)")


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Return how alike two vectors are, from -1 to 1."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


async def pictures(ai: AsyncClient, folder: Path) -> None:
    """Draw a picture and save it under the suffix its bytes call for."""
    drawn = await ai.image(DRAWS, "a lighthouse at dusk, woodcut", size="512x512", seed=7)
    path = drawn.images[0].save(folder / "lighthouse")
    print(f"  {path.name}: {path.stat().st_size} bytes of {drawn.images[0].media_type} [{drawn.cost}]")


async def batches(ai: AsyncClient) -> None:
    """Send many chats at once, and 500 texts in one call; limits, batches and retries are the stack's work."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ai.chat(LLAMA, f"What is {n} * {n}?", max_tokens=30)) for n in range(1, 21)]
    answers = [task.result() for task in tasks]
    total = sum((answer.cost.amount for answer in answers if answer.cost), Decimal(0))
    print(f"  {len(answers)} answers, the last: {answers[-1].text.strip()} [{total:f} USD]")

    steps: list[int] = []
    texts = [f"Entry {n} of the harbour log." for n in range(500)]
    result = await ai.embed(EMBEDS, texts, progress=lambda done, _: steps.append(done))
    print(f"  {len(result.vectors)} vectors in {result.attempts} requests, done after each: {steps} [{result.cost}]")


async def costs(ai: AsyncClient) -> None:
    """Choose by price what can do the work, and compare what the answers really cost."""
    cheap = catalogue.find("chat", tools=True, json=True, reasoning=False, max_output_price=0.40, min_context=32_000)
    dear = catalogue.find("chat", tools=True, json=True, reasoning=False, min_context=32_000, status="active")
    priced = [model for model in dear if model.pricing.output_per_1m is not None]
    print(f"  {len(cheap)} of {len(priced)} models fit the price; prices as of {catalogue.as_of}")
    for model in (cheap[0], priced[-1]):
        answer = await ai.chat(model.id, "Name three reasons for a timeout.", max_tokens=120)
        price = model.pricing
        print(f"  {model.id} at {price.input_per_1m}/{price.output_per_1m} USD per million tokens: {answer.cost}")


async def errors(ai: AsyncClient) -> None:
    """Meet the errors: one tree, and its branches say what can be done."""
    try:
        await ai.chat(LLAMA, "hi", temperature=3)
    except InvalidInput as error:
        print(f"  found before anything was sent: {error}")
    try:
        await ai.chat("nobody/no-such-model", "hi")
    except ModelNotFound as error:
        print(f"  status {error.status}, worth repeating: {error.retryable}")
    try:
        await ai.with_options(timeout=0.0001).chat(LLAMA, "Write a long story.")
    except DeadlineExceeded as error:
        print(f"  out of time after {error.elapsed:.3f} s of {error.timeout:g} s")
    try:
        async with AsyncClient("bad-key-of-this-example") as stranger:
            await stranger.chat(LLAMA, "hi")
    except AuthenticationFailed as error:
        print(f"  status {error.status}: the key is wrong, and no other model would take it")
    try:
        await ai.chat(["nobody/no-such-model", "nobody/neither"], "hi")
    except ResilientAIError as error:  # the base of them all
        print(f"  {type(error).__name__}: {error}")


async def main(folder: Path) -> None:
    """Make every stop of the tour."""
    async with AsyncClient() as ai:
        stops: dict[str, Callable[[AsyncClient], Awaitable[None]]] = {
            "generation": generation,
            "streaming": streaming,
            "tool calling": tools,
            "vision": vision,
            "code": code,
            "embeddings and search": search,
            "pictures": partial(pictures, folder=folder),
            "batches": batches,
            "costs": costs,
            "errors": errors,
        }
        for name, stop in stops.items():
            print(name)
            await stop(ai)
    print("ten stops done")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(Path(temporary)))
