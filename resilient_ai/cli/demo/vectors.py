"""The steps that embed, search and draw."""

import math
import operator

from resilient_ai.cli.demo import plan
from resilient_ai.cli.demo.questions import fail_once
from resilient_ai.cli.demo.scene import Scene
from resilient_ai.cli.demo.stage import Line, UnexpectedError, expect
from resilient_ai.cli.demo.texts import KNOWN, NEW, QUESTION
from resilient_ai.cli.options import EMBEDDING_MODEL, IMAGE_MODEL
from resilient_ai.cli.terminal import usd


async def embed(scene: Scene, line: Line) -> str:
    """Five hundred texts in a few requests, one of which fails at first."""
    fail_once(scene, EMBEDDING_MODEL, 500)
    result = await scene.ai.embed(
        EMBEDDING_MODEL, KNOWN, progress=lambda done, total: line.show(f"{done} of {total} texts")
    )
    cost = usd(result.cost.amount if result.cost else None)
    expect(len(result.vectors) == len(KNOWN), "some vectors are missing")
    return f"{len(KNOWN)} vectors of {result.dimensions:,} numbers in {result.attempts} requests, {cost}"


async def embed_again(scene: Scene, line: Line) -> str:
    """The same texts and twenty new ones: only those are sent."""
    before = _embedded(scene)
    result = await scene.ai.embed(EMBEDDING_MODEL, [*KNOWN, *NEW])
    scene.vectors = result.vectors
    expect(result.hits == len(KNOWN), f"{result.hits} vectors came from the cache instead of {len(KNOWN)}")
    cost = usd(result.cost.amount if result.cost else None)
    saved = usd(result.saved)
    if scene.simulator is None:
        return (
            f"{len(NEW)} new texts were sent for {cost}; {result.hits} vectors came from the cache, which saved {saved}"
        )
    sent = _embedded(scene) - before
    expect(sent == len(NEW), f"the server counted {sent} texts instead of {len(NEW)}")
    line.note(f"{result.hits} vectors came from the cache, which saved {saved}")
    return f"520 asked for; the server counted {sent} texts in {result.attempts} request, {cost}"


async def search(scene: Scene, line: Line) -> str:
    """The texts that are nearest to a question."""
    vectors = scene.vectors
    if vectors is None:
        raise UnexpectedError("there are no vectors to search in")
    result = await scene.ai.embed(EMBEDDING_MODEL, QUESTION)
    question = result.vectors[0]
    texts = [*KNOWN, *NEW]
    scored = sorted(((_cosine(question, vectors[index]), text) for index, text in enumerate(texts)), reverse=True)
    for score, text in scored[:3]:
        line.note(f"{score:.3f}  {text}")
    return f"“{QUESTION}” against {len(texts)} vectors"


async def image(scene: Scene, line: Line) -> str:
    """A picture that is drawn and written to a file."""
    fail_once(scene, IMAGE_MODEL, 503)
    line.show(f"{IMAGE_MODEL} draws")
    size = "{}x{}".format(*plan.SIZE)
    result = await scene.ai.image(IMAGE_MODEL, "A red and white lighthouse by a calm blue sea", size=size, seed=7)
    scene.picture = result.images[0].save(scene.output / "lighthouse")
    cost = usd(result.cost.amount if result.cost else None)
    return f"{scene.picture} ({size}, {len(result.images[0].data) / 1000:.0f} kB, {cost})"


def _embedded(scene: Scene) -> int:
    return 0 if scene.simulator is None else scene.simulator.stats().embedded_texts


def _cosine(one: list[float], other: list[float]) -> float:
    product: float = sum(map(operator.mul, one, other))
    return product / (math.hypot(*one) * math.hypot(*other))
