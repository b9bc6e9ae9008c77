"""The server that a Prometheus fetches figures from."""

import os
import selectors
import socket
import threading
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import prometheus_client
from typing_extensions import override


class Server:
    """Serves a registry from a thread, which sleeps until somebody comes or it is to end.

    Args:
        registry: What is served.
        host: The address, or a name for it.
        port: The number of the port, 0 for any that is free.

    Raises:
        OSError: If the address cannot be listened on.
    """

    def __init__(self, registry: prometheus_client.CollectorRegistry, host: str, port: int) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        kind = type("_ServerOfFamily", (_Server,), {"address_family": family})
        self._server: _Server = kind((str(address[0]), port), _Silent)
        self._server.set_app(cast("Any", prometheus_client).make_wsgi_app(registry))
        self._process = os.getpid()
        self._to_end, self._ends = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="resilient-ai-prometheus", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The number of the port."""
        return self._server.server_port

    def end(self) -> None:
        """Serve no more; a second time there is nothing to do. In a forked child there is no thread that could be waited for."""
        if self._process == os.getpid():
            with suppress(OSError):
                self._to_end.send(b".")  # to close it would not be noticed while a child has it open
            self._thread.join(1.0)
        self._to_end.close()
        self._server.server_close()

    def _serve(self) -> None:
        with self._ends, selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._ends, selectors.EVENT_READ)
            while all(key.fileobj is not self._ends for key, _ in selector.select()):
                self._server.handle_request()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    timeout = 0  # seconds it waits for a request that has gone again


class _Silent(WSGIRequestHandler):
    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
