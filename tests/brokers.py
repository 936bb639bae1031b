"""Kafka for tests: librdkafka's mock cluster in a child process, and a real broker where there is one.

The real one is started by a script `broker DIR PORT [key=value ...]`: `../shared/kafka/broker` from the project's root,
or the path in TIDEMILL_TEST_KAFKA_BROKER. Where there is none, its tests say so and are skipped.
"""

import atexit
import contextlib
import fcntl
import functools
import itertools
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from consumers.kafka_source import KafkaSource
from consumers.records import Record
from service.leash import Child
from service.local import start_kafka
from tests.patience import PATIENCE

_ROOT = Path(__file__).resolve().parent.parent
_SCRIPT = Path(os.environ.get("TIDEMILL_TEST_KAFKA_BROKER") or _ROOT.parent / "shared" / "kafka" / "broker")
_names = itertools.count()


def unique_topic(name: str) -> str:
    """A topic name that no other test uses, so that tests may share a broker."""
    return f"{name}-{os.getpid()}-{next(_names)}"


@functools.cache
def mock_cluster() -> str:
    """Bootstrap servers of a mock cluster that lives as long as the tests."""
    server = start_kafka()
    atexit.register(server.child.close)
    return server.address


def read(bootstrap: str, topic: str, n: int) -> list[Record]:
    """The topic's records from its beginning, as soon as there are `n` of them; after 30 s as many as there are."""
    source = KafkaSource(bootstrap, "tests", refresh_s=0.1)
    source.assign({topic: {}})
    records: list[Record] = []
    deadline = time.monotonic() + 30
    while len(records) < n and time.monotonic() < deadline:
        records += source.poll(1000, 0.1)
    source.close()
    return records


class RealBroker:
    """A broker of its own directory and port, which may be killed and started again."""

    def __init__(self, *settings: str) -> None:
        self.directory = tempfile.mkdtemp(prefix="tidemill-kafka-")
        self.port = _free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._settings = settings
        self._controller = _free_port()
        self._child: Child | None = None
        atexit.register(self.remove)

    def add_doors(self, advertised: Mapping[str, int]) -> dict[str, int]:
        """Before the start, further ports: who enters by one is told to come back to the port that is advertised for
        it, as through a proxy. Returns the doors' own ports."""
        doors = {name: _free_port() for name in advertised}
        here = "127.0.0.1"
        self._settings += (
            f"listeners=PLAINTEXT://{here}:{self.port},CONTROLLER://{here}:{self._controller},"
            + ",".join(f"{name}://{here}:{port}" for name, port in doors.items()),
            f"advertised.listeners=PLAINTEXT://{here}:{self.port},"
            + ",".join(f"{name}://{here}:{port}" for name, port in advertised.items()),
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
            + ",".join(f"{name}:PLAINTEXT" for name in doors),
        )
        return doors

    def forget_everything(self) -> None:
        """While it is down: what starts next is another cluster at the same address."""
        shutil.rmtree(self.directory)
        os.mkdir(self.directory)

    def start(self) -> None:
        """Start it and wait until it answers."""
        Path(self.directory, "controller.port").write_text(str(self._controller))
        command = [str(_SCRIPT), self.directory, str(self.port), *self._settings]
        # It lives for seconds: compiled in a hurry it is there in two thirds of the time.
        environment = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1"} | os.environ
        self._child = Child(command, environment=environment)
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        deadline = time.monotonic() + PATIENCE * 30
        while True:
            try:
                admin.list_topics(timeout=1)
                return
            except KafkaException:
                assert time.monotonic() < deadline, "the broker does not answer"
                assert self._child.poll() is None, f"the broker ended: {self._child.tail()}"

    def kill(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def has_real_broker() -> bool:
    return _SCRIPT.exists()


def skip_without_real_broker() -> None:
    if not has_real_broker():
        pytest.skip(f"no real broker: {_SCRIPT} is not there (TIDEMILL_TEST_KAFKA_BROKER)")


def new_real_broker(*settings: str) -> RealBroker:
    """A started broker for one test alone; skips the test where there is none."""
    skip_without_real_broker()
    broker = RealBroker(*settings)
    broker.start()
    return broker


@functools.cache
def real_broker() -> str:
    """Bootstrap servers of a real broker that lives as long as the tests; skips the test where there is none.

    All processes of a test run share one: who needs it first starts it, and at its own end waits for the others' ends.
    """
    skip_without_real_broker()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    notice = Path(tempfile.gettempdir(), f"tidemill-kafka-of-{run}")  # holds the address; locked by all who use it
    users = os.open(notice, os.O_RDONLY | os.O_CREAT)  # open, and so locked, until this process ends
    with open(f"{notice}.starting", "a") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if address := notice.read_text():
            return address
        broker = new_real_broker()
        notice.write_text(broker.bootstrap)

    def end() -> None:
        fcntl.flock(users, fcntl.LOCK_EX)
        broker.remove()
        notice.unlink()
        Path(starting.name).unlink()

    atexit.register(end)
    return broker.bootstrap


@functools.cache
def _producer(bootstrap: str) -> Producer:
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, "log_level": 0, "partitioner": "murmur2_random"})


def create_topic(bootstrap: str, topic: str, partitions: int = 4, **config: str) -> None:
    """Create a topic and wait until the broker knows its partitions. The mock cluster makes four, on first use."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    if (admin.list_topics(timeout=10).cluster_id or "").startswith("mockCluster"):
        assert partitions == 4, "the mock cluster gives every topic four partitions"
        producer = _producer(bootstrap)
        # Asked for by a producer, a topic is made; nothing is written.
        while not producer.list_topics(topic, timeout=10).topics[topic].partitions:
            time.sleep(0.05)
        return
    admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result()
    while len(admin.list_topics(topic, timeout=10).topics[topic].partitions) < partitions:
        time.sleep(0.05)


def produce(
    bootstrap: str,
    topic: str,
    value: bytes | None,
    *,
    key: bytes | None = None,
    partition: int = -1,
    headers: list[tuple[str, str | bytes | None]] | None = None,
) -> None:
    """Begin to write a record; `flush` waits for it."""
    producer = _producer(bootstrap)
    while True:
        with contextlib.suppress(BufferError):
            producer.produce(topic, value, key, partition, headers=headers)
            return
        producer.poll(0.05)


def flush(bootstrap: str) -> None:
    assert _producer(bootstrap).flush(60) == 0
