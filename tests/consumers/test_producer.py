"""What is published arrives once, in order per key, where a Java client would put it; what does not is counted."""

import pytest

from consumers.producer import KafkaPublisher, KafkaUnreachableError, PublishError
from tests import brokers

USERS = [f"u{n}" for n in range(20)]


def test_records_arrive_once_and_in_order_per_key() -> None:
    bootstrap, topic = brokers.mock_cluster(), brokers.unique_topic("published")
    brokers.create_topic(bootstrap, topic)
    publisher = KafkaPublisher(bootstrap)
    for n in range(200):
        publisher.publish(topic, USERS[n % 20], str(n).encode())
    assert publisher.flush(30) == 0
    records = brokers.read(bootstrap, topic, 200)
    publisher.close()
    assert publisher.delivered[topic] == 200
    assert publisher.delivered_bytes[topic] == sum(len(str(n)) for n in range(200))
    assert publisher.failures.total() == 0
    per_key: dict[bytes | None, list[int]] = {}
    for record in records:
        per_key.setdefault(record.key, []).append(int(record.value or b""))
    assert per_key == {user.encode(): list(range(n, 200, 20)) for n, user in enumerate(USERS)}
    ends = {record.partition: record.offset + 1 for record in records}
    assert publisher.ends[topic] == ends


def test_a_record_that_the_client_refuses_is_an_error_with_its_reason() -> None:
    publisher = KafkaPublisher("127.0.0.1:1")
    with pytest.raises(PublishError, match="too large"):
        publisher.publish("events", "u1", b"x" * 2_000_000)


def test_what_no_broker_has_confirmed_is_counted_when_it_closes() -> None:
    publisher = KafkaPublisher("127.0.0.1:1")
    with pytest.raises(KafkaUnreachableError, match="no Kafka answers at"):
        publisher.check(0.1)
    publisher.publish("events", "u1", b"{}")
    publisher.close(0.0)
    assert publisher.failures.total() == 1
    assert publisher.delivered.total() == 0
