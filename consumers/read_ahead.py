"""A bounded buffer of records that were read before their batch is asked for. Pure.

A source returns the records of all partitions at its own pace, and batches want them in another mixture: one partition
may be read to its end long before its records are wanted. When too many are held, the newest ones of the partition that
holds the most are dropped, and read again when they are wanted.
"""

from collections import deque
from collections.abc import Iterable, Mapping

from consumers.records import OffsetRange, Offsets, Record, TopicPartition


class ReadAhead:
    def __init__(self, ends: Offsets, most: int) -> None:
        """ends: the partitions that are wanted, each up to this offset. most: how many records to hold in all, besides
        those of the range that is being asked for."""
        self.held = 0  # records
        self._ends, self._most = ends, most
        self._records: Mapping[TopicPartition, deque[Record]] = {where: deque() for where in ends}
        self._let_go: dict[TopicPartition, int] = {}  # the first offset that was dropped; later ones are not held

    def add(self, records: Iterable[Record], asked: OffsetRange) -> None:
        """Take records that were read, in offset order. Those of `asked`, the range in request, are always kept."""
        for record in records:
            where = TopicPartition(record.topic, record.partition)
            if where in self._let_go or record.offset >= self._ends.get(where, 0):
                continue
            self._records[where].append(record)
            self.held += 1
            if self.held > self._most:
                self._let_some_go(asked)

    def take(self, asked: OffsetRange) -> list[Record]:
        """The records of a range; they and all before them are then no longer held."""
        held, taken = self._records[TopicPartition(asked.topic, asked.partition)], list[Record]()
        while held and held[0].offset < asked.end:
            taken.append(held.popleft())
        self.held -= len(taken)
        return [record for record in taken if record.offset >= asked.start]

    def let_go(self, where: TopicPartition) -> int | None:
        """The first offset of a partition whose record was read and dropped; None if none was."""
        return self._let_go.get(where)

    def read_again(self, where: TopicPartition) -> None:
        """To be called when the source is set back to the dropped records: they are kept again."""
        del self._let_go[where]

    def _let_some_go(self, asked: OffsetRange) -> None:
        """Drop the newer half of the records beyond `asked` of the partition that holds most of them."""
        spare = {where: self._beyond(where, asked) for where in self._records}
        where = max(spare, key=lambda each: spare[each])
        for _ in range((spare[where] + 1) // 2):
            self._let_go[where] = self._records[where].pop().offset
            self.held -= 1

    def _beyond(self, where: TopicPartition, asked: OffsetRange) -> int:
        held = self._records[where]
        if where != (asked.topic, asked.partition):
            return len(held)
        return sum(record.offset >= asked.end for record in held)
