"""The floor under lists: simple orders are measured beside the ranker, and serve while they are better.

The simple orders are each channel by itself, and a few fixed blends of channels (`orders.py`). On the very events that
teach the ranker, ranked before they are learned from, the reciprocal rank of each target within 20 is summed for the
ranker and for each of them. A young ranker has learned little, so whatever was best so far serves. Later the ranker
serves, unless it is behind the best of the others by more than noise; once it is not behind any more, it serves again.

All of it is state of the model, so that a restored trainer decides as the one before would have.
"""

import math

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]

HALF_LIFE = 2_000.0  # ranked events after which an event counts for half
FEWEST = 10.0  # ranked events before anything is decided
YOUNG = 500.0  # ranked events until which the best so far serves
NOISE = 2.0  # standard errors: the ranker is behind from here on
RANKER = -1
"""The number of the ranker among those that may serve; simple orders have theirs from 0 on."""
CUTOFF = 20


class Floor:
    def __init__(self, orders: int, channels: int) -> None:
        """`orders` C: how many simple orders, the first so many of which are `channels` alone."""
        self._sums = np.zeros((1 + orders, 3))  # reciprocal ranks; the ranker's less the order's; its square
        self._channels = channels
        self._n = 0.0  # ranked events, fading
        self._ever = 0.0  # ranked events
        self.serves = RANKER

    def observe(self, ranker: Index, orders: list[Index]) -> None:
        """Takes in m ranked events: how many items came before each target [m], by the ranker and by each order.

        Afterwards `serves` says who is to order lists."""
        m = len(ranker)
        if not m:
            return
        mine = reciprocal(ranker)
        new = np.zeros_like(self._sums)
        new[0, 0] = mine.sum()
        for c, ahead in enumerate(orders, 1):
            theirs = reciprocal(ahead)
            new[c] = theirs.sum(), (mine - theirs).sum(), np.square(mine - theirs).sum()
        fade = 0.5 ** (m / HALF_LIFE)
        self._sums = self._sums * fade + new
        self._n = self._n * fade + m
        self._ever += m
        self.serves = self._decide()

    def _decide(self) -> int:
        if len(self._sums) < 2 or self._ever < FEWEST:
            return self.serves
        best = int(np.argmax(self._sums[1:, 0]))
        lead, error = self._lead_over(best)
        if lead >= 0:
            return RANKER
        if self._ever < YOUNG or self.serves != RANKER or lead < -NOISE * error:
            return best
        return RANKER

    def _lead_over(self, order: int) -> tuple[float, float]:
        """By how much the ranker's MRR at 20 is ahead of that of an order, and the standard error of it, as if events
        were independent."""
        _, difference, squared = self._sums[1 + order] / max(self._n, 1.0)
        return float(difference), math.sqrt(max(0.0, squared - difference**2) / max(self._n, 1.0))

    @property
    def lead(self) -> tuple[float, float] | None:
        """By how much the ranker's MRR at 20 is ahead of that of the best channel alone, and the standard error of it;
        None before the first ranked event."""
        if not self._n or not self._channels:
            return None
        return self._lead_over(int(np.argmax(self._sums[1 : 1 + self._channels, 0])))

    @property
    def state(self) -> NDArray[np.float64]:
        """[3 C + 6] all of it, as a copy."""
        return np.concatenate([[self._n, self._ever, self.serves], self._sums.ravel()])

    def restore(self, state: NDArray[np.float64]) -> None:
        """Raises: ValueError where the state is of another number of orders."""
        if len(state) != 3 + self._sums.size:
            raise ValueError(f"the floor's state has {len(state)} numbers, {3 + self._sums.size} are needed")
        self._n, self._ever, self.serves = float(state[0]), float(state[1]), int(state[2])
        self._sums = np.array(state[3:]).reshape(self._sums.shape)


def reciprocal(ahead: Index) -> NDArray[np.float64]:
    """[m] the reciprocal rank within 20 of targets that so many items come before [m]."""
    found: NDArray[np.float64] = np.where(ahead < CUTOFF, 1.0 / (np.minimum(ahead, CUTOFF) + 1.0), 0.0)
    return found
