"""What failed when no answer came."""

import errno
import socket
import ssl
from types import SimpleNamespace

import aiohttp
import httpx
import pytest

from resilient_ai.core.errors import AttemptTimeout, ConnectionFailed, InvalidResponse
from resilient_ai.deepinfra.connection_errors import translate

KEY = SimpleNamespace(host="api.test", port=443, ssl=True, is_ssl=True)
REFUSED = OSError(111, "refused")
PASSWORD_WANTED, BAD_GATEWAY = (aiohttp.ClientHttpProxyError(KEY, (), status=status) for status in (407, 502))
LOCAL = ("no file or port is left for a connection", "the certificate of api.test is not to be trusted")


def caused(error, cause, *, hidden=False):
    """An error as it arrives that was raised from another, or while another was handled."""
    try:
        try:
            raise cause  # noqa: TRY301
        except BaseException as inner:
            if hidden:
                raise error  # noqa: B904
            raise error from inner
    except type(error) as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "phase", "message", "retryable"),
    [
        *(
            (
                caused(httpx.ConnectError("x"), OSError(number, "?")),
                "connect",
                "no file or port is left for a conn",
                True,
            )
            for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
        ),
        (caused(httpx.ProxyError("x"), PASSWORD_WANTED), "proxy", "the proxy could not be used", False),
        (caused(httpx.ProxyError("x"), BAD_GATEWAY), "proxy", "the proxy could not be used", True),
        (httpx.ConnectError("x"), "connect", "api.test refused the connection or could not be reached", True),
        (httpx.UnsupportedProtocol("x"), "connect", "api.test refused the connection or could not be reached", True),
        (httpx.ProxyError("x"), "proxy", "the proxy could not be used", True),
        (caused(httpx.ProxyError("x"), socket.gaierror(-2, "?")), "proxy", "the proxy could not be used", True),
        (caused(httpx.ConnectError("x"), REFUSED), "connect", "api.test refused the connection", True),
        (caused(httpx.ConnectError("x"), socket.gaierror(-2, "?")), "dns", "the name api.test could not be", True),
        (
            caused(httpx.ConnectError("x"), aiohttp.ClientConnectorDNSError(KEY, REFUSED)),
            *("dns", "the name api.test could not be resolved", True),
        ),
        (
            caused(httpx.ConnectError("x"), aiohttp.ClientConnectorError(KEY, socket.gaierror(-2, "?"))),
            *("dns", "the name api.test could not be resolved", True),
        ),
        (
            caused(httpx.ConnectError("x"), ssl.SSLCertVerificationError(1, "expired")),
            *("tls", "the certificate of api.test is not to be trusted", False),
        ),
        (
            caused(
                httpx.ConnectError("x"),
                aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError(1, "expired")),
            ),
            *("tls", "the certificate of api.test is not to be trusted", False),
        ),
        (
            caused(httpx.ConnectError("x"), ssl.SSLError(1, "handshake")),
            *("tls", "the encrypted connection to api.test could not be set up", True),
        ),
        (
            caused(httpx.ConnectError("x"), aiohttp.ClientConnectorSSLError(KEY, REFUSED)),
            *("tls", "the encrypted connection to api.test could not be set up", True),
        ),
        (
            caused(httpx.ConnectError("x"), caused(RuntimeError("pool"), ssl.SSLError(1, "?"), hidden=True)),
            *("tls", "the encrypted connection to api.test could not be set up", True),
        ),
    ],
)
def test_no_connection(error, phase, message, retryable):
    """The deepest cause decides; nothing was sent. What is at fault here is told from what is at fault there."""
    fresh = caused(type(error)("x"), error.__cause__)  # its causes may be cut off, and the table is read more than once
    found = translate(fresh, host="api.test")
    assert type(found) is ConnectionFailed
    assert (found.phase, found.retryable, found.sent) == (phase, retryable, False)
    assert str(found).startswith(message)
    assert found.local is (str(found) in LOCAL or (phase == "proxy" and not retryable))


@pytest.mark.parametrize(
    ("error", "phase"),
    [(httpx.WriteError("x"), "send"), (httpx.ReadError("x"), "receive"), (httpx.CloseError("x"), "receive")],
)
def test_a_connection_that_broke(error, phase):
    """Bytes may have arrived, so the request may be billed."""
    found = translate(error)
    assert type(found) is ConnectionFailed
    assert (found.phase, found.sent, found.retryable) == (phase, True, True)
    assert str(found) == "the connection broke before the whole answer had arrived"


@pytest.mark.parametrize("error", [httpx.RemoteProtocolError("x"), httpx.DecodingError("x")])
def test_an_answer_that_is_no_http(error):
    """Something answered, but not the service."""
    found = translate(error)
    assert type(found) is InvalidResponse
    assert found.retryable
    assert str(found) == "the answer is not HTTP that can be read"


@pytest.mark.parametrize(
    ("error", "timer", "elapsed", "sent"),
    [
        (httpx.ConnectTimeout("x"), "connect", 5.0, False),
        (httpx.PoolTimeout("x"), "connect", 5.0, False),
        (httpx.ReadTimeout("x"), "attempt", None, True),
        (httpx.WriteTimeout("x"), "attempt", None, True),
    ],
)
def test_a_timer_of_the_pool(error, timer, elapsed, sent):
    """It says what it can of how long it took."""
    found = translate(error, connect_timeout=5.0)
    assert type(found) is AttemptTimeout
    assert (found.timer, found.elapsed, found.sent) == (timer, elapsed, sent)


def test_without_a_name():
    """The host is called the host."""
    assert str(translate(httpx.ConnectError("x"))) == "the host refused the connection or could not be reached"


@pytest.mark.parametrize("cause", [PASSWORD_WANTED, aiohttp.ClientPayloadError("what the server said")])
def test_a_cause_that_may_hold_the_key_is_cut_off(cause):
    """It holds the headers of the request, or what the server said; who reads the chain of errors must not find them."""
    error = caused(httpx.ReadError("x"), cause)
    translate(error)
    assert (error.__cause__, error.__context__) == (None, None)


def test_a_cause_that_holds_no_key_is_kept():
    """It tells what really happened."""
    error = caused(httpx.ConnectError("x"), REFUSED)
    translate(error)
    assert error.__cause__ is REFUSED
