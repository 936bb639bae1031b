"""/metrics and /health of a process over HTTP/1.1, as Prometheus and load balancers ask for them."""

import contextlib
import errno
import json
import logging
import socket
import threading
from collections import OrderedDict
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.health import Health

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 32  # each has a thread
_SECONDS = 30  # for a client to send its request, or the next one, or to take its answer
_METHODS = "GET, HEAD, OPTIONS"


class HealthServer:
    """Serves until closed, on a thread of its own, and at most MOST_CONNECTIONS more."""

    def __init__(self, host: str, port: int | None, first_free_from: int, health: Health, metrics: CollectorRegistry):
        """`port` None takes the first free one from `first_free_from` on; OSError when a given port is taken."""
        ports = [port] if port is not None else range(first_free_from, min(first_free_from + 1000, 65536))
        self._server = _bind(host, ports, _handler(health, metrics))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()
        shown = f"[{host}]" if ":" in host else host
        log.info("metrics and health at http://%s:%d/metrics and /health", shown, self.port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """Where there are too many connections, the one that has been idle longest makes room: whoever is slow, or keeps
    connections open, can neither fill us with threads nor lock others out."""

    daemon_threads = True

    def __init__(self, family: socket.AddressFamily, address: Any, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = family
        self._lock = threading.Lock()
        self._connections: OrderedDict[socket.socket, None] = OrderedDict()  # the one that was answered last comes last
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without the name look-up of `HTTPServer`, which takes seconds where no name server answers."""
        if self.address_family == socket.AF_INET6:
            with contextlib.suppress(OSError):  # `::` is every address, also those of IPv4
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._connections) >= MOST_CONNECTIONS:
                _hang_up(self._connections.popitem(last=False)[0])
            self._connections[request] = None
        super().process_request(request, client_address)

    def answered(self, connection: socket.socket) -> None:
        with self._lock:
            if connection in self._connections:
                self._connections.move_to_end(connection)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        with self._lock:
            for connection in self._connections:
                _hang_up(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away, mostly: no traceback on stderr."""
        log.debug("request from %s failed", client_address, exc_info=True)


def _hang_up(connection: socket.socket) -> None:
    """Its thread, which waits for it, finds it at its end and closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _bind(host: str, ports: Sequence[int], handler: type[BaseHTTPRequestHandler]) -> _Server:
    for port in ports:
        try:
            family, address = _resolved(host, port)
            return _Server(family, address, handler)
        except OSError as error:
            if len(ports) == 1 or error.errno != errno.EADDRINUSE:
                raise OSError(error.errno, f"cannot serve metrics at {host}:{port}: {error.strerror}") from error
    raise OSError(errno.EADDRINUSE, f"no free port for metrics from {ports[0]} on")


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Of a name that has several addresses, one of IPv4."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address


def _handler(health: Health, metrics: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept
        timeout = _SECONDS
        wbufsize = 1 << 16  # head and body in one packet: the second of two would wait for the first's receipt
        server: _Server

        def do_GET(self) -> None:
            path = _path(self.path)
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(metrics))
            elif path == "/health":
                good, report = health.report()
                self._answer(200 if good else 503, "application/json", json.dumps(report, default=str).encode())
            else:
                self._answer(404, "text/plain", b"/metrics or /health\n")

        do_HEAD = do_GET  # noqa: N815 - as the base class calls it

        def do_OPTIONS(self) -> None:
            self._answer(200, "text/plain", b"", Allow=_METHODS)

        def do_POST(self) -> None:
            self._answer(405, "text/plain", f"{_METHODS}\n".encode(), Allow=_METHODS)

        do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815

        def _answer(self, status: int, content_type: str, body: bytes, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
                self.send_header("Connection", "close")  # a body that nobody reads would be taken for the next request
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self.wfile.flush()
            self.server.answered(self.connection)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not worth a line each."""

    return Handler


def _path(target: str) -> str:
    """Of what was asked for, without host, query and the slash at the end."""
    try:
        return urlsplit(target).path.removesuffix("/")
    except ValueError:
        return ""
