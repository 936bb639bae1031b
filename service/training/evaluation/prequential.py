"""Test, then train: a sample of a batch's events is ranked before the batch is learned from."""

import numpy as np
from numpy.typing import NDArray

from service.model.contexts import Contexts
from service.model.recommender import USERS_AT_ONCE, Recommender
from service.training.evaluation.measures import PairedSums
from service.training.evaluation.ranked import Ranked
from service.training.intake import Events
from service.training.reference import Reference

Index = NDArray[np.int64]

# What ranking may cost a batch, on average (see `how_many`): item rows read, and scores computed
ROWS_A_BATCH = 1 << 15
SCORES_A_BATCH = 1 << 19


def how_many(sample: int | None, items: int, step: int) -> int | None:
    """How many events of this batch to rank at most, where `sample` a batch are wanted; None: all.

    Ranking takes a tenth of a step at most, however many items there are. A pass over all items costs mostly the
    reading of their rows, so with many items there are few passes, of many events each.
    """
    if sample is None:
        return None
    items = max(1, items)
    every = -(-items // ROWS_A_BATCH)  # batches
    if step % every:
        return 0
    return min(sample * every, max(1, SCORES_A_BATCH * every // items))


def choose(events: Events, most: int | None) -> Index:
    """[m] which events to rank, m <= `most` (None: all): at even distances, among those whose user and item are
    known."""
    eligible = np.flatnonzero(events.user_known & events.item_known)
    if most is None:
        return eligible
    return eligible[:: max(1, -(-len(eligible) // most))] if most else eligible[:0]


def rank(
    model: Recommender, events: Events, chosen: Index, reference: Reference | None = None
) -> tuple[Ranked, PairedSums]:
    """How well `model` ranks the chosen events [m]; and compared with `reference`, those whose item the reference
    knows."""
    parts: list[Ranked] = []
    paired = PairedSums()
    if reference is not None and len(chosen):
        reference.begin_batch()
    for start in range(0, len(chosen), USERS_AT_ONCE):
        part = chosen[start : start + USERS_AT_ONCE]
        contexts, item = Contexts.of(events.history[part]), events.item[part]
        ahead = model.ranks(contexts, item)
        parts.append(Ranked(events.place[part], ahead, origin=("",) * len(part)))
        if reference is not None:
            known = reference.knows(item)
            paired.add(PairedSums.of(ahead[known], reference.ranks(contexts, item)[known]))
    return Ranked.joined(parts), paired
