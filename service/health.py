"""/metrics and /health of a process, over HTTP.

`/health` answers 200 while everything works and 503 while something does not, with the reasons as JSON:
`{"status": "ok" | "starting" | "degraded", "process": "trainer", "checks": {"redis": "ok", ...}, ...}`.
"""

import errno
import json
import logging
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

log = logging.getLogger(__name__)
OK = "ok"


class Health:
    """What works and what does not, by name; a process sets it, `/health` shows it. Safe across threads."""

    def __init__(self, process: str, gauge: Gauge | None = None) -> None:
        """`gauge` has the label `check` and shows each one as 1 or 0."""
        self._process = process
        self._gauge = gauge
        self._lock = threading.Lock()
        self._checks: dict[str, str] = {}
        self._facts: dict[str, object] = {}
        self._started = False

    def set(self, check: str, state: str = OK) -> None:
        """`state` is "ok" or one line that says what is wrong. Changes are logged once."""
        with self._lock:
            before = self._checks.get(check)
            self._checks[check] = state
            if self._gauge is not None and before != state:
                self._gauge.labels(check).set(state == OK)
        if before != state and not (before is None and state == OK):
            (log.info if state == OK else log.warning)("%s: %s", check, state)

    def fact(self, name: str, value: object) -> None:
        """Something worth knowing that is neither good nor bad, such as the model version."""
        with self._lock:
            self._facts[name] = value

    def started(self) -> None:
        self._started = True

    def report(self) -> tuple[bool, Mapping[str, object]]:
        with self._lock:
            checks, facts = dict(self._checks), dict(self._facts)
        good = self._started and all(state == OK for state in checks.values())
        status = "ok" if good else "degraded" if self._started else "starting"
        return good, {"status": status, "process": self._process, "checks": checks, **facts}


class HealthServer:
    """Serves until closed, on a thread of its own."""

    def __init__(self, host: str, port: int | None, first_free_from: int, health: Health, metrics: CollectorRegistry):
        """`port` None takes the first free one from `first_free_from` on; OSError when a given port is taken."""
        ports = [port] if port is not None else range(first_free_from, min(first_free_from + 1000, 65536))
        self._server = _bind(host, ports, _handler(health, metrics))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()
        log.info("metrics and health at http://%s:%d/metrics and /health", host, self.port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET

    def server_bind(self) -> None:
        """Without the name look-up of `HTTPServer`, which takes seconds where no name server answers."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away, mostly: no traceback on stderr."""
        log.debug("request from %s failed", client_address, exc_info=True)


def _bind(host: str, ports: "range | list[int]", handler: type[BaseHTTPRequestHandler]) -> _Server:
    for port in ports:
        try:
            return _Server((host, port), handler)
        except OSError as error:
            if len(ports) == 1 or error.errno != errno.EADDRINUSE:
                raise OSError(error.errno, f"cannot serve metrics at {host}:{port}: {error.strerror}") from error
    raise OSError(errno.EADDRINUSE, f"no free port for metrics from {ports[0]} on")


def _handler(health: Health, metrics: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # seconds for a client to send its request or take its answer

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(metrics))
            elif path == "/health":
                good, report = health.report()
                self._answer(200 if good else 503, "application/json", json.dumps(report, default=str).encode())
            else:
                self._answer(404, "text/plain", b"/metrics or /health\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not worth a line each."""

    return Handler
