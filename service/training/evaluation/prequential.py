"""Test, then train: events of a batch are ranked before the batch is learned from.

Those that teach the ranker are ranked anyway, so the figure of quality and the lesson are one pass.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.model import order
from service.model.contexts import Contexts
from service.model.query import NOT_KNOWN
from service.model.ranker import RankingLesson
from service.model.recommender import LISTS_AT_ONCE, Recommender
from service.model.reranking import Described, Reranking
from service.training.evaluation.measures import PairedSums
from service.training.evaluation.ranked import Ranked
from service.training.intake import Events
from service.training.reference import Reference

Index = NDArray[np.int64]

# What ranking the whole catalogue may cost a batch, on average (see `how_many`): item rows read, and scores computed
ROWS_A_BATCH = 1 << 15
SCORES_A_BATCH = 1 << 19


def how_many(sample: int | None, items: int, step: int) -> int | None:
    """How many events of this batch to rank at most over the whole catalogue, where `sample` a batch are wanted; None:
    all.

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


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of the ranked events of a batch."""

    ranked: Ranked
    paired: PairedSums  # compared with the reference, those whose item the reference knows
    lessons: list[RankingLesson] = field(default_factory=list)
    by_ranker: Index = field(default_factory=lambda: np.empty(0, np.int64))  # [t] of the events that teach
    simple: list[Index] = field(default_factory=list)  # simple order by simple order, [t]: the same by that one


def rank(model: Recommender, events: Events, chosen: Index, reference: Reference | None = None) -> Examined:
    """Ranks the chosen events [m] over the whole catalogue, with a model that has no ranker."""
    assert model.catalogue is not None
    parts: list[Ranked] = []
    paired = PairedSums()
    if reference is not None and len(chosen):
        reference.begin_batch()
    for start in range(0, len(chosen), LISTS_AT_ONCE):
        part = chosen[start : start + LISTS_AT_ONCE]
        contexts, item = Contexts.of(events.history[part]), events.item[part]
        ahead = model.catalogue.ranks(contexts, item)
        parts.append(Ranked(events.place[part], ahead, origin=("",) * len(part)))
        if reference is not None:
            known = reference.knows(item)
            paired.add(PairedSums.of(ahead[known], reference.ranks(contexts, item)[known]))
    return Examined(Ranked.joined(parts), paired)


def examine(
    model: Recommender, events: Events, chosen: Index, teaches: NDArray[np.bool_], reference: Reference | None = None
) -> Examined:
    """Ranks the chosen events [m] with a model that has a ranker, and makes lessons of those that teach [n]."""
    assert model.reranking is not None
    ranked: list[Ranked] = []
    lessons: list[RankingLesson] = []
    by_ranker: list[Index] = []
    simple: list[dict[str, Index]] = []
    channels = [channel.name for channel in model.channels]
    paired = PairedSums()
    if reference is not None and len(chosen):
        reference.begin_batch()
    for start in range(0, len(chosen), LISTS_AT_ONCE):
        part = chosen[start : start + LISTS_AT_ONCE]
        item, now, idle = events.item[part], events.ts[part], events.idle[part]
        query = model.query(events.history[part], now=now, idle=idle)
        judged = model.reranking.judge(query, item)
        ranked.append(
            Ranked(events.place[part], judged.ahead, {name: judged.simple[name] for name in channels}, judged.origin)
        )
        teaching = teaches[part]
        by_ranker.append(judged.by_ranker[teaching])
        simple.append({name: ahead[teaching] for name, ahead in judged.simple.items()})
        lessons.append(lesson_of(judged.described, item, teaching, events.bought[part]))
        if reference is not None:
            known = reference.knows(item)
            paired.add(PairedSums.of(judged.by_ranker[known], reference.judge(judged, query, item)[known]))
    credited = np.flatnonzero(teaches & events.bought)
    if len(credited):
        lessons.append(_credit(model.reranking, model, events, credited))
    return Examined(
        Ranked.joined(ranked),
        paired,
        lessons,
        np.concatenate(by_ranker) if by_ranker else np.empty(0, np.int64),
        [np.concatenate([part[name] for part in simple]) for name in (simple[0] if simple else ())],
    )


def lesson_of(
    described: Described, target: Index, teaching: NDArray[np.bool_], bought: NDArray[np.bool_], click: float = 1.0
) -> RankingLesson:
    """The lesson of those histories [B] that teach and have their target [B] among the candidates. `click`: what the
    lesson counts for the task `click`."""
    pairs, x = described.pairs, described.x
    place = order.places(pairs, target)
    kept = np.flatnonzero(teaching & (place >= 0))
    counts = np.diff(pairs.offsets)[kept]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rows = np.repeat(pairs.offsets[kept] - offsets[:-1], counts) + np.arange(offsets[-1])
    weight = np.stack([np.full(len(kept), click), bought[kept]], axis=1).astype(np.float32)
    return RankingLesson(x[rows], offsets, place[kept] - pairs.offsets[kept] + offsets[:-1], weight)


def _credit(reranking: Reranking, model: Recommender, events: Events, bought: Index) -> RankingLesson:
    """The click that led to a purchase is credited too: what was bought, for the history before its first click there.

    Only the task `purchase` learns from it. How long the user had been idle then is not known any more."""
    history, item = events.history[bought], events.item[bought]
    before = np.maximum.accumulate(history == item[:, None], axis=1)  # from the first time on
    some = before.any(1)
    earlier = np.where(before, -1, history)[some]
    idle = np.full(len(earlier), NOT_KNOWN, np.float32)
    described = reranking.describe(model.query(earlier, now=events.ts[bought][some], idle=idle))
    yes = np.ones(len(earlier), np.bool_)
    return lesson_of(described, item[some], yes, yes, click=0.0)
