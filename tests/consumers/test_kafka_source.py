"""What only Kafka can do: brokers that die, members that are killed."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from consumers.kafka_source import KafkaSource
from consumers.records import TopicPartition
from tests import brokers


@pytest.mark.slow
def test_a_broker_restart_loses_nothing_and_shows_in_the_status() -> None:
    broker = brokers.new_real_broker()
    brokers.create_topic(broker.bootstrap, "events")
    for k in range(100):
        brokers.produce(broker.bootstrap, "events", str(k).encode())
    brokers.flush(broker.bootstrap)
    source = KafkaSource(broker.bootstrap, "readers", refresh_s=0.2)
    source.assign({"events": {}})
    values: list[bytes | None] = []
    while len(values) < 100:
        values += [r.value for r in source.poll(1000, 0.1)]

    broker.kill()
    deadline = time.monotonic() + 30
    while source.status.healthy:
        assert time.monotonic() < deadline
        assert source.poll(1000, 0.1) == []
    assert source.status.message
    start = time.monotonic()
    assert not source.commit({TopicPartition("events", 0): 1}, wait=False) or time.monotonic() - start < 3

    restart = threading.Thread(target=broker.start)
    restart.start()
    while not source.status.healthy:
        assert time.monotonic() < deadline + 60
        source.poll(1000, 0.1)
    restart.join()
    for k in range(100, 200):
        brokers.produce(broker.bootstrap, "events", str(k).encode())
    brokers.flush(broker.bootstrap)
    while len(values) < 200:
        assert time.monotonic() < deadline + 60
        values += [r.value for r in source.poll(1000, 0.1)]
    assert sorted(int(value or b"") for value in values) == list(range(200))
    source.close()
    broker.remove()


_MEMBER = """
import sys
from consumers.kafka_source import KafkaSource
source = KafkaSource(sys.argv[1], sys.argv[2])
source.subscribe([sys.argv[2]], lambda partitions: print(len(partitions), flush=True))
while True:
    source.poll(100, 0.1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mock", "real"])
def test_a_killed_members_partitions_are_taken_over(kind: str) -> None:
    bootstrap = brokers.mock_cluster() if kind == "mock" else brokers.real_broker()
    topic = brokers.unique_topic("shared")
    brokers.create_topic(bootstrap, topic)
    member = subprocess.Popen([sys.executable, "-c", _MEMBER, bootstrap, topic], stdout=subprocess.PIPE, text=True)
    assert member.stdout is not None
    assert member.stdout.readline().strip() == "4"
    mine: set[TopicPartition] = set()
    source = KafkaSource(bootstrap, topic)
    source.subscribe([topic], mine.update, mine.difference_update)
    deadline = time.monotonic() + 60
    while len(mine) != 2:
        assert time.monotonic() < deadline
        source.poll(100, 0.1)
    member.kill()
    member.wait()
    member.stdout.close()
    killed = time.monotonic()
    while len(mine) != 4:
        # after 6 s; the mock cluster then lets some seconds pass before it hands partitions out again
        assert time.monotonic() < killed + 60
        source.poll(100, 0.1)
    source.close()


@pytest.mark.slow
@pytest.mark.parametrize("appears_after", [0.0, 1.2, 2.4])
@pytest.mark.parametrize("kind", ["mock", "real"])
def test_members_are_assigned_soon_whenever_their_topic_appears(kind: str, appears_after: float) -> None:
    bootstrap = brokers.mock_cluster() if kind == "mock" else brokers.real_broker()

    def seconds_after_the_topic_was_there() -> float:
        topic, came = brokers.unique_topic("late"), list[TopicPartition]()
        source = KafkaSource(bootstrap, topic)
        source.subscribe([topic], came.extend)
        appears = time.monotonic() + appears_after
        while time.monotonic() < appears:
            source.poll(100, 0.05)
        brokers.create_topic(bootstrap, topic)
        while not came:
            assert time.monotonic() < appears + 60
            source.poll(100, 0.05)
        took = time.monotonic() - appears
        source.close()
        return took

    with ThreadPoolExecutor(6) as pool:  # at once, because one alone may be lucky
        waits = list(pool.map(lambda _: seconds_after_the_topic_was_there(), range(6)))
    assert max(waits) < 8, waits  # 2 where nothing else runs
