"""The laws of `EventSource`, for every implementation: in memory, on the mock cluster, on a real broker.

A stage gives each test a fresh topic of four partitions, writes to it, lets records expire, and makes sources. The mock
cluster cannot expire records on demand, nor add partitions: those laws are shown on the other two.
"""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from consumers.kafka_source import KafkaSource
from consumers.memory_source import MemoryLog, MemorySource
from consumers.records import OffsetRange, Record, TopicPartition
from consumers.source import EventSource
from tests import brokers

PATIENCE_S = 30.0


class Stage(Protocol):
    topic: str

    def create(self, topic: str) -> None: ...

    def write(self, values: list[bytes | None], partition: int = 0, key: bytes | None = None) -> None: ...

    def transact(self, commit: bool, values: list[bytes | None], partition: int = 0) -> None: ...

    def source(self, group: str = "readers") -> EventSource: ...

    def expire(self, before: int, partition: int = 0) -> None: ...

    def grow(self, partitions: int) -> None: ...


class MemoryStage:
    def __init__(self) -> None:
        self.topic = "events"
        self._log = MemoryLog()
        self._sources: list[EventSource] = []

    def create(self, topic: str) -> None:
        self._log.create(topic, 4)

    def write(self, values: list[bytes | None], partition: int = 0, key: bytes | None = None) -> None:
        for value in values:
            self._log.append(self.topic, value, key, partition, headers=(("h", b"1"), ("h", None)))

    def transact(self, commit: bool, values: list[bytes | None], partition: int = 0) -> None:
        if commit:
            self.write(values, partition)
        else:
            for _ in values:
                self._log.mark(self.topic, partition)
        self._log.mark(self.topic, partition)

    def source(self, group: str = "readers") -> EventSource:
        return MemorySource(self._log, group)

    def expire(self, before: int, partition: int = 0) -> None:
        self._log.expire(TopicPartition(self.topic, partition), before)

    def grow(self, partitions: int) -> None:
        self._log.create(self.topic, partitions)


class KafkaStage:
    def __init__(self, bootstrap: str, real: bool) -> None:
        self.topic = brokers.unique_topic("laws")
        self._bootstrap = bootstrap
        self._real = real
        self._sources: list[EventSource] = []

    def create(self, topic: str) -> None:
        brokers.create_topic(self._bootstrap, topic)

    def write(self, values: list[bytes | None], partition: int = 0, key: bytes | None = None) -> None:
        for value in values:
            headers: list[tuple[str, str | bytes | None]] = [("h", b"1"), ("h", None)]
            brokers.produce(self._bootstrap, self.topic, value, key=key, partition=partition, headers=headers)
        brokers.flush(self._bootstrap)

    def transact(self, commit: bool, values: list[bytes | None], partition: int = 0) -> None:
        if not self._real:
            pytest.skip("the mock cluster writes no marks of transactions")
        producer = Producer({"bootstrap.servers": self._bootstrap, "transactional.id": self.topic, "log_level": 0})
        producer.init_transactions(30)
        producer.begin_transaction()
        for value in values:
            producer.produce(self.topic, value, partition=partition)
        producer.flush(30)  # an abort drops what has not been sent
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)

    def source(self, group: str = "readers") -> EventSource:
        source = KafkaSource(self._bootstrap, f"{group}-{self.topic}", refresh_s=0.2)
        self._sources.append(source)
        return source

    def expire(self, before: int, partition: int = 0) -> None:
        if not self._real:
            pytest.skip("the mock cluster has no call to delete records")
        admin = AdminClient({"bootstrap.servers": self._bootstrap})
        for done in admin.delete_records([KafkaPartition(self.topic, partition, before)]).values():
            done.result()

    def grow(self, partitions: int) -> None:
        if not self._real:
            pytest.skip("the mock cluster has no call to add partitions")
        admin = AdminClient({"bootstrap.servers": self._bootstrap})
        for done in admin.create_partitions([NewPartitions(self.topic, partitions)]).values():
            done.result()

    def close(self) -> None:
        for source in self._sources:
            source.close()


@pytest.fixture(params=["memory", "mock", pytest.param("real", marks=pytest.mark.slow)])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "memory":
        memory = MemoryStage()
        memory.create(memory.topic)
        yield memory
        return
    bootstrap = brokers.mock_cluster() if request.param == "mock" else brokers.real_broker()
    kafka = KafkaStage(bootstrap, real=request.param == "real")
    kafka.create(kafka.topic)
    yield kafka
    kafka.close()


def until(source: EventSource, done: Callable[[list[Record]], bool], max_records: int = 100) -> list[Record]:
    """Poll until `done` says so of all the records read."""
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE_S
    while not done(records):
        assert time.monotonic() < deadline, f"{len(records)} records, {source.status}"
        records += source.poll(max_records, 0.1)
    return records


def read(source: EventSource, n: int, max_records: int = 100) -> list[Record]:
    return until(source, lambda records: len(records) >= n, max_records)


def numbered(n: int) -> list[bytes | None]:
    return [str(k).encode() for k in range(n)]


