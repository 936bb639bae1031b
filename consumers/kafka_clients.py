"""The one place that makes Kafka clients: consumers, producers and admins.

Later settings win: the address, those all clients share, those of the kind of client, and TIDEMILL_KAFKA_CONFIG.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from consumers.kafka_config import refusals
from consumers.logs import librdkafka

KafkaConfig = Mapping[str, str | int | float | bool]
"""librdkafka's settings, by librdkafka's names."""

_SHARED = {
    # A broker that comes back is found within a second (default 10 s).
    "reconnect.backoff.max.ms": 1000,
}


def reading_settings(group_id: str, session_timeout_ms: int) -> dict[str, Any]:
    """Settings of a consumer that reads each record once, as a member of a group or alone."""
    return {
        "group.id": group_id,
        "enable.auto.commit": False,
        # `earliest` would skip expired records silently.
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        # How long the broker waits for more bytes. The mock cluster waits the whole time: 177 ms at p50 by default.
        "fetch.wait.max.ms": 10,
        "fetch.error.backoff.ms": 100,
        # A silent connection (dropped by a firewall, say) is replaced after this (default 60 s).
        "socket.timeout.ms": 10_000,
        # A killed member's partitions are taken over after this (default 45 s).
        "session.timeout.ms": session_timeout_ms,
        "heartbeat.interval.ms": max(500, session_timeout_ms // 4),
        "partition.assignment.strategy": "cooperative-sticky",
        # No multiple of a second: a refresh that is answered while the group's leader works out the assignment makes
        # the leader join anew (librdkafka 2.16). Joins begin on whole seconds of the client's age, and the mock cluster
        # keeps them for whole seconds, so with 5000 the two met again and again: assigned after 20 s, once after 45 s.
        "topic.metadata.refresh.interval.ms": 4770,
        # Bounds what is fetched ahead of polls.
        "queued.max.messages.kbytes": 32_768,
        # The statistics tell whether the client is connected, and a member of its group.
        "statistics.interval.ms": 1000,
    }


class WrongConfig(RuntimeError):
    """No client can be made with these settings; the message is one line for the user."""


def make_consumer(bootstrap: str, settings: Mapping[str, Any], extra: KafkaConfig | None = None) -> Consumer:
    """A consumer. Connects to nothing yet. Raises WrongConfig."""
    with _refused_in_a_line():
        return Consumer(_together(bootstrap, settings, extra), logger=librdkafka)


def make_producer(bootstrap: str, settings: Mapping[str, Any], extra: KafkaConfig | None = None) -> Producer:
    """A producer whose records arrive once and in order, on the partitions that a Java client would choose.

    Raises WrongConfig.
    """
    promised = {
        # All producers of one topic must agree; librdkafka's own default agreed with Java's on 51 of 200 keys.
        "partitioner": "murmur2_random",
        "enable.idempotence": True,
    }
    with _refused_in_a_line():
        return Producer(_together(bootstrap, promised | dict(settings), extra), logger=librdkafka)


def make_admin(bootstrap: str, extra: KafkaConfig | None = None) -> AdminClient:
    """An admin client. Connects to nothing yet. Raises WrongConfig."""
    with _refused_in_a_line():
        # KafkaWatch asks every second or so: a silent connection is to be given up soon (default 60 s).
        return AdminClient(_together(bootstrap, {"socket.timeout.ms": 4000}, extra), logger=librdkafka)


def check_config(config: KafkaConfig) -> None:
    """Check that clients can be made with `config` and keep what Tidemill promises. Connects to nothing.

    Raises ValueError with one line: a key that may not be set, that librdkafka does not know, or a value it refuses.
    A value that is wrong only beside another setting (TIDEMILL_SESSION_TIMEOUT_MS, say) is found when the client is
    made, and raises WrongConfig there.
    """
    if refused := refusals(config):
        raise ValueError("; ".join(refused))
    silent = logging.Logger("silent", logging.CRITICAL + 1)
    settings: dict[str, Any] = {"log_level": 0, **config}
    try:
        Consumer({"group.id": "check", "session.timeout.ms": 6000, **settings}, logger=silent).close()
        Producer({"enable.idempotence": True, **settings}, logger=silent)
    except KafkaException as error:
        raise ValueError(error.args[0].str().strip()) from None


@contextmanager
def _refused_in_a_line() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise WrongConfig(f"TIDEMILL_KAFKA_CONFIG: {error.args[0].str().strip()}") from error


def _together(bootstrap: str, settings: Mapping[str, Any], extra: KafkaConfig | None) -> dict[str, Any]:
    return {"bootstrap.servers": bootstrap, **_SHARED, **settings, **(extra or {})}
