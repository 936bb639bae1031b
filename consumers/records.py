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


def offsets_out(offsets: Offsets) -> list[tuple[str, int, int]]:
    """Offsets as JSON can carry them."""
    return [(p.topic, p.partition, offset) for p, offset in offsets.items()]


def offsets_in(offsets: Iterable[tuple[str, int, int]]) -> dict[TopicPartition, int]:
    """What `offsets_out` made, read back."""
    return {TopicPartition(topic, partition): offset for topic, partition, offset in offsets}


def by_topic(offsets: Offsets) -> dict[str, dict[str, int]]:
    """Offsets as manifests and lists name them: topic -> partition -> the offset to read next, in order.

    >>> by_topic({TopicPartition("events", 10): 7, TopicPartition("events", 2): 5})
    {'events': {'2': 5, '10': 7}}
    """
    named: dict[str, dict[str, int]] = {}
    for (topic, partition), offset in sorted(offsets.items()):
        named.setdefault(topic, {})[str(partition)] = offset
    return named


def from_topics(named: Mapping[str, Mapping[str, int]]) -> dict[TopicPartition, int]:
    """What `by_topic` made, read back."""
    return {
        TopicPartition(topic, int(partition)): offset
        for topic, partitions in named.items()
        for partition, offset in partitions.items()
    }
