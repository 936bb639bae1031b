"""The ids of a Kafka cluster and its topics: offsets mean something only in the log they were counted in."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from consumers.kafka_clients import KafkaConfig, make_admin

logger = logging.getLogger(__name__)

_WATCH_TIMEOUT_S = 3.0
_MOCK_PREFIX = "mockCluster"  # librdkafka's mock: makes topics on first use, can neither create nor describe them


@dataclass(frozen=True, slots=True)
class KafkaIdentity:
    """Which logs offsets belong to. An id is '' if there is none (mock cluster, brokers before 2.8)."""

    cluster_id: str
    topic_ids: dict[str, str] = field(default_factory=dict)  # only of topics that exist

    def log_of(self, topic: str) -> str:
        """The id of a topic's log: the topic's id, or the cluster's if topics have none."""
        return self.topic_ids.get(topic) or self.cluster_id

    def difference(self, now: "KafkaIdentity") -> str | None:
        """Why offsets of this identity mean nothing in `now`; None if they do, as far as both have ids.

        >>> KafkaIdentity("a", {"events": "x"}).difference(KafkaIdentity("a", {"events": "y"}))
        'topic events was made anew (its id was x and is y)'
        """
        if self.cluster_id and now.cluster_id and self.cluster_id != now.cluster_id:
            return f"this is Kafka cluster {now.cluster_id}, and it was {self.cluster_id}"
        for topic, then in self.topic_ids.items():
            if then and now.topic_ids.get(topic) and now.topic_ids[topic] != then:
                return f"topic {topic} was made anew (its id was {then} and is {now.topic_ids[topic]})"
        return None


def identify(
    bootstrap: str, topics: Sequence[str], *, extra: KafkaConfig | None = None, timeout_s: float = 10.0
) -> KafkaIdentity:
    """The ids of the cluster and of those of `topics` that exist. Raises KafkaException when no broker answers."""
    return _identify(make_admin(bootstrap, extra), topics, timeout_s)


class IdentityWatch:
    """Checks every few seconds, on its own thread, that the cluster and its topics are those of the start.

    A topic made anew also shows as an offset beyond its end, but not when the new log is long enough: then offsets
    would silently mean other records.
    """

    def __init__(
        self,
        bootstrap: str,
        then: KafkaIdentity,
        *,
        extra: KafkaConfig | None = None,
        every_s: float = 2.0,
    ) -> None:
        self.changed: str | None = None  # why offsets have lost their meaning; never reset
        self._admin = make_admin(bootstrap, extra)
        self._then, self._every_s = then, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-identity", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while self.changed is None and not self._stop.wait(self._every_s):
            try:
                self.changed = self._then.difference(
                    _identify(self._admin, list(self._then.topic_ids), _WATCH_TIMEOUT_S)
                )
            except KafkaException as error:  # no broker (readers report that), or a topic that is being made anew
                logger.debug("the ids of the cluster and its topics cannot be asked for: %s", error)


def _identify(admin: AdminClient, topics: Sequence[str], timeout_s: float) -> KafkaIdentity:
    cluster = admin.list_topics(timeout=timeout_s)
    there = [topic for topic in topics if topic in cluster.topics]
    if is_mock(cluster.cluster_id) or not there:
        return KafkaIdentity(cluster.cluster_id or "", dict.fromkeys(there, ""))
    described = admin.describe_topics(TopicCollection(there), request_timeout=timeout_s)
    return KafkaIdentity(cluster.cluster_id or "", {t: str(d.result().topic_id) for t, d in described.items()})


def is_mock(cluster_id: str | None) -> bool:
    """Whether it is librdkafka's mock cluster, by its id."""
    return (cluster_id or "").startswith(_MOCK_PREFIX)
