"""`resilient-ai image`: draw pictures."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.options import IMAGE_MODEL, BaseUrl, Json, NoCache, Tag, Timeout, tags_of
from resilient_ai.cli.session import facts_of, text_of, with_client

if TYPE_CHECKING:
    from resilient_ai.client import AsyncClient
    from resilient_ai.core.results import Image, ImageResult


def image(
    prompt: Annotated[str | None, typer.Argument(help="What to draw; `-` reads standard input.")] = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; by default image-1.png or the next that is free."),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m")] = IMAGE_MODEL,
    size: Annotated[str | None, typer.Option("--size", metavar="WIDTHxHEIGHT", help="In pixels.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Makes the picture repeatable, and cached.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Inference steps.")] = None,
    count: Annotated[int, typer.Option("-n", "--count", help="How many pictures, 1 to 4.")] = 1,
    no_cache: NoCache = False,
    timeout: Timeout = None,
    tag: Tag = None,
    base_url: BaseUrl = None,
    json: Json = False,
) -> None:
    """Draw pictures.

    Standard output gets the names of the files.
    """
    tags = tags_of(tag)
    asked = text_of(prompt)
    folder = (output or Path()).parent
    if (output is not None and output.is_dir()) or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise WrongUseError(f"--output: {str(output or folder)!r} cannot be written")
    options: dict[str, Any] = {"size": size, "seed": seed, "steps": steps, "n": count}
    options = {name: value for name, value in options.items() if value is not None}

    async def work(client: "AsyncClient") -> "tuple[ImageResult, float]":
        started = time.monotonic()
        with terminal.err().status(f"drawing with {terminal.one_line(model, 80)}"):
            return await client.image(model, asked, **options), time.monotonic() - started

    result, elapsed = with_client(work, base_url=base_url, timeout=timeout, tags=tags, cache=not no_cache)
    paths = [_save(picture, output, number, len(result.images)) for number, picture in enumerate(result.images, 1)]
    if json:
        pictures = [_details(picture, path) for picture, path in zip(result.images, paths, strict=True)]
        terminal.write_json({"images": pictures, "seed": result.seed, **facts_of(result), "elapsed": elapsed})
        return
    for path in paths:
        terminal.write(f"{path}\n")
    _tell_facts(result, elapsed)


def _save(picture: "Image", output: Path | None, number: int, count: int) -> Path:
    from resilient_ai.core.media import SUFFIXES  # noqa: PLC0415 - only a command that sends needs it

    suffix = SUFFIXES.get(picture.media_type, ".bin")
    if output is None:
        target = next(path for free in range(1, 1 << 30) if not (path := Path(f"image-{free}{suffix}")).exists())
    else:
        # The bytes decide the suffix: a JPEG is not written under a name that says PNG.
        stem = output.stem if output.suffix.lower() in {*SUFFIXES.values(), ".jpeg"} else output.name
        given = output.suffix if suffix == ".jpg" and output.suffix.lower() == ".jpeg" else suffix
        target = output.with_name(f"{stem}-{number}{given}" if count > 1 else f"{stem}{given}")
    return picture.save(target)


def _details(picture: "Image", path: Path) -> dict[str, object]:
    return {
        "path": str(path),
        "media_type": picture.media_type,
        "bytes": len(picture.data),
        "flagged": picture.flagged,
        "revised_prompt": picture.revised_prompt,
    }


def _tell_facts(result: "ImageResult", elapsed: float) -> None:
    facts = [terminal.one_line(result.served_by or result.model, 80)]
    if result.cache == "hit":
        facts.append("from the cache")
    if result.seed is not None:
        facts.append(f"seed {result.seed}")
    if result.attempts > 1:
        facts.append(f"{result.attempts} requests")
    facts += [terminal.usd(result.cost.amount if result.cost else None), terminal.seconds(elapsed)]
    terminal.say(" · ".join(facts), "dim")
