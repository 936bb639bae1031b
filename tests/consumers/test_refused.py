"""A reader that Kafka gives nothing says so within 10 s, by name and in the broker's words, and reads on once it may.

All that a broker may refuse to one client while it answers another, from librdkafka's mock cluster with errors for
answers. Each was "ok" for ever: the client that asks for the ends of the partitions was answered all the time.
"""

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError

from consumers.kafka_source import KafkaSource
from consumers.records import TopicPartition
from tests import brokers
from tests.consumers.acls import AUTHORIZER, Acls
from tests.refusing_kafka import RefusingKafka, Request

TOLD_WITHIN_S = 10.0
PATIENCE_S = 40.0
RECORDS = 12


@pytest.fixture
def kafka() -> Iterator[RefusingKafka]:
    made = RefusingKafka()
    yield made
    made.close()


class Reader:
    """A source, what it has read, and what it has said."""

    def __init__(self, bootstrap: str, topic: str, group: str = "") -> None:
        self.read: list[tuple[int, int]] = []  # (partition, offset)
        self.lost: list[TopicPartition] = []
        self.source = KafkaSource(bootstrap, group or "readers", refresh_s=0.2)
        if group:
            self.source.subscribe([topic], on_lost=self.lost.extend)
        else:
            self.source.assign({topic: {}})

    def poll(self) -> None:
        self.read += [(record.partition, record.offset) for record in self.source.poll(100, 0.05)]

    def until(self, done: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
        end = time.monotonic() + within_s
        while not done():
            assert time.monotonic() < end, f"{len(self.read)} records, {self.source.status}"
            self.poll()

    def stays_in_trouble(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.poll()
            assert not self.source.status.healthy


def publish(bootstrap: str, topic: str, n: int) -> None:
    for number in range(n):
        brokers.produce(bootstrap, topic, b"x", partition=number % 4)
    brokers.flush(bootstrap)


DENIED_TOPIC, DENIED_GROUP = KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED


@pytest.mark.parametrize(
    ("request_", "error", "group", "says"),
    [
        (Request.FETCH, DENIED_TOPIC, "", ["events-0, events-1, events-2, events-3", "Topic authorization failed"]),
        (Request.FETCH, DENIED_TOPIC, "g", ["events-0, events-1, events-2, events-3", "Topic authorization failed"]),
        (Request.FIND_COORDINATOR, DENIED_GROUP, "g", ["group g", "Group authorization failed"]),
        (Request.JOIN_GROUP, DENIED_GROUP, "g", ["group g", "Group authorization failed"]),
        (Request.OFFSET_FETCH, DENIED_GROUP, "g", ["events-0", "Group authorization failed"]),
        (Request.FIND_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, "g", ["group g"]),
        (Request.LIST_OFFSETS, DENIED_TOPIC, "", ["events-", "Topic authorization failed"]),
    ],
    ids=lambda value: value.name if isinstance(value, Request) else value if isinstance(value, str) else "",
)
def test_what_is_refused_is_told_and_read_once_it_is_allowed(
    kafka: RefusingKafka, request_: Request, error: int, group: str, says: list[str]
) -> None:
    publish(kafka.bootstrap, "events", RECORDS)
    kafka.refuse(request_, error)
    reader = Reader(kafka.bootstrap, "events", group)
    reader.until(lambda: all(text in reader.source.status.message for text in says), TOLD_WITHIN_S)
    reader.stays_in_trouble(1.5)  # the other client is answered several times meanwhile
    kafka.allow(request_)
    reader.until(lambda: len(reader.read) == RECORDS and reader.source.status.healthy)
    assert len(set(reader.read)) == RECORDS
    reader.source.close()


def test_a_group_that_is_denied_to_the_trainer_keeps_nobody_from_reading(kafka: RefusingKafka) -> None:
    publish(kafka.bootstrap, "events", RECORDS)
    kafka.refuse(Request.FIND_COORDINATOR, DENIED_GROUP)
    reader = Reader(kafka.bootstrap, "events")
    reader.until(lambda: len(reader.read) == RECORDS)
    reader.source.commit({TopicPartition("events", 0): 1})
    reader.until(lambda: "offsets are not left with the broker" in reader.source.status.message)
    assert reader.source.status.healthy
    reader.source.close()


def test_a_member_whose_client_failed_for_good_joins_anew_with_another(kafka: RefusingKafka) -> None:
    publish(kafka.bootstrap, "events", RECORDS)
    reader = Reader(kafka.bootstrap, "events", "g")
    reader.until(lambda: len(reader.read) == RECORDS)
    reader.source.commit({TopicPartition("events", p): RECORDS // 4 for p in range(4)}, wait=True)
    kafka.refuse(Request.HEARTBEAT, KafkaError.FENCED_INSTANCE_ID, times=1)
    reader.until(lambda: len(reader.lost) == 4)
    assert not reader.source.status.healthy
    publish(kafka.bootstrap, "events", RECORDS)
    reader.until(lambda: len(reader.read) == 2 * RECORDS and reader.source.status.healthy)
    assert len(set(reader.read)) == 2 * RECORDS
    assert len(reader.lost) == 4
    reader.source.close()
    used = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - used < 0.1  # the client that failed keeps no core busy


def test_who_reads_without_a_group_goes_on_where_the_client_that_failed_had_come_to(kafka: RefusingKafka) -> None:
    for number in range(2):
        brokers.produce(kafka.bootstrap, "events", b"x", partition=number)
    brokers.flush(kafka.bootstrap)
    reader = Reader(kafka.bootstrap, "events")
    reader.until(lambda: len(reader.read) == 2 and len(reader.source.positions()) == 4)
    # As librdkafka tells it; no answer of a broker makes a client fail that is in no group.
    reader.source._on_client_error(KafkaError(KafkaError._FATAL, "fenced", True))
    assert not reader.source.status.healthy
    publish(kafka.bootstrap, "events", RECORDS)
    reader.until(lambda: len(reader.read) == 2 + RECORDS and reader.source.status.healthy)
    assert len(set(reader.read)) == 2 + RECORDS
    reader.source._on_client_error(KafkaError(KafkaError._FATAL, "fenced again", True))
    reader.source.close()  # which does not wait for that client


def test_a_member_for_whom_there_is_no_partition_is_well_and_says_so(kafka: RefusingKafka) -> None:
    publish(kafka.bootstrap, "events", RECORDS)
    readers = [Reader(kafka.bootstrap, "events", "g") for _ in range(6)]
    end = time.monotonic() + PATIENCE_S
    statuses = [reader.source.status for reader in readers]
    while not all(s.healthy for s in statuses) or sum(s.message.startswith("no partition: ") for s in statuses) != 2:
        assert time.monotonic() < end, statuses
        for reader in readers:
            reader.poll()
        statuses = [reader.source.status for reader in readers]
    for reader in readers:
        reader.source.close()


# on a broker that has an authorizer


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    broker = brokers.new_real_broker(*AUTHORIZER)
    yield broker.bootstrap
    broker.remove()


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_a_topic_that_may_be_described_and_not_read(guarded: str, grouped: bool) -> None:
    topic = brokers.unique_topic("described")
    brokers.create_topic(guarded, topic)
    acls = Acls(guarded)
    for operation in ("DESCRIBE", "WRITE"):
        acls.allow("TOPIC", topic, operation)
    publish(guarded, topic, RECORDS)
    reader = Reader(guarded, topic, f"g-{topic}" if grouped else "")
    reader.until(lambda: f"{topic}-0" in reader.source.status.message, TOLD_WITHIN_S)
    assert "Topic authorization failed" in reader.source.status.message
    reader.stays_in_trouble(1.5)
    acls.allow("TOPIC", topic, "READ")
    reader.until(lambda: len(reader.read) == RECORDS and reader.source.status.healthy)
    reader.source.close()


@pytest.mark.slow
def test_a_group_that_is_denied(guarded: str) -> None:
    topic = brokers.unique_topic("grouped")
    group = f"g-{topic}"
    brokers.create_topic(guarded, topic)
    publish(guarded, topic, RECORDS)
    acls = Acls(guarded)
    acls.allow("GROUP", group, "DESCRIBE")
    reader = Reader(guarded, topic, group)
    reader.until(lambda: f"group {group}" in reader.source.status.message, TOLD_WITHIN_S)
    assert "Group authorization failed" in reader.source.status.message
    reader.stays_in_trouble(1.5)
    acls.allow("GROUP", group, "READ")
    reader.until(lambda: len(reader.read) == RECORDS and reader.source.status.healthy)
    reader.source.close()
