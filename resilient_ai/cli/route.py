"""`resilient-ai route`: which model would be asked, and why, without asking it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from resilient_ai.cli import terminal
from resilient_ai.cli._price_file import prices_of_file
from resilient_ai.cli._route_budgets import refuses_always, shorter_fits
from resilient_ai.cli._route_notes import noted
from resilient_ai.cli._route_query import CONDITIONS, query_of
from resilient_ai.cli._stacked import NARROWEST_NAME, facts, longest_word, stacked
from resilient_ai.cli.failures import FAILED, WrongUseError
from resilient_ai.cli.options import Json, one_of, tags_of
from resilient_ai.cli.session import text_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from resilient_ai.core.operations import Operation
    from resilient_ai.core.results import Considered
    from resilient_ai.deepinfra.catalogue import Catalogue, ModelQuery
    from resilient_ai.middleware import Routing
    from resilient_ai.settings import Settings

_AUTO = "auto"
_KINDS = ("chat", "embed", "image")
_CALLS_OF = {"embedding": "embed"}  # by what the catalogue calls its models
_PREFERENCES = ("cheapest", "fastest", "balanced")
_MOST = 20  # lines
_PLACE, _TIME, _BETWEEN = 5, 9, 2  # columns of a terminal, those between included


def route(
    prompt: Annotated[str | None, typer.Argument(help="What would be asked; `-` reads standard input.")] = None,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A model, or auto for a choice. May be repeated: the next serves when one is down. \\[default: auto]",
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option("--models", metavar="A,B,C", help="What auto stands for. \\[default: the settings' auto_models]"),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(
            "--query",
            metavar="tools,context=100000",
            help=f"Or a query of the catalogue, with commas between: {CONDITIONS}.",
        ),
    ] = None,
    prefer: Annotated[
        str | None,
        typer.Option(
            "--prefer", help=f"{', '.join(_PREFERENCES)}. \\[default: the settings' auto_prefer, else cheapest]"
        ),
    ] = None,
    kind: Annotated[str, typer.Option("--kind", "-k", help=f"{', '.join(_KINDS)}.")] = "chat",
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=1,
            help="The longest answer of a chat, in tokens. Costs are for one of 1,000, or of this where it is less.",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="NAME=VALUE", help="Such as tenant=acme. May be repeated.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Explain which models would be asked, in which order, and why. Nothing is sent."""
    from resilient_ai.core.call import Call  # noqa: PLC0415 - slow to import
    from resilient_ai.core.clock import SystemClock  # noqa: PLC0415 - as above
    from resilient_ai.presets import live_catalogue  # noqa: PLC0415 - as above
    from resilient_ai.settings import Settings  # noqa: PLC0415 - as above

    kind = one_of("--kind", _CALLS_OF.get(kind, kind), _KINDS)
    if prefer is not None:
        one_of("--prefer", prefer, _PREFERENCES)
    settings = Settings()
    catalogue = live_catalogue(settings)
    operation = _operation(kind, model or [_AUTO], text_of(prompt), max_tokens)
    candidates = _candidates(models, query, kind, catalogue)
    if candidates is not None and _AUTO not in (model or [_AUTO]):
        given = "--models" if query is None else "--query"
        raise WrongUseError(f"{given} says what auto stands for, and --model names others; give one of them")
    if operation.model == _AUTO and candidates is None and not settings.auto_models:
        raise WrongUseError("auto stands for nothing: give --models or --query, or set RESILIENT_AI_AUTO_MODELS")
    routing = _routing(settings, catalogue, candidates, prefer)
    refuses = refuses_always(settings, catalogue)
    call = Call(operation, SystemClock(), tags=tags_of(tag), objections=(refuses,))
    found = noted(routing.explain(call), call, catalogue, refuses)
    if json:
        terminal.write_json([one.model_dump() for one in found])
    else:
        _show(found, operation, catalogue, own=prices_of_file(settings, (one.model for one in found[:_MOST])))
        if shorter_fits(found, call, refuses):
            terminal.say("budgets count the longest answer there may be; a small --max-tokens makes it fit", "yellow")
    if all(one.place is None for one in found):
        terminal.say("none of these models can serve this call", "yellow")
        raise typer.Exit(FAILED)


def _show(found: "Sequence[Considered]", operation: "Operation[Any]", catalogue: "Catalogue", *, own: str) -> None:
    screen = terminal.out()
    screen.print(_table(found[:_MOST], width=screen.width))
    if len(found) > _MOST:
        terminal.say(f"and {len(found) - _MOST:,} more; --json has all of them", "dim")
    footer = (
        f"nothing was sent; costs are for {_assumed(operation)}, by prices as of {catalogue.as_of}{own}."
        " What running processes have measured, such as how long answers are, whether a circuit or limit of theirs stands"
        " against a model, and what is left of budgets, is not known here; in them, ai.explain(operation) says it."
    )
    terminal.err().print(Text(footer, "dim"))  # wrapped between words, which `say` leaves to the terminal


