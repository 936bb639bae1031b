"""The stream's time: the median of its latest events' `ts`.

Lists at rest need a present, and the machine's clock is not it, since old streams are replayed. A single event's is not
either: one whose `ts` is a day ahead, which is accepted, must not move the time of everybody.
"""

import numpy as np
from numpy.typing import NDArray

LATEST = 63  # events; half of them would have to be wrong


class StreamTime:
    def __init__(self) -> None:
        self._latest = np.empty(0)  # [m <= LATEST] epoch seconds, oldest first

    def observe(self, ts: NDArray[np.float64]) -> None:
        """Takes in events in their order: [n] epoch seconds."""
        self._latest = np.concatenate([self._latest, ts[-LATEST:]])[-LATEST:]

    @property
    def now(self) -> float:
        """Epoch seconds; 0 before the first event."""
        return float(np.median(self._latest)) if len(self._latest) else 0.0

    @property
    def state(self) -> NDArray[np.float64]:
        """[m] all of it, as a copy."""
        return self._latest.copy()

    def restore(self, state: NDArray[np.float64]) -> None:
        self._latest = np.array(state, np.float64)
