"""Topics are made as they must be, once; and a cluster says which one it is."""

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import ConfigResource as _ConfigResource  # type: ignore[attr-defined]  # not in `__all__`

from consumers.topics import ensure_topics, identify
from tests import brokers


def test_the_mock_cluster_needs_no_topics_and_gives_them_no_ids() -> None:
    bootstrap, topic = brokers.mock_cluster(), brokers.unique_topic("known")
    ensure_topics(bootstrap)
    brokers.create_topic(bootstrap, topic)
    identity = identify(bootstrap, [topic, "unknown"])
    assert identity.cluster_id.startswith("mockCluster")
    assert identity.topic_ids == {topic: ""}


@pytest.mark.slow
def test_a_real_broker_gets_its_topics_once_with_items_compacted() -> None:
    bootstrap = brokers.real_broker()
    events, items = brokers.unique_topic("events"), brokers.unique_topic("items")
    assert identify(bootstrap, [events]).topic_ids == {}
    for partitions in (3, 7):  # the second time they are there, and stay as they are
        ensure_topics(bootstrap, events, items, partitions)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = admin.list_topics(timeout=10).topics
    for topic in (events, items, f"{events}.dlq", f"{items}.dlq"):
        assert len(topics[topic].partitions) == 3
    (config,) = admin.describe_configs([_ConfigResource("topic", items)]).values()
    assert config.result()["cleanup.policy"].value == "compact"
    identity = identify(bootstrap, [events, items, "unknown"])
    assert identity.cluster_id
    assert len({*identity.topic_ids.values(), ""}) == 3
    assert identify(bootstrap, [events, items]) == identity


def test_no_broker_is_an_error() -> None:
    with pytest.raises(KafkaException):
        ensure_topics("127.0.0.1:1", timeout_s=0.2)
    with pytest.raises(KafkaException):
        identify("127.0.0.1:1", ["events"], timeout_s=0.2)