def test_records_come_back_as_they_were_written(stage: Stage) -> None:
    key = "é".encode()
    stage.write([b"\xff\x00", b"", None], partition=2, key=key)
    source = stage.source()
    source.assign({stage.topic: {}})
    records = read(source, 3)
    assert [(r.topic, r.partition, r.offset, r.key, r.value) for r in records] == [
        (stage.topic, 2, 0, key, b"\xff\x00"),
        (stage.topic, 2, 1, key, b""),
        (stage.topic, 2, 2, key, None),
    ]
    assert all(r.headers == (("h", b"1"), ("h", None)) for r in records)


def test_each_partition_is_read_once_and_in_order(stage: Stage) -> None:
    for partition in range(4):
        stage.write(numbered(50), partition)
    source = stage.source()
    source.assign({stage.topic: {}})
    records = read(source, 200, max_records=7)
    for partition in range(4):
        assert [r.offset for r in records if r.partition == partition] == list(range(50))
    assert source.poll(100, 0.2) == []


def test_reading_begins_at_the_given_offsets(stage: Stage) -> None:
    for partition in range(4):
        stage.write(numbered(10), partition)
    source = stage.source()
    source.assign({stage.topic: {0: 7, 1: 10, 2: 0}})
    records = read(source, 3 + 0 + 10 + 10)
    first = {p: min((r.offset for r in records if r.partition == p), default=None) for p in range(4)}
    assert first == {0: 7, 1: None, 2: 0, 3: 0}


def test_poll_returns_at_most_what_was_asked_for_and_waits_no_longer(stage: Stage) -> None:
    source = stage.source()
    source.assign({stage.topic: {}})
    until(source, lambda _: source.caught_up)
    start = time.monotonic()
    assert source.poll(100, 0.1) == []
    assert time.monotonic() - start < 3.0
    stage.write(numbered(30))
    assert len(source.poll(5, PATIENCE_S)) <= 5


def test_poll_returns_with_the_first_record_and_does_not_wait_for_more(stage: Stage) -> None:
    source = stage.source()
    source.assign({stage.topic: {}})
    until(source, lambda _: source.caught_up)
    stage.write([b"x"])
    start = time.monotonic()
    read(source, 1)
    assert time.monotonic() - start < PATIENCE_S / 3


def test_caught_up_means_that_all_that_was_there_was_returned(stage: Stage) -> None:
    for partition in range(4):
        stage.write(numbered(100), partition)
    source = stage.source()
    source.assign({stage.topic: {}})
    assert len(until(source, lambda _: source.caught_up, max_records=30)) == 400


def test_a_topic_can_be_added_while_another_is_read(stage: Stage) -> None:
    stage.write(numbered(3))
    source = stage.source()
    first, stage.topic = stage.topic, stage.topic + "-second"
    source.assign({first: {}})
    read(source, 3)
    stage.create(stage.topic)
    stage.write(numbered(5))
    source.assign({stage.topic: {}})
    assert {r.topic for r in read(source, 5)} == {stage.topic}


def test_a_topic_that_is_not_there_yet_is_waited_for(stage: Stage) -> None:
    stage.topic += "-later"
    source = stage.source()
    source.assign({stage.topic: {}})
    until(source, lambda _: source.caught_up)  # nothing is there, so nothing is unread
    assert source.poll(10, 0.1) == []
    stage.create(stage.topic)
    stage.write(numbered(5))
    assert [r.offset for r in read(source, 5)] == list(range(5))


def test_partitions_that_appear_later_are_read_from_their_first_record(stage: Stage) -> None:
    source = stage.source()
    source.assign({stage.topic: {}})
    until(source, lambda _: source.caught_up)
    stage.grow(6)
    stage.write(numbered(5), partition=5)
    assert [(r.partition, r.offset) for r in read(source, 5)] == [(5, k) for k in range(5)]


def test_seek_goes_back_and_forth(stage: Stage) -> None:
    stage.write(numbered(10))
    source = stage.source()
    source.assign({stage.topic: {}})
    read(source, 10)
    source.seek({TopicPartition(stage.topic, 0): 4})
    assert [r.offset for r in read(source, 6)] == list(range(4, 10))
    source.seek({TopicPartition(stage.topic, 0): 9})
    assert [r.offset for r in read(source, 1)] == [9]


def test_seek_in_a_partition_that_is_not_read_is_an_error(stage: Stage) -> None:
    source = stage.source()
    with pytest.raises(ValueError, match="not being read"):
        source.seek({TopicPartition(stage.topic, 0): 4})


def test_expired_offsets_are_reported_and_reading_goes_on_from_the_earliest(stage: Stage) -> None:
    stage.write(numbered(20))
    stage.expire(before=12)
    source = stage.source()
    source.assign({stage.topic: {0: 5}})
    assert [r.offset for r in read(source, 8)] == list(range(12, 20))
    assert source.take_expired() == [OffsetRange(stage.topic, 0, 5, 12)]
    assert source.take_expired() == []


