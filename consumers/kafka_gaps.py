"""Partitions whose log does not have the offset to read next: where reading goes on, and which records are lost."""

import logging
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from consumers.records import OffsetRange, TopicPartition

logger = logging.getLogger(__name__)

_ASK_TIMEOUT_S = 2.0
_RETRY_S = 0.5
_NO_OFFSET = -1


class KafkaGaps:
    """Used by the thread that polls, and by no other."""

    def __init__(self) -> None:
        self.why = ""  # why partitions are stuck, for people; '' if none is
        self._stuck: dict[TopicPartition, int] = {}  # -> the missing offset
        self._expired: list[OffsetRange] = []
        self._look_at = 0.0

    def note(self, partition: TopicPartition, offset: int | None) -> None:
        """The partition's log does not have `offset`; None: the offset that the group has committed."""
        self._stuck[partition] = _NO_OFFSET if offset is None else offset
        self._look_at = 0.0

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are read from elsewhere, or by another member."""
        for partition in partitions:
            self._stuck.pop(partition, None)
        if not self._stuck:
            self.why = ""

    def take_expired(self) -> list[OffsetRange]:
        """The ranges of expired records found since the last call."""
        expired, self._expired = self._expired, []
        return expired

    def mended(self, consumer: Consumer, now: float) -> list[tuple[TopicPartition, int]]:
        """The partitions that can be read on, and from which offset; asks the broker, at most every half second.

        A partition with expired records goes on at the earliest one left, and the gap is kept for `take_expired`. May
        block for up to 2 s a request. now: `time.monotonic()`.
        """
        if not self._stuck or now < self._look_at:
            return []
        self.why, self._look_at = "", now + _RETRY_S
        going_on: list[tuple[TopicPartition, int]] = []
        for partition, wanted in list(self._stuck.items()):
            name = partition.name
            try:
                low, high = _watermarks(consumer, partition)
                if wanted < 0:
                    wanted = _committed(consumer, partition)
            except KafkaException as error:
                self.why = f"{name}: {error.args[0].str()}"
                continue
            if wanted > high:
                # The log is shorter than what was read of it: the topic was made anew, or the broker lost its tail.
                # From the earliest record some would be read twice, from the end some would be missed. A person must
                # decide.
                self.why = f"{name}: offset {wanted} is beyond the end {high}; was the topic made anew?"
                continue
            if wanted < 0:
                wanted = low  # the group has committed nothing
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
