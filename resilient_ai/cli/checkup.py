"""What `resilient-ai doctor` looks at."""

import asyncio
import os
import platform
import time
import warnings
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Literal, cast

import orjson

from resilient_ai._version import __version__
from resilient_ai.cli._checkup_money import examine_money
from resilient_ai.cli.failures import sentence
from resilient_ai.cli.terminal import one_line, seconds
from resilient_ai.client import AsyncClient
from resilient_ai.core.errors import ResilientAIError
from resilient_ai.deepinfra.provider import KEY_VARIABLES, DeepInfraProvider
from resilient_ai.deepinfra.transport import Transport
from resilient_ai.presets import ResilientAIWarning, lasting_store, writable_home
from resilient_ai.settings import FILE_VARIABLE, PREFIX, Settings
from resilient_ai.stores import RedisFleet

if TYPE_CHECKING:
    from resilient_ai.core.pipeline import Description

Status = Literal["good", "doubtful", "wrong"]

_PACKAGES = ("httpx", "aiohttp", "anyio", "pydantic", "tenacity", "opentelemetry-sdk", "structlog", "diskcache")
_PATIENCE = 15.0
_PATIENCE_REDIS = 2.0
_LARGEST = 16 << 20
_APART = 60.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str


@dataclass
class Findings:
    """What was looked at, in order, and the stack that calls go through where there is one."""

    checks: list[Check] = field(default_factory=list[Check])
    stack: "Description | None" = None

    def note(self, name: str, status: Status, detail: str) -> None:
        """Write down a finding."""
        self.checks.append(Check(name, status, one_line(detail, 400)))

    def told(self, detail: str) -> bool:
        """Return whether this was found already, and stands in what was written down."""
        return any(one_line(detail, 400) in check.detail for check in self.checks)

    @property
    def all_well(self) -> bool:
        """Whether nothing is wrong; what is doubtful may be."""
        return all(check.status != "wrong" for check in self.checks)


def examine(base_url: str | None) -> Findings:
    """Look at everything, as far as what is found allows."""
    findings = Findings()
    _versions(findings)
    settings = _settings(findings)
    if settings is not None:
        _home(findings, settings)
        asyncio.run(_cache(findings, settings))
        asyncio.run(examine_money(settings, findings.note))
        if settings.redis_url is not None:
            asyncio.run(_redis(findings, settings.redis_url.get_secret_value()))
        key = _key(findings, settings)
        if key:
            asyncio.run(_service(findings, settings, key, base_url or settings.base_url))
    return findings


def _versions(findings: Findings) -> None:
    findings.note("version", "good", f"resilient-ai {__version__}, Python {platform.python_version()}")
    known: list[str] = []
    missing: list[str] = []
    for name in _PACKAGES:
        try:
            known.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    findings.note("packages", "good", ", ".join(known))
    if missing:
        findings.note("packages", "wrong", f"missing: {', '.join(missing)}")


def _settings(findings: Findings) -> Settings | None:
    try:
        settings = Settings()
    except ResilientAIError as error:
        findings.note("settings", "wrong", str(error))
        return None
    file = os.environ.get(FILE_VARIABLE)
    names = sorted(name for name in os.environ if name.startswith(PREFIX) and name != FILE_VARIABLE)
    sources = [f"the environment ({', '.join(names)})"] if names else []
    sources += [f"the file {file}"] if file else []
    findings.note("settings", "good", f"from {' and '.join(sources)}" if sources else "all defaults")
    return settings


def _home(findings: Findings, settings: Settings) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResilientAIWarning)
        home = writable_home(settings.home)
    if home is None:
        findings.note("home", "wrong", " ".join(str(warning.message) for warning in caught))
        return
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    findings.note("home", "good", f"{home} can be written; it holds {size / 1e6:,.1f} MB of cache and costs")


async def _cache(findings: Findings, settings: Settings) -> None:
    if settings.cache == "off":
        findings.note("cache", "good", "off, as the settings say")
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResilientAIWarning)  # the home has a line of its own
        home = writable_home(settings.home)
    try:
        store = lasting_store(settings, home)
    except ResilientAIError as error:
        findings.note("cache", "wrong", str(error))
        return
    if store is None:
        findings.note("cache", "doubtful", "in memory only")
        return
    (usage,) = await store.usage()
    await store.aclose()
    if usage.trouble is not None or usage.entries is None:
        findings.note("cache", "wrong", f"{usage.name} cannot be used: {usage.trouble or 'it does not answer'}")
    else:
        findings.note("cache", "good", f"{usage.name}; {usage.entries:,} vectors and answers are kept")


