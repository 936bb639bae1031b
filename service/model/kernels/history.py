"""What a history itself says of a candidate: whether the user had it, how long ago, and how long they have been idle.

Shapes: B histories, E entries (see `Contexts`), P pairs.
"""

import numpy as np

from service.model.kernels.compiled import kernel
from service.model.kernels.logarithm import log

_NO, _ONE, _TENTH = np.float32(0), np.float32(1), np.float32(0.1)
AT_ONCE_S = np.float32(1.0)  # an event sooner after the last one belongs to the same moment

FEATURES = (
    "held", "latest", "recency", "held_twice", "held_by_length", "length", "single", "repeat_share",
    "repeat_share_held", "idle", "idle_held", "at_once", "idle_not_known",
)  # fmt: skip
"""The features of a pair, in the order of `features`."""


@kernel
def passing(idle, starts, out):
    """Writes those of FEATURES that change while a user rests, beside the others: `idle`, `idle_held`, `at_once`,
    `idle_not_known`. Arguments as for `features`."""
    for b in range(len(starts) - 1):
        known = idle[b] >= 0
        waited = log(_ONE + idle[b]) * _TENTH if known else _NO
        at_once = _ONE if known and idle[b] < AT_ONCE_S else _NO
        for p in range(starts[b], starts[b + 1]):
            out[p, 9] = waited
            out[p, 10] = waited * out[p, 0]
            out[p, 11] = at_once
            out[p, 12] = _NO if known else _ONE


@kernel
def features(rows, offsets, idle, pairs, starts, out):
    """Writes FEATURES of the pairs into out [P, F]: `pairs` [P] candidates, those of history b from starts[b] to
    starts[b + 1]. `rows` [E] and `offsets` [B + 1]: as in `Contexts`. `idle` [B]: seconds since the user's last event,
    below 0 where that is not known."""
    for b in range(len(starts) - 1):
        begin, end = offsets[b], offsets[b + 1]
        length = end - begin
        repeats = 0
        for i in range(begin, end):
            again = 0
            for j in range(i + 1, end):
                again |= rows[i] == rows[j]
            repeats += again
        share = np.float32(repeats) / np.float32(max(1, length - 1))
        log_length = log(_ONE + np.float32(length))
        for p in range(starts[b], starts[b + 1]):
            y, since, times = pairs[p], 0, 0
            for i in range(end - 1, begin - 1, -1):  # without a branch, so that it takes 16 at a time
                same = rows[i] == y
                times += same
                since = i - begin + 1 if same else since
            held = _ONE if times > 0 else _NO
            out[p, 0] = held
            out[p, 1] = _ONE if since == 1 else _NO
            out[p, 2] = _ONE / np.float32(since) if since > 0 else _NO
            out[p, 3] = _ONE if times > 1 else _NO
            out[p, 4] = held * log_length
            out[p, 5] = log_length
            out[p, 6] = _ONE if length == 1 else _NO
            out[p, 7] = share
            out[p, 8] = share * held
    passing(idle, starts, out)
