"""The one place that makes Kafka clients: consumers, producers and admins, with what all of them share.

Their addresses come first, then what a client of this kind needs here, and the settings of whoever runs Tidemill
(TLS, SASL) last.
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
"""librdkafka's settings, by their names there."""

_SHARED = {
    # A broker that was away is found again within a second (default 10 s).
    "reconnect.backoff.max.ms": 1000,
}


class WrongConfig(RuntimeError):
    """No client can be made of these settings; the message is the one line that their user sees."""


def make_consumer(bootstrap: str, settings: Mapping[str, Any], extra: KafkaConfig | None = None) -> Consumer:
    """Raises WrongConfig."""
    with _refused_in_a_line():
        return Consumer(_together(bootstrap, settings, extra), logger=librdkafka)


def make_producer(bootstrap: str, settings: Mapping[str, Any], extra: KafkaConfig | None = None) -> Producer:
    """A producer whose records come once and in order, on the partitions that a Java client would choose.

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
    """Raises WrongConfig."""
    with _refused_in_a_line():
        # Asked again and again by whoever watches: a connection that has fallen silent is given up soon (default 60 s).
        return AdminClient(_together(bootstrap, {"socket.timeout.ms": 4000}, extra), logger=librdkafka)


def check_config(config: KafkaConfig) -> None:
    """Whether clients can be made with `config` and keep what they promise. Connects to nothing.

    Raises ValueError with one line: a key that may not be set, that librdkafka does not know, or a value it refuses.
    What only other settings make wrong (TIDEMILL_SESSION_TIMEOUT_MS, say) is a WrongConfig where the client is made.
    """
    if refused := refusals(config):
        raise ValueError("; ".join(refused))
    unheard = logging.Logger("unheard", logging.CRITICAL + 1)
    settings: dict[str, Any] = {"log_level": 0, **config}
    try:
        Consumer({"group.id": "check", "session.timeout.ms": 6000, **settings}, logger=unheard).close()
        Producer({"enable.idempotence": True, **settings}, logger=unheard)
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
