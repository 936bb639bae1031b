import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from service.model.channel import Examples
from service.model.channels.network import Network
from service.model.contexts import Contexts
from service.model.query import NOT_KNOWN
from service.training.evaluation.measures import PairedSums, RankSums
from service.training.evaluation.prequential import ROWS_A_BATCH, SCORES_A_BATCH, choose, how_many, rank
from service.training.intake import Events
from service.training.learner import Learner
from service.training.reference import Reference
from tests.service.model.configs import small
from tests.service.training.streams import clicks, micro_batch, random_events, state_of

SMALL = small(half_lives=(5.0, 50.0))


def events_of(item: np.ndarray, history: np.ndarray, known: np.ndarray | None = None) -> Events:
    n = len(item)
    known = np.ones(n, np.bool_) if known is None else known
    return Events(
        accepted=n,
        duplicates=0,
        happened=np.arange(n, dtype=np.float64),
        place=np.arange(n),
        user=np.zeros(n, np.int64),
        item=item,
        time=np.arange(n),
        ts=np.arange(n, dtype=np.float64),
        idle=np.full(n, NOT_KNOWN, np.float32),
        bought=np.zeros(n, np.bool_),
        weight=np.ones(n),
        history=history.astype(np.int32),
        user_known=known,
        item_known=np.ones(n, np.bool_),
        disliked=Examples.none(history.shape[1]),
    )


@pytest.mark.parametrize(
    ("sample", "items", "of_steps"),
    [
        (None, 10**7, [None] * 4),
        (0, 100, [0] * 4),
        (4, 0, [4] * 4),
        (4, ROWS_A_BATCH, [4] * 4),
        (32, ROWS_A_BATCH, [16] * 4),  # what its scores cost
        (4, 2 * ROWS_A_BATCH, [8, 0, 8, 0]),
        (4, 2 * ROWS_A_BATCH + 1, [12, 0, 0, 12]),
        (32, 3 * ROWS_A_BATCH, [16, 0, 0, 16]),
    ],
)
def test_a_large_model_has_few_passes_of_many_events_each(
    sample: int | None, items: int, of_steps: list[int | None]
) -> None:
    assert [how_many(sample, items, step) for step in range(4)] == of_steps


