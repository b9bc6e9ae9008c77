"""`resilient-ai doctor`: is everything there that a call needs?"""

import asyncio
import os
import platform
import time
import warnings
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal

import orjson
import typer
from rich.markup import escape
from rich.table import Table

from resilient_ai._version import __version__
from resilient_ai.cli import terminal
from resilient_ai.cli.failures import FAILED, sentence
from resilient_ai.cli.options import BaseUrl, Json
from resilient_ai.core.errors import ResilientAIError

if TYPE_CHECKING:
    from resilient_ai.core.pipeline import Description
    from resilient_ai.deepinfra.transport import Transport
    from resilient_ai.settings import Settings

Status = Literal["good", "doubtful", "wrong"]
_MARKS = {"good": "[green]✓[/green]", "doubtful": "[yellow]![/yellow]", "wrong": "[red]✗[/red]"}
_PACKAGES = ("httpx", "aiohttp", "anyio", "pydantic", "tenacity", "opentelemetry-sdk", "structlog", "diskcache", "typer")


_PATIENCE = 15.0
_LARGEST = 16 << 20


@dataclass(kw_only=True)
class _Findings:
    """What was looked at, in order."""

    checks: list[tuple[str, Status, str]] = field(default_factory=list[tuple[str, Status, str]])
    stack: "Description | None" = None

    def note(self, name: str, status: Status, detail: str) -> None:
        self.checks.append((name, status, terminal.one_line(detail)))

    @property
    def all_well(self) -> bool:
        return all(status != "wrong" for _, status, _ in self.checks)


def doctor(base_url: BaseUrl = None, json: Json = False) -> None:
    """Look at key, settings, folders, server and clock.

    Shows the stack that calls go through, but never the key. Nothing is sent that costs anything. The exit code is 1 if something is wrong.
    """
    findings = _Findings()
    _versions(findings)
    settings = _settings(findings)
    if settings is not None:
        _home(findings, settings)
        key = _key(findings, settings)
        if key:
            asyncio.run(_client(findings, settings, key, base_url or settings.base_url))
    if json:
        terminal.write_json(_document(findings))
    else:
        _show(findings)
    if not findings.all_well:
        raise typer.Exit(FAILED)


def _versions(findings: _Findings) -> None:
    findings.note("version", "good", f"resilient-ai {__version__}, Python {platform.python_version()}")
    known: list[str] = []
    missing: list[str] = []
    for name in _PACKAGES:
        try:
            known.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        findings.note("packages", "wrong", f"missing: {', '.join(missing)}")
    findings.note("packages", "good", ", ".join(known))


def _settings(findings: _Findings) -> "Settings | None":
    from resilient_ai.settings import FILE_VARIABLE, PREFIX, Settings  # noqa: PLC0415 - other commands need not wait for it

    try:
        settings = Settings()
    except ResilientAIError as error:
        findings.note("settings", "wrong", str(error))
        return None
    file = os.environ.get(FILE_VARIABLE)
    names = sorted(name for name in os.environ if name.startswith(PREFIX) and name != FILE_VARIABLE)
    sources = [f"the file {file}"] if file else []
    sources += [f"the environment ({', '.join(names)})"] if names else []
    findings.note("settings", "good", f"from {' and '.join(sources)}" if sources else "all defaults")
    return settings


def _home(findings: _Findings, settings: "Settings") -> None:
    from resilient_ai.presets import ResilientAIWarning, writable_home  # noqa: PLC0415 - as above

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResilientAIWarning)
        home = writable_home(settings.home)
    if home is None:
        findings.note("home", "wrong", str(caught[0].message) if caught else "cannot be written")
        return
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    findings.note("home", "good", f"{home} can be written and holds {size / 1e6:,.1f} MB")


def _key(findings: _Findings, settings: "Settings") -> str:
    """Return the key, empty where there is none."""
    from resilient_ai.deepinfra.provider import KEY_VARIABLES  # noqa: PLC0415 - as above

    if settings.api_key is not None:
        findings.note("key", "good", "present, from the settings")
        return settings.api_key.get_secret_value()
    found = [name for name in KEY_VARIABLES if os.environ.get(name, "").strip()]
    if not found:
        findings.note("key", "wrong", "none: set DEEPINFRA_API_KEY; keys are made at https://deepinfra.com/dash/api_keys")
        return ""
    findings.note("key", "good", f"present, from {found[0]}")
    return os.environ[found[0]].strip()