def test_a_gap_stands_between_the_records_before_and_after_it(stage: Stage) -> None:
    stage.write(numbered(500))
    source = stage.source()
    source.assign({stage.topic: {}})
    position = lost = expected = 0
    for moment in (100, 500):
        while position < moment:
            records = source.poll(10, PATIENCE_S)
            for gap in source.take_expired():
                assert gap.start == position
                position, lost = gap.end, lost + gap.end - gap.start
            for record in records:
                assert record.offset == position
                position += 1
        if moment == 100:
            stage.expire(before=400)
            expected = 400 - position
            source.seek({TopicPartition(stage.topic, 0): position})  # drops what was fetched ahead
    assert lost == expected > 0


def test_what_expired_before_anyone_read_it_is_not_reported(stage: Stage) -> None:
    stage.write(numbered(20))
    stage.expire(before=12)
    source = stage.source()
    source.assign({stage.topic: {}})
    assert [r.offset for r in read(source, 8)] == list(range(12, 20))
    assert source.take_expired() == []


def test_an_offset_beyond_the_end_stands_still_and_says_so(stage: Stage) -> None:
    stage.write(numbered(3))
    source = stage.source()
    source.assign({stage.topic: {0: 100}})
    assert until(source, lambda _: not source.status.healthy and "beyond the end" in source.status.message) == []
    assert source.poll(10, 0.3) == []
    assert "100" in source.status.message


def test_reading_stands_at_the_next_offset_and_nothing_is_known_of_what_is_not_read(stage: Stage) -> None:
    stage.write(numbered(10), partition=1)
    source = stage.source()
    assert source.positions() == {}
    source.assign({stage.topic: {0: 0, 1: 4}})
    position = 4
    while position < 10:
        for record in source.poll(2, PATIENCE_S):
            position = record.offset + 1
        assert source.positions()[TopicPartition(stage.topic, 1)] == position
    until(source, lambda _: len(source.positions()) == 4)
    assert source.positions() == {TopicPartition(stage.topic, p): 10 if p == 1 else 0 for p in range(4)}
    source.seek({TopicPartition(stage.topic, 1): 7})
    assert source.positions()[TopicPartition(stage.topic, 1)] == 7


@pytest.mark.parametrize("commits", [[True], [False], [True, False, True], [False, False]])
def test_at_the_end_reading_stands_behind_what_no_reader_gets(stage: Stage, commits: list[bool]) -> None:
    for commit in commits:
        stage.transact(commit, numbered(3))
    end = 4 * len(commits)
    source = stage.source()
    source.assign({stage.topic: {}})
    where = TopicPartition(stage.topic, 0)
    records = until(source, lambda _: source.positions().get(where) == source.end_offsets().get(where) == end)
    assert len(records) == 3 * sum(commits)
    assert source.status.healthy
    stage.transact(True, [b"more"])
    assert [r.offset for r in read(source, 1)] == [end]
    until(source, lambda _: source.positions().get(where) == source.end_offsets().get(where) == end + 2)


def test_ends_are_heard_of_also_when_nothing_is_polled(stage: Stage) -> None:
    source = stage.source()
    source.assign({stage.topic: {}})
    until(source, lambda _: source.caught_up)
    stage.write(numbered(30), partition=1)
    deadline = time.monotonic() + PATIENCE_S
    while source.end_offsets().get(TopicPartition(stage.topic, 1)) != 30:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow  # the mock cluster lets three seconds pass before a group begins
def test_a_group_goes_on_where_it_committed(stage: Stage) -> None:
    stage.write(numbered(10))
    came: list[TopicPartition] = []
    went: list[TopicPartition] = []
    source = stage.source()
    source.subscribe([stage.topic], came.extend, went.extend)
    assert [r.offset for r in read(source, 10)] == list(range(10))  # no offset committed: from the earliest
    assert sorted(came) == [TopicPartition(stage.topic, p) for p in range(4)]
    assert source.commit({TopicPartition(stage.topic, 0): 6}, wait=True)
    source.close()
    assert sorted(went) == sorted(came)
    successor = stage.source()
    successor.subscribe([stage.topic])
    assert [r.offset for r in read(successor, 4)] == list(range(6, 10))


def test_a_group_reports_what_expired_too(stage: Stage) -> None:
    stage.write(numbered(20))
    source = stage.source()
    assert source.commit({}, wait=True)
    source.commit({TopicPartition(stage.topic, 0): 5}, wait=True)
    stage.expire(before=12)
    source.subscribe([stage.topic])
    assert [r.offset for r in read(source, 8)] == list(range(12, 20))
    assert source.take_expired() == [OffsetRange(stage.topic, 0, 5, 12)]


@pytest.mark.slow
def test_what_a_callback_raises_comes_out_of_poll(stage: Stage) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    source = stage.source()
    source.subscribe([stage.topic], fail)
    with pytest.raises(ZeroDivisionError):
        read(source, 1)


def test_a_source_is_healthy_while_it_can_read_and_may_be_closed_twice(stage: Stage) -> None:
    source = stage.source()
    source.assign({stage.topic: {}})
    until(source, lambda _: source.caught_up)
    until(source, lambda _: source.status.healthy)
    source.close()
    source.close()
    with pytest.raises(RuntimeError):
        source.poll(1, 0)
