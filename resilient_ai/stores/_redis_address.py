"""Addresses of a Redis: what of them may be shown, and what to say where they or the package are missing."""

from urllib.parse import urlsplit

from resilient_ai.core.errors import ConfigurationError

_SCHEMES = ("redis", "rediss", "unix")


def without_secrets(url: str) -> str:
    """Return the part of `url` that says where the Redis is.

    Raises:
        ConfigurationError: If it is no address of a Redis; it is never quoted, as a password may be in it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError("url: not the address of a Redis") from None
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(f"url: must begin with one of {', '.join(f'{name}://' for name in _SCHEMES)}")
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":  # a password with a slash that was not written as %2F
        raise ConfigurationError(
            "url: holds an @ behind the host; write the characters of the password as %2F and so on"
        )
    path = parts.path if parts.scheme == "unix" or parts.path.lstrip("/").isdecimal() else ""
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{path}"


def package_missing() -> ConfigurationError:
    """Return the error that says what to install."""
    return ConfigurationError("the package redis is missing; install it with: pip install 'resilient-ai[redis]'")


def unusable(error: Exception) -> ConfigurationError:
    """Return the error for an address that the package refuses, without the text of its error, which may quote a password."""
    return ConfigurationError(f"url: Redis cannot be reached by it ({type(error).__name__})")
