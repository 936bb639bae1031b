"""How far a reader is behind the ends of its partitions, in records and in seconds. Pure: the clock is passed in.

Seconds are counted by this process's own clock, from when it first heard of an end beyond where reading stands. Kafka's
timestamps are other people's clocks: a producer that writes seconds, a clock that is an hour ahead, or records copied
from another cluster would hide a lag or make one up. So records that were there before this process count from its
start.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from consumers.records import Offsets, TopicPartition

MARKS = 512  # a partition; a lag that was heard of in more steps is known to within a 250th of its length


@dataclass(slots=True)
class _Heard:
    """The ends of one partition, each with when it was first heard of; oldest first, and never none."""

    marks: deque[tuple[float, int]] = field(default_factory=deque)
    apart_s: float = 0.0  # ends that were heard of within so long of each other are one mark, as old as the first

    def add(self, now: float, end: int) -> None:
        if self.marks and end < self.end:
            self.marks.clear()  # another log by the same name
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
        """When an end beyond `position` was first heard of; None where none was. What is before it is forgotten."""
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
        """Others than these are not read here any more."""
        kept = set(partitions)
        self._heard = {partition: heard for partition, heard in self._heard.items() if partition in kept}

    def of_partitions(self, positions: Offsets) -> dict[TopicPartition, int]:
        """Records not yet taken in, by what was heard last. `positions`: the offset to take in next, else 0."""
        return {p: max(0, heard.end - positions.get(p, 0)) for p, heard in self._heard.items()}

    def events(self, positions: Offsets) -> int:
        """The same of all partitions."""
        return sum(self.of_partitions(positions).values())

    def seconds(self, positions: Offsets, unheard_s: float = 0.0) -> float:
        """How long ago there first was a record that is not yet taken in; 0 at the end.

        `unheard_s`: for how long nobody has heard where the ends are: there may be records as old.
        """
        now = self._clock()
        since = (heard.since(positions.get(partition, 0)) for partition, heard in self._heard.items())
        return max([unheard_s, *(now - at for at in since if at is not None)])
