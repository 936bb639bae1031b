import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from service.leash import Child
from service.local import LocalServer
from service.up.servers import Server, configured_or_embedded, without_password
from service.up.supervisor import GaveUpError
from tests.service.processes import all_gone, until


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child([sys.executable, "-c", "import time; time.sleep(600)"])
    yield child
    child.close()


def test_a_configured_one_is_taken_as_it_is() -> None:
    def start() -> LocalServer:
        raise AssertionError("nothing is to be started")

    with configured_or_embedded("Kafka", "kafka-1:9092,kafka-2:9092", start) as server:
        assert (server.address, server.embedded) == ("kafka-1:9092,kafka-2:9092", False)
        assert server.shown == "kafka-1:9092,kafka-2:9092"
        server.check()


def test_an_embedded_one_ends_with_the_context_however_that_ends(child: Child) -> None:
    pid = child.pid
    with (
        suppress(KeyError),
        configured_or_embedded("Redis", None, lambda: LocalServer("redis://127.0.0.1:7/0", child)) as server,
    ):
        assert (server.name, server.address, server.embedded) == ("Redis", "redis://127.0.0.1:7/0", True)
        assert server.shown == "redis://127.0.0.1:7/0 (embedded)"
        assert child.poll() is None
        raise KeyError
    assert all_gone([pid])


def test_a_dead_embedded_one_cannot_be_gone_on_with(child: Child) -> None:
    server = Server("Redis", "redis://127.0.0.1:7/0", child)
    server.check()
    child.signal(9)
    assert until(lambda: child.poll() is not None)
    with pytest.raises(GaveUpError, match="the embedded Redis has died, and everything that was in it: start again"):
        server.check()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://redis:6379/0", "redis://redis:6379/0"),
        ("redis://:secret@redis:6379/0", "redis://…@redis:6379/0"),
        ("rediss://tidemill:sec@ret@redis:6380/0?ssl_ca_certs=/etc/ca.pem", "rediss://…@redis:6380/0?ssl_ca_certs=/etc/ca.pem"),
        ("127.0.0.1:9092", "127.0.0.1:9092"),
    ],
)  # fmt: skip
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert Server("Redis", url).shown == shown
