"""Partitions that do not have the offset they were to be read from: where each goes on, and what was lost."""

import logging
from collections.abc import Iterable
from typing import Literal

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from consumers.records import OffsetRange, TopicPartition

logger = logging.getLogger(__name__)

_ASK_TIMEOUT_S = 2.0
_RETRY_S = 0.5
_NO_OFFSET = -1


class KafkaGaps:
    """Used by one thread, the one that polls."""

    def __init__(self, start: Literal["earliest", "latest"]) -> None:
        """`start`: where a group member begins without a committed offset."""
        self.why = ""  # what keeps partitions standing still, for people; '' where nothing does
        self._start = start
        self._stuck: dict[TopicPartition, int] = {}  # -> the offset it was to be read from
        self._expired: list[OffsetRange] = []
        self._look_at = 0.0

    def note(self, partition: TopicPartition, offset: int | None) -> None:
        """It does not have `offset`; None: where the group has committed."""
        self._stuck[partition] = _NO_OFFSET if offset is None else offset
        self._look_at = 0.0

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """They go on elsewhere, or are not read any more."""
        for partition in partitions:
            self._stuck.pop(partition, None)
        if not self._stuck:
            self.why = ""

    def take_expired(self) -> list[OffsetRange]:
        """The stretches lost, found since the last call."""
        expired, self._expired = self._expired, []
        return expired

    def mended(self, consumer: Consumer, now: float) -> list[tuple[TopicPartition, int]]:
        """The partitions that can go on, and where: behind a gap, which is taken down, from the earliest record."""
        if not self._stuck or now < self._look_at:
            return []
        self.why, self._look_at = "", now + _RETRY_S
        going_on: list[tuple[TopicPartition, int]] = []
        for partition, wanted in list(self._stuck.items()):
            name = f"{partition.topic}-{partition.partition}"
            try:
                low, high = _watermarks(consumer, partition)
                if wanted < 0:
                    wanted = _committed(consumer, partition)
            except KafkaException as error:
                self.why = f"{name}: {error.args[0].str()}"
                continue
            if wanted > high:
                # The log is shorter than what was read of it: a topic made anew, or a broker that lost its tail. To go
                # on from either end would read twice or miss some, so this stands still until a person decides.
                self.why = f"{name}: offset {wanted} is beyond the end {high}; was the topic made anew?"
                continue
            if wanted < 0:
                wanted = low if self._start == "earliest" else high
            elif wanted < low:
                logger.warning("%s: %d records expired before they were read", name, low - wanted)
                self._expired.append(OffsetRange(partition.topic, partition.partition, wanted, low))
                wanted = low
            del self._stuck[partition]
            going_on.append((partition, wanted))
        return going_on


def _watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    marks = consumer.get_watermark_offsets(KafkaPartition(*partition), timeout=_ASK_TIMEOUT_S)
    if marks is None or marks[1] < 0:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return int(marks[0]), int(marks[1])


def _committed(consumer: Consumer, partition: TopicPartition) -> int:
    (committed,) = consumer.committed([KafkaPartition(*partition)], timeout=_ASK_TIMEOUT_S)
    if committed.error is not None:
        raise KafkaException(committed.error)
    return int(committed.offset)
