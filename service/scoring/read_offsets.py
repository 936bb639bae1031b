"""How far each partition has been read, and what of that may be committed. Pure: no I/O, the clock is passed in.

An offset has three stations: `read`, once its record is in a history; `stored`, once that history is in Redis;
`committable`, once it has been there for so long that a failover cannot lose it any more.
"""

import math
from collections import deque
from collections.abc import Iterable

from consumers.records import Record, TopicPartition

COMMIT_AFTER_S = 5.0  # a failover may lose younger writes, so their records must still be read again from Kafka


class ReadOffsets:
    """The offsets of the assigned partitions. Those of other partitions are committed by the scorers that read them."""

    def __init__(self, commit_after_s: float = COMMIT_AFTER_S) -> None:
        self.next: dict[TopicPartition, int] = {}  # the offset to read next, of partitions read from
        self._commit_after_s = commit_after_s
        self._assigned: set[TopicPartition] = set()
        self._stored: deque[tuple[float, dict[TopicPartition, int]]] = deque()  # when, and `next` then; latest last

    @property
    def assigned(self) -> list[TopicPartition]:
        return sorted(self._assigned)

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        self._assigned.update(partitions)

    def lose(self, partitions: Iterable[TopicPartition]) -> None:
        for where in partitions:
            self._assigned.discard(where)
            self.next.pop(where, None)
            for _, offsets in self._stored:
                offsets.pop(where, None)

    def read(self, records: Iterable[Record]) -> None:
        """To be called when these records are in histories, or are left out."""
        for record in records:
            where = TopicPartition(record.topic, record.partition)
            if where in self._assigned:
                self.next[where] = record.offset + 1

    def stored(self, now: float) -> None:
        """To be called when everything read is in Redis. `now`: seconds of the passed clock."""
        self._stored.append((now, dict(self.next)))

    def committable(self, now: float) -> dict[TopicPartition, int]:
        """The offsets that were stored at least `commit_after_s` ago; each is returned once."""
        old: dict[TopicPartition, int] = {}
        while self._stored and self._stored[0][0] <= now - self._commit_after_s:
            old = self._stored.popleft()[1]
        return old

    def begin_anew(self) -> None:
        """To be called when the topic was made anew: nothing has been read of it, and offset 0 may be committed."""
        self.next = dict.fromkeys(self._assigned, 0)
        self._stored = deque([(-math.inf, dict(self.next))])