def _operation(kind: str, models: Sequence[str], text: str, max_tokens: int | None) -> "Operation[Any]":
    from resilient_ai.core.operations import Chat, Embed, Image  # noqa: PLC0415 - as above

    if max_tokens is not None and kind != "chat":
        raise WrongUseError("--max-tokens is for chats")
    names = models[0] if len(models) == 1 else tuple(models)
    if kind == "chat":
        return Chat(model=names, messages=text, max_tokens=max_tokens)
    return Embed(model=names, texts=[text]) if kind == "embed" else Image(model=names, prompt=text)


def _assumed(operation: "Operation[Any]") -> str:
    """Return what the expected costs are made of."""
    from resilient_ai.core.operations import Image, Sampling  # noqa: PLC0415 - as above
    from resilient_ai.inspection import TOKENS_OF_ANSWER, prompt_tokens  # noqa: PLC0415 - as above

    if isinstance(operation, Image):
        return "one picture"
    prompt = f"a prompt of about {terminal.counted(prompt_tokens(operation), 'token')}"
    if not isinstance(operation, Sampling):
        return prompt
    longest = operation.max_tokens
    if longest is not None and longest <= TOKENS_OF_ANSWER:
        return f"{prompt} and an answer of {longest:,}, as long as it may be"
    return f"{prompt} and an answer of {TOKENS_OF_ANSWER:,}, which is a guess"


def _candidates(
    models: str | None, query: str | None, kind: str, catalogue: "Catalogue"
) -> "tuple[str, ...] | ModelQuery | None":
    if models is not None and query is not None:
        raise WrongUseError("--models and --query both say what auto stands for; give one of them")
    if query is not None:
        return query_of(query, kind, catalogue)
    if models is None:
        return None
    names = tuple(name.strip() for name in models.split(",") if name.strip())
    if not names:
        raise WrongUseError(f"--models: names no model, got {models!r}; write their ids with commas between")
    if len(set(names)) < len(names):
        raise WrongUseError(f"--models: each model may stand there once, got {models!r}")
    return names


def _routing(
    settings: "Settings", catalogue: "Catalogue", candidates: "tuple[str, ...] | ModelQuery | None", prefer: str | None
) -> "Routing":
    """Return what the settings say, with what was given in its place."""
    from resilient_ai.deepinfra.catalogue import CatalogueAbilities, PriceTable  # noqa: PLC0415 - as above
    from resilient_ai.middleware import Routing  # noqa: PLC0415 - as above

    chosen = prefer or settings.auto_prefer or (None if candidates is None else "cheapest")
    try:
        return Routing(
            models=settings.auto_models if candidates is None else candidates,
            prefer=cast("Any", chosen),
            abilities=CatalogueAbilities(catalogue),
            prices=PriceTable(catalogue),
        )
    except ValueError as error:
        raise WrongUseError(f"--models: {error}") from None


def _table(found: "Sequence[Considered]", *, width: int) -> "RenderableType":
    timed = any(one.seconds is not None for one in found)
    numbers = max(len("Cost"), *(len(terminal.usd(one.cost)) for one in found)) + (_TIME if timed else 0) + _PLACE
    longest = max(len(terminal.one_line(one.model)) for one in found)
    reason = max(NARROWEST_NAME, longest_word(one.why for one in found))
    narrow = width < numbers + longest + _BETWEEN + reason
    if narrow and width < numbers + max(longest, reason):
        return stacked((Text(f"{_place(one)} {terminal.one_line(one.model)}"), _below(one)) for one in found)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("Model", no_wrap=not narrow)
    for head in ("Cost", "Time") if timed else ("Cost",):
        table.add_column(head, justify="right", no_wrap=True)
    if not narrow:
        table.add_column("Why")
    for one in found:
        name, why = Text(terminal.one_line(one.model)), Text(terminal.one_line(one.why), "dim")
        cells = [Text(_place(one)), name, Text(terminal.usd(one.cost))]
        if timed:
            cells.append(Text(_time(one) or "unknown"))
        if narrow:
            name.append("\n").append_text(why)
        else:
            cells.append(why)
        table.add_row(*cells, style="dim" if one.place is None else "")
    return table


def _place(one: "Considered") -> str:
    return "-" if one.place is None else str(one.place)


def _time(one: "Considered") -> str:
    return "" if one.seconds is None else terminal.seconds(one.seconds)


def _below(one: "Considered") -> Text:
    numbers = facts({"Cost": terminal.usd(one.cost), "Time": _time(one)})
    return numbers.append(f" · {terminal.one_line(one.why)}", "dim")