@settings(max_examples=50, deadline=None)
@given(sample=st.integers(1, 100), items=st.integers(1, 10**7), steps=st.integers(1, 2_000))
def test_ranking_costs_no_more_than_it_may(sample: int, items: int, steps: int) -> None:
    many = [how_many(sample, items, step) or 0 for step in range(steps)]
    passes = sum(n > 0 for n in many)
    assert passes >= 1
    assert (passes - 1) * items <= ROWS_A_BATCH * steps
    every = -(-items // ROWS_A_BATCH)
    assert all(n == 1 or n * items <= SCORES_A_BATCH * every for n in many)
    assert sum(many) <= sample * (steps + every)


def test_the_chosen_ones_are_at_even_distances_among_those_known() -> None:
    known = np.arange(20) % 2 == 1
    events = events_of(np.zeros(20, np.int64), np.zeros((20, 5)), known)
    assert choose(events, None).tolist() == list(range(1, 20, 2))
    assert choose(events, 100).tolist() == list(range(1, 20, 2))
    assert choose(events, 4).tolist() == [1, 7, 13, 19]
    assert choose(events, 3).tolist() == [1, 9, 17]
    assert choose(events, 0).tolist() == []
    both = dataclasses.replace(events, item_known=np.arange(20) < 6)
    assert choose(both, None).tolist() == [1, 3, 5]


def test_the_reference_is_compared_where_it_knows_the_item() -> None:
    learner = Learner(SMALL)
    learner.learn(micro_batch(random_events(300, seed=1, items=40)))
    reference, before = Reference(learner.recommender), learner.items.size
    reference.apply(learner.snapshot())
    learner.learn(micro_batch(clicks([(f"v{n}", f"new{n}") for n in range(5)]), first_key=1000))
    assert learner.items.size == before + 5
    rng = np.random.default_rng(0)
    item = np.concatenate([rng.integers(before, size=95), before + np.arange(5)])
    events = events_of(item, rng.integers(-1, before, (100, 5)))
    examined = rank(learner.recommender, events, np.arange(100), reference)
    ranked, paired = examined.ranked, examined.paired
    assert ranked.place.tolist() == list(range(100))
    sums = RankSums.of(ranked.ahead)
    # all at once, not 64 at a time
    ahead = learner.recommender.ranks(events.history.astype(np.int64), item, now=events.ts, idle=events.idle)
    whole = RankSums.of(ahead)
    assert (sums.n, sums.hits) == (100, whole.hits)
    assert sums.ndcg == pytest.approx(whole.ndcg)
    assert paired.n == 95
    reference.begin_batch()
    theirs = reference.ranks(Contexts.of(events.history[:95]), item[:95])
    assert paired.difference == pytest.approx(PairedSums.of(ahead[:95], theirs).difference)
    nothing = rank(learner.recommender, events, np.arange(0))
    assert (len(nothing.ranked.ahead), nothing.paired) == (0, PairedSums())


def directions(reference: Reference, rows: np.ndarray) -> Tensor:
    """What its network knows of items."""
    assert reference._weights is not None
    (network,) = [channel for channel in reference._weights.channels if isinstance(channel, Network)]
    return network.unit.data[torch.from_numpy(rows)]


@pytest.mark.parametrize("restarted", [False, True])
def test_the_reference_does_not_know_an_item_by_the_row_of_another(restarted: bool) -> None:
    """Items whose rows are used anew are ranked as those in new rows: as if it had never met whoever was there."""
    config = small(half_lives=(5.0, 50.0), max_items=8)
    learner = Learner(config)
    learner.learn(micro_batch(clicks([(f"u{n % 3}", f"old{n}") for n in range(8)])))
    good = learner.snapshot()
    reference = Reference(learner.recommender)
    reference.apply(good)
    learner.learn(micro_batch(clicks([(f"v{n}", f"new{n}") for n in range(4)]), first_key=100))
    if restarted:
        learner = Learner.restore(config, state_of(learner.snapshot()))
        reference = Reference(learner.recommender)
        reference.apply(good)
    new, old = (learner.items.rows_of([f"{age}{n}" for n in range(8)]) for age in ("new", "old"))
    new, old = new[new >= 0], old[old >= 0]
    assert (len(new), len(old), learner.items.size) == (4, 4, 8)
    assert reference.knows(new).tolist() == [False] * 4
    assert reference.knows(old).tolist() == [True] * 4
    reference.begin_batch()
    assert directions(reference, new).abs().max() == 0
    assert directions(reference, old).abs().max() > 0
    item = np.concatenate([new, old])
    events = events_of(item, np.tile(old[:1], (8, 5)))
    assert rank(learner.recommender, events, np.arange(8), reference).paired.n == 4
    reference.apply(learner.snapshot())  # which has learned of them
    assert reference.knows(item).all()
    reference.begin_batch()
    assert directions(reference, new).abs().max() > 0


def test_who_has_learned_nothing_since_is_the_reference_s_equal() -> None:
    learner = Learner(SMALL)
    learner.learn(micro_batch(random_events(300, seed=1)))
    reference = Reference(learner.recommender)
    reference.apply(learner.snapshot())
    rng = np.random.default_rng(0)
    size = learner.items.size
    events = events_of(rng.integers(size, size=80), rng.integers(-1, size, (80, 5)))
    examined = rank(learner.recommender, events, choose(events, None), reference)
    ranked, paired = examined.ranked, examined.paired
    assert (paired.n, paired.difference, paired.squared) == (80, 0.0, 0.0)
    assert paired.reference_ndcg == pytest.approx(RankSums.of(ranked.ahead).ndcg)
