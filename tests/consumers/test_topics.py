"""Topics are made as they must be, once; and a cluster says which one it is."""

import time

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import ConfigResource as _ConfigResource  # type: ignore[attr-defined]  # not in `__all__`

from consumers.kafka_identity import IdentityWatch, KafkaIdentity, identify
from consumers.topics import ensure_topics, prepare_topics
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


def test_offsets_mean_nothing_elsewhere_as_far_as_there_are_ids() -> None:
    here = KafkaIdentity("a", {"events": "x", "items": "y"})
    assert here.difference(here) is None
    assert here.difference(KafkaIdentity("", {"events": "", "items": "y"})) is None
    assert here.difference(KafkaIdentity("a", {})) is None
    assert KafkaIdentity("", {}).difference(here) is None
    assert here.difference(KafkaIdentity("b", here.topic_ids)) == "this is Kafka cluster b, and it was a"
    why = here.difference(KafkaIdentity("a", {"events": "x", "items": "z"}))
    assert why == "topic items was made anew (its id was y and is z)"
    assert (here.log_of("events"), here.log_of("other")) == ("x", "a")


def test_a_mock_cluster_is_ready_without_topics() -> None:
    bootstrap = brokers.mock_cluster()
    assert prepare_topics(bootstrap, "nothing", "nowhere").log_of("nothing").startswith("mockCluster")


@pytest.mark.slow
def test_a_topic_made_anew_is_noticed() -> None:
    bootstrap = brokers.real_broker()
    events, items = brokers.unique_topic("events"), brokers.unique_topic("items")
    before = prepare_topics(bootstrap, events, items)
    assert len({*before.topic_ids.values(), ""}) == 3
    admin = AdminClient({"bootstrap.servers": bootstrap})
    with IdentityWatch(bootstrap, before, every_s=0.1) as watch:
        time.sleep(1.0)
        assert watch.changed is None
        admin.delete_topics([events], operation_timeout=10)[events].result()
        time.sleep(1.0)
        assert watch.changed is None  # it may be on its way back
        after = prepare_topics(bootstrap, events, items)
        end = time.monotonic() + 20
        while watch.changed is None and time.monotonic() < end:
            time.sleep(0.05)
        assert watch.changed == before.difference(after) is not None


def test_a_watch_waits_for_a_broker_that_is_away() -> None:
    with IdentityWatch("127.0.0.1:1", KafkaIdentity("a", {"events": "x"}), every_s=0.01) as watch:
        time.sleep(0.1)
        assert watch.changed is None


def test_no_broker_is_an_error() -> None:
    with pytest.raises(KafkaException):
        ensure_topics("127.0.0.1:1", timeout_s=0.2)
    with pytest.raises(KafkaException):
        identify("127.0.0.1:1", ["events"], timeout_s=0.2)
