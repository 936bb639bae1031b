"""Publishes events and items to Kafka, and counts the records that do not arrive."""

import time
from collections import Counter
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message

from consumers.kafka_clients import KafkaConfig, make_producer
from consumers.topics import ensure_topics

_QUEUE = 100_000  # messages waiting in memory, at most
_DELIVERY_TIMEOUT_MS = 60_000


class PublishError(RuntimeError):
    """The Kafka client refuses this record (too large, say); the message is one line that says why."""


class KafkaUnreachableError(RuntimeError):
    """No broker answers; the message is one line."""


class KafkaPublisher:
    """Publishes records, in order per key, each once. One thread may call it; any may read its counts."""

    def __init__(self, bootstrap: str, config: KafkaConfig | None = None) -> None:
        self.delivered: Counter[str] = Counter()  # topic -> records Kafka has confirmed
        self.delivered_bytes: Counter[str] = Counter()  # topic -> of their values
        self.failures: Counter[str] = Counter()  # reason -> records that did not reach Kafka
        self.ends: dict[str, dict[int, int]] = {}  # topic -> partition -> one past the last offset confirmed
        self._bootstrap = bootstrap
        self._config = dict(config or {})
        settings = {
            "client.id": "tidemill-publisher",
            "linger.ms": 5,
            "queue.buffering.max.messages": _QUEUE,
            "delivery.timeout.ms": _DELIVERY_TIMEOUT_MS,
            "log_level": 0,  # what matters comes back as a delivery report
        }
        self._producer = make_producer(bootstrap, settings, config)

    def check(self, timeout_seconds: float = 10.0) -> None:
        """Ask a broker for its metadata. Raises KafkaUnreachableError."""
        try:
            self._producer.list_topics(timeout=timeout_seconds)
        except KafkaException as error:
            raise KafkaUnreachableError(f"no Kafka answers at {self._bootstrap}: {reason_of(error)}") from None

    def prepare_topics(self, events: str, items: str) -> None:
        """Make missing topics: a broker that makes `items` on first use would not compact it.

        Blocks up to 10 s a request. Raises KafkaUnreachableError.
        """
        try:
            ensure_topics(self._bootstrap, events, items, extra=self._config)
        except KafkaException as error:
            raise KafkaUnreachableError(f"cannot make topics at {self._bootstrap}: {reason_of(error)}") from None

    def publish(self, topic: str, key: str, value: bytes, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Queue one record. Blocks while the queue is full; once `stopped()` the record counts as a failure.

        Raises PublishError.
        """
        while True:
            try:
                # no timestamp of ours, so Kafka sets the present one: with an old `ts`, retention would delete it
                self._producer.produce(topic, value=value, key=key.encode(), on_delivery=self._on_delivery)
            except BufferError:
                if stopped():
                    self.failures["stopped before it was sent"] += 1
                    return
                self._producer.poll(0.05)
                continue
            except KafkaException as error:
                raise PublishError(reason_of(error)) from None
            self._producer.poll(0)
            return

    def poll(self) -> None:
        """Take in the confirmations that have come. Does not block."""
        self._producer.poll(0)

    def flush(self, timeout_seconds: float) -> int:
        """Wait for confirmations; returns how many records still have none."""
        return self._producer.flush(timeout_seconds)

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Flush; records not confirmed by then are given up and counted as failures."""
        deadline = time.monotonic() + timeout_seconds
        while self._producer.flush(max(0.0, deadline - time.monotonic())) and time.monotonic() < deadline:
            pass
        self._producer.purge()
        self._producer.flush(1.0)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures[error.str()] += 1
            return
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is not None and partition is not None and offset is not None:
            self.delivered[topic] += 1
            self.delivered_bytes[topic] += len(message)
            self.ends.setdefault(topic, {})[partition] = offset + 1


def reason_of(error: KafkaException) -> str:
    """The error in librdkafka's words, as one line."""
    cause = error.args[0] if error.args else error
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
