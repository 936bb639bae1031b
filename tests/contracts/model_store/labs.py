"""Model stores of every implementation, each in a laboratory: what lies in it can be damaged."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_store.blob_folder import BlobFolder
from model_store.lease import Lease
from model_store.memory_store import MemoryStore
from model_store.redis_connection import RedisConnection
from model_store.redis_store import RedisStore
from model_store.store import ModelStore
from tests.model_store.worlds import publish, small

TTL = 30.0


@dataclass
class Lab:
    """A store, and hands that can reach behind it."""

    store: ModelStore
    put_manifest: Callable[[int, bytes | None], None]
    put_blob: Callable[[str, bytes | None], None]

    def lease(self, holder: str = "trainer", ttl: float = TTL) -> Lease:
        lease = self.store.acquire(holder, ttl)
        assert lease is not None
        return lease


def in_memory() -> Lab:
    store = MemoryStore()
    return Lab(
        store,
        lambda version, data: store.tamper(manifest=(version, data)),
        lambda key, data: store.tamper(blob=(key, data)),
    )


def in_redis(connection: RedisConnection) -> Lab:
    connection.call("FLUSHALL")
    store = RedisStore(connection, linger=0)

    def put(key: str, data: bytes | None) -> None:
        connection.call("DEL", key) if data is None else connection.call("SET", key, data)

    return Lab(store, lambda version, data: put(store.keys.manifest(version), data), put)


def in_redis_and_folder(connection: RedisConnection, folder: Path) -> Lab:
    connection.call("FLUSHALL")
    for file in folder.iterdir():
        file.unlink()
    store = RedisStore(connection, folder=BlobFolder(f"file://{folder}"), linger=0)

    def put(key: str, data: bytes | None) -> None:
        if key.startswith("file://"):
            file = Path(key.removeprefix("file://"))
            file.unlink() if data is None else file.write_bytes(data)
        else:
            connection.call("DEL", key) if data is None else connection.call("SET", key, data)

    return Lab(store, lambda version, data: put(store.keys.manifest(version), data), put)


def chain(lab: Lab, *kinds: str) -> Lease:
    """Publishes versions 1, 2, ...: `s` for a snapshot, `d` for a delta on the one before."""
    lease = lab.lease()
    for version, kind in enumerate(kinds, 1):
        publish(lab.store, lease, version, version - 1 or None, small(version, full=kind == "s"))
    return lease
