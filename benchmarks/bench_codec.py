"""What does publishing cost? Encoding, hashing and storing one delta, and the same for a snapshot; and loading them.

A delta as the trainer publishes it about seven times a second: 3,000 item rows of 64 floats with their optimizer and
popularity, 50 new items, the dense network, and the histories of 1,000 users.
"""

import os
import platform
import time
from collections.abc import Callable

import numpy as np

from model_store.chain import load, updates_between
from model_store.codec import checksum, decode, encode
from model_store.memory_store import MemoryStore
from model_store.redis_connection import RedisConnection, connect
from model_store.redis_store import RedisStore
from model_store.store import ModelStore
from model_store.version import BatchRecord, KafkaIds, Manifest, timestamp
from model_store.weights import Rows, State, Update
from tests.redis_server import redis_server

WIDTH = 64


def rows(rng: np.random.Generator, size: int, touched: int, new: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    old = np.sort(rng.choice(size, min(touched, size), replace=False))
    return np.concatenate([old, np.arange(size, size + new)]).astype(np.int64)


def update(
    rng: np.random.Generator, items: int, users: int, *, touched: int = 0, new: int = 0, seen: int = 0
) -> Update:
    """Full where nothing is touched: `items` items and `users` users; else so many rows of them."""
    full = not touched
    item = np.arange(items) if full else rows(rng, items, touched, new)
    user = np.arange(users) if full else rows(rng, users, seen, 0)
    ids = item if full else np.arange(items, items + new)
    size = items + new

    def floats(n: int, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.standard_normal((n, *shape), dtype=np.float32)

    return Update(
        full,
        {
            "item/id": Rows(ids, [f"item-{number}" for number in ids.tolist()], size),
            "item/row": Rows(item, floats(len(item), WIDTH), size),
            "item/popularity": Rows(item, floats(len(item)).astype(np.float64), size),
            "trainer/item/adagrad": Rows(item, floats(len(item)), size),
            "trainer/user/history": Rows(user, rng.integers(0, items, (len(user), 50)), users),
        },
        {
            "network/weight": floats(WIDTH, 4 * WIDTH),
            "network/scale": floats(1),
            "trainer/network/adam": floats(2, WIDTH, 4 * WIDTH),
        },
    )


class Publisher:
    """Publishes the same update again and again, as the next version."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self.version = 0
        lease = store.acquire("bench", 600)
        assert lease is not None
        self.lease = lease

    def publish(self, update: Update) -> None:
        refs = self.store.put_blobs(encode(update))
        self.version += 1
        self.store.publish(
            Manifest(
                version=self.version,
                parent=self.version - 1 or None,
                kind="snapshot" if update.full else "delta",
                created_at=timestamp(time.time()),
                run_id="bench",
                kafka=KafkaIds(cluster_id="bench"),
                trained_through={"events": {"0": self.version}},
                events_trained=self.version,
                batches=tuple(BatchRecord(ranges=(("events", p, 0, 256),)) for p in range(4)),
                config_digest="bench",
                blobs=refs,
            ),
            self.lease,
        )
        self.store.move(self.version, "bench", lease=self.lease)


def main() -> None:
    print(f"machine: {os.cpu_count()} cores, {platform.machine()}, {platform.system()}, numpy {np.__version__}")
    with redis_server() as server:
        connection = connect(server.url)
        for items, users, times in ((10_000, 2_000, 100), (1_000_000, 100_000, 20)):
            measure(connection, items, users, times)
            connection.call("FLUSHALL")
        connection.close()


def measure(connection: RedisConnection, items: int, users: int, times: int) -> None:
    rng = np.random.default_rng(1)
    base = update(rng, items, users)
    delta = update(rng, items, users, touched=3_000, new=50, seen=1_000)
    state = State()
    state.apply(base)
    blobs = encode(delta)
    small, large = (sum(map(len, encode(each).values())) for each in (delta, base))
    print(f"\n{items:,} items, {users:,} users; a delta of 3,000 rows, 50 new items, 1,000 histories")
    print(f"delta {small / 1e6:.2f} MB, snapshot {large / 1e6:.1f} MB: {large / small:.0f} times as many bytes")
    line("encode a delta", lambda: encode(delta), times)
    line("hash it", lambda: [checksum(blob) for blob in blobs.values()], times)
    line("decode it", lambda: decode(blobs, full=False), times)
    line("apply it", lambda: state.apply(delta), times)
    line("encode a snapshot", lambda: encode(state.snapshot()), 3)
    for name, store in (("memory", MemoryStore()), ("Redis", RedisStore(connection))):
        measure_store(name, store, base, delta, times)


def measure_store(name: str, store: ModelStore, base: Update, delta: Update, times: int) -> None:
    publisher = Publisher(store)
    publisher.publish(base)
    line(f"publish a delta and go live, {name}", lambda: publisher.publish(delta), times)
    last, half = publisher.version, times // 2
    line(f"a reader's update, {name}", lambda: updates_between(store, last - 1, last), times)
    line(f"a reader's cold start over {half} deltas, {name}", lambda: load(store, 1 + half, readers=True), 3)


def line(what: str, work: Callable[[], object], times: int) -> None:
    """One figure: the median and the 99th percentile of so many runs, the first of which does not count."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append((time.perf_counter() - start) * 1000)
    print(f"{what:<45} {np.median(taken):9.2f} ms p50 {np.percentile(taken, 99):9.2f} ms p99")


if __name__ == "__main__":
    main()
