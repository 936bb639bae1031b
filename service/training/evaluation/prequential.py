"""Test, then train: which events of a batch are ranked before they are learned from, and how well that goes."""

import numpy as np
from numpy.typing import NDArray

from service.model.contexts import Contexts
from service.model.recommender import USERS_AT_ONCE, Recommender
from service.training.evaluation.measures import PairedSums, RankSums
from service.training.intake import Events
from service.training.reference import Reference

Index = NDArray[np.int64]

# What it may cost: items gone over, and scores worked out, for one batch (on average; see `how_many`)
ROWS_A_BATCH = 1 << 15
SCORES_A_BATCH = 1 << 19


def how_many(sample: int | None, items: int, step: int) -> int | None:
    """At most so many events of this batch are to be ranked, where `sample` a batch are wished for; None: all.

    It takes no more than a tenth of a step however many items there are. What a pass over all items costs is mostly
    reading them, so a large model has few passes, of many events each.
    """
    if sample is None:
        return None
    items = max(1, items)
    every = -(-items // ROWS_A_BATCH)  # batches
    if step % every:
        return 0
    return min(sample * every, max(1, SCORES_A_BATCH * every // items))


def choose(events: Events, most: int | None) -> Index:
    """Which events to rank: at even distances, of those whose user and item were known. At most `most`; None: all."""
    eligible = np.flatnonzero(events.user_known & events.item_known)
    if most is None:
        return eligible
    return eligible[:: max(1, -(-len(eligible) // most))] if most else eligible[:0]


def rank(
    model: Recommender, events: Events, chosen: Index, reference: Reference | None = None
) -> tuple[RankSums, PairedSums]:
    """How well `model` ranks the chosen events; and beside `reference`, those whose item that one knows."""
    sums, paired = RankSums(), PairedSums()
    if reference is not None and len(chosen):
        reference.begin_batch()
    for start in range(0, len(chosen), USERS_AT_ONCE):
        part = chosen[start : start + USERS_AT_ONCE]
        contexts, item = Contexts.of(events.history[part]), events.item[part]
        ahead = model.ranks(contexts, item)
        sums.add(RankSums.of(ahead))
        if reference is not None:
            known = reference.knows(item)
            paired.add(PairedSums.of(ahead[known], reference.ranks(contexts, item)[known]))
    return sums, paired
