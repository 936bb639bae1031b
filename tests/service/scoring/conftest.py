from collections.abc import Iterator

import pytest
import torch

from model_store.redis_connection import RedisConnection, connect
from tests.redis_server import RedisServer, redis_server


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="package")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def redis(server: RedisServer) -> Iterator[RedisConnection]:
    connection = connect(server.url)
    connection.call("FLUSHALL")
    yield connection
    connection.close()
