"""Options that several commands share."""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import typer

CHAT_MODEL = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
EMBEDDING_MODEL = "BAAI/bge-m3"
IMAGE_MODEL = "black-forest-labs/FLUX-1-schnell"

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
        tags[name] = value
    return tags


def one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    """Return `value` if it is allowed; otherwise the option is complained about."""
    if value not in allowed:
        raise typer.BadParameter(f"must be one of {', '.join(allowed)}, got {value!r}", param_hint=f"'{option}'")
    return value