async def _client(findings: _Findings, settings: "Settings", key: str, base_url: str) -> None:
    from resilient_ai.client import AsyncClient  # noqa: PLC0415 - as above
    from resilient_ai.deepinfra.transport import Transport  # noqa: PLC0415 - as above

    try:
        async with AsyncClient(key, base_url=base_url, settings=settings) as client:
            findings.stack = client.describe()
            origin = findings.stack[-1].settings.removeprefix("base_url=").strip("'")
    except ResilientAIError as error:
        findings.note("client", "wrong", str(error))
        return
    headers = {"Authorization": f"Bearer {key}", "User-Agent": f"resilient-ai/{__version__}"}
    transport = Transport(origin, headers, connect_timeout=settings.connect_timeout)
    try:
        await _server(findings, transport, origin, settings)
    except (ResilientAIError, TimeoutError, ValueError) as error:
        text = f"no answer within {_PATIENCE:g} s" if isinstance(error, TimeoutError) else sentence(error)
        findings.note("server", "wrong", f"{origin}: {text}")
    finally:
        await transport.aclose()


async def _server(findings: _Findings, transport: "Transport", origin: str, settings: "Settings") -> None:
    async with asyncio.timeout(_PATIENCE):
        started = time.monotonic()
        reply = await transport.get("/openai/models")
        elapsed = time.monotonic() - started
        body = await reply.read(_LARGEST)
        if reply.status == 200:
            count = len(orjson.loads(body).get("data", ()))
            findings.note("server", "good", f"{origin} lists {count} models, after {terminal.seconds(elapsed)}")
        else:
            findings.note("server", "wrong", f"{origin} answers with status {reply.status}")
        _clock(findings, reply.headers.get("date", ""))
        reply = await transport.get("/me/rate_limit")
        body = await reply.read(_LARGEST)
        if reply.status == 200:
            _limit(findings, orjson.loads(body).get("rate_limit"), settings)
        elif reply.status in {401, 403}:
            findings.note("account", "wrong", f"the service refuses the key (status {reply.status})")
        else:
            findings.note("account", "doubtful", f"the key could not be tried (status {reply.status})")


def _limit(findings: _Findings, limit: object, settings: "Settings") -> None:
    accepted = "the service accepts the key"
    if isinstance(limit, int) and limit < settings.concurrency:
        advice = f"set RESILIENT_AI_CONCURRENCY={limit}, which is {settings.concurrency}"
        findings.note("account", "doubtful", f"{accepted}, but takes only {limit} requests at once per model: {advice}")
    else:
        known = f" and takes {limit} requests at once per model" if isinstance(limit, int) else ""
        findings.note("account", "good", f"{accepted}{known}")


def _clock(findings: _Findings, date: str) -> None:
    try:
        apart = abs(parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        findings.note("clock", "doubtful", "the server tells no time to compare with")
        return
    if apart < 60:
        findings.note("clock", "good", "agrees with the server's")
    else:
        findings.note("clock", "wrong", f"is {apart:,.0f} s apart from the server's, so days in the book of costs are wrong")


def _document(findings: _Findings) -> dict[str, object]:
    checks = [{"name": name, "status": status, "detail": detail} for name, status, detail in findings.checks]
    stack = [{"name": layer.name, "settings": layer.settings} for layer in findings.stack or ()]
    return {"ok": findings.all_well, "checks": checks, "stack": stack}


def _show(findings: _Findings) -> None:
    screen = terminal.out()
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, status, detail in findings.checks:
        table.add_row(_MARKS[status], f"[bold]{name}[/bold]", escape(detail))
    screen.print(table)
    if findings.stack is not None:
        layers = Table("Stack", "Settings", box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for layer in findings.stack:
            layers.add_row(layer.name, f"[dim]{escape(layer.settings)}[/dim]")
        screen.print()
        screen.print(layers)
    verdict = "everything is in order" if findings.all_well else "something is wrong; see the lines marked ✗"
    screen.print()
    screen.print(f"[{'green' if findings.all_well else 'red'}]{verdict}[/]")
