"""Making the topics as they must be, and saying which cluster and topics these are."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

logger = logging.getLogger(__name__)

_MOCK_PREFIX = "mockCluster"  # librdkafka's; it makes topics on first use, and answers neither creation nor description


@dataclass(frozen=True, slots=True)
class KafkaIdentity:
    """Which log the offsets belong to. An id is '' where there is none (mock cluster, brokers before 2.8)."""

    cluster_id: str
    topic_ids: dict[str, str] = field(default_factory=dict)  # only of topics that exist


def ensure_topics(
    bootstrap: str,
    events: str = "events",
    items: str = "items",
    partitions: int = 4,
    *,
    extra: Mapping[str, Any] | None = None,
    timeout_s: float = 10.0,
) -> None:
    """Make the two topics and their dead-letter topics where they are missing; `items` compacted.

    Topics that exist stay as they are. Raises KafkaException when no broker answers or creation is refused.
    """
    admin = _admin(bootstrap, extra)
    cluster = admin.list_topics(timeout=timeout_s)
    if _is_mock(cluster.cluster_id):
        return
    configs = {events: {}, items: {"cleanup.policy": "compact"}, f"{events}.dlq": {}, f"{items}.dlq": {}}
    missing = [
        NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=config)
        for topic, config in configs.items()
        if topic not in cluster.topics
    ]
    if not missing:
        return
    for topic, made in admin.create_topics(missing, operation_timeout=timeout_s, request_timeout=timeout_s).items():
        try:
            made.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was first
                raise
        else:
            logger.info("made topic %s", topic)


def identify(
    bootstrap: str, topics: Sequence[str], *, extra: Mapping[str, Any] | None = None, timeout_s: float = 10.0
) -> KafkaIdentity:
    """The ids of the cluster and of those of `topics` that exist. Raises KafkaException when no broker answers."""
    admin = _admin(bootstrap, extra)
    cluster = admin.list_topics(timeout=timeout_s)
    there = [topic for topic in topics if topic in cluster.topics]
    if _is_mock(cluster.cluster_id) or not there:
        return KafkaIdentity(cluster.cluster_id or "", dict.fromkeys(there, ""))
    described = admin.describe_topics(TopicCollection(there), request_timeout=timeout_s)
    return KafkaIdentity(cluster.cluster_id or "", {t: str(d.result().topic_id) for t, d in described.items()})


def _admin(bootstrap: str, extra: Mapping[str, Any] | None) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, **(extra or {})}, logger=logger)


def _is_mock(cluster_id: str | None) -> bool:
    return (cluster_id or "").startswith(_MOCK_PREFIX)
