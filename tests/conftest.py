"""One Redis for all tests that only need some Redis. Who stops it, or limits it for long, starts one of their own
(`tests.redis_server`). Each of the processes that tests are shared out among (`pytest -n 4`) has its own. And no
example of a property fails because the machine is busy."""

from collections.abc import Iterator

import pytest
from hypothesis import settings
from xdist.remote import Producer

from model_store.redis_connection import RedisConnection
from tests.redis_server import RedisServer, redis_server
from tests.scheduling import ByWorld

settings.register_profile("tidemill", deadline=None)
settings.load_profile("tidemill")


@pytest.fixture(scope="session")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def connection(server: RedisServer) -> Iterator[RedisConnection]:
    """To a Redis that is empty."""
    with server.client() as connection:
        connection.call("FLUSHALL")
        yield connection


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByWorld:
    return ByWorld(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first: what is quick fills up the time when only some processes still have work."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
