"""Makes the topics that are missing."""

import logging

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic

from consumers.kafka_clients import KafkaConfig, make_admin
from consumers.kafka_identity import KafkaIdentity, identify, is_mock

logger = logging.getLogger(__name__)


def ensure_topics(
    bootstrap: str,
    events: str = "events",
    items: str = "items",
    partitions: int = 4,
    *,
    extra: KafkaConfig | None = None,
    timeout_s: float = 10.0,
) -> None:
    """Make the two topics and their dead-letter topics if they are missing; `items` compacted.

    Existing topics stay as they are. On a mock cluster, which makes topics on first use, it does nothing. Blocks up to
    `timeout_s` a request. Raises KafkaException if no broker answers or creation is refused.
    """
    admin = make_admin(bootstrap, extra)
    cluster = admin.list_topics(timeout=timeout_s)
    if is_mock(cluster.cluster_id):
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


def prepare_topics(bootstrap: str, events: str, items: str, *, extra: KafkaConfig | None = None) -> KafkaIdentity:
    """Make missing topics; returns the ids of the cluster and of both topics (a mock cluster's topics have none).

    Raises KafkaException if no broker answers, or if the broker does not know a new topic yet.
    """
    ensure_topics(bootstrap, events, items, extra=extra)
    identity = identify(bootstrap, (events, items), extra=extra)
    if not is_mock(identity.cluster_id) and len(identity.topic_ids) < len({events, items}):
        raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    return identity
