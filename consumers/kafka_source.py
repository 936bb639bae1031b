"""`EventSource` over Kafka.

`KafkaWatch` asks for ends and new partitions, `KafkaGaps` finds where to go on behind expired records, and `Reading`
knows whether this client can read.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from consumers.kafka_clients import KafkaConfig, make_admin, make_consumer, reading_settings
from consumers.kafka_gaps import KafkaGaps
from consumers.kafka_watch import ASK_TIMEOUT_S, KafkaWatch
from consumers.reading import Reading
from consumers.records import Headers, OffsetRange, Offsets, Record, TopicPartition
from consumers.source import OnPartitions, SourceStatus

logger = logging.getLogger(__name__)

_WHERE_COMMITTED = -1001  # librdkafka's OFFSET_INVALID: begin where the group has committed
_ASK_AGAIN_S = 3.0  # a partition that the broker refused is asked for again after this
_JOIN_ANEW_S = 5.0  # at least, between two replacements of a client that failed for good
_SLICE_S = 0.1  # of a poll's timeout, between two looks for new partitions


class KafkaSource:
    """Reads Kafka through librdkafka. A group member without a committed offset begins at the earliest record."""

    def __init__(
        self,
        bootstrap: str,
        group_id: str,
        *,
        session_timeout_ms: int = 6000,
        refresh_s: float = 1.0,
        extra: KafkaConfig | None = None,
    ) -> None:
        """`refresh_s`: how often the broker is asked for ends. `extra`: more librdkafka settings (TLS, SASL)."""
        settings = reading_settings(group_id, session_timeout_ms)
        self._group_id, self._gaps = group_id, KafkaGaps()
        settings |= {"error_cb": self._on_client_error, "stats_cb": self._on_statistics}
        self._make = functools.partial(make_consumer, bootstrap, settings, extra)
        self._consumer = self._make()
        self._subscription: Callable[[], None] | None = None  # subscribes `_consumer`
        self._reading = Reading(time.monotonic)
        self._watch = KafkaWatch(make_admin(bootstrap, extra), refresh_s)
        self._closed = False

        self._begun_at: dict[TopicPartition, int] = {}  # the offset a partition was last assigned at
        self._unread: set[TopicPartition] = set()  # partitions not yet read to their end for the first time
        self._ask_again_at = self._join_anew_at = 0.0
        self._watch.start()

    def assign(self, topics: Mapping[str, Mapping[int, int]]) -> None:
        self._watch.follow(topics)

    def subscribe(
        self,
        topics: Sequence[str],
        on_assigned: OnPartitions | None = None,
        on_revoked: OnPartitions | None = None,
        on_lost: OnPartitions | None = None,
    ) -> None:
        def assigned(consumer: Consumer, partitions: list[KafkaPartition]) -> None:
            if consumer is not self._consumer:  # a client that was replaced
                return
            came = [TopicPartition(p.topic, p.partition) for p in partitions]
            self._begun_at.update(dict.fromkeys(came, _WHERE_COMMITTED))
            self._reading.take_up(came)
            self._unread.update(came)
            self._watch.read(came)
            if came and on_assigned is not None:
                on_assigned(came)

        def gone(tell: OnPartitions | None, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
            if consumer is self._consumer:
                self._lose([TopicPartition(p.topic, p.partition) for p in partitions], tell)

        def subscribe() -> None:
            self._on_lost = on_lost or on_revoked
            self._consumer.subscribe(
                list(topics),
                on_assign=assigned,
                on_revoke=lambda consumer, partitions: gone(on_revoked, consumer, partitions),
                on_lost=lambda consumer, partitions: gone(on_lost or on_revoked, consumer, partitions),
            )

        self._reading = Reading(time.monotonic, self._group_id)
        self._watch.explain_group(self._group_id, topics)
        self._subscription = subscribe
        subscribe()

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        if self._closed:
            raise RuntimeError("the source is closed")
        deadline = time.monotonic() + timeout_s
        while True:
            self._mend()
            records = self._records(self._consumer.consume(max_records, 0))
            left = deadline - time.monotonic()
            if records or left <= 0:
                break
            # `consume` waits out its timeout unless it gets as many as it was asked for; `poll` returns with the first.
            first = self._consumer.poll(min(left, _SLICE_S))
            if first is not None:
                records = self._records([first])
                if records:
                    if max_records > 1:
                        records += self._records(self._consumer.consume(max_records - 1, 0))
                    break
        if not records:
            self._reading.polled(self._watch.ends())
        return records

    def seek(self, offsets: Offsets) -> None:
        self._take_up_found()
        unknown = [p for p in offsets if not self._watch.reads(p)]
        if unknown:
            raise ValueError(f"not being read: {', '.join(p.name for p in unknown)}")
        self._gaps.forget(offsets)
        for partition, offset in offsets.items():
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
        return self._gaps.take_expired()

    def end_offsets(self) -> dict[TopicPartition, int]:
        return self._watch.ends()

    def positions(self) -> dict[TopicPartition, int]:
        return self._reading.positions()

    @property
    def caught_up(self) -> bool:
        return self._watch.all_taken and not self._unread

    @property
    def status(self) -> SourceStatus:
        trouble = self._reading.trouble() or self._gaps.why or self._watch.trouble
        if trouble:
            return SourceStatus(False, trouble)
        return SourceStatus(True, self._reading.note or self._watch.group_note)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._watch.close()
        if not self._reading.fatal:
            self._consumer.close()

    # what the client receives

    def _records(self, messages: list[Message]) -> list[Record]:
        records: list[Record] = []
        keep = records.append
        positions: dict[tuple[str, int], int] = {}
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_error(message, error, positions)
                continue
            kind, timestamp = message.timestamp()
            record = Record(
                message.topic(),  # type: ignore[arg-type]  # never None without an error, like the next two
                message.partition(),  # type: ignore[arg-type]
                message.offset(),  # type: ignore[arg-type]
                timestamp if kind else -1,
                message.key(),
                message.value(),
                _headers(message),
            )
            keep(record)
            positions[record.topic, record.partition] = record.offset + 1
        for where, position in positions.items():
            self._reading.received(TopicPartition(*where), position)
        return records

    def _on_error(self, message: Message, error: KafkaError, positions: dict[tuple[str, int], int]) -> None:
        """Handle an error that came in place of a record. `positions`: those reached by these messages, updated."""
        topic, number, offset = message.topic(), message.partition(), message.offset()
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._reading.failed_for_good(error.str())
        elif topic is None:
            self._reading.group_failed(error.str())
        elif number is None or number < 0:
            if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:  # a topic that is not there yet is waited for
                self._reading.topic_refused(topic, error.str())
        elif error.code() == KafkaError._PARTITION_EOF:
            # The end may be beyond the last record and one: transaction markers lie between.
            positions[topic, number] = offset or 0
            self._unread.discard(TopicPartition(topic, number))
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._gaps.note(TopicPartition(topic, number), offset)
        elif error.code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
            self._reading.refused(TopicPartition(topic, number), error.str())

    def _on_client_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._reading.failed_for_good(error.str())
        else:
            self._reading.connection_failed(error.str())

    def _on_statistics(self, text: str) -> None:
        statistics = orjson.loads(text)
        if any(broker["state"] == "UP" for broker in statistics["brokers"].values()):
            self._reading.connected()
        self._reading.in_group(statistics["cgrp"]["join_state"] == "steady")
        self._watch.idle_member = self._reading.member and not self._reading.partitions

    # starting and restarting partitions, on the caller's thread

    def _mend(self) -> None:
        """Assign new partitions, and restart those whose reading has stopped."""
        now = time.monotonic()
        if self._reading.fatal and now >= self._join_anew_at:
            self._join_anew()
        self._take_up_found()
        for partition, offset in self._gaps.mended(self._consumer, now):
            self._restart(partition, offset)
        if now >= self._ask_again_at:
            self._ask_again_at = now + _ASK_AGAIN_S
            for partition in self._reading.refusals:  # a client reports an error once, and not when it is over
                self._restart(partition, self._where(partition))

    def _take_up_found(self) -> None:
        found = self._watch.take_found()
        if not found:
            return
        # Loads the topics' metadata: without it the first fetch would begin up to a second later.
        with contextlib.suppress(KafkaException):
            for topic in {partition.topic for partition, _ in found}:
                self._consumer.list_topics(topic, timeout=ASK_TIMEOUT_S)
        for partition, start in found:
            self._begun_at[partition] = start
            self._unread.add(partition)
            self._reading.take_up([partition], start if start >= 0 else None)
        self._consumer.incremental_assign([KafkaPartition(*partition, start) for partition, start in found])

    def _where(self, partition: TopicPartition) -> int:
        """Where to go on: at the position, or where the partition was assigned if nothing has come yet."""
        position = self._reading.position(partition)
        return self._begun_at.get(partition, _WHERE_COMMITTED) if position is None else position

    def _restart(self, partition: TopicPartition, offset: int) -> None:
        """Read on from `offset`. The client's `seek` fails while a partition is stopped by an error; this does not."""
        try:
            self._consumer.incremental_unassign([KafkaPartition(*partition)])
            self._consumer.incremental_assign([KafkaPartition(*partition, offset)])
        except KafkaException as error:  # the partition has just gone to another member
            logger.info("%s cannot be read on: %s", partition.name, error)
            return
        self._begun_at[partition] = offset
        if offset >= 0:
            self._reading.moved(partition, offset)

    def _join_anew(self) -> None:
        """Replace a client that has failed for good by a new one, which reads on where that one stopped."""
        why, reading = self._reading.fatal, self._reading.partitions
        logger.error("the Kafka client has failed for good, so another one goes on: %s", why)
        self._join_anew_at = time.monotonic() + _JOIN_ANEW_S
        going_on = [(partition, self._where(partition)) for partition in reading]
        # The one that failed is let go, not closed: closing it may never end, with a core busy for as long.
        self._consumer = self._make()
        self._reading = self._reading.anew(f"joining anew, after: {why}")
        self._gaps.forget(reading)
        if self._subscription is not None:
            self._lose(reading, self._on_lost)
            self._subscription()
        else:
            for partition, offset in going_on:
                self._reading.take_up([partition], offset if offset >= 0 else None)
            self._consumer.incremental_assign([KafkaPartition(*partition, offset) for partition, offset in going_on])

    def _lose(self, partitions: Sequence[TopicPartition], tell: OnPartitions | None) -> None:
        try:
            if partitions and tell is not None:
                tell(partitions)
        finally:
            self._watch.forget(partitions)
            self._reading.give_up(partitions)
            self._unread.difference_update(partitions)
            self._gaps.forget(partitions)


def _headers(message: Message) -> Headers:
    try:
        headers = message.headers()
    except UnicodeDecodeError:  # a header's name is not UTF-8: read the record without its headers
        return ()
    return tuple(headers) if headers else ()  # type: ignore[arg-type]  # values are bytes or None
