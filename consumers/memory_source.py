"""`EventSource` over a log in memory, for tests."""

import threading
import time
from collections.abc import Mapping, Sequence
from zlib import crc32

from consumers.records import Headers, OffsetRange, Offsets, Record, TopicPartition
from consumers.source import OnPartitions, SourceStatus


class MemoryLog:
    """Partitions of records, with expiry and the groups' committed offsets. Safe to share between threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.records: dict[TopicPartition, list[Record]] = {}  # those that have not expired
        self.marks: set[tuple[TopicPartition, int]] = set()  # offsets of transaction markers
        self.first: dict[TopicPartition, int] = {}  # offset of the earliest record left, or the end
        self.committed: dict[tuple[str, TopicPartition], int] = {}  # per group

    def create(self, topic: str, partitions: int) -> None:
        """Make a topic, or add partitions to it until it has `partitions`."""
        with self.changed:
            for number in range(partitions):
                self.records.setdefault(TopicPartition(topic, number), [])
                self.first.setdefault(TopicPartition(topic, number), 0)
            self.changed.notify_all()

    def append(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int = -1,
        headers: Headers = (),
    ) -> Record:
        """Append one record to an existing topic. Without `partition` the key decides; without a key it is 0."""
        with self.changed:
            if partition is None:
                partition = 0 if key is None else crc32(key) % len(self.partitions(topic))
            at = TopicPartition(topic, partition)
            record = Record(topic, partition, self.end(at), timestamp_ms, key, value, headers)
            self.records[at].append(record)
            self.changed.notify_all()
        return record

    def mark(self, topic: str, partition: int) -> None:
        """Append a transaction marker, which takes an offset and is not returned to readers."""
        with self.changed:
            at = TopicPartition(topic, partition)
            self.marks.add((at, self.append(topic, None, partition=partition).offset))

    def expire(self, partition: TopicPartition, before: int) -> None:
        """Drop the records before offset `before`, as retention does."""
        with self.changed:
            gone = max(0, min(before, self.end(partition)) - self.first[partition])
            del self.records[partition][:gone]
            self.first[partition] += gone

    def partitions(self, topic: str) -> list[TopicPartition]:
        with self.changed:
            return sorted(p for p in self.records if p.topic == topic)

    def end(self, partition: TopicPartition) -> int:
        """The offset of the next record to be appended."""
        with self.changed:
            return self.first[partition] + len(self.records[partition])


class MemorySource:
    """Reads a `MemoryLog`. A group has one member: whoever subscribes gets every partition at the next poll."""

    def __init__(self, log: MemoryLog, group_id: str = "") -> None:
        self._log = log
        self._group_id = group_id
        self._closed = False
        self._starts: dict[str, Mapping[int, int]] = {}
        self._seen: set[str] = set()  # topics looked at before: partitions found later are new
        self._positions: dict[TopicPartition, int] = {}
        self._unread: dict[TopicPartition, int] = {}  # partition -> its end when it was first seen
        self._subscribed: tuple[Sequence[str], OnPartitions | None, OnPartitions | None] | None = None
        self._expired: list[OffsetRange] = []

    def assign(self, topics: Mapping[str, Mapping[int, int]]) -> None:
        self._starts.update({topic: dict(starts) for topic, starts in topics.items()})
        self._find_partitions()

    def subscribe(
        self,
        topics: Sequence[str],
        on_assigned: OnPartitions | None = None,
        on_revoked: OnPartitions | None = None,
        on_lost: OnPartitions | None = None,
    ) -> None:
        self._subscribed = (tuple(topics), on_assigned, on_revoked)

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        if self._closed:
            raise RuntimeError("the source is closed")
        deadline = time.monotonic() + timeout_s
        with self._log.changed:
            while True:
                self._find_partitions()
                records = self._take(max_records)
                left = deadline - time.monotonic()
                if records or left <= 0:
                    return records
                self._log.changed.wait(left)

    def seek(self, offsets: Offsets) -> None:
        self._find_partitions()
        unknown = [p for p in offsets if p not in self._positions]
        if unknown:
            raise ValueError(f"not being read: {', '.join(p.name for p in unknown)}")
        self._positions.update(offsets)

    def commit(self, offsets: Offsets, *, wait: bool = False) -> bool:
        with self._log.changed:
            self._log.committed.update({(self._group_id, p): offset for p, offset in offsets.items()})
        return True

    def take_expired(self) -> list[OffsetRange]:
        expired, self._expired = self._expired, []
        return expired

    def end_offsets(self) -> dict[TopicPartition, int]:
        with self._log.changed:
            return {p: self._log.end(p) for p in self._positions}

    def positions(self) -> dict[TopicPartition, int]:
        return dict(self._positions)

    @property
    def caught_up(self) -> bool:
        return not self._unread

    @property
    def status(self) -> SourceStatus:
        for p, position in self._positions.items():
            end = self._log.end(p)
            if position > end:
                return SourceStatus(False, f"{p.name}: offset {position} is beyond the end {end}")
        return SourceStatus()

    def close(self) -> None:
        if not self._closed and self._subscribed is not None and self._positions:
            on_revoked = self._subscribed[2]
            if on_revoked is not None:
                on_revoked(sorted(self._positions))
        self._closed = True

    def _find_partitions(self) -> None:
        for topic, starts in self._starts.items():
            self._take_up(topic, starts)
        if self._subscribed is not None:
            topics, on_assigned, _ = self._subscribed
            came = [p for topic in topics for p in self._take_up(topic, self._committed(topic))]
            if came and on_assigned is not None:
                on_assigned(came)

    def _take_up(self, topic: str, starts: Mapping[int, int]) -> list[TopicPartition]:
        came = [p for p in self._log.partitions(topic) if p not in self._positions]
        for p in came:
            first_look = topic not in self._seen
            self._positions[p] = starts.get(p.partition, self._log.first[p] if first_look else 0)
            if first_look and self._positions[p] < self._log.end(p):
                self._unread[p] = self._log.end(p)
        self._seen.add(topic)
        return came

    def _committed(self, topic: str) -> dict[int, int]:
        committed = self._log.committed
        return {
            p.partition: offset
            for (group, p), offset in committed.items()
            if (group, p.topic) == (self._group_id, topic)
        }

    def _take(self, max_records: int) -> list[Record]:
        taken: list[Record] = []
        for p, position in self._positions.items():
            first = self._log.first[p]
            if position < first:
                self._expired.append(OffsetRange(p.topic, p.partition, position, first))
                position = first
            # A slice that starts beyond the end is empty: such a partition stands still.
            while fresh := self._log.records[p][position - first :][: max_records - len(taken)]:
                taken += [record for record in fresh if (p, record.offset) not in self._log.marks]
                position += len(fresh)
            self._positions[p] = position
            if self._positions[p] >= self._unread.get(p, 0):
                self._unread.pop(p, None)
        return taken
