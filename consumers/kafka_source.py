"""`EventSource` over Kafka: the only file that makes Kafka consumers.

Besides the caller's thread there is one that asks the broker, once a second, for the ends of the partitions and for
partitions that are new. The consumer's cached ends would not do: they stand still while nothing is fetched, so a reader
that is held up would report no lag just when it has some. The thread has a client of its own, because confluent_kafka
lets one thread at a time into a consumer: asking it while another polls waited 30 s.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as _OffsetSpec  # type: ignore[attr-defined]  # not in its `__all__`

from consumers.logs import librdkafka
from consumers.records import Headers, OffsetRange, Offsets, Record, TopicPartition
from consumers.source import OnPartitions, SourceStatus

logger = logging.getLogger(__name__)

_FROM_BEGINNING = -2  # librdkafka's OFFSET_BEGINNING
_NO_OFFSET = -1
_ASK_TIMEOUT_S = 2.0
_RETRY_S = 0.5
_SLICE_S = 0.1
_SILENT_S = 4.0  # without an answer for so long, the broker counts as away, whatever a client's own timeouts are
_TOPICS_EVERY_S = 5.0  # how often to look for new partitions, once every topic is there


class KafkaSource:
    """Reads Kafka through librdkafka; `extra` is passed to it as it is (TLS, SASL) and wins over what stands here."""

    def __init__(
        self,
        bootstrap: str,
        group_id: str,
        *,
        start: Literal["earliest", "latest"] = "earliest",
        session_timeout_ms: int = 6000,
        refresh_s: float = 1.0,
        extra: Mapping[str, str | int | float | bool] | None = None,
    ) -> None:
        """`start`: where a group member begins without a committed offset. The broker is asked every `refresh_s`."""
        settings: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap,
            "group.id": group_id,
            "enable.auto.commit": False,
            # `earliest` would skip what has expired without a word.
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            # How long the broker waits for more bytes: the mock cluster waits it out, 177 ms at p50 by default.
            "fetch.wait.max.ms": 10,
            "fetch.error.backoff.ms": 100,
            # A connection that has fallen silent (a firewall forgot it) is replaced after this (default 60 s).
            "socket.timeout.ms": 10_000,
            # A killed member's partitions are taken over after this (default 45 s).
            "session.timeout.ms": session_timeout_ms,
            "heartbeat.interval.ms": max(500, session_timeout_ms // 4),
            "partition.assignment.strategy": "cooperative-sticky",
            # No multiple of a second: a refresh answered just while a group's leader works out the assignment makes it
            # join anew (librdkafka 2.16). Joins begin on whole seconds of the client's age, and the mock cluster keeps
            # them for whole seconds, so with 5000 they met again and again: assigned after 20 s, once after 45 s.
            "topic.metadata.refresh.interval.ms": 4770,
            "reconnect.backoff.max.ms": 1000,
            # Bounds what is fetched ahead; what the reader cannot take stays with the broker.
            "queued.max.messages.kbytes": 32_768,
        }
        settings.update(extra or {})
        self._consumer = Consumer(settings | {"error_cb": self._on_client_error}, logger=librdkafka)
        asking: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "reconnect.backoff.max.ms": 1000,
            "socket.timeout.ms": 4000,
            **(extra or {}),
        }
        self._admin = AdminClient(asking, logger=librdkafka)
        self._start = start
        self._refresh_s = refresh_s
        self._closed = False

        self._lock = threading.Lock()  # guards what the watching thread and the caller share, down to `_ends`
        self._starts: dict[str, Mapping[int, int]] = {}  # topics assigned -> offsets to start at
        self._seen: dict[str, set[int]] = {}  # topics assigned and described -> partitions known
        self._found: list[tuple[TopicPartition, int]] = []  # partitions to take up, and where
        self._reading: set[TopicPartition] = set()
        self._ends: dict[TopicPartition, int] = {}

        self._unread: set[TopicPartition] = set()  # not yet read to their end for the first time
        self._stuck: dict[TopicPartition, int] = {}  # partitions that do not have the offset asked for
        self._stuck_why = ""
        self._repair_at = 0.0
        self._expired: list[OffsetRange] = []
        self._trouble = "no broker has answered yet"
        self._heard_at = time.monotonic()
        self._wake = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="kafka-watcher", daemon=True)
        self._watcher.start()

    def assign(self, topics: Mapping[str, Mapping[int, int]]) -> None:
        with self._lock:
            self._starts.update({topic: dict(starts) for topic, starts in topics.items()})
        self._wake.set()

    def subscribe(
        self,
        topics: Sequence[str],
        on_assigned: OnPartitions | None = None,
        on_revoked: OnPartitions | None = None,
        on_lost: OnPartitions | None = None,
    ) -> None:
        def assigned(_: Consumer, partitions: list[KafkaPartition]) -> None:
            came = [TopicPartition(p.topic, p.partition) for p in partitions]
            with self._lock:
                self._reading.update(came)
            self._unread.update(came)
            self._wake.set()
            if on_assigned is not None:
                on_assigned(came)

        def gone(tell: OnPartitions | None, partitions: list[KafkaPartition]) -> None:
            went = [TopicPartition(p.topic, p.partition) for p in partitions]
            try:
                if tell is not None:
                    tell(went)
            finally:
                self._forget(went)

        self._consumer.subscribe(
            list(topics),
            on_assign=assigned,
            on_revoke=lambda _, partitions: gone(on_revoked, partitions),
            on_lost=lambda _, partitions: gone(on_lost or on_revoked, partitions),
        )

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        if self._closed:
            raise RuntimeError("the source is closed")
        deadline = time.monotonic() + timeout_s
        while True:
            self._take_up_found()
            if self._stuck and time.monotonic() >= self._repair_at:
                self._repair()
            records = self._records(self._consumer.consume(max_records, 0))
            left = deadline - time.monotonic()
            if records or left <= 0:
                return records
            # `consume` waits out its timeout unless it has all it was asked for; `poll` returns with the first message.
            # In slices, because partitions may be found meanwhile.
            first = self._consumer.poll(min(left, _SLICE_S))
            if first is not None:
                records = self._records([first])
                if records:
                    return records + (
                        self._records(self._consumer.consume(max_records - 1, 0)) if max_records > 1 else []
                    )

    def seek(self, offsets: Offsets) -> None:
        self._take_up_found()
        with self._lock:
            unknown = [p for p in offsets if p not in self._reading]
        if unknown:
            raise ValueError(f"not being read: {', '.join(f'{p.topic}-{p.partition}' for p in unknown)}")
        for partition, offset in offsets.items():
            self._stuck.pop(partition, None)
            self._restart(partition, offset)

    def commit(self, offsets: Offsets, *, wait: bool = False) -> bool:
        if not offsets:
            return True
        wanted = [KafkaPartition(p.topic, p.partition, offset) for p, offset in offsets.items()]
        try:
            if wait:
                done = self._consumer.commit(offsets=wanted, asynchronous=False) or []
                return all(p.error is None for p in done)
            self._consumer.commit(offsets=wanted, asynchronous=True)
        except KafkaException as error:
            logger.warning("offsets were not committed: %s", error)
            return False
        return True

    def take_expired(self) -> list[OffsetRange]:
        expired, self._expired = self._expired, []
        return expired

    def end_offsets(self) -> dict[TopicPartition, int]:
        with self._lock:
            return dict(self._ends)

    @property
    def caught_up(self) -> bool:
        with self._lock:
            described = all(topic in self._seen for topic in self._starts)
            return described and not self._found and not self._unread

    @property
    def status(self) -> SourceStatus:
        trouble = self._trouble or self._stuck_why
        if not trouble and time.monotonic() - self._heard_at > _SILENT_S + self._refresh_s:
            trouble = "the broker has fallen silent"
        return SourceStatus(not trouble, trouble)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        self._consumer.close()

    # the caller's thread

    def _records(self, messages: list[Message]) -> list[Record]:
        records: list[Record] = []
        keep = records.append
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_partition_error(message, error)
                continue
            kind, timestamp = message.timestamp()
            keep(
                Record(
                    message.topic(),  # type: ignore[arg-type]  # never None without an error, like the next two
                    message.partition(),  # type: ignore[arg-type]
                    message.offset(),  # type: ignore[arg-type]
                    timestamp if kind else -1,
                    message.key(),
                    message.value(),
                    _headers(message),
                )
            )
        if records:
            self._heard()
        return records

    def _on_partition_error(self, message: Message, error: KafkaError) -> None:
        topic, number = message.topic(), message.partition()
        if topic is None or number is None:
            self._trouble = error.str()
            return
        partition = TopicPartition(topic, number)
        if error.code() == KafkaError._PARTITION_EOF:
            self._unread.discard(partition)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            offset = message.offset()
            self._stuck[partition] = _NO_OFFSET if offset is None else offset
            self._repair_at = 0.0
        elif error.code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
            self._trouble = f"{topic}-{number}: {error.str()}"

    def _repair(self) -> None:
        """Start partitions again whose offset is not there: after a gap from the earliest, and the gap is reported."""
        self._stuck_why = ""
        self._repair_at = time.monotonic() + _RETRY_S
        for partition, wanted in list(self._stuck.items()):
            name = f"{partition.topic}-{partition.partition}"
            try:
                low, high = self._watermarks(partition)
                if wanted < 0:
                    wanted = self._committed(partition)
            except KafkaException as error:
                self._stuck_why = f"{name}: {error}"
                continue
            if wanted > high:
                # The log is shorter than what was read of it: a topic made anew, or a broker that lost its tail. To go
                # on from either end would read twice or miss some, so this stands still until a person decides.
                self._stuck_why = f"{name}: offset {wanted} is beyond the end {high}; was the topic made anew?"
                continue
            if wanted < 0:
                wanted = low if self._start == "earliest" else high
            elif wanted < low:
                logger.warning("%s: %d records expired before they were read", name, low - wanted)
                self._expired.append(OffsetRange(partition.topic, partition.partition, wanted, low))
                wanted = low
            del self._stuck[partition]
            self._restart(partition, wanted)

    def _watermarks(self, partition: TopicPartition) -> tuple[int, int]:
        marks = self._consumer.get_watermark_offsets(KafkaPartition(*partition), timeout=_ASK_TIMEOUT_S)
        if marks is None or marks[1] < 0:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return int(marks[0]), int(marks[1])

    def _committed(self, partition: TopicPartition) -> int:
        (committed,) = self._consumer.committed([KafkaPartition(*partition)], timeout=_ASK_TIMEOUT_S)
        if committed.error is not None:
            raise KafkaException(committed.error)
        return int(committed.offset)

    def _take_up_found(self) -> None:
        with self._lock:
            found, self._found = self._found, []
            self._reading.update(partition for partition, _ in found)
        if found:
            # Without the topics' metadata at hand, the first fetch would begin up to a second later.
            with contextlib.suppress(KafkaException):
                for topic in {partition.topic for partition, _ in found}:
                    self._consumer.list_topics(topic, timeout=_ASK_TIMEOUT_S)
            self._consumer.incremental_assign([KafkaPartition(*partition, start) for partition, start in found])

    def _restart(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`. `seek` is refused while a partition is stopped for an error; this always works."""
        try:
            self._consumer.incremental_unassign([KafkaPartition(*partition)])
            self._consumer.incremental_assign([KafkaPartition(*partition, offset)])
        except KafkaException as error:  # it has just gone to another member
            logger.info("%s-%d is not read any more: %s", *partition, error)

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        with self._lock:
            self._reading.difference_update(partitions)
            for partition in partitions:
                self._ends.pop(partition, None)
        self._unread.difference_update(partitions)
        for partition in partitions:
            self._stuck.pop(partition, None)

    def _on_client_error(self, error: KafkaError) -> None:
        self._trouble = error.str()

    def _heard(self) -> None:
        self._trouble = ""
        self._heard_at = time.monotonic()

    # the watching thread

    def _watch(self) -> None:
        topics_at = 0.0
        while not self._closed:
            try:
                if time.monotonic() >= topics_at:
                    all_there = self._look_for_partitions()
                    topics_at = time.monotonic() + (_TOPICS_EVERY_S if all_there else self._refresh_s)
                self._ask_ends()
                self._heard()
            except KafkaException as error:
                self._trouble = error.args[0].str()
            if self._wake.wait(min(self._refresh_s, _RETRY_S) if self._trouble else self._refresh_s):
                self._wake.clear()
                topics_at = 0.0

    def _look_for_partitions(self) -> bool:
        """Whether every topic assigned is there."""
        # All topics: asked for one by name, a broker may make it, and `items` would not be compacted.
        described = self._admin.list_topics(timeout=_ASK_TIMEOUT_S).topics
        with self._lock:
            topics = list(self._starts)
        for topic in topics:
            there = described.get(topic)
            if there is not None and there.error is not None:
                raise KafkaException(there.error)
            self._note_partitions(topic, set(there.partitions) if there is not None else set())
        return all(topic in described for topic in topics)

    def _note_partitions(self, topic: str, numbers: set[int]) -> None:
        with self._lock:
            first_look = topic not in self._seen
            known = self._seen.setdefault(topic, set())
            for number in sorted(numbers - known):
                partition = TopicPartition(topic, number)
                # One that appeared later is new as a whole, so its first record has offset 0.
                start = self._starts[topic].get(number, _FROM_BEGINNING if first_look else 0)
                self._found.append((partition, start))
                if first_look:
                    self._unread.add(partition)
            known |= numbers

    def _ask_ends(self) -> None:
        with self._lock:
            reading = sorted(self._reading)
        if not reading:
            return
        latest: Any = _OffsetSpec.latest()  # type: ignore[no-untyped-call]
        answers = self._admin.list_offsets(
            {KafkaPartition(*p): latest for p in reading}, request_timeout=_ASK_TIMEOUT_S
        )
        for asked, answer in answers.items():
            partition, end = TopicPartition(asked.topic, asked.partition), answer.result().offset
            with self._lock:
                if partition in self._reading:
                    self._ends[partition] = end


def _headers(message: Message) -> Headers:
    try:
        headers = message.headers()
    except UnicodeDecodeError:  # a header's name is not UTF-8; the record is worth more than its headers
        return ()
    return tuple(headers) if headers else ()  # type: ignore[arg-type]  # values are bytes or None
