"""A learner whose ranking can be worked out by hand: items by how often they came, of equals the earlier row."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from consumers.micro_batch import MicroBatch
from service.model.channel import Taught
from service.model.config import ModelConfig
from service.training.effort import FULL, Effort
from service.training.learner import LearnResult

Index = NDArray[np.int64]


class FrozenLearner:
    """`asked`: the histories that were ranked, as ids, latest first; `times_asked`: with `now` and `idle` of each;
    `learned`: the batches."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.evaluate_sample: int | None = None
        self.recommender = self
        self.rows: dict[str, int] = {}
        self.times = Counter[int]()
        self.asked: list[str] = []
        self.times_asked: list[tuple[float, float]] = []
        self.learned: list[list[str]] = []

    def learn(self, batch: MicroBatch, effort: Effort = FULL) -> LearnResult:
        for each in batch.item.tolist():
            self.times[self.rows.setdefault(batch.items[each], len(self.rows))] += 1
        self.learned.append([batch.items[each] for each in batch.item.tolist()])
        return LearnResult(len(batch), 0, Taught())

    def rows_of(self, ids: list[str]) -> Index:
        return np.array([self.rows.get(each, -1) for each in ids], np.int64)

    def ranks(self, histories: Index, target: Index, *, now: NDArray[np.float64], idle: NDArray[np.float32]) -> Index:
        ids = list(self.rows)
        for history in histories.tolist():
            self.asked.append("".join(ids[row] for row in reversed(history) if row >= 0))
        self.times_asked += zip(now.tolist(), idle.tolist(), strict=True)
        order = sorted(range(len(ids)), key=lambda row: (-self.times[row], row))
        return np.array([order.index(each) for each in target.tolist()], np.int64)
