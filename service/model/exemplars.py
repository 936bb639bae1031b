"""Exemplars: past contexts with their targets, to be learned from again (replay).

One replayed target a fresh one is worth .006 of HR@20 and costs .006 of MRR@20 (docs/decisions/learning.md), so a
trainer that is behind can do without. Most draws are from the recent past, which shows present taste; the rest are from
all that is kept, so that older taste is not forgotten (as ADER's exemplars: Mi, Lin, Faltings, RecSys 2020). Items of a
replayed history are dropped at random, so that the same context does not come twice.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from service.model.row_table import RowTable

Index = NDArray[np.int64]


class Exemplars:
    """A ring of the latest contexts. `written` counts all ever added; the latest is at (written - 1) % capacity."""

    def __init__(self, capacity: int, length: int) -> None:
        self.capacity = capacity
        self.history = RowTable("trainer/replay/history", (length,), torch.int32, fill=-1)  # [C, L]
        self.target = RowTable("trainer/replay/target", (), torch.int32, fill=-1)  # [C]
        self.weight = RowTable("trainer/replay/weight", (), torch.float32)  # [C]
        self.written = 0

    @property
    def tables(self) -> list[RowTable]:
        return [self.history, self.target, self.weight]

    def add(self, history: NDArray[np.int32], target: Index, weight: NDArray[np.float32]) -> None:
        """Keeps n contexts: histories [n, L], targets [n], weights [n]."""
        n = len(target)
        kept = slice(max(0, n - self.capacity), n)
        at = (self.written + np.arange(n)[kept]) % self.capacity
        for table, values in ((self.history, history), (self.target, target), (self.weight, weight)):
            table.resize(min(self.written + n, self.capacity))
            table.array[at] = values[kept]
            table.touch(at)
        self.written += n

    def draw(
        self, n: int, rng: np.random.Generator, *, recent: int, recent_share: float, dropout: float
    ) -> tuple[NDArray[np.int32], Index, NDArray[np.float32]]:
        """m <= n contexts (fewer where items were expired): histories [m, L], targets [m], weights [m].

        A share `recent_share` of the draws is from the latest `recent` contexts. `dropout`: the share of items left
        out.
        """
        held = min(self.written, self.capacity)
        if not held or not n:
            empty = np.empty((0, *self.history.shape), np.int32)
            return empty, np.empty(0, np.int64), np.empty(0, np.float32)
        reach = np.where(rng.random(n) < recent_share, min(recent, held), held)
        age = 1 + (rng.random(n) * reach).astype(np.int64)
        at = (self.written - age) % self.capacity
        history = self.history.array[at].astype(np.int32)
        dropped = np.where(rng.random(history.shape, dtype=np.float32) < dropout, np.int32(-1), history)
        bare = ~(dropped >= 0).any(1)
        dropped[bare] = history[bare]
        target = self.target.array[at].astype(np.int64)
        usable = (target >= 0) & (dropped >= 0).any(1)
        return dropped[usable], target[usable], self.weight.array[at][usable].astype(np.float32)

    def forget_items(self, expired: NDArray[np.bool_]) -> None:
        """Takes expired items out of the contexts. Those that lose their target are not drawn. `expired` [N]: by
        row."""
        for table in (self.history, self.target):
            rows = table.array[: table.size]
            gone = (rows >= 0) & expired[rows]
            rows[gone] = -1
            table.touch(np.flatnonzero(gone.any(1) if gone.ndim == 2 else gone))
