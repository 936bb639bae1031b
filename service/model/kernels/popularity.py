"""What the counts of an item say of it as a candidate.

Shapes: B histories, E entries (see `Contexts`), P pairs, N items, K half-lives.
"""

import numpy as np

from service.model.kernels.compiled import kernel
from service.model.kernels.logarithm import log
from service.model.kernels.prefetch import prefetch

_NO, _ONE, _THIRD, _FIFTH, _TENTH = (np.float32(x) for x in (0, 1, 1 / 3, 1 / 5, 1 / 10))
NEVER = np.float32(2.0)  # the feature of an item without events, beside .1 log(seconds): more than 15 years

OF_COUNTS = ("count", "trend", "since_first", "since_last", "latest_count")
"""The features beside one for each half-life, which come first."""


@kernel
def features(
    rows, offsets, logs, faded, events, floor, clock, now, pairs, starts, out
):  # fmt: skip
    """Writes the features of the pairs into out [P, K + 5]: `pairs` [P] candidates, those of history b from starts[b]
    to starts[b + 1]. `rows` [E] and `offsets` [B + 1]: as in `Contexts`. `logs` [N, K]: log of the sums of forward
    decay. `faded` [K]: what that is more than the log of the count at `clock`. `floor`: the least log of a count.
    `events` [N, 3]: how many, the clock of the first, the time of the last. `now` [B]: epoch seconds."""
    k = logs.shape[1]
    for b in range(len(starts) - 1):
        of_latest = _NO
        if offsets[b + 1] > offsets[b]:
            of_latest = log(_ONE + np.float32(events[rows[offsets[b]], 0])) * _FIFTH
        for p in range(starts[b], starts[b + 1]):
            prefetch(logs, pairs[p])
            prefetch(events, pairs[p])
        for p in range(starts[b], starts[b + 1]):
            y = pairs[p]
            for c in range(k):
                out[p, c] = np.float32(max(logs[y, c] - faded[c], floor)) * _THIRD
            out[p, k + 1] = out[p, 0] - out[p, k - 1]
            n = events[y, 0]
            out[p, k] = log(_ONE + np.float32(n)) * _FIFTH
            out[p, k + 4] = of_latest
            if n > 0:
                out[p, k + 2] = log(_ONE + np.float32(max(0.0, clock - events[y, 1]))) * _TENTH
                out[p, k + 3] = log(_ONE + np.float32(max(0.0, now[b] - events[y, 2]))) * _TENTH
            else:
                out[p, k + 2] = _NO
                out[p, k + 3] = NEVER
