"""From counters that only grow to what happened lately: a rate, and quantiles of a histogram."""

import math
from collections import deque
from collections.abc import Mapping

from service.up.figures import Quantiles

RATE_WINDOW = 5.0  # seconds over which events per second are taken
FRESHNESS_WINDOW = 30.0  # seconds over which quantiles are taken


class Rate:
    """The growth of a counter per second, over the last few seconds."""

    def __init__(self, window: float = RATE_WINDOW) -> None:
        self._window = window
        self._seen: deque[tuple[float, float]] = deque()

    def note(self, now: float, value: float) -> None:
        if self._seen and value < self._seen[-1][1]:  # it began anew
            self._seen.clear()
        self._seen.append((now, value))
        while len(self._seen) > 2 and self._seen[1][0] <= now - self._window:
            self._seen.popleft()

    def per_second(self) -> float | None:
        if len(self._seen) < 2:
            return None
        (since, before), (until, after) = self._seen[0], self._seen[-1]
        return (after - before) / (until - since) if until > since else None


Buckets = Mapping[float, float]
"""Upper bound (inclusive) -> how many observations are not above it."""


def quantile(buckets: Buckets, q: float) -> float | None:
    """The q-quantile of a cumulative histogram, straight within its bucket; as Prometheus' histogram_quantile.

    Above the last finite bound it is that bound. None without observations.

    >>> quantile({0.1: 0, 0.2: 10, math.inf: 10}, 0.5)
    0.15000000000000002
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank = q * buckets[bounds[-1]]
    below, count_below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank and buckets[bound] > count_below:
            if math.isinf(bound):
                return below
            return below + (bound - below) * (rank - count_below) / (buckets[bound] - count_below)
        below, count_below = (bound, buckets[bound]) if not math.isinf(bound) else (below, count_below)
    return below


class RecentHistogram:
    """A histogram of the last seconds, from the ever-growing ones of several processes that may begin anew."""

    def __init__(self, window: float = FRESHNESS_WINDOW) -> None:
        self._window = window
        self._before: dict[str, dict[float, float]] = {}  # process -> its buckets when last seen
        self._total: dict[float, float] = {}
        self._kept: deque[tuple[float, dict[float, float]]] = deque([(-math.inf, {})])

    def note(self, now: float, process: str, buckets: Buckets) -> None:
        before = self._before.get(process, {})
        if any(count < before.get(bound, 0) for bound, count in buckets.items()):
            before = {}
        for bound, count in buckets.items():
            self._total[bound] = self._total.get(bound, 0) + count - before.get(bound, 0)
        self._before[process] = dict(buckets)
        self._kept.append((now, dict(self._total)))
        while len(self._kept) > 1 and self._kept[1][0] <= now - self._window:
            self._kept.popleft()

    def quantiles(self) -> Quantiles:
        then = self._kept[0][1]
        recent = {bound: count - then.get(bound, 0) for bound, count in self._total.items()}
        return Quantiles(quantile(recent, 0.5), quantile(recent, 0.99))
