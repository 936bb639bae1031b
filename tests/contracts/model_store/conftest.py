"""The laws of a model store are asked of every implementation."""

from pathlib import Path

import pytest

from model_store.redis_connection import RedisConnection
from model_store.store import ModelStore
from tests.contracts.model_store.labs import Lab, in_memory, in_redis, in_redis_and_folder


@pytest.fixture(params=["memory", "redis", "redis and folder"])
def lab(request: pytest.FixtureRequest) -> Lab:
    """An empty store."""
    if request.param == "memory":
        return in_memory()
    connection: RedisConnection = request.getfixturevalue("connection")
    if request.param == "redis":
        return in_redis(connection)
    folder: Path = request.getfixturevalue("tmp_path")
    return in_redis_and_folder(connection, folder)


@pytest.fixture
def store(lab: Lab) -> ModelStore:
    return lab.store
