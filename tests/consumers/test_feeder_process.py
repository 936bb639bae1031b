"""The feeder's process: what it hands on, how fast, and that it never stays behind."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

from consumers.feeder import FeederConfig
from consumers.feeder_process import Feeder, start_feeder
from consumers.kafka_source import KafkaSource
from consumers.micro_batch import MicroBatch
from consumers.pipe import FeederDied, FeederStatus
from consumers.records import TopicPartition
from tests import brokers
from tests.consumers.samples import event_json, item_json

PATIENCE_S = 30.0


class Shop:
    """Topics of their own on a broker, and a feeder that reads them."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.events, self.items = brokers.unique_topic("events"), brokers.unique_topic("items")
        for topic in (self.events, self.items):
            brokers.create_topic(bootstrap, topic)
        self.feeders: list[Feeder] = []

    def publish(self, n: int, **changes: object) -> None:
        for k in range(n):
            user = f"u{k % 97}"
            value = event_json(user_id=user, ts=k, **changes)
            brokers.produce(self.bootstrap, self.events, value, key=user.encode())
        brokers.flush(self.bootstrap)

    def feeder(self, capacity: int = 8, batch_events: int = 1024) -> Feeder:
        config = FeederConfig(self.bootstrap, self.events, self.items, batch_events=batch_events, group_id=self.events)
        self.feeders.append(start_feeder(config, capacity))
        return self.feeders[-1]


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop(brokers.mock_cluster())
    yield made
    for feeder in made.feeders:
        feeder.stop()
        assert not feeder.alive


def until(feeder: Feeder, done: Callable[[list[MicroBatch]], bool]) -> list[MicroBatch]:
    batches: list[MicroBatch] = []
    deadline = time.monotonic() + PATIENCE_S
    while not done(batches):
        assert time.monotonic() < deadline, f"{sum(map(len, batches))} events"
        message = feeder.receive(0.1)
        if isinstance(message, MicroBatch):
            batches.append(message)
    return batches


def events_of(batches: list[MicroBatch]) -> int:
    return sum(len(batch) for batch in batches)


def until_items_read(feeder: Feeder) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        message = feeder.receive(0.1)
        if isinstance(message, FeederStatus) and message.items_read:
            return
    pytest.fail("the items were not read")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:  # a zombie whose new parent has not looked yet is gone too
        return stat.read().rsplit(")", 1)[1].split()[0] == "Z"


