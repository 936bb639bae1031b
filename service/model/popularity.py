"""Decayed popularity: how often an item was the target lately, at several half-lives.

Forward decay (Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay: A Practical Time Decay Model for Streaming
Systems", ICDE 2009): an event at time t weighs exp(lambda t), which never changes, and the reader divides by
exp(lambda now). Sums of such weights overflow, so the table keeps their logarithm, in float64: at a billion events and
a half-life of a thousand, lambda t is 7e5, known to 1e-10. Nothing is written but the rows of the events themselves.

Time is the number of accepted events, not seconds: deterministic, and the same at any replay speed.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.weights import Array, Update
from service.model.contexts import Contexts
from service.model.row_table import RowTable

# No item counts for less: it keeps the logarithm finite, and a bound (rather than a sum, which would be smoother)
# needs neither exp nor log when a million items are scored. One event of five half-lives ago is still told from none.
FLOOR = 0.02


class Popularity:
    """`table` [N, K]: log of the sum of exp(lambda_k t) over an item's events; -inf where there were none."""

    def __init__(self, half_lives: Sequence[float], weights: Tensor, device: str = "cpu") -> None:
        """`weights` [BUCKETS, K]: of the logarithms in the logits; learned with the network, see network.py."""
        self.weights = weights
        self.half_lives = np.array(half_lives, dtype=np.float64)  # [K] in events
        self.rate = math.log(2) / self.half_lives  # [K] lambda
        self.table = RowTable("item/popularity", (len(half_lives),), torch.float64, fill=-math.inf, device=device)

    @property
    def tables(self) -> list[RowTable]:
        return [self.table]

    @property
    def tensors(self) -> dict[str, Array]:
        return {"popularity/half_life": self.half_lives.copy()}

    def resize(self, size: int) -> None:
        self.table.resize(size)

    def apply(self, update: Update) -> None:
        if (changed := update.tables.get(self.table.name)) is not None:
            self.table.apply(changed)

    def add_common(self, clock: int, scores: Tensor, start: int = 0) -> None:
        stop = min(start + scores.shape[1], self.table.size)
        scores[:, : stop - start] += self.weights @ self.features(clock, slice(start, stop)).T

    def asked_by(self, contexts: Contexts) -> None:
        """Popularity knows no histories."""

    def observe(self, rows: NDArray[np.int64], times: NDArray[np.int64], weight: NDArray[np.float64]) -> None:
        """Counts events: item row, time on the event clock and weight of each ([n], any order)."""
        if not len(rows):
            return
        unique, inverse = np.unique(rows, return_inverse=True)
        latest = times.max()
        # relative to the latest event of the batch, so that exp() stays within (0, 1]
        age = (latest - times).astype(np.float64)
        fresh = np.stack(
            [np.bincount(inverse, weight * np.exp(-rate * age), minlength=len(unique)) for rate in self.rate], axis=1
        )  # [u, K]
        index = torch.from_numpy(unique).to(self.table.data.device)
        added = torch.from_numpy(np.log(fresh) + self.rate * latest).to(self.table.data.device)
        self.table.data[index] = torch.logaddexp(self.table.data[index], added)
        self.table.touch(unique)

    def log_counts(self, clock: int, rows: Tensor | slice | None = None) -> Tensor:
        """[n, K] float64: log of the decayed count as of `clock`, -inf for none."""
        data = self.table.data
        if isinstance(rows, Tensor):
            logs = data.index_select(0, rows)
        else:
            logs = data[: self.table.size] if rows is None else data[rows]
        return logs - torch.from_numpy(self.rate * clock).to(logs.device)

    def features(self, clock: int, rows: Tensor | slice | None = None) -> Tensor:
        """[n, K] float32: log(max(count, FLOOR)), what the logits use."""
        return self.log_counts(clock, rows).clamp_(min=math.log(FLOOR)).float()

    def forget(self, rows: NDArray[np.int64]) -> None:
        self.table.put(rows, -math.inf)
