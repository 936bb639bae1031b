"""The vocabulary of a stream: a record, where it stands, and how far one has read."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

Headers = tuple[tuple[str, bytes | None], ...]


class TopicPartition(NamedTuple):
    topic: str
    partition: int


class Record(NamedTuple):
    """One Kafka record as it was read: bytes are untouched, so that a reject can be forwarded as it came."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int  # Kafka's timestamp, epoch milliseconds; -1 where the broker gave none
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


Offsets = Mapping[TopicPartition, int]
"""Per partition, the offset to read next (one past the last record taken)."""


class OffsetRange(NamedTuple):
    """The records `start` (inclusive) to `end` (exclusive) of one partition."""

    topic: str
    partition: int
    start: int
    end: int


def next_offsets(ranges: Iterable[OffsetRange]) -> dict[TopicPartition, int]:
    """The offsets to read next after `ranges`, which may name a partition several times, in order."""
    return {TopicPartition(r.topic, r.partition): r.end for r in ranges}
