"""Addresses of a PostgreSQL: what of them may be shown, and what to say where they or the packages are missing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from resilient_ai.core.errors import ConfigurationError

_SCHEMES = ("postgresql://", "postgres://")
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,47}")
# What an address may say otherwise. A connection over which nobody answers is noticed within half a minute.
_DEFAULTS = {
    "application_name": "resilient_ai",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a ledger is.

    Args:
        place: What may be shown of it.
        schema: The schema of its tables.
        options: What libpq is given, with the password.
        durable: Whether every commit waits for the server's disk.
    """

    place: str
    schema: str
    options: Mapping[str, Any] = field(repr=False)
    durable: bool = True

    def without_secrets(self, error: object) -> str:
        """Return what an error says, on one line and without a password."""
        said = str(error).partition("\n\tIs the server running")[0]  # the driver's advice, in a sentence of its own
        text = " ".join(said.split()) or type(error).__name__
        for name in ("password", "sslpassword"):
            secret = self.options.get(name)
            text = text.replace(str(secret), "***") if secret else text
        return text


def target_of(url: str, *, schema: str, durable: bool) -> Target:
    """Return what `url` and `schema` name.

    Raises:
        ConfigurationError: If it is no address, or the packages are missing; the address is never quoted, as a password may be
            in it.
        ValueError: If `schema` is no plain name.
    """
    if not _SCHEMA.fullmatch(schema):
        raise ValueError(
            f"schema must be a name of small letters, digits and _, and not begin with pg_, got {schema!r}"
        )
    options = _DEFAULTS | _options_of(url)
    return Target(place=_place(options), schema=schema, options=options, durable=durable)


def package_missing() -> ConfigurationError:
    """Return the error that says what to install."""
    return ConfigurationError(
        "the package psycopg is missing, or libpq is; install them with: pip install 'resilient-ai[postgres]'"
    )


def _options_of(url: str) -> dict[str, Any]:
    try:
        import psycopg  # noqa: PLC0415  # only whoever uses this ledger has it
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415
    except ImportError:
        raise package_missing() from None
    if not url.startswith(_SCHEMES):
        raise ConfigurationError(f"url: must begin with one of {', '.join(_SCHEMES)}")
    try:
        options: dict[str, Any] = {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error:
        raise ConfigurationError("url: not the address of a PostgreSQL") from None
    # A password with such a character makes the rest of it look like a host, a port or a database.
    if any("@" in str(options.get(name, "")) for name in ("host", "port", "dbname")):
        raise ConfigurationError(
            "url: holds an @ behind the host; write the characters of the password as %2F and so on"
        )
    if not all(port.isdecimal() for port in str(options.get("port", "")).split(",") if port):
        raise ConfigurationError("url: the port is no number")
    return options


def _place(options: Mapping[str, Any]) -> str:
    hosts = str(options.get("host", "")).split(",")
    ports = str(options.get("port", "")).split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    where = ",".join(f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False))
    return f"postgresql://{where}/{options.get('dbname', '')}"