async def _redis(findings: Findings, url: str) -> None:
    try:
        fleet = RedisFleet(url, timeout=_PATIENCE_REDIS)
    except ResilientAIError as error:
        findings.note("redis", "wrong", str(error))
        return
    started = time.monotonic()
    trouble = await fleet.trouble()
    elapsed = time.monotonic() - started
    await fleet.aclose()
    if trouble is not None:
        advice = "limits are not shared, and each process keeps to its part of them"
        findings.note("redis", "wrong", f"{fleet.place} {trouble}: {advice}")
    else:
        findings.note(
            "redis", "good", f"{fleet.place} answers after {seconds(elapsed)}, and limits are shared through it"
        )


def _key(findings: Findings, settings: Settings) -> str:
    """Return the key, empty where there is none."""
    if settings.api_key is not None:
        findings.note("key", "good", "present, from the settings")
        return settings.api_key.get_secret_value()
    found = [name for name in KEY_VARIABLES if os.environ.get(name, "").strip()]
    if not found:
        findings.note(
            "key", "wrong", f"none: set {KEY_VARIABLES[0]}; keys are made at https://deepinfra.com/dash/api_keys"
        )
        return ""
    findings.note("key", "good", f"present, from {found[0]}")
    return os.environ[found[0]].strip()


async def _service(findings: Findings, settings: Settings, key: str, base_url: str) -> None:
    try:
        origin = DeepInfraProvider(key, base_url=base_url).origin
        async with AsyncClient(key, base_url=base_url, settings=settings) as client:
            findings.stack = client.describe()
    except ResilientAIError as error:
        if not findings.told(str(error)):
            findings.note("client", "wrong", str(error))
        return
    agent = {"User-Agent": f"resilient-ai/{__version__}"}
    transport = Transport(origin, key, agent, connect_timeout=settings.connect_timeout)
    try:
        async with asyncio.timeout(_PATIENCE):
            await _server(findings, transport, origin)
            await _account(findings, transport, settings)
    except TimeoutError:
        findings.note("server", "wrong", f"{origin} did not answer within {_PATIENCE:g} s")
    except ResilientAIError as error:
        findings.note("server", "wrong", f"{origin}: {sentence(error).partition(';')[0]}")
    finally:
        await transport.aclose()


async def _server(findings: Findings, transport: Transport, origin: str) -> None:
    started = time.monotonic()
    reply = await transport.get("/openai/models")
    elapsed = time.monotonic() - started
    listed = _json(await reply.read(_LARGEST)).get("data")
    if reply.status == 200 and isinstance(listed, list):
        count = len(cast("list[object]", listed))
        findings.note("server", "good", f"{origin} answers after {seconds(elapsed)} and lists {count} models")
    else:
        findings.note("server", "wrong", f"{origin} lists no models (status {reply.status}); is it the right address?")
    _clock(findings, reply.headers.get("date", ""))


def _clock(findings: Findings, date: str) -> None:
    try:
        apart = abs(parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        findings.note("clock", "doubtful", "the server tells no time to compare with")
        return
    if apart < _APART:
        findings.note("clock", "good", "agrees with the server's")
    else:
        detail = f"is {apart:,.0f} s apart from the server's, so days in the book of costs are wrong"
        findings.note("clock", "wrong", detail)


async def _account(findings: Findings, transport: Transport, settings: Settings) -> None:
    reply = await transport.get("/me/rate_limit")
    limit = _json(await reply.read(_LARGEST)).get("rate_limit")
    if reply.status in {401, 403}:
        findings.note("account", "wrong", f"the service refuses the key (status {reply.status})")
    elif reply.status != 200 or not isinstance(limit, int):
        findings.note("account", "doubtful", f"the key could not be tried (status {reply.status})")
    elif limit < settings.concurrency:
        advice = f"set {PREFIX}CONCURRENCY={limit}, it is {settings.concurrency}"
        findings.note(
            "account", "doubtful", f"the key works, but for {limit} requests at once per model only: {advice}"
        )
    else:
        findings.note("account", "good", f"the key works, for {limit} requests at once per model")


def _json(body: bytes) -> dict[str, object]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
