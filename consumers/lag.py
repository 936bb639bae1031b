"""How far a reader is behind the ends of its partitions, in records and in seconds. Pure: the clock is passed in.

Seconds are counted by this process's clock, from when it first heard of an end beyond the position. Kafka's timestamps
come from other clocks: a producer that writes seconds, a clock an hour ahead, or records copied from another cluster
would hide a lag or make one up. So records older than this process count from its start.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from consumers.records import Offsets, TopicPartition

MARKS = 512  # per partition; with them a lag in seconds is known to within a 250th of its length


@dataclass(slots=True)
class _Heard:
    """The ends of one partition and when each was first heard of, oldest first; never empty once added to."""

    marks: deque[tuple[float, int]] = field(default_factory=deque)
    apart_s: float = 0.0  # ends heard of within so many seconds share a mark, with the time of the first

    def add(self, now: float, end: int) -> None:
        if self.marks and end < self.end:
            self.marks.clear()  # another log of the same name
        if not self.marks:
            self.marks.append((now, end))
        elif end > self.end:
            self._join(now, end)
            if len(self.marks) > MARKS:
                self._thin()

    @property
    def end(self) -> int:
        return self.marks[-1][1]

    def since(self, position: int) -> float | None:
        """When an end beyond `position` was first heard of; None if none was. Forgets the marks before it."""
        while len(self.marks) > 1 and self.marks[0][1] <= position:
            self.marks.popleft()
        if len(self.marks) == 1:
            self.apart_s = 0.0
        return self.marks[0][0] if self.marks[0][1] > position else None

    def _join(self, now: float, end: int) -> None:
        at = self.marks[-1][0]
        if now - at < self.apart_s:
            self.marks[-1] = (at, end)
        else:
            self.marks.append((now, end))

    def _thin(self) -> None:
        marks, self.marks = self.marks, deque([self.marks[0]])
        self.apart_s = 2 * (marks[-1][0] - marks[0][0]) / MARKS
        for now, end in list(marks)[1:]:
            self._join(now, end)


class Lag:
    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` counts seconds and never goes back."""
        self._clock = clock
        self._heard: dict[TopicPartition, _Heard] = {}

    def ends(self, ends: Offsets) -> None:
        """The partitions' ends (the offset of the next record to be appended), as just heard."""
        now = self._clock()
        for partition, end in ends.items():
            self._heard.setdefault(partition, _Heard()).add(now, end)

    def keep(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget all partitions but these."""
        kept = set(partitions)
        self._heard = {partition: heard for partition, heard in self._heard.items() if partition in kept}

    def of_partitions(self, positions: Offsets) -> dict[TopicPartition, int]:
        """Per partition, how many records are not taken in, by the end last heard. `positions`: a missing one is 0."""
        return {p: max(0, heard.end - positions.get(p, 0)) for p, heard in self._heard.items()}

    def events(self, positions: Offsets) -> int:
        """The sum of `of_partitions`."""
        return sum(self.of_partitions(positions).values())

    def seconds(self, positions: Offsets, unheard_s: float = 0.0) -> float:
        """The age in seconds of the oldest record not yet taken in; 0 at the end.

        `unheard_s`: seconds since the ends were last heard; the result is at least that, as there may be newer records.
        """
        now = self._clock()
        since = (heard.since(positions.get(partition, 0)) for partition, heard in self._heard.items())
        return max([unheard_s, *(now - at for at in since if at is not None)])
