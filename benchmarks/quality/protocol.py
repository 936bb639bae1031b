"""Test, then train: the protocol of `service/training/evaluation/evaluate_file.py`, for any rival.

Events are taken in the file's order, 256 at a time. The first fifth is only learned from. Then each event whose user
and item are known is ranked against all items known so far, before its batch is learned from: what was learned lags by
256 events at most, the user's history is current.
"""

import time
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from benchmarks.quality.ranking import Figures, ahead_of
from benchmarks.quality.stream import Stream
from benchmarks.rivals.rival import Index, Rival

BATCH_EVENTS = 256
WARM_UP = 0.2  # share of the events that is only learned from


@dataclass(frozen=True)
class Run:
    """How a rival did on a stream."""

    figures: Figures
    learned_per_second: float  # events, while it learned
    ms_a_list: float  # scoring all items for one user; picking the best of the scores costs everyone the same


def eligible(stream: Stream) -> Index:
    """Which events are ranked: known user and item, in a batch that begins after the first fifth."""
    begin = -(-int(np.ceil(WARM_UP * len(stream))) // BATCH_EVENTS) * BATCH_EVENTS
    chosen = np.flatnonzero(stream.known)
    return chosen[chosen >= begin]


def spread(events: Index, most: int | None) -> Index:
    """Every k-th of the events, with the least k that leaves `most` at most; None: all.

    >>> spread(np.arange(10), 4).tolist()
    [0, 3, 6, 9]
    """
    if most is None:
        return events
    return events[:: max(1, -(-len(events) // most))]


def run(stream: Stream, rival: Rival, *, hide_seen: bool, most: int | None = None) -> Run:
    """Takes a new rival through the stream. `most`: how many events are ranked at most, evenly spread."""
    ranked = np.zeros(len(stream), np.bool_)
    ranked[spread(eligible(stream), most)] = True
    items_known = stream.items_known
    histories: defaultdict[int, list[int]] = defaultdict(list)
    nothing = np.empty(0, np.int64)
    ahead: list[int] = []
    listing = learning = 0.0
    for start in range(0, len(stream), BATCH_EVENTS):
        batch = stream.events.part(start, start + BATCH_EVENTS)
        for at, (user, item) in enumerate(zip(batch.user.tolist(), batch.item.tolist(), strict=True), start):
            if ranked[at]:
                history = np.array(histories[user], np.int64)
                began = time.perf_counter()
                scores = rival.scores(user, history, int(items_known[at]))
                listing += time.perf_counter() - began
                ahead.append(ahead_of(scores, item, np.unique(history) if hide_seen else nothing))
            histories[user].append(item)
        began = time.perf_counter()
        rival.learn(batch)
        learning += time.perf_counter() - began
    return Run(
        figures=Figures.of(np.array(ahead, np.int64)),
        learned_per_second=len(stream) / max(learning, 1e-9),
        ms_a_list=1e3 * listing / max(len(ahead), 1),
    )
