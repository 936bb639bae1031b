"""A model with as many items as wanted, whose neighbour rows are as full as a shop's: for benchmarks."""

import numpy as np
from numpy.typing import NDArray

from service.model.channel import Examples
from service.model.registry import NEW_MODEL
from service.training.learner import Learner

EVENTS_AN_ITEM = 4  # so that most items are rare and popular ones have full rows
LENGTH = 20  # items of a history
AT_ONCE = 20_000


def histories_of(items: int, n: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """[n, LENGTH] walks among items: mostly to one nearby, sometimes to any, popular ones more often."""
    step = rng.integers(-8, 9, (n, LENGTH))
    jump = rng.random((n, LENGTH)) < 0.2
    start = (items * rng.random((n, LENGTH)) ** 3).astype(np.int64)
    walk = np.where(jump, start, 0)
    walk[:, 0] = start[:, 0]
    for k in range(1, LENGTH):
        walk[:, k] = np.where(jump[:, k], walk[:, k], (walk[:, k - 1] + step[:, k]) % items)
    return walk.astype(np.int32)


def learned(items: int, seed: int = 0) -> Learner:
    """A learner whose channels have counted EVENTS_AN_ITEM events an item. Its ranker has learned nothing, which costs
    the same."""
    learner = Learner(NEW_MODEL)
    rng = np.random.default_rng(seed)
    learner.items.add([f"i{n}" for n in range(items)], 0)
    learner.recommender.resize(items)
    for begin in range(0, EVENTS_AN_ITEM * items, AT_ONCE):
        walks = histories_of(items, AT_ONCE, rng)
        time = np.arange(begin, begin + AT_ONCE)
        examples = Examples(
            walks[:, -1].astype(np.int64), time, time.astype(np.float64), np.ones(AT_ONCE), walks[:, :-1]
        )
        for channel in learner.channels:
            channel.observe(examples, Examples.none(LENGTH - 1))
        learner.recommender.clock += AT_ONCE
    learner.recommender.changed()
    return learner