def wait_gone(pid: int, patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


def test_every_event_comes_through_once_and_in_order(shop: Shop) -> None:
    brokers.produce(shop.bootstrap, shop.items, item_json(), key=b"i1")
    shop.publish(3000)
    batches = until(shop.feeder(), lambda seen: events_of(seen) >= 3000)
    assert events_of(batches) == 3000
    assert [c.item_id for b in batches for c in b.catalogue] == ["i1"]
    per_user: dict[str, list[int]] = {}
    for batch in batches:
        for user, ts in zip(batch.user, batch.ts, strict=True):
            per_user.setdefault(batch.users[user], []).append(int(ts))
    assert len(per_user) == 97
    assert all(seen == sorted(seen) for seen in per_user.values())
    assert max(map(len, batches)) == 1024


def test_rejects_are_delivered_when_their_batch_arrives(shop: Shop) -> None:
    feeder = shop.feeder()
    brokers.produce(shop.bootstrap, shop.events, b"junk", key=b"k", headers=[("trace", b"7")])
    brokers.flush(shop.bootstrap)
    (batch,) = until(feeder, lambda seen: len(seen) > 0)
    assert batch.rejected == {"not_json": 1}
    source = KafkaSource(shop.bootstrap, "letters", refresh_s=0.1)
    source.assign({f"{shop.events}.dlq": {}})
    letters = source.poll(10, 0.1)
    deadline = time.monotonic() + PATIENCE_S
    while not letters and time.monotonic() < deadline:
        letters = source.poll(10, 0.1)
    source.close()
    assert [(r.key, r.value) for r in letters] == [(b"k", b"junk")]
    assert dict(letters[0].headers)["source.offset"] == str(batch.ranges[0].start).encode()
    assert dict(letters[0].headers)["trace"] == b"7"


def test_at_500_events_a_second_they_leave_within_the_batch_wait(shop: Shop) -> None:
    feeder = shop.feeder()
    until_items_read(feeder)
    shop.publish(1)
    until(feeder, lambda seen: events_of(seen) == 1)
    delays: list[float] = []
    for _ in range(60):
        shop.publish(5)
        start = time.monotonic()
        while time.monotonic() < start + 0.01:
            message = feeder.receive(0.002)
            if isinstance(message, MicroBatch):
                delays += list(time.time() * 1000 - message.kafka_ts)
    assert len(delays) > 200
    # 50 ms is the longest wait by design. A busy machine adds to some of them, and hardly to all of a sixth of the time
    assert min(np.median(part) for part in np.array_split(delays, 6)) < 60


@pytest.mark.slow
def test_a_full_pipe_bounds_memory_and_loses_nothing(shop: Shop) -> None:
    shop.publish(20_000)
    feeder = shop.feeder(capacity=2, batch_events=64)
    until_items_read(feeder)
    time.sleep(1.5)
    before = rss(feeder.pid)
    shop.publish(20_000)
    time.sleep(1.5)
    assert rss(feeder.pid) - before < 64 * 2**20  # librdkafka fetches ahead up to 32 MB
    batches = until(feeder, lambda seen: events_of(seen) >= 40_000)
    assert events_of(batches) == 40_000


def rss(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def test_committed_offsets_are_left_with_the_broker(shop: Shop) -> None:
    feeder = shop.feeder()
    shop.publish(50)
    until(feeder, lambda seen: events_of(seen) == 50)
    feeder.commit({TopicPartition(shop.events, 0): 3})
    time.sleep(0.5)
    consumer = Consumer({"bootstrap.servers": shop.bootstrap, "group.id": shop.events})
    (committed,) = consumer.committed([KafkaPartition(shop.events, 0)], timeout=10)
    consumer.close()
    assert committed.offset == 3


def test_a_killed_feeder_is_heard_of(shop: Shop) -> None:
    feeder = shop.feeder()
    until_items_read(feeder)
    os.kill(feeder.pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while feeder.alive:
        assert time.monotonic() < deadline
    with pytest.raises(FeederDied):
        until(feeder, lambda _: False)
    feeder.commit({})  # says nothing
    feeder.stop()
    assert not feeder.alive


def test_a_stopped_feeder_is_gone_also_when_nobody_reads(shop: Shop) -> None:
    shop.publish(5000)
    feeder = shop.feeder(capacity=1, batch_events=16)
    time.sleep(1.0)
    feeder.stop()
    assert gone(feeder.pid)
    feeder.stop()


def test_signals_to_all_leave_it_to_the_parent(shop: Shop) -> None:
    feeder = shop.feeder()
    until_items_read(feeder)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(feeder.pid, number)
    shop.publish(1)
    until(feeder, lambda seen: events_of(seen) == 1)
    assert os.getpgid(feeder.pid) != os.getpgid(0)


_PARENT = """
import sys, time
from consumers.feeder import FeederConfig
from consumers.feeder_process import start_feeder
feeder = start_feeder(FeederConfig(sys.argv[1], sys.argv[2], sys.argv[3], batch_events=16), capacity=1)
print(feeder.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("events", [0, 5000])  # idle, and waiting for room in the pipe
def test_a_feeder_whose_parent_was_killed_ends_by_itself(shop: Shop, events: int) -> None:
    shop.publish(events)
    command = [sys.executable, "-c", _PARENT, shop.bootstrap, shop.events, shop.items]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(1.0)
    assert not gone(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_gone(pid)


def test_without_a_broker_it_says_so_and_stops_promptly() -> None:
    feeder = start_feeder(FeederConfig("127.0.0.1:1"))
    deadline = time.monotonic() + PATIENCE_S
    message = None
    while not isinstance(message, FeederStatus) or message.healthy:
        assert time.monotonic() < deadline
        message = feeder.receive(0.1)
    assert message.message
    feeder.stop(timeout_s=10)
    assert gone(feeder.pid)
