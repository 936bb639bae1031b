"""The librdkafka settings that `TIDEMILL_KAFKA_CONFIG` may not set, because Tidemill's promises rest on them.

tests/consumers/test_kafka_config.py checks that every setting of our clients is either listed here or only tuning.
"""

from collections.abc import Mapping

_FUNCTION = "it is a function of the program, which no text can be"

NEEDED: Mapping[str, str] = {
    # which Kafka, and as whom
    "bootstrap.servers": "TIDEMILL_KAFKA_BOOTSTRAP sets it, and what is read must be what is asked about",
    "metadata.broker.list": "it is `bootstrap.servers`, which TIDEMILL_KAFKA_BOOTSTRAP sets",
    "group.id": "TIDEMILL_CONSUMER_GROUP sets the scorers', and every other reader needs one of its own",
    "group.instance.id": "processes that share one shut each other out",
    "group.protocol": "a dead scorer's partitions move after TIDEMILL_SESSION_TIMEOUT_MS with the classic one only",
    "group.remote.assignor": "members of a group must agree on how partitions are shared",
    "partition.assignment.strategy": "members of a group must agree on it, and partitions are taken up one by one",
    "session.timeout.ms": "TIDEMILL_SESSION_TIMEOUT_MS sets it",
    "heartbeat.interval.ms": "it follows TIDEMILL_SESSION_TIMEOUT_MS",
    "transactional.id": "processes that share one shut each other out",
    "test.mock.num.brokers": "a client would talk to a Kafka of its own making",
    # reading each record once
    "enable.auto.commit": "offsets are committed when what they stand for is stored, not before",
    "auto.commit.enable": "it is `enable.auto.commit`: offsets are committed when what they stand for is stored",
    "auto.offset.reset": "records that expired unread would be skipped uncounted",
    "enable.partition.eof": "by it a reader knows that it has read all of `items`, and how far behind it is",
    "isolation.level": "what a transaction takes back would be learned from, and `verify` reads what is committed",
    "topic.blacklist": "topics that are hidden are not read",
    "allow.auto.create.topics": "`items` would be made without compaction",
    "topic.metadata.refresh.interval.ms": "new partitions are found by it",
    "statistics.interval.ms": "by it a reader knows whether it is connected, and a member of its group",
    # writing each record once, and where it belongs
    "partitioner": "all producers of a topic must agree, or a user's events lose their order",
    "enable.idempotence": "records would be written twice, or out of order, after a fault",
    "message.timeout.ms": "a dead letter is never given up",
    "delivery.timeout.ms": "it is `message.timeout.ms`: a dead letter is never given up",
    "delivery.report.only.error": "what is not known to be delivered is waited for",
    # functions and objects of the program
    "enabled_events": _FUNCTION,
    "on_delivery": _FUNCTION,
    "on_commit": _FUNCTION,
    "logger": _FUNCTION,
    "opaque": _FUNCTION,
    "interceptors": _FUNCTION,
    "default.topic.config": "it is a list of settings; name them one by one",
    "default_topic_conf": "it is a list of settings; name them one by one",
}


def refusals(keys: Mapping[str, object]) -> list[str]:
    """For each of these keys that may not be set, a line that says why.

    librdkafka accepts some keys with `topic.` in front too; they are refused as well.
    """
    return [f"{key} is not to be set: {why}" for key in keys if (why := _why(key))]


def _why(key: str) -> str | None:
    name = key.strip().lower()
    return NEEDED.get(name) or NEEDED.get(name.removeprefix("topic.")) or (_FUNCTION if name.endswith("_cb") else None)
