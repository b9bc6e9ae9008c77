"""`resilient-ai chat`: ask a language model."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli.options import CHAT_MODEL, BaseUrl, Json, NoCache, Tag, Timeout, tags_of
from resilient_ai.cli.session import facts_of, text_of, with_client

if TYPE_CHECKING:
    from resilient_ai.client import AsyncClient
    from resilient_ai.core.messages import AnyMessage
    from resilient_ai.core.results import ChatResult


def chat(
    prompt: Annotated[str | None, typer.Argument(help="What to ask; `-` reads standard input.")] = None,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help=f"May be repeated: the next serves when one is down. \\[default: {CHAT_MODEL}]"
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="Instructions that stand before it.")] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", metavar="FILE|URL", help="A picture to look at. May be repeated."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-t", help="0 to 2; 0 is repeatable, and cached.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="The longest answer, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Makes sampling repeatable; cached.")] = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show the answer while it is made.")] = True,
    no_cache: NoCache = False,
    timeout: Timeout = None,
    tag: Tag = None,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Ask a language model.

    The answer goes to standard output, its thoughts and its cost to standard error.
    """
    tags = tags_of(tag)
    asked = text_of(prompt)
    options: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    options = {name: value for name, value in options.items() if value is not None}
    models = model or [CHAT_MODEL]

    async def work(client: "AsyncClient") -> None:
        started = time.monotonic()
        messages = _messages(asked, system, image or [])
        if json:
            answer = await client.chat(models, messages, **options)
            terminal.write_json({"text": answer.text, **_details(answer), "elapsed": time.monotonic() - started})
            return
        page = _Page()
        if stream:
            async with client.stream(models, messages, **options) as pieces:
                try:
                    async for piece in pieces:
                        page.show(piece)
                finally:
                    page.end()
                answer = await pieces.result()
        else:
            answer = await client.chat(models, messages, **options)
            page.think(answer.reasoning or "")
            page.tell(answer.text)
            page.end()
        _tell_facts(answer, time.monotonic() - started)

    with_client(work, base_url=base_url, timeout=timeout, tags=tags, cache=not no_cache)


def _messages(asked: str, system: str | None, images: list[str]) -> "list[AnyMessage]":
    from resilient_ai.core import messages  # noqa: PLC0415 - only a command that sends needs it

    parts = [messages.ImagePart.of(source) for source in images]
    instructions: list[AnyMessage] = [messages.system(system)] if system else []
    return [*instructions, messages.user(asked, *parts)]


def _details(answer: "ChatResult") -> dict[str, object]:
    calls = [{"name": call.name, "arguments": call.arguments} for call in answer.tool_calls]
    return {
        "reasoning": answer.reasoning,
        "finish_reason": answer.finish_reason,
        "tool_calls": calls,
        **facts_of(answer),
    }


def _tell_facts(answer: "ChatResult", elapsed: float) -> None:
    usage = answer.usage
    facts = [terminal.one_line(answer.served_by or answer.model, 80)]
    if answer.cache == "hit":
        facts.append("from the cache")
    elif usage is not None:
        facts.append(f"{usage.input_tokens or 0} + {usage.output_tokens or 0} tokens")
    if answer.attempts > 1:
        facts.append(f"{answer.attempts} requests")
    facts += [terminal.usd(answer.cost.amount if answer.cost else None), terminal.seconds(elapsed)]
    terminal.say(" · ".join(facts), "dim")
    if answer.finish_reason == "length":
        terminal.say("the answer was cut: it reached the most tokens it may have", "yellow")


class _Page:
    """Writes an answer as it arrives: thoughts dimmed to standard error, the answer to standard output."""

    def __init__(self) -> None:
        self._screen = terminal.err()
        self._open: str | None = None
        self._at_line_start = True

    def show(self, piece: object) -> None:
        """Write one event of a stream."""
        from resilient_ai.core.deltas import ReasoningDelta, Restarted, TextDelta  # noqa: PLC0415 - as in _messages

        if isinstance(piece, Restarted):
            self.begin_again()
        elif isinstance(piece, ReasoningDelta):
            self.think(piece.text)
        elif isinstance(piece, TextDelta):
            self.tell(piece.text)

    def begin_again(self) -> None:
        """Say that what is on the page is not the answer."""
        self.end()
        self._open = None
        terminal.say("the stream broke; the answer begins again", "yellow")

    def think(self, text: str) -> None:
        """Write a piece of the thoughts."""
        text = self._begin("thoughts", text)
        if text:
            dim = self._screen.color_system is not None
            self._screen.file.write(f"\x1b[2m{text}\x1b[22m" if dim else text)
            self._screen.file.flush()

    def tell(self, text: str) -> None:
        """Write a piece of the answer."""
        text = self._begin("answer", text)
        if text:
            terminal.write(text)

    def _begin(self, kind: str, text: str) -> str:
        text = terminal.sanitise(text)
        if self._open != kind:
            text = text.lstrip("\n")
            if not text:
                return ""
            self.end()
            self._open = kind
        if text:
            self._at_line_start = text.endswith("\n")
        return text

    def end(self) -> None:
        """End the last line, where there is one."""
        if not self._at_line_start:
            if self._open == "answer":
                terminal.write("\n")
            else:
                self._screen.file.write("\n\n")
                self._screen.file.flush()
        self._at_line_start = True
