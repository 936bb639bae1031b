"""How fast the stream goes: seconds of its events' `ts` in a second of Kafka's timestamps. Pure: no I/O, no clock.

A live stream goes at 1. A replay of a year in an hour goes at nearly 9,000, and who looks at a list a second after it
was written looks at it two hours later by the stream's time, which is the time that features are of.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from service.model.stream_time import StreamTime

SPAN_S = 5.0  # of Kafka's time, over which the pace is measured
STEP_S = 0.25  # of Kafka's time, between two marks
MOST = 1e7  # a year of events in three seconds


class Pace:
    def __init__(self) -> None:
        self._stream = StreamTime()  # a median, since any event's `ts` may be wrong by a day
        self._marks: deque[tuple[float, float]] = deque()  # (Kafka's time, the stream's), oldest first, seconds

    def observe(self, ts_ms: Sequence[int], kafka_ms: Sequence[int]) -> None:
        """Takes in events in the order in which they were read: when they happened, and Kafka's timestamps (epoch
        milliseconds)."""
        if not ts_ms:
            return
        self._stream.observe(np.array(ts_ms, np.float64) / 1000)
        kafka = max(kafka_ms) / 1000
        if self._marks and kafka < self._marks[-1][0] + STEP_S:
            return
        self._marks.append((kafka, self._stream.now))
        while len(self._marks) > 2 and self._marks[1][0] <= kafka - SPAN_S:
            self._marks.popleft()

    @property
    def value(self) -> float:
        """1 to MOST; 1 before there is anything to tell it from. A stream slower than life, as one with long pauses
        between replayed events, counts as 1."""
        if len(self._marks) < 2:
            return 1.0
        (began, stream_began), (ended, stream_ended) = self._marks[0], self._marks[-1]
        return float(min(MOST, max(1.0, (stream_ended - stream_began) / (ended - began))))
