"""Compiles every kernel once and keeps the result, so that no process waits for a compiler: `python -m
service.warm`, when an environment or an image is made.

What is compiled depends on the types of the arguments, so a small model learns and makes lists, as the trainer and the
scorer do.
"""

import time

import numpy as np

from consumers.micro_batch import MicroBatch
from service.model.query import NOT_KNOWN
from service.model.recommender import Recommender
from service.model.registry import NEW_MODEL
from service.scoring.top_k import Ask, best_items
from service.training.effort import FULL
from service.training.learner import Learner
from service.training.reference import Reference


def warm() -> float:
    """Calls every kernel. Returns the seconds it took: a tenth where everything had been compiled."""
    began = time.perf_counter()
    learner = Learner(NEW_MODEL)
    for begin in range(0, 300, 100):
        learner.learn(_clicks(begin, 100))
        if not begin:
            reference = Reference(learner.recommender)
            reference.apply(learner.snapshot())
    with reference.borrowed() as borrowed:
        learner.learn(_clicks(300, 100), FULL, borrowed)
    reader = Recommender(NEW_MODEL)
    reader.apply(learner.snapshot())
    _, kept = best_items(reader, [Ask(["i1", "i2"], NOT_KNOWN, ["i3"])], 10, keep=3)
    best_items(reader, [Ask(["i1", "i2"], 0.0, kept=kept[0])], 10)  # which others join
    reader.related(np.array([1]), 10)
    learner.items.expire(2, np.array([0]), 300)
    learner._forget_items(np.array([1, 2]))
    return time.perf_counter() - began


def _clicks(begin: int, n: int) -> MicroBatch:
    """n events of a few users, some of them purchases and dislikes."""
    types = list(NEW_MODEL.history.event_weights)
    at = np.arange(begin, begin + n)
    kinds = np.array([types.index(kind) for kind in ("click", "purchase", "dislike")], np.int16)
    return MicroBatch(
        users=tuple(f"u{n}" for n in range(10)),
        items=tuple(f"i{n}" for n in range(40)),
        user=(at % 10).astype(np.int32),
        item=(at * at % 40).astype(np.int32),
        type=kinds[np.where(at % 7 == 0, 1, np.where(at % 31 == 0, 2, 0))],
        ts=1000 * at,
        value=np.full(n, np.nan),
        event_key=at + 1,
        kafka_ts=np.zeros(n, np.int64),
        catalogue=(),
        ranges=(),
    )


if __name__ == "__main__":
    print(f"the kernels are compiled, in {warm():.1f} s")
