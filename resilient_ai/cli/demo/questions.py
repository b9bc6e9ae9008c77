"""The steps that ask language models."""

import asyncio
import time
from decimal import Decimal

from pydantic import BaseModel

from resilient_ai.cli.demo import plan
from resilient_ai.cli.demo.scene import Scene
from resilient_ai.cli.demo.stage import Line, expect
from resilient_ai.cli.demo.texts import picture
from resilient_ai.cli.terminal import seconds, usd
from resilient_ai.core.deltas import Restarted, TextDelta
from resilient_ai.core.messages import user
from resilient_ai.core.operations import Chat
from resilient_ai.core.results import ChatResult


async def chat(scene: Scene, line: Line) -> str:
    """A question, and the same again from the cache."""
    ask, question = plan.CHAT, "What is the capital of France?"
    fail_once(scene, ask.model, 503)
    answer = await scene.ai.chat(ask.model, question, temperature=0, max_tokens=ask.max_tokens)
    line.show(answer.text)
    started = time.monotonic()
    again = await scene.ai.chat(ask.model, question, temperature=0, max_tokens=ask.max_tokens)
    expect(again.cache == "hit" and again.text == answer.text, "the same question was not answered by the cache")
    line.note(f"asked again: the cache answers after {seconds(time.monotonic() - started)}, for {usd(_amount(again))}")
    return f"“{answer.text}” {_price_tag(answer)}"


async def together(scene: Scene, line: Line) -> str:
    """Twenty callers who ask the same at the same time, one of whom gives up."""
    ask, callers = plan.TOGETHER, 20
    question = Chat(model=ask.model, messages="What is the capital of Italy?", temperature=0, max_tokens=ask.max_tokens)
    tasks = [asyncio.create_task(scene.ai.send(question)) for _ in range(callers)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    answers = [
        answer for answer in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(answer, ChatResult)
    ]
    sent = sum(answer.attempts for answer in answers)
    expect(len(answers) == callers - 1 and sent == 1, f"{len(answers)} of {callers} had an answer, of {sent} requests")
    saved = sum((answer.saved for answer in answers if answer.saved), Decimal(0))
    line.note(
        f"the first caller gave up; the other {len(answers)} got the answer of its one request, and saved {usd(saved)}"
    )
    return f"“{answers[0].text}” for {callers - 1} callers {_price_tag(next(a for a in answers if a.attempts))}"


async def stream(scene: Scene, line: Line) -> str:
    """A reasoning model whose answer is shown as it arrives."""
    ask = plan.STREAM
    fail_once(scene, ask.model, 502)
    text, pieces, first = "", 0, 0.0
    started = time.monotonic()
    async with scene.ai.stream(ask.model, "Why is the sky blue?", max_tokens=ask.max_tokens) as events:
        async for event in events:
            pieces += 1
            first = first or time.monotonic() - started
            if isinstance(event, Restarted):
                text = ""
            elif isinstance(event, TextDelta):
                text += event.text
                line.show(text)
        answer = await events.result()
    expect(bool(answer.text.strip()), "the stream brought no answer")
    thoughts = len((answer.reasoning or "").split())
    line.note(f"{pieces} pieces, the first after {seconds(first)}; {thoughts} words of thoughts kept apart")
    line.note(_price_tag(answer))
    return f"“{_short(answer.text)}”"


def tides(port: str) -> str:
    """Look up when the tide is high in a port."""
    return f"high water in {port} at {10 + len(port) % 12}:40"


def wind(place: str) -> dict[str, object]:
    """Measure how strong the wind blows at a place."""
    return {"place": place, "knots": 5 + len(place) * 3}


async def tools(scene: Scene, line: Line) -> str:
    """Two functions that the model may call, in one conversation."""
    ask = plan.TOOLS
    fail_once(scene, ask.model, 429)
    functions = [tides, wind]
    question = "When is the tide high in Kiel, Emden and Husum?"
    first = await scene.ai.run_tools(ask.model, question, tools=functions, max_rounds=2, max_tokens=ask.max_tokens)
    messages = [*first.messages, user("And how strong is the wind in Kiel?")]
    second = await scene.ai.run_tools(ask.model, messages, tools=functions, max_rounds=2, max_tokens=ask.max_tokens)
    steps = [*first.steps, *second.steps]
    for step in steps:
        line.note(f"{step.call.name}({step.call.arguments}) → {step.error or step.output}")
    expect(bool(steps), "the model called no function")
    expect(not any(step.error for step in steps), "a function failed")
    called = sorted({step.call.name for step in steps})
    return f"{len(steps)} calls of {' and '.join(called)}; “{_short(second.answer.text)}”"


async def vision(scene: Scene, line: Line) -> str:
    """A picture made here, and what a model sees in it."""
    ask, data = plan.VISION, picture()
    line.show(f"a PNG of {len(data)} bytes travels along")
    answer = await scene.ai.chat(ask.model, user("What is in this picture?", data), max_tokens=ask.max_tokens)
    expect(bool(answer.text.strip()), "the model saw nothing")
    line.note(_price_tag(answer))
    return f"“{_short(answer.text.partition('. ')[0])}”"


class Passage(BaseModel):
    """A voyage of a ferry."""

    origin: str
    destination: str
    passengers: int
    fare: float


async def structured(scene: Scene, line: Line) -> str:
    """An answer that is read into a pydantic model."""
    ask = plan.STRUCTURED
    text = "Extract the passage: a ferry sails from Kiel to Oslo with 1200 passengers, each of whom paid 89.5 euros."
    answer = await scene.ai.chat(ask.model, text, output=Passage, max_tokens=ask.max_tokens)
    line.note(_price_tag(answer))
    return ", ".join(f"{name}={value!r}" for name, value in answer.output)


async def code(scene: Scene, line: Line) -> str:
    """A model made for code."""
    ask = plan.CODE
    text = "Write a Python function that converts knots to kilometres per hour. Only the code."
    answer = await scene.ai.chat(ask.model, text, max_tokens=ask.max_tokens)
    lines = [row for row in answer.text.splitlines() if row.strip() and not row.startswith("```")]
    expect(bool(lines), "the model wrote no code")
    for row in lines[1:4]:
        line.note(row.replace("    ", "  "))
    return f"{lines[0]} {_price_tag(answer)}"


def fail_once(scene: Scene, model: str, status: int) -> None:
    """Let the next request to a model be refused, where the service is simulated; 502 is the page of a proxy."""
    if scene.simulator is not None:
        from resilient_ai.simulator import Fault  # noqa: PLC0415 - an optional part

        scene.simulator.faults.script(model, Fault.html(status) if status == 502 else Fault.status(status))


def _amount(answer: ChatResult) -> Decimal | None:
    return answer.cost.amount if answer.cost else None


def _price_tag(answer: ChatResult) -> str:
    usage = answer.usage
    tokens = "" if usage is None else f"{usage.input_tokens or 0} + {usage.output_tokens or 0} tokens, "
    return f"({tokens}{usd(_amount(answer))})"


def _short(text: str, most: int = 110) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1].rsplit(" ", 1)[0] + " …"
