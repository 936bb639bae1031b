"""The vocabulary of a stream: topics and partitions, records, offsets."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

Headers = tuple[tuple[str, bytes | None], ...]


class TopicPartition(NamedTuple):
    topic: str
    partition: int

    @property
    def name(self) -> str:
        """As messages name it: `events-0`."""
        return f"{self.topic}-{self.partition}"


class Record(NamedTuple):
    """One Kafka record, its bytes untouched, so that a reject can be forwarded as it came."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int  # Kafka's timestamp, epoch milliseconds; -1 if it has none
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
    """The offsets to read next after `ranges`; of several ranges of a partition the last one counts."""
    return {TopicPartition(r.topic, r.partition): r.end for r in ranges}


def offsets_out(offsets: Offsets) -> list[tuple[str, int, int]]:
    """Offsets for JSON."""
    return [(p.topic, p.partition, offset) for p, offset in offsets.items()]


def offsets_in(offsets: Iterable[tuple[str, int, int]]) -> dict[TopicPartition, int]:
    """The offsets that `offsets_out` wrote."""
    return {TopicPartition(topic, partition): offset for topic, partition, offset in offsets}


def by_topic(offsets: Offsets) -> dict[str, dict[str, int]]:
    """Offsets as manifests and lists have them: topic -> partition -> the offset to read next, sorted.

    >>> by_topic({TopicPartition("events", 10): 7, TopicPartition("events", 2): 5})
    {'events': {'2': 5, '10': 7}}
    """
    named: dict[str, dict[str, int]] = {}
    for (topic, partition), offset in sorted(offsets.items()):
        named.setdefault(topic, {})[str(partition)] = offset
    return named


def from_topics(named: Mapping[str, Mapping[str, int]]) -> dict[TopicPartition, int]:
    """The offsets that `by_topic` wrote."""
    return {
        TopicPartition(topic, int(partition)): offset
        for topic, partitions in named.items()
        for partition, offset in partitions.items()
    }
