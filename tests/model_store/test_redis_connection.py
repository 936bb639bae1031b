"""What is sent is what the library would send, whatever the size of a value; what is answered keeps its words."""

import socketserver
import threading
from pathlib import Path
from typing import Any

import pytest
import redis.connection
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import StoreUnavailable
from model_store.redis_connection import _Packer, connect
from tests.redis_server import redis_server

library: Any = redis.connection  # the stubs that some environments hold lack half of it
LIBRARY = library.PythonRespSerializer(6000, library.Encoder("utf-8", "strict", False).encode)
large = st.integers(_Packer.LARGE - 1, _Packer.LARGE + 2).map(lambda n: b"\r\n" * (n // 2) + b"x" * (n % 2))


@given(
    st.sampled_from(["SET", "CLIENT SETINFO", "EVALSHA"]),
    st.lists(st.binary(max_size=20) | st.text() | st.integers() | st.floats(allow_nan=False) | large, max_size=5),
)
def test_commands_are_packed_as_the_library_packs_them(name: str, arguments: list[str | bytes | int | float]) -> None:
    assert b"".join(_Packer().pack(name, *arguments)) == b"".join(LIBRARY.pack(name, *arguments))


def test_a_large_value_is_not_copied() -> None:
    value = b"x" * (_Packer.LARGE + 1)
    assert any(part is value for part in _Packer().pack("SET", "key", value, "EX", 60))


class Redirecting(socketserver.StreamRequestHandler):
    """A node of a Redis Cluster that has not got the key."""

    def handle(self) -> None:
        answers = {b"PING": b"+PONG", b"GET": b"-MOVED 12182 10.0.0.1:6379", b"TTL": b"-ASK 12182 10.0.0.1:6379"}
        while head := self.rfile.readline():  # *N, and then N times $LENGTH and the word
            words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2) for _ in range(int(head[1:]))]
            self.wfile.write(answers.get(words[0].strip(), b"+OK") + b"\r\n")


@pytest.mark.parametrize(("command", "word"), [("GET", "MOVED"), ("TTL", "ASK")])
def test_a_cluster_that_sends_us_elsewhere_is_named(command: str, word: str) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Redirecting) as node:
        node.daemon_threads = True
        threading.Thread(target=node.serve_forever, daemon=True).start()
        connection = connect(f"redis://127.0.0.1:{node.server_address[1]}/0", retries=0)
        with pytest.raises(StoreUnavailable, match=f"^Redis: {word} 12182 10.0.0.1:6379: .*Cluster"):
            connection.call(command, "key")
        connection.close()
        node.shutdown()


def test_a_socket_of_this_machine(tmp_path: Path) -> None:
    with redis_server("--unixsocket", str(tmp_path / "redis.sock")):
        connection = connect(f"unix://{tmp_path}/redis.sock?db=1")
        assert connection.call("SET", "a", 1) is not None
        assert connection.call("GET", "a") == b"1"
        connection.close()
