"""The tour: the steps in order, and the client they act with."""

import os
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from resilient_ai._version import __version__
from resilient_ai.cli.demo import questions, refusals, vectors
from resilient_ai.cli.demo.closing import Closing
from resilient_ai.cli.demo.scene import Scene
from resilient_ai.cli.demo.stage import Line, Stage
from resilient_ai.cli.demo.tally import Tally
from resilient_ai.cli.demo.traces import JsonLines, tracing_to
from resilient_ai.cli.simulate import serve
from resilient_ai.client import AsyncClient
from resilient_ai.middleware import Tracing
from resilient_ai.presets import default_stack
from resilient_ai.settings import Settings

Step = Callable[[Scene, Line], Awaitable[str]]

_CALM: tuple[tuple[str, Step], ...] = (
    ("Chat", questions.chat),
    ("20 at once", questions.together),
    ("Streaming", questions.stream),
    ("Tools", questions.tools),
    ("Vision", questions.vision),
    ("Structured output", questions.structured),
    ("Code", questions.code),
    ("500 embeddings", vectors.embed),
    ("The same and 20", vectors.embed_again),
    ("Semantic search", vectors.search),
    ("Image", vectors.image),
)
_REFUSED: tuple[tuple[str, Step], ...] = (
    ("Unknown model", refusals.unknown_model),
    ("Wrong key", refusals.bad_key),
)


async def simulated(console: Console, output: Path) -> Closing:
    """Give the tour against a simulated service in which things go wrong."""
    with (
        tempfile.TemporaryDirectory(prefix="resilient-ai-demo-") as home,
        serve(token_delay=0.004, first_token_delay=0.02) as simulator,
    ):
        settings = Settings(
            api_key="demo",
            base_url=simulator.base_url,
            home=Path(home),
            attempts=3,
            concurrency=200,
            batch_size=96,
            batches_in_flight=4,
            cache="on",
            cache_answers="repeatable",
            ledger="on",
        )
        async with _scene(settings, output) as (scene, spans):
            scene.simulator = simulator
            _introduce(console, scene, f"a simulated DeepInfra on {simulator.url}, with faults")
            await _perform(
                Stage(console), scene, (*_CALM, *_trouble(scene), *_REFUSED), closing := Closing(scene, spans)
            )
            return closing


async def live(console: Console, output: Path) -> Closing:
    """Give the tour against DeepInfra itself, without the steps that need it to fail."""
    settings = Settings()
    async with _scene(settings, output) as (scene, spans):
        _introduce(console, scene, settings.base_url)
        await _perform(Stage(console), scene, (*_CALM, *_REFUSED), closing := Closing(scene, spans))
        return closing


def _introduce(console: Console, scene: Scene, service: str) -> None:
    console.print(f"[bold]resilient-ai {__version__}[/bold] against {service}")
    names = " → ".join(type(part).__name__ for part in scene.stack[1:])
    console.print(f"[dim]{names}[/dim]")
    console.print()


def _trouble(scene: Scene) -> tuple[tuple[str, Step], ...]:
    from resilient_ai.cli.demo import trouble  # noqa: PLC0415 - needs the extra `simulator`

    simulator = scene.simulator
    if simulator is None:
        return ()
    return (
        ("Fallback", lambda scene, line: trouble.fallback(scene, simulator, line)),
        ("Outage", lambda scene, line: trouble.outage(scene, simulator, line)),
        ("Burst of 300", lambda scene, line: trouble.burst(scene, simulator, line)),
    )


@asynccontextmanager
async def _scene(settings: Settings, output: Path) -> AsyncGenerator[tuple[Scene, JsonLines]]:
    """The client with its default stack, plus a middleware that counts calls and a provider of tracers."""
    spans = JsonLines(output / "trace.jsonl")
    tracers = tracing_to(spans)
    tally = Tally()
    rest = [Tracing(tracers) if isinstance(part, Tracing) else part for part in default_stack(settings)]
    stack = [tally.count_calls, *rest]
    async with AsyncClient(stack=stack, settings=settings) as ai:
        ai.subscribe(tally.heard)
        yield (
            Scene(
                # Without a tenant of its own, a second tour would find everything in the cache of the first.
                ai=ai.with_options(tags={"feature": "demo", "tenant": f"demo-{os.urandom(4).hex()}"}),
                stack=stack,
                ledger=ai.ledger,
                base_url=settings.base_url,
                output=output,
                tally=tally,
                started=time.time(),
            ),
            spans,
        )
    tracers.shutdown()


async def _perform(stage: Stage, scene: Scene, steps: tuple[tuple[str, Step], ...], closing: Closing) -> None:
    for title, step in steps:
        outcome = await stage.perform(scene.ai, title, partial(step, scene))
        closing.outcomes.append(outcome)
    await closing.read_the_books()
