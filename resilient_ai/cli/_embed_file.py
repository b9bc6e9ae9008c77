"""`resilient-ai embed --output`: a job from its checks to its last line."""

import os
import time
from pathlib import Path
from typing import Any

from resilient_ai.cli import terminal
from resilient_ai.cli._embed_bar import Bar, bar, money
from resilient_ai.cli._embed_job import How, Job
from resilient_ai.cli._input import Piped
from resilient_ai.cli._lines import Given, TextFile
from resilient_ai.cli._parts import parts_of
from resilient_ai.cli._vector_files import VectorFile, format_of
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.session import with_client


def to_file(
    source: Given | TextFile | Piped, output: Path, how: How, connection: dict[str, Any], *, json: bool
) -> None:
    """Embed all texts into a file, beginning with what earlier runs have left.

    Raises:
        WrongUseError: If the file cannot be written, or the texts cannot be used; nothing was sent.
        ResilientAIError: If the service failed; what was done is kept.
    """
    from resilient_ai.settings import Settings  # noqa: PLC0415 - slow to import, and only commands that send need it

    kind = _checked(output, source)
    started = time.monotonic()
    fingerprint = how.fingerprint(connection["base_url"] or Settings().base_url)
    with parts_of(output) as parts, bar() as shown:
        readable = source.copied(parts.folder / "input") if isinstance(source, Piped) else source
        job = Job(readable, parts, how, fingerprint, shown)
        _run(job, shown, output, kind, connection)
    elapsed = time.monotonic() - started
    if json:
        terminal.write_json(_document(job, output, elapsed))
    else:
        _tell(job, output, elapsed)


def _checked(output: Path, source: Given | TextFile | Piped) -> type[VectorFile]:
    kind = format_of(output)
    if output.is_dir() or not output.parent.is_dir() or not os.access(output.parent, os.W_OK | os.X_OK):
        raise WrongUseError(f"--output: {output} cannot be written")
    if isinstance(source, TextFile) and output.exists() and source.path.exists() and output.samefile(source.path):
        raise WrongUseError(f"--output: {output} is the file that is read")
    return kind


def _run(job: Job, shown: Bar, output: Path, kind: type[VectorFile], connection: dict[str, Any]) -> None:
    job.prepare()
    total = job.plan.texts
    if job.plan.blank:
        shown.say(f"{terminal.counted(job.plan.blank, 'blank line')} left out", "yellow")
    if job.done:
        shown.say(f"{job.done:,} of {terminal.counted(total, 'line')} are there already", "dim")
    try:
        if job.done < total:
            with_client(job.embed, **connection)
        job.assemble(output, kind)
    except BaseException:
        if job.done:
            done = f"{job.done:,} of {terminal.counted(total, 'line')} are done"
            shown.say(f"{done}; the same command goes on from there", "yellow")
        raise


def _tell(job: Job, output: Path, elapsed: float) -> None:
    now, before = job.now, job.before
    facts = [f"{terminal.counted(job.plan.texts, 'vector')} of {job.dimensions:,} dimensions"]
    facts += [f"{now.hits:,} from the cache"] if now.hits else []
    facts += [terminal.counted(now.requests, "request"), money(now)]
    facts += [f"{money(before)} in earlier runs"] if before.texts else []
    terminal.say(" · ".join([*facts, terminal.seconds(elapsed), f"written to {output}"]), "dim")


def _document(job: Job, output: Path, elapsed: float) -> dict[str, object]:
    now, before = job.now, job.before
    return {
        "output": str(output),
        "texts": job.plan.texts,
        "blank_lines": job.plan.blank,
        "dimensions": job.dimensions,
        "model": job.how.model,
        "from_cache": now.hits,
        "requests": now.requests,
        "cost": now.known_cost,
        "cost_complete": now.complete,
        "elapsed": elapsed,
        "earlier": {
            "texts": before.texts,
            "requests": before.requests,
            "cost": before.known_cost,
            "cost_complete": before.complete,
        },
    }
