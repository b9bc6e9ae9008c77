import pytest

from resilient_ai.cli.demo import plan, questions, refusals, trouble, vectors
from resilient_ai.cli.demo.stage import Line, UnexpectedError
from resilient_ai.cli.demo.tour import _trouble
from resilient_ai.simulator import Fault, serve

pytestmark = pytest.mark.anyio


async def test_breaker_that_does_not_open_is_noticed(scene_of):
    """The step does not claim what did not happen."""
    with serve() as simulator:
        async with scene_of(simulator) as scene:
            with pytest.raises(UnexpectedError, match="the breaker did not open"):
                await trouble._until_refused(scene)


async def test_breaker_that_does_not_close_is_noticed(scene_of, monkeypatch):
    """The step waits for the model only so long."""
    monkeypatch.setattr(trouble, "_PATIENCE", 0.0)
    with serve() as simulator:
        async with scene_of(simulator) as scene:
            with pytest.raises(UnexpectedError, match="the breaker did not close"):
                await trouble._until_answered(scene, 0.0)


async def test_probe_that_comes_too_early_waits_on(scene_of):
    """An open breaker is asked again when it said it may be."""
    with serve() as simulator:
        async with scene_of(simulator, attempts=1) as scene:
            simulator.faults.outage(trouble.FALLING_OUT)
            _, refused = await trouble._until_refused(scene)
            simulator.faults.outage(trouble.FALLING_OUT, on=False)
            assert refused.retry_after > 0
            await trouble._until_answered(scene, 0.0)
    assert (scene.tally.opened, scene.tally.half_opened, scene.tally.closed) == (1, 1, 1)


async def test_unknown_model_that_answers_is_noticed(scene_of):
    """A service that knows the unknown model makes the step fail."""
    with serve(private_models={refusals.UNKNOWN: "meta-llama/Llama-3.3-70B-Instruct-Turbo"}) as simulator:
        async with scene_of(simulator) as scene:
            with pytest.raises(UnexpectedError, match="answered"):
                await refusals.unknown_model(scene, Line("Unknown model"))


async def test_wrong_key_that_works_is_noticed(scene_of):
    """A service that takes any key makes the step fail."""
    with serve(keys=frozenset({"bad-key"})) as simulator:
        async with scene_of(simulator) as scene:
            with pytest.raises(UnexpectedError, match="a wrong key was accepted"):
                await refusals.bad_key(scene, Line("Wrong key"))


async def test_answer_that_begins_again_is_shown_once(scene_of):
    """What a stream brought before it broke is forgotten where streams are restarted."""
    shown = []
    line = Line("Streaming")
    line.show = shown.append
    with serve(token_delay=0.001) as simulator:
        async with scene_of(simulator, on_interrupt="restart") as scene:
            async with scene.ai.stream(plan.STREAM.model, "Why is the sky blue?") as stream:
                pieces = len([event async for event in stream])
                whole = await stream.result()
            simulator.faults.script(plan.STREAM.model, Fault.cut(after=pieces - 4))
            await questions.stream(scene, line)
    beginnings = [text for text in shown if len(text) <= len(shown[0])]
    assert (shown[-1], len(beginnings)) == (whole.text, 2)


async def test_search_needs_vectors(scene_of):
    """Without the step before it, the search says what is missing."""
    with serve() as simulator:
        async with scene_of(simulator) as scene:
            with pytest.raises(UnexpectedError, match="there are no vectors"):
                await vectors.search(scene, Line("Semantic search"))


async def test_cache_that_forgot_is_noticed(scene_of):
    """Vectors that should have come from the cache and did not make the step fail."""
    with serve() as simulator:
        async with scene_of(simulator) as scene:
            with pytest.raises(UnexpectedError, match="0 vectors came from the cache instead of 500"):
                await vectors.embed_again(scene, Line("The same and 20"))


async def test_real_service_is_given_no_trouble(scene_of):
    """Only a simulated service can be made to fail."""
    with serve() as simulator:
        async with scene_of(simulator) as scene:
            scene.simulator = None
            assert _trouble(scene) == ()
