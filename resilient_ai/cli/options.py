"""Options that several commands share."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Annotated, TypeAlias, get_args

import typer

CHAT_MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
EMBEDDING_MODEL = "BAAI/bge-m3"
IMAGE_MODEL = "black-forest-labs/FLUX-1-schnell"

_ALIKE = 0.75
_TEXT = ("chat", "completion", "ocr")
_MODELS_OF = {"embed": ("embedding",), "stream": _TEXT, "complete": _TEXT}

BaseUrl: TypeAlias = Annotated[
    str | None, typer.Option("--base-url", metavar="URL", help="The server, instead of DeepInfra.", show_default=False)
]
Timeout: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", min=0.001, help="For everything together, retries included.", show_default=False
    ),
]
Tag: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        metavar="NAME=VALUE",
        help="Written into the book of costs, such as feature=search. May be repeated.",
        show_default=False,
    ),
]
NoCache: TypeAlias = Annotated[bool, typer.Option("--no-cache", help="Neither read nor fill the cache.")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Write one JSON document to standard output.")]


def tags_of(given: Sequence[str] | None) -> dict[str, str]:
    """Return tags as a mapping.

    >>> tags_of(["tenant=acme", "feature=search"])
    {'tenant': 'acme', 'feature': 'search'}
    """
    tags: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"must be NAME=VALUE, got {text!r}", param_hint="'--tag'")
        if name in tags:
            raise typer.BadParameter(f"{name!r} is given twice, got {tags[name]!r} and {value!r}", param_hint="'--tag'")
        tags[name] = value
    return tags


def filters_of(given: Sequence[str] | None) -> dict[str, str]:
    """Return tags that narrow a question, among which a kind is one of those that there are.

    >>> filters_of(["kind=chat"])
    {'kind': 'chat'}
    """
    from resilient_ai.core.operation import Kind  # noqa: PLC0415 - slow to import

    tags = tags_of(given)
    if "kind" in tags:
        one_of("--tag kind", tags["kind"], get_args(Kind))
    return tags


def meant_by(tags: Iterable[str]) -> str:
    """Return what to ask where nothing has these tags, empty where none of their names is like one that costs are added up by.

    >>> meant_by(["tenent"]), meant_by(["team"])
    ('; did you mean tenant?', '')
    """
    from resilient_ai.core.ledger import COLUMNS  # noqa: PLC0415 - slow to import

    names = [column for column in COLUMNS if column not in {"day", "state"}]
    close = [get_close_matches(tag, names, n=1, cutoff=_ALIKE) for tag in tags if tag not in names]
    meant = " and ".join(found[0] for found in close if found)
    return f"; did you mean {meant}?" if meant else ""


def catalogue_kinds(kind: str) -> tuple[str, ...]:
    """Return what the catalogue calls the models that serve a kind of calls; what it calls models stands for itself.

    >>> catalogue_kinds("embed"), catalogue_kinds("stream"), catalogue_kinds("chat")
    (('embedding',), ('chat', 'completion', 'ocr'), ('chat',))
    """
    return _MODELS_OF.get(kind, (kind,))


def one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    """Return `value` if it is allowed; otherwise the option is complained about."""
    if value not in allowed:
        raise typer.BadParameter(f"must be one of {', '.join(allowed)}, got {value!r}", param_hint=f"'{option}'")
    return value
