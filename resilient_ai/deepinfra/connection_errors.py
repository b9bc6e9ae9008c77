"""What really failed when no answer came, told from the chain of causes under an httpx error."""

import errno
import socket
import ssl
from collections.abc import Iterator

import aiohttp
import httpx

from resilient_ai.core.errors import AttemptTimeout, ConnectionFailed, InvalidResponse, Phase, ProviderError

# What this process or machine has run out of: files, memory, ports.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_PASSWORD_WANTED = 407


def translate(error: httpx.HTTPError, *, host: str = "the host", connect_timeout: float | None = None) -> ProviderError:
    """Return our error for one of httpx; the true cause decides, wherever httpx or a pool under it has filed it."""
    translated = _translated(error, host, connect_timeout)
    if any(isinstance(cause, aiohttp.ClientResponseError | aiohttp.ClientPayloadError) for cause in _causes(error)):
        # They hold the headers of the request, and what the server said; the key may be in both.
        error.__cause__ = error.__context__ = None
    return translated


def _translated(error: httpx.HTTPError, host: str, connect_timeout: float | None) -> ProviderError:
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return AttemptTimeout(timer="connect", elapsed=connect_timeout, sent=False)
    if isinstance(error, httpx.TimeoutException):
        return AttemptTimeout(timer="attempt", elapsed=None, sent=True)
    if isinstance(error, httpx.RemoteProtocolError | httpx.DecodingError):
        return InvalidResponse("the answer is not HTTP that can be read")
    if isinstance(error, httpx.ConnectError | httpx.ProxyError | httpx.UnsupportedProtocol):
        return _not_connected(error, host)
    phase: Phase = "send" if isinstance(error, httpx.WriteError) else "receive"
    return ConnectionFailed("the connection broke before the whole answer had arrived", phase=phase)


def _not_connected(error: httpx.HTTPError, host: str) -> ConnectionFailed:
    causes = list(_causes(error))
    certificate = any(isinstance(cause, ssl.SSLCertVerificationError | ssl.CertificateError) for cause in causes)
    if isinstance(error, httpx.ProxyError):
        refused = any(getattr(cause, "status", None) == _PASSWORD_WANTED for cause in causes)
        return ConnectionFailed("the proxy could not be used", phase="proxy", retryable=not refused, local=refused)
    if any(isinstance(cause, OSError) and cause.errno in _EXHAUSTED for cause in causes):
        return ConnectionFailed("no file or port is left for a connection", phase="connect", local=True)
    if any(isinstance(cause, socket.gaierror | aiohttp.ClientConnectorDNSError) for cause in causes):
        return ConnectionFailed(f"the name {host} could not be resolved", phase="dns")
    if certificate:
        sentence = f"the certificate of {host} is not to be trusted"
        return ConnectionFailed(sentence, phase="tls", retryable=False, local=True)
    if any(isinstance(cause, ssl.SSLError | aiohttp.ClientConnectorSSLError) for cause in causes):
        return ConnectionFailed(f"the encrypted connection to {host} could not be set up", phase="tls")
    return ConnectionFailed(f"{host} refused the connection or could not be reached", phase="connect")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        for name in ("certificate_error", "os_error"):  # aiohttp keeps the true cause aside
            inner = getattr(seen, name, None)
            if isinstance(inner, BaseException):
                yield inner
        seen = seen.__cause__ or seen.__context__
