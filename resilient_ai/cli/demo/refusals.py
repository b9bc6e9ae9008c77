"""The steps in which the caller is wrong."""

from resilient_ai.cli.demo import plan
from resilient_ai.cli.demo.scene import Scene
from resilient_ai.cli.demo.stage import Line, UnexpectedError
from resilient_ai.cli.failures import sentence
from resilient_ai.core.errors import AuthenticationFailed, ModelNotFound
from resilient_ai.core.operations import Chat
from resilient_ai.core.pipeline import Pipeline
from resilient_ai.deepinfra.provider import DeepInfraProvider

UNKNOWN = "meta-llama/Llama-9-900B-Instruct"


async def unknown_model(scene: Scene, line: Line) -> str:
    """A name that nobody knows fails at once and is not tried again."""
    before = scene.tally.sends
    try:
        await scene.ai.chat(UNKNOWN, "Hello?", max_tokens=1)
    except ModelNotFound as error:
        line.note(sentence(error))
        return f"ModelNotFound, after {scene.tally.sends - before} request"
    raise UnexpectedError(f"{UNKNOWN} answered")


async def bad_key(scene: Scene, line: Line) -> str:
    """A wrong key fails at once; the stack is the same, the provider under it another."""
    provider = DeepInfraProvider("bad-key", base_url=scene.base_url)
    pipeline = Pipeline(provider, scene.stack)
    pipeline.subscribe(scene.tally.heard)
    before = scene.tally.sends
    try:
        await pipeline.send(Chat(model=plan.CHAT.model, messages="Hello?", max_tokens=1))
    except AuthenticationFailed as error:
        line.note(sentence(error))
        return f"AuthenticationFailed, after {scene.tally.sends - before} request"
    finally:
        await provider.aclose()
    raise UnexpectedError("a wrong key was accepted")
