import io
from decimal import Decimal

import pytest
from rich.console import Console

from resilient_ai.cli.demo import questions, vectors
from resilient_ai.cli.demo.closing import Closing
from resilient_ai.cli.demo.stage import Line, Outcome
from resilient_ai.cli.demo.texts import KNOWN
from resilient_ai.cli.demo.traces import JsonLines
from resilient_ai.cli.options import EMBEDDING_MODEL
from resilient_ai.cli.terminal import usd
from resilient_ai.core.ledger import SendClosed, SendOpened
from resilient_ai.simulator import serve
from resilient_ai.simulator.bill import Charge

pytestmark = pytest.mark.anyio
LLAMA = "meta-llama/Llama-3.3-70B-Instruct-Turbo"


def screen_of(closing):
    console = Console(file=io.StringIO(), width=100)
    closing.show(console)
    return console.file.getvalue()


async def test_books_that_agree_are_said_to(scene_of, tmp_path):
    """After ordinary calls both books hold the same requests and the same money."""
    with serve() as simulator:
        async with scene_of(simulator) as scene:
            await scene.ai.chat(LLAMA, "hi")
            closing = Closing(scene, JsonLines(tmp_path / "trace.jsonl"))
            await closing.read_the_books()
            closing.spans.shutdown()
    assert closing.all_well
    assert "✓ the server counted 1 request and billed $0.0000068; the ledger says the same" in screen_of(closing)


async def test_books_that_differ_are_shown(scene_of, tmp_path):
    """A request or a cent that only one side knows makes the tour fail, and is named."""
    with serve() as simulator:
        async with scene_of(simulator) as scene:
            await scene.ai.chat(LLAMA, "hi")
            simulator.books.charge(Charge(key="", model=LLAMA, cost=Decimal("0.5")))
            scene.ledger.opened(SendOpened(send_id="s", call_id="c", at=1.0, kind="chat", model="other", attempt=1))
            closing = Closing(scene, JsonLines(tmp_path / "trace.jsonl"))
            await closing.read_the_books()
            closing.spans.shutdown()
    assert not closing.all_well
    screen = screen_of(closing)
    assert "✗ the books differ: the server counted 1 request, the ledger 2" in screen
    assert f"{LLAMA}: the server billed 0.5000068, the ledger says 0.0000068" in " ".join(screen.split())
    assert [line.split() for line in screen.splitlines() if line.startswith("other")] == [
        ["other", "1", "0", "0", "1", "unknown"]
    ]
    assert closing.document()["ok"] is False


async def test_what_was_saved_is_what_the_ledger_says(scene_of, tmp_path):
    """Vectors of the cache are counted once, and callers who shared an answer are counted as well."""
    with serve() as simulator:
        async with scene_of(simulator, cache="on", batch_size=96) as scene:
            await questions.together(scene, Line("20 at once"))
            shared = (await scene.ai.costs.saved_by_cache()).saved
            embedded = await scene.ai.embed(EMBEDDING_MODEL, KNOWN)
            await vectors.embed_again(scene, Line("The same and 20"))
            closing = Closing(scene, JsonLines(tmp_path / "trace.jsonl"))
            await closing.read_the_books()
            closing.spans.shutdown()
            ledger = await scene.ai.costs.saved_by_cache()
    assert shared > 0
    assert closing.document()["saved"] == ledger.saved == shared + embedded.cost.amount
    assert f"Saved by cache and sharing {usd(ledger.saved)}" in " ".join(screen_of(closing).split())


async def test_step_that_failed_is_named(scene_of, tmp_path):
    """The end of the tour repeats which steps failed."""
    with serve() as simulator:
        async with scene_of(simulator) as scene:
            scene.simulator = None
            scene.ledger.opened(SendOpened(send_id="s", call_id="c", at=1.0, kind="chat", model=LLAMA, attempt=1))
            scene.ledger.closed(SendClosed(send_id="s", state="settled", cost=Decimal("0.1")))
            closing = Closing(scene, JsonLines(tmp_path / "trace.jsonl"))
            closing.outcomes = [Outcome(title="Chat", ok=False, fact="", elapsed=1.0)]
            await closing.read_the_books()
            closing.spans.shutdown()
    screen = screen_of(closing)
    assert "✗ 1 of 1 steps failed: Chat" in screen
    assert "the server counted" not in screen
    assert closing.document()["server"] is None


async def test_closing_without_books_is_still_shown(scene_of, tmp_path):
    """A tour that was cut short has sums, and no costs."""
    with serve() as simulator:
        async with scene_of(simulator) as scene:
            scene.simulator = None
            closing = Closing(scene, JsonLines(tmp_path / "trace.jsonl"))
            closing.spans.shutdown()
    assert "Cost by model" in screen_of(closing)
    assert "Total" not in screen_of(closing)
