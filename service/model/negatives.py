"""Shared negatives, drawn in proportion to popularity^0.75.

The exponent is word2vec's (Mikolov et al., 2013): a list must tell popular items apart, and the long tail should still
be drawn. Drawing needs a pass over all items, so the draws of many steps are made at once. They are part of the
checkpoint, because a restarted trainer must use the same.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from service.model.losses import Sample
from service.model.row_table import RowTable

POWER = 0.75
STEPS_AHEAD = 16  # a pass over a million items costs 12 ms, a step 40: 16 makes it 2%


class NegativeSampler:
    """Draws `n` negatives for each step, with replacement; they are shared by all contexts of the step."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.rows = RowTable("trainer/negatives/row", (), torch.int32, fill=-1)  # [STEPS_AHEAD * n]
        self.chance = RowTable("trainer/negatives/log_chance", (), torch.float32)  # log of an item's share of draws
        for table in (self.rows, self.chance):
            table.resize(STEPS_AHEAD * n)

    @property
    def tables(self) -> list[RowTable]:
        return [self.rows, self.chance]

    def due(self, step: int) -> bool:
        """Whether `refill` is due: every STEPS_AHEAD steps, and in each of the first, when popularity changes fast."""
        return step < STEPS_AHEAD or step % STEPS_AHEAD == 0

    def refill(self, mass: NDArray[np.float64], rng: np.random.Generator) -> None:
        """Draws for the next STEPS_AHEAD steps. `mass` [N]: decayed counts, 0 for items that must not be drawn."""
        chance = mass**POWER
        cumulated = np.cumsum(chance)
        total = cumulated[-1] if len(cumulated) else 0.0
        size = self.rows.size
        if total > 0:
            drawn = np.searchsorted(cumulated, rng.random(size) * total, side="right")
            drawn = np.minimum(drawn, len(mass) - 1)
            drawn[chance[drawn] <= 0] = -1  # the last place, reached by rounding
            log_chance = np.log(np.maximum(chance[drawn], 1e-300) / total)
        else:
            drawn, log_chance = np.full(size, -1), np.zeros(size)
        self.rows.array[:size] = drawn
        self.chance.array[:size] = log_chance
        self._touch_all()

    def take(self, step: int) -> Sample:
        """This step's draws: unique rows, ascending."""
        part = slice(step % STEPS_AHEAD * self.n, (step % STEPS_AHEAD + 1) * self.n)
        drawn = self.rows.array[part].astype(np.int64)
        there = drawn >= 0
        rows, first, times = np.unique(drawn[there], return_index=True, return_counts=True)
        chance = self.chance.array[part][there][first].astype(np.float32)
        return Sample(rows, chance + np.float32(np.log(self.n)) - np.log(times).astype(np.float32))

    def forget_items(self, expired: NDArray[np.bool_]) -> None:
        """Takes expired items out of the draws. `expired` [N]: by row."""
        drawn = self.rows.array[: self.rows.size]
        gone = np.flatnonzero((drawn >= 0) & expired[drawn])
        drawn[gone] = -1
        self.rows.touch(gone)

    def _touch_all(self) -> None:
        everything = np.arange(self.rows.size, dtype=np.int64)
        self.rows.touch(everything)
        self.chance.touch(everything)
